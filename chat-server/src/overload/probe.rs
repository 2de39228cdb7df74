//! Measures how long work waits for its turn on this node.

use std::sync::Arc;
use std::time::Duration;

use madang_engine::overload::Wait;
use madang_service::Drain;
use madang_store::Waits;
use tokio::time::{Instant, sleep_until};

use super::Shedding;
use crate::heat::Heats;

/// The time between two timers. One that is late has waited for its turn as long as other work has.
const EVERY: Duration = Duration::from_millis(25);

/// Reports the waits to those who judge by them, until the drain begins.
///
/// A request waits for its turn on this node, and perhaps for the store. The longest of these waits counts for all requests of the time
/// between two timers: that timers are late is not hidden by a store that is idle, and the other way round. Messages wait for no common
/// reads.
pub async fn probe(shedding: Arc<Shedding>, heats: Arc<Heats>, waits: Waits, drain: Drain) {
    loop {
        let due = Instant::now() + EVERY;
        tokio::select! {
            () = sleep_until(due) => {}
            () = drain.draining() => return,
        }
        let late = Instant::now().saturating_duration_since(due);
        let (writes, reads) = (waits.take_writes(), waits.take_reads());
        let of_messages = writes.mean.max(late);
        let calls = writes.calls.saturating_add(reads.calls);
        shedding.observe(calls.max(1), Wait { longest: reads.mean.max(of_messages), of_messages });
        heats.note_wait(late);
    }
}
