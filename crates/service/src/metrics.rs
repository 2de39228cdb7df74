//! A thin registry: each module creates and owns its metrics, and registers them here once.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

/// Media type of what [`Metrics::encode`] writes.
pub const METRICS_CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The metrics of one process. Cheap to clone; all clones share the registry.
#[derive(Clone, Default)]
pub struct Metrics(Arc<Mutex<Registry>>);

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics(..)")
    }
}

impl Metrics {
    /// An empty registry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets a module register its metrics, and returns what `register` returns (the module's struct of handles).
    ///
    /// Names are `<area>_<noun>_<unit>`; the encoder adds `_total` to counters. A module registers once, at the start:
    /// a name that is registered twice is written twice, which collectors refuse.
    pub fn register<T>(&self, register: impl FnOnce(&mut Registry) -> T) -> T {
        register(&mut self.0.lock())
    }

    /// All metrics as OpenMetrics text.
    ///
    /// # Errors
    /// Only if a metric's own encoder fails.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.0.lock())?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::metrics::counter::Counter;

    #[test]
    fn registered_metrics_are_encoded() {
        let metrics = Metrics::new();
        let appends = metrics.register(|registry| {
            let appends: Counter = Counter::default();
            registry.register("store_appends", "Appends to logs", appends.clone());
            appends
        });
        appends.inc_by(3);
        let text = metrics.encode().unwrap();
        assert!(text.contains("# TYPE store_appends counter\nstore_appends_total 3\n"), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }
}
