//! The metrics of discovery.

use madang_service::Metrics;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

/// The metrics of discovery. A clone shares them.
#[derive(Debug, Clone, Default)]
pub struct DiscoveryMetrics {
    /// Live processes in the view, of all roles.
    pub processes: Gauge,
    /// Seconds since the view was last read. It is used meanwhile.
    pub view_age: Gauge,
    /// Views that had other processes than the one before.
    pub view_changes: Counter,
    /// Readings of the view that failed.
    pub view_failures: Counter,
    /// Registrations of this process. One is usual; another follows when its lease was lost, or Redis was emptied.
    pub registrations: Counter,
    /// Registrations and renewals that failed or were refused.
    pub lease_failures: Counter,
    /// Clients that got nodes.
    pub assignments: Counter,
    /// Answers that made a client wait, because the fleet is full.
    pub waits: Counter,
    /// Users in the waiting line of this process.
    pub waiting: Gauge,
    /// Sockets whose ticket was accepted.
    pub tickets_accepted: Counter,
    /// Sockets whose ticket was forged, of another user, of another node, expired, or used before. They count as sockets without one.
    pub tickets_refused: Counter,
    /// G7: sockets without a ticket that were sent away, because too many came at the same time.
    pub admissions_refused: Counter,
    /// Internal calls without valid credentials, or repeated ones.
    pub calls_refused: Counter,
}

impl DiscoveryMetrics {
    /// Makes the metrics and registers them.
    #[must_use]
    pub fn register(metrics: &Metrics) -> Self {
        let this = Self::default();
        metrics.register(|registry| {
            let mut gauge =
                |name: &str, help: &str, gauge: &Gauge| registry.register(name, help, gauge.clone());
            gauge("discovery_processes", "Live processes in the view of this process", &this.processes);
            gauge("discovery_view_age_seconds", "Seconds since the view was last read", &this.view_age);
            gauge("discovery_waiting", "Users in the waiting line of this process", &this.waiting);
            let mut counter =
                |name: &str, help: &str, counter: &Counter| registry.register(name, help, counter.clone());
            counter("discovery_view_changes", "Views with other processes than before", &this.view_changes);
            counter("discovery_view_failures", "Failed readings of the view", &this.view_failures);
            counter("discovery_registrations", "Registrations of this process", &this.registrations);
            counter("discovery_lease_failures", "Failed registrations and renewals", &this.lease_failures);
            counter("discovery_assignments", "Clients that were sent to a node", &this.assignments);
            counter("discovery_waits", "Answers that made a client wait", &this.waits);
            counter("discovery_tickets_accepted", "Sockets with a valid ticket", &this.tickets_accepted);
            counter(
                "discovery_tickets_refused",
                "Tickets that were forged, misplaced, expired or used before",
                &this.tickets_refused,
            );
            counter(
                "discovery_admissions_refused",
                "G7: sockets without a ticket above the admission rate",
                &this.admissions_refused,
            );
            counter(
                "discovery_calls_refused",
                "Internal calls without valid credentials",
                &this.calls_refused,
            );
        });
        this
    }
}
