//! The metrics of the store over a cluster.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use super::session::Class;
use crate::error::StoreError;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfClass {
    class: &'static str,
}

/// The metrics of the statements. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ScyllaMetrics {
    /// G3: appends that found another head.
    pub append_conflicts: Counter,
    /// G1: writes that may have been applied or not.
    unknown: Family<OfClass, Counter>,
    unavailable: Family<OfClass, Counter>,
    seconds: Family<OfClass, Histogram>,
    /// Old buckets of users' own logs that were emptied.
    pub forgotten_buckets: Counter,
    /// Channels that were removed because their user left them long ago.
    pub forgotten_channels: Counter,
}

impl Default for ScyllaMetrics {
    fn default() -> Self {
        Self {
            append_conflicts: Counter::default(),
            unknown: Family::default(),
            unavailable: Family::default(),
            // Up to 8 s: no statement takes longer than 3 s.
            seconds: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.000_5, 2.0, 14))),
            forgotten_buckets: Counter::default(),
            forgotten_channels: Counter::default(),
        }
    }
}

impl ScyllaMetrics {
    /// Registers them.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "store_append_conflicts",
            "G3: appends that found another head; the home reads the tail and tries again",
            self.append_conflicts.clone(),
        );
        registry.register(
            "store_unknown_outcomes",
            "G1: statements that may have been applied or not, by class",
            self.unknown.clone(),
        );
        registry.register(
            "store_unavailable",
            "Statements that were not executed, by class: no node, a timeout, overload",
            self.unavailable.clone(),
        );
        registry.register_with_unit(
            "store_statement",
            "Time of a statement, by class",
            Unit::Seconds,
            self.seconds.clone(),
        );
        registry.register(
            "store_forgotten_buckets",
            "Old buckets of users' own logs that were emptied",
            self.forgotten_buckets.clone(),
        );
        registry.register(
            "store_forgotten_channels",
            "Channels that were removed because their user left them long ago",
            self.forgotten_channels.clone(),
        );
    }

    pub(super) fn record(&self, class: Class, took: Duration, error: Option<&StoreError>) {
        self.seconds.get_or_create(&OfClass { class: class.name() }).observe(took.as_secs_f64());
        match error {
            Some(StoreError::Unknown(_)) => self.count_unknown(class),
            Some(StoreError::Unavailable(_)) => self.count_unavailable(class),
            Some(StoreError::Corrupt(_)) | None => {}
        }
    }

    pub(super) fn count_unavailable(&self, class: Class) {
        self.unavailable.get_or_create(&OfClass { class: class.name() }).inc();
    }

    fn count_unknown(&self, class: Class) {
        self.unknown.get_or_create(&OfClass { class: class.name() }).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_labels_and_outcomes_are_counted_apart() {
        let metrics = ScyllaMetrics::default();
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let took = Duration::from_millis(3);
        metrics.record(Class::Conditional, took, Some(&StoreError::Unknown(String::new())));
        metrics.record(Class::SerialRead, took, Some(&StoreError::Unavailable(String::new())));
        metrics.record(Class::Read, took, None);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            "store_unknown_outcomes_total{class=\"conditional\"} 1",
            "store_unavailable_total{class=\"serial read\"} 1",
            "store_statement_seconds_count{class=\"read\"} 1",
        ] {
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
    }
}
