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

/// The metrics of what presence sends between the processes of a fleet. A clone shares them.
#[derive(Debug, Clone, Default)]
pub struct FleetMetrics {
    /// G7: frames of another version, or that cannot be read. They are dropped.
    pub frames_unreadable: Counter,
    /// G7: frames for which there was no room. The node sends its set again, or gets everything again.
    pub frames_unsent: Counter,
    /// G6: frames and notices of processes that do not own the users any more, and of earlier lives. They are dropped.
    pub frames_refused: Counter,
    /// G7: reports of this node that found no room, or no presence process.
    pub reports_unsent: Counter,
    /// G6: frames of nodes of which the one before was missing. The node is asked for its set.
    pub reports_missed: Counter,
    /// G6: frames of presence processes that did not reach this node. It gets everything again.
    pub notices_missed: Counter,
    /// G6: full sets that this node has sent.
    pub sets_sent: Counter,
    /// G6: pauses of this presence process, such as a stopped machine. After each, nobody is offline for some seconds.
    pub pauses: Counter,
    /// G6: gaps in the stream of this process.
    pub stream_losses: Counter,
    /// Questions that an owner has not answered in time.
    pub questions_late: Counter,
}

impl FleetMetrics {
    /// Makes the metrics and registers them.
    #[must_use]
    pub fn register(metrics: &Metrics) -> Self {
        let this = Self::default();
        this.register_in(metrics);
        this
    }

    /// Registers metrics that were made before there was a registry.
    pub fn register_in(&self, metrics: &Metrics) {
        let all = [
            ("frames_unreadable", "G7: frames of another version, dropped", &self.frames_unreadable),
            ("frames_unsent", "G7: frames dropped because a queue was full", &self.frames_unsent),
            ("frames_refused", "G6: frames of processes that own the users no more", &self.frames_refused),
            ("reports_unsent", "G7: reports without room or presence process", &self.reports_unsent),
            ("reports_missed", "G6: frames of nodes behind a missing one", &self.reports_missed),
            ("notices_missed", "G6: frames that did not reach this node", &self.notices_missed),
            ("sets_sent", "G6: full sets sent by this node", &self.sets_sent),
            ("pauses", "G6: pauses of this presence process", &self.pauses),
            ("stream_losses", "G6: gaps in the stream of this process", &self.stream_losses),
            ("questions_late", "Questions that an owner has not answered", &self.questions_late),
        ];
        metrics.register(|registry| {
            for (name, help, counter) in all {
                registry.register(format!("presence_{name}"), help, counter.clone());
            }
        });
    }
}
