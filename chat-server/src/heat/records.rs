//! What the board shows of channels: the last seconds, the last hour, changes of the level.

use std::collections::{BTreeMap, VecDeque};

use madang_engine::heat::{Bars, Cause, Costs, Level, Work};
use madang_ids::{ChannelId, Millis};
use madang_proto::rest::{Forecast, HeatChangeRow, HeatPoint, WorkRow};

use super::HotChannel;

/// Channels that are remembered.
const CHANNELS: usize = 128;
/// Seconds without a report after which a channel is forgotten, unless it is hot.
const QUIET: u32 = 60;
/// Seconds of work that a forecast is made of.
const SECONDS: usize = 300;
/// Seconds of one point of the history, and points of an hour.
const POINT: u32 = 10;
const POINTS: usize = 360;
const CHANGES: usize = 20;
/// Points of the sparkline.
const SPARK: usize = 30;

/// One channel.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) level: Level,
    pub(super) since: Millis,
    /// The last second.
    pub(super) work: Work,
    pub(super) cost: f64,
    pub(super) cause: Cause,
    pub(super) hour: VecDeque<HeatPoint>,
    pub(super) changes: VecDeque<HeatChangeRow>,
    seconds: VecDeque<Work>,
    /// Of the point that is not complete.
    sum: f64,
    count: u32,
    quiet: u32,
}

/// The channels that were of note within the last minute.
#[derive(Debug, Default)]
pub(super) struct Records(BTreeMap<ChannelId, Record>);

/// One second as it was counted.
pub(super) struct Second<'a> {
    pub(super) at: Millis,
    pub(super) reports: &'a BTreeMap<ChannelId, Work>,
    pub(super) bars: &'a Bars,
    pub(super) costs: &'a Costs,
}

impl Records {
    pub(super) fn get(&self, channel: ChannelId) -> Option<&Record> {
        self.0.get(&channel)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&ChannelId, &Record)> {
        self.0.iter()
    }

    /// Takes in one second. `level` says how hot a channel is now, and whether an operator has set that.
    pub(super) fn observe(&mut self, second: &Second<'_>, level: impl Fn(ChannelId) -> (Level, bool)) {
        for channel in second.reports.keys() {
            if self.0.len() < CHANNELS || level(*channel).0 > Level::Normal {
                self.0.entry(*channel).or_insert_with(|| Record { since: second.at, ..Record::default() });
            }
        }
        for (channel, record) in &mut self.0 {
            let work = second.reports.get(channel).copied();
            record.observe(work.unwrap_or_default(), second, level(*channel));
            record.quiet = if work.is_some() { 0 } else { record.quiet + 1 };
        }
        self.0.retain(|channel, record| record.quiet < QUIET || level(*channel).0 > Level::Normal);
    }
}

impl Record {
    fn observe(&mut self, work: Work, second: &Second<'_>, (level, is_set): (Level, bool)) {
        (self.work, self.cost) = (work, work.cost(second.costs));
        if work != Work::default() {
            self.cause = work.cause(second.costs);
        }
        push(&mut self.seconds, work, SECONDS);
        if level != self.level {
            let (from, cost, cause) = (self.level, self.cost, self.cause);
            let change = HeatChangeRow { at: second.at, from, to: level, cost, cause, by_override: is_set };
            self.changes.push_front(change);
            self.changes.truncate(CHANGES);
            (self.level, self.since) = (level, second.at);
        }
        (self.sum, self.count) = (self.sum + self.cost, self.count + 1);
        if self.count == POINT {
            let cost = self.sum / f64::from(POINT);
            let bar = second.bars.0[(level as usize).min(2)];
            push(&mut self.hour, HeatPoint { at: second.at, cost, bar, level }, POINTS);
            (self.sum, self.count) = (0.0, 0);
        }
    }

    /// The costs of the last five minutes.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a cost is a small positive figure"
    )]
    pub(super) fn spark(&self) -> Vec<u64> {
        let left_out = self.hour.len().saturating_sub(SPARK);
        self.hour.iter().skip(left_out).map(|point| point.cost.round() as u64).collect()
    }

    /// What another pacing would have done to the last five minutes, compared with the present one.
    #[expect(clippy::cast_precision_loss, reason = "counts of five minutes are far below 2^52")]
    pub(super) fn forecast(&self, now: &HotChannel, then: &HotChannel) -> Forecast {
        // Seconds in which the channel was quiet would only dilute what it does when it is not.
        let busy = || self.seconds.iter().filter(|work| work.deliveries > 0);
        let joined = || self.seconds.iter().filter(|work| work.joins > 0);
        let seconds = busy().count();
        let sum = |of: fn(&Work) -> u64| busy().map(of).sum::<u64>() as f64;
        let (deliveries, entries) = (sum(|work| work.deliveries), sum(|work| work.entries).max(1.0));
        let receivers = deliveries / entries;
        let frames = |hot: &HotChannel| {
            let batches = busy().map(|work| batches(work.entries, hot.pacing.batch_ms));
            batches.sum::<f64>() * receivers
        };
        let refused = joined().map(|work| {
            let admitted = then.joins.map_or(u64::MAX, u64::from);
            work.joins.saturating_sub(admitted) as f64
        });
        let minute = |seconds: usize| 60.0 / seconds.max(1) as f64;
        let (of_joins, minute) = (minute(joined().count()), minute(seconds));
        let batch_ms = then.pacing.batch_ms;
        let delayed = if batch_ms > 0 { deliveries } else { 0.0 };
        Forecast {
            seconds: u32::try_from(seconds).unwrap_or(u32::MAX),
            delayed: delayed * minute,
            delay_ms: f64::from(batch_ms) / 2.0,
            frames: [frames(now) * minute, frames(then) * minute],
            joins_refused: refused.sum::<f64>() * of_joins,
        }
    }
}

/// Frames to one receiver in a second with this number of entries: at most one for each window.
#[expect(clippy::cast_precision_loss, reason = "entries of a second are far below 2^52")]
fn batches(entries: u64, batch_ms: u16) -> f64 {
    match batch_ms {
        0 => entries as f64,
        ms => (entries as f64).min(1_000.0 / f64::from(ms)),
    }
}

fn push<T>(queue: &mut VecDeque<T>, item: T, bound: usize) {
    if queue.len() == bound {
        queue.pop_front();
    }
    queue.push_back(item);
}

pub(super) const fn work_row(work: &Work) -> WorkRow {
    let Work { entries, deliveries, bytes, joins, reads } = *work;
    WorkRow { entries, deliveries, bytes, joins, reads }
}
