//! The metrics of presence.

use madang_service::Metrics;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

/// The metrics of presence. A clone shares them.
#[derive(Debug, Clone)]
pub struct PresenceMetrics {
    /// G6: users who are connected, or in their grace period.
    pub users: Gauge,
    /// G6: notices that were handed out. Each may be for many users.
    pub changes_sent: Counter,
    /// G6: nodes whose lease has expired.
    pub leases_missed: Counter,
    /// G6: reports of an earlier life of a node. They are dropped.
    pub reports_refused: Counter,
    /// G7: reports that found the queue full, or presence gone. The node sends its full set again.
    pub reports_lost: Counter,
    /// G7: frames that a connection had no room for. It gets everything again later.
    pub frames_dropped: Counter,
    /// Failed reads and writes of presence rows. They are tried again.
    pub row_failures: Counter,
}

impl PresenceMetrics {
    /// Makes the metrics and registers them.
    #[must_use]
    pub fn register(metrics: &Metrics) -> Self {
        let this = Self {
            users: Gauge::default(),
            changes_sent: Counter::default(),
            leases_missed: Counter::default(),
            reports_refused: Counter::default(),
            reports_lost: Counter::default(),
            frames_dropped: Counter::default(),
            row_failures: Counter::default(),
        };
        metrics.register(|registry| {
            let mut counter =
                |name: &str, help: &str, counter: &Counter| registry.register(name, help, counter.clone());
            counter("presence_changes_sent", "G6: changes sent to watchers", &this.changes_sent);
            counter("presence_leases_missed", "G6: nodes whose lease expired", &this.leases_missed);
            counter(
                "presence_reports_refused",
                "G6: reports of an earlier epoch of a node, refused",
                &this.reports_refused,
            );
            counter(
                "presence_reports_lost",
                "G7: reports dropped because the queue was full",
                &this.reports_lost,
            );
            counter(
                "presence_frames_dropped",
                "G7: frames dropped because the queue of a connection was \
                 full",
                &this.frames_dropped,
            );
            counter("presence_row_failures", "Failed reads and writes of presence rows", &this.row_failures);
            registry.register("presence_users", "G6: users connected or in grace", this.users.clone());
        });
        this
    }
}
