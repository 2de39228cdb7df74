//! Hot channels: what a channel costs, which channels cost most, and how they are paced so that they hurt only themselves.
//!
//! ```text
//! each node:  work ─ Sketch (one second) ─ reports of the channels that cost most
//! the home:   reports of all nodes ─ Channels (sum, bars, hysteresis) ─ level of the channel
//! each node:  level ─ pacing: longer batches, fewer heads, joins that wait
//! ```
//!
//! Everything here is pure: no clock, no randomness, no IO. Its memory is bounded whatever the number of channels.

mod capacity;
mod level;
mod sketch;

pub use capacity::{Bars, Capacity};
pub use level::{Channels, HeatReport, Level, LevelChange, Thermometer};
pub use madang_proto::rest::HeatCause as Cause;
pub use madang_proto::{CapacityConfig, Costs, HeatConfig, LevelPacing, PacingConfig};
pub use sketch::{Counted, Sketch};

use serde::{Deserialize, Serialize};

/// What happened in a channel within one second on one node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Work {
    /// Entries that were appended.
    pub entries: u64,
    /// Entries to receivers, counted one by one also if they are sent together: otherwise pacing a channel would cool it.
    pub deliveries: u64,
    /// Bytes to receivers.
    pub bytes: u64,
    /// Users who joined or left.
    pub joins: u64,
    /// Reads of history from the store.
    pub reads: u64,
}

/// Bytes of a KiB.
const KIB: f64 = 1_024.0;

impl Work {
    /// The parts of the cost: entries, delivery, joins, history.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts of one second are far below 2^52")]
    pub fn parts(&self, costs: &Costs) -> [f64; 4] {
        let delivery = self.deliveries as f64 * costs.delivery + self.bytes as f64 / KIB * costs.kib;
        let history = self.reads as f64 * costs.read;
        [self.entries as f64 * costs.entry, delivery, self.joins as f64 * costs.join, history]
    }

    /// The cost of all of it.
    #[must_use]
    pub fn cost(&self, costs: &Costs) -> f64 {
        self.parts(costs).iter().sum()
    }

    /// What costs most.
    #[must_use]
    pub fn cause(&self, costs: &Costs) -> Cause {
        let causes = [Cause::Entries, Cause::Delivery, Cause::Joins, Cause::History];
        let parts = self.parts(costs);
        let most = (0..parts.len()).max_by(|one, other| parts[*one].total_cmp(&parts[*other]));
        most.map_or(Cause::Entries, |index| causes[index])
    }

    /// The work of two nodes, or of two moments.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            entries: self.entries.saturating_add(other.entries),
            deliveries: self.deliveries.saturating_add(other.deliveries),
            bytes: self.bytes.saturating_add(other.bytes),
            joins: self.joins.saturating_add(other.joins),
            reads: self.reads.saturating_add(other.reads),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_is_what_costs_most() {
        let costs = Costs::default();
        let concert = Work { entries: 300, deliveries: 1_500_000, bytes: 300_000_000, ..Work::default() };
        assert_eq!(concert.cause(&costs), Cause::Delivery);
        let door = Work { joins: 2_000, ..concert.and(Work::default()) };
        assert_eq!(Work { joins: 2_000, entries: 3, ..Work::default() }.cause(&costs), Cause::Joins);
        assert!(door.cost(&costs) > concert.cost(&costs));
        assert_eq!(Work { reads: 10, ..Work::default() }.cost(&costs), 40.0);
    }
}
