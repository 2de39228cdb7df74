//! What the board shows of the channels of this node.

use madang_engine::heat::{Bars, Level};
use madang_ids::ChannelId;
use madang_proto::rest::{Forecast, HotDetail, HotRow, OverrideSettings, Quantiles};

use super::records::{Record, work_row};
use super::{Heats, HotChannel};

/// Rows of the board.
const ROWS: usize = 50;

/// The node as a whole.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NodeHeat {
    /// The cost of the last second.
    pub cost: f64,
    /// The cost a second that the node can do.
    pub capacity: f64,
    /// The bars of its channels.
    pub bars: Bars,
    /// How late timers were in the last second, in milliseconds.
    pub lag_ms: f64,
    /// The ages of entries of direct channels and groups when they were delivered.
    pub bystanders_ms: Quantiles,
}

/// Sorts rows as the board shows them, the hottest first, and leaves out those beyond its end.
pub(crate) fn rank(rows: &mut Vec<HotRow>) {
    let is_set = |row: &HotRow| row.set.is_some();
    rows.sort_by(|one, other| {
        (other.level, is_set(other)).cmp(&(one.level, is_set(one))).then(other.cost.total_cmp(&one.cost))
    });
    rows.truncate(ROWS);
}

impl Heats {
    /// The node as a whole.
    #[must_use]
    pub fn node(&self) -> NodeHeat {
        let bystanders_ms = self.bystanders.lock().quantiles(self.clock.elapsed());
        let state = self.state.lock();
        NodeHeat {
            cost: state.cost,
            capacity: state.capacity.estimate(),
            bars: state.capacity.bars(),
            lag_ms: state.lag.as_secs_f64() * 1_000.0,
            bystanders_ms,
        }
    }

    /// The channels of note, the costliest first. Kind, name, home and subscribers are left to the caller.
    #[must_use]
    pub fn rows(&self) -> Vec<HotRow> {
        let (state, hot) = (self.state.lock(), self.hot.load());
        let of_note = state.records.iter().filter(|(channel, record)| {
            hot.contains_key(channel) || record.level > Level::Normal || !record.changes.is_empty()
        });
        let mut rows: Vec<HotRow> =
            of_note.map(|(channel, record)| self.row(*channel, record, hot.get(channel))).collect();
        let unseen = hot.iter().filter(|(channel, _)| state.records.get(**channel).is_none());
        rows.extend(unseen.map(|(channel, hot)| self.row(*channel, &Record::default(), Some(hot))));
        rank(&mut rows);
        rows
    }

    /// One channel in detail; of a channel that is not of note, its present state.
    #[must_use]
    pub fn detail(&self, channel: ChannelId) -> HotDetail {
        let (state, hot, now) = (self.state.lock(), self.hot(channel), self.clock.elapsed());
        let none = Record::default();
        let record = state.records.get(channel).unwrap_or(&none);
        HotDetail {
            row: self.row(channel, record, hot.as_ref()),
            hour: record.hour.iter().copied().collect(),
            changes: record.changes.iter().copied().collect(),
            joins: hot.as_ref().map(|hot| hot.joins(now)).unwrap_or_default(),
            senders: hot.map(|hot| hot.senders()).unwrap_or_default(),
            graphs_url: None,
        }
    }

    /// What settings of an operator would have done to a channel within the last five minutes.
    #[must_use]
    pub fn forecast(&self, channel: ChannelId, set: &OverrideSettings) -> Forecast {
        let (state, config) = (self.state.lock(), self.settings.load().config);
        let Some(record) = state.records.get(channel) else { return Forecast::default() };
        let level = self.level(channel);
        let now = self
            .hot(channel)
            .unwrap_or_else(|| HotChannel::new(Level::Normal, config.pacing.of(Level::Normal), None, None));
        let then = set.level.unwrap_or(level);
        let then = HotChannel::new(then, config.pacing.of(then), Some(set), None);
        record.forecast(&now, &then)
    }

    fn row(&self, channel: ChannelId, record: &Record, hot: Option<&HotChannel>) -> HotRow {
        let now = self.clock.elapsed();
        let settings = self.settings.load();
        let is_set = hot.is_some_and(|hot| hot.is_set);
        HotRow {
            channel_id: channel,
            kind: None,
            name: None,
            home: None,
            level: hot.map(|hot| hot.level).unwrap_or_default(),
            since: record.since,
            cause: record.cause,
            cost: record.cost,
            work: work_row(&record.work),
            subscribers: 0,
            pacing: hot.map(HotChannel::notice).unwrap_or_default(),
            freshness_ms: hot.map(|hot| hot.freshness(now)).unwrap_or_default(),
            spared: hot.map(HotChannel::spared).unwrap_or_default(),
            spark: record.spark(),
            set: settings.overrides.get(&channel).filter(|_| is_set).cloned(),
        }
    }
}
