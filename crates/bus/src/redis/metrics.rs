//! The metrics of inbox and bus in a fleet.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The metrics. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct BusMetrics {
    /// G4: inboxes to which rows were brought.
    pub moved: Counter,
    /// G4: inboxes that had the rows already: repeated fan-out.
    pub moved_before: Counter,
    /// G4: inboxes that lacked rows before those that were brought, and got them too.
    pub repaired: Counter,
    /// G4: users of this node whose inbox had more than they were sent, found by the comparison.
    pub behind: Counter,
    /// G4: losses in the stream of this node.
    pub stream_losses: Counter,
    /// G4: changes of the epoch of Redis.
    pub epoch_changes: Counter,
    /// G7: frames to other nodes that were dropped.
    pub frames_dropped: Counter,
    /// Frames that this release cannot read.
    pub frames_unreadable: Counter,
    /// Registrations that did not hold at once.
    pub registrations_late: Counter,
    /// Settings of Redis that an operator should change.
    pub settings_wrong: Gauge,
}

impl BusMetrics {
    /// Registers them.
    pub fn register(&self, registry: &mut Registry) {
        let mut counter =
            |name: &str, help: &str, counter: &Counter| registry.register(name, help, counter.clone());
        counter("inbox_moved", "G4: inboxes to which rows were brought", &self.moved);
        counter("inbox_moved_before", "G4: inboxes that had the rows already", &self.moved_before);
        counter("inbox_repaired", "G4: inboxes that lacked earlier rows and got them", &self.repaired);
        counter("inbox_behind", "G4: connected users who had not been sent all of their inbox", &self.behind);
        counter("bus_stream_losses", "G4: losses in the stream of this node", &self.stream_losses);
        counter("inbox_epoch_changes", "G4: changes of the epoch of Redis", &self.epoch_changes);
        counter("bus_frames_dropped", "G7: frames to other nodes that were dropped", &self.frames_dropped);
        counter("bus_frames_unreadable", "Frames of another version", &self.frames_unreadable);
        counter(
            "bus_registrations_late",
            "Registrations that did not hold at once",
            &self.registrations_late,
        );
        registry.register(
            "bus_settings_wrong",
            "Settings of Redis that should be changed; the log names them",
            self.settings_wrong.clone(),
        );
    }
}
