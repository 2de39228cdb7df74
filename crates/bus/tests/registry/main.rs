//! The cases of every registry: in memory, and over a real Redis server.

#![expect(clippy::unwrap_used, reason = "a test; clippy exempts test functions only, not their helpers")]

mod cases;
#[cfg(feature = "redis")]
mod over_redis;

use std::sync::Arc;

use madang_bus::registry::MemoryRegistry;

#[tokio::test(start_paused = true)]
async fn the_registry_in_memory_passes_all_cases() {
    for (name, case) in cases::all() {
        println!("{name}");
        case(Arc::new(MemoryRegistry::default())).await;
    }
}
