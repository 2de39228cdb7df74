//! The metrics of the embedded store.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

/// The embedded store's metrics. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct StoreMetrics {
    /// G1: reads and writes that found damaged data, such as a row that differs from its checksum.
    pub damaged: Counter,
    /// G1: groups of writes that were not committed.
    pub write_failures: Counter,
    /// Checkpoints of the write-ahead log that failed; the next one tries again.
    pub checkpoint_failures: Counter,
}

impl StoreMetrics {
    /// Registers them.
    pub fn register(&self, registry: &mut Registry) {
        let mut counter =
            |name: &str, help: &str, counter: &Counter| registry.register(name, help, counter.clone());
        counter("store_damaged", "G1: operations that found damaged rows", &self.damaged);
        counter("store_write_failures", "G1: groups of writes that failed to commit", &self.write_failures);
        counter("store_checkpoint_failures", "Failed checkpoints", &self.checkpoint_failures);
    }
}
