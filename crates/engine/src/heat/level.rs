//! The level of a channel, with hysteresis, and the levels of all channels that have one.

use std::collections::BTreeMap;

use madang_ids::ChannelId;
pub use madang_proto::HeatLevel as Level;
use serde::{Deserialize, Serialize};

use super::{Bars, Cause, Costs, Work};

/// Seconds above the next bar after which a channel is a level hotter.
const UP_AFTER: u32 = 2;
/// A channel cools down below this share of the bar of its level.
const COOLS_BELOW: f64 = 0.6;
/// Seconds of that after which it is a level cooler, and from blazing.
const DOWN_AFTER: u32 = 30;
const DOWN_AFTER_BLAZING: u32 = 60;

/// The level of one channel. It sees one rate a second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Thermometer {
    level: Level,
    /// Seconds in a row above the next bar, and below what keeps the level.
    above: u32,
    below: u32,
}

impl Thermometer {
    /// One that begins with a level that another home has decided.
    #[must_use]
    pub const fn at(level: Level) -> Self {
        Self { level, above: 0, below: 0 }
    }

    /// The level.
    #[must_use]
    pub const fn level(&self) -> Level {
        self.level
    }

    /// Takes in one second. Returns the level before, if it has changed.
    ///
    /// Up after two seconds above a bar, to blazing at once; down one level at a time, after half a minute below three fifths of the bar
    /// of the level, from blazing after a minute.
    pub fn observe(&mut self, rate: f64, bars: &Bars) -> Option<Level> {
        let (before, reached) = (self.level, bars.level(rate));
        if reached > before {
            (self.above, self.below) = (self.above + 1, 0);
            if reached == Level::Blazing || self.above >= UP_AFTER {
                *self = Self::at(reached);
                return Some(before);
            }
            return None;
        }
        self.above = 0;
        let cools = before > Level::Normal && rate < bars.of(before) * COOLS_BELOW;
        self.below = if cools { self.below + 1 } else { 0 };
        let needed = if before == Level::Blazing { DOWN_AFTER_BLAZING } else { DOWN_AFTER };
        if self.below < needed || !cools {
            return None;
        }
        *self = Self::at(before.cooler());
        Some(before)
    }
}

/// A channel that is or was hot.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Heat {
    thermometer: Thermometer,
    /// Seconds without a level and without a report.
    idle: u32,
}

/// What a node reports to the home of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct HeatReport {
    /// The channel.
    pub channel: ChannelId,
    /// What happened on the node in the last second.
    pub work: Work,
    /// The level that holds on the node.
    pub level: Level,
}

/// A channel whose level has changed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LevelChange {
    /// The channel.
    pub channel: ChannelId,
    /// The level before, and now.
    pub from: Level,
    /// See `from`.
    pub to: Level,
    /// The cost of the last second.
    pub rate: f64,
    /// What costs most of it.
    pub cause: Cause,
}

/// A quiet channel is forgotten after this many seconds.
const WATCHED: u32 = 60;

/// The channels that are watched by one home. Bounded by what the sketches of the nodes report.
#[derive(Debug, Clone, Default)]
pub struct Channels {
    watched: BTreeMap<ChannelId, Heat>,
}

impl Channels {
    /// Takes in the reports of one second, summed over all nodes. A channel without a report did nothing of note.
    pub fn observe(
        &mut self,
        reports: &BTreeMap<ChannelId, Work>,
        bars: &Bars,
        costs: &Costs,
    ) -> Vec<LevelChange> {
        for channel in reports.keys() {
            self.watched.entry(*channel).or_default();
        }
        let mut changes = Vec::new();
        for (channel, heat) in &mut self.watched {
            let work = reports.get(channel).copied().unwrap_or_default();
            let rate = work.cost(costs);
            if let Some(from) = heat.thermometer.observe(rate, bars) {
                let (to, cause) = (heat.thermometer.level(), work.cause(costs));
                changes.push(LevelChange { channel: *channel, from, to, rate, cause });
            }
            let is_quiet = heat.thermometer.level() == Level::Normal && work == Work::default();
            heat.idle = if is_quiet { heat.idle + 1 } else { 0 };
        }
        self.watched.retain(|_, heat| heat.idle <= WATCHED);
        changes
    }

    /// Begins to watch a channel at a level that another home has decided. One that is watched already keeps its level.
    pub fn adopt(&mut self, channel: ChannelId, level: Level) {
        let thermometer = Thermometer::at(level);
        self.watched.entry(channel).or_insert(Heat { thermometer, idle: 0 });
    }

    /// The level of a channel, if it is watched.
    #[must_use]
    pub fn level(&self, channel: ChannelId) -> Option<Level> {
        self.watched.get(&channel).map(|heat| heat.thermometer.level())
    }

    /// The number of channels that are watched.
    #[must_use]
    pub fn watched(&self) -> usize {
        self.watched.len()
    }

    /// The channels that are hotter than normal.
    pub fn hot(&self) -> impl Iterator<Item = (ChannelId, Level)> {
        let levels = self.watched.iter().map(|(channel, heat)| (*channel, heat.thermometer.level()));
        levels.filter(|(_, level)| *level > Level::Normal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BARS: Bars = Bars([100.0, 400.0, 1_000.0]);

    /// The levels after each second.
    fn levels(rates: impl IntoIterator<Item = f64>) -> Vec<Level> {
        let mut thermometer = Thermometer::default();
        rates
            .into_iter()
            .map(|rate| {
                thermometer.observe(rate, &BARS);
                thermometer.level()
            })
            .collect()
    }

    #[test]
    fn two_seconds_above_a_bar_make_a_channel_hotter_and_one_second_far_above_makes_it_blazing() {
        assert_eq!(levels([150.0, 150.0]), [Level::Normal, Level::Warm]);
        assert_eq!(
            levels([150.0, 50.0, 150.0, 450.0]),
            [Level::Normal, Level::Normal, Level::Normal, Level::Hot]
        );
        assert_eq!(levels([1_001.0]), [Level::Blazing]);
    }

    #[test]
    fn a_channel_cools_down_level_by_level_within_three_minutes() {
        let all = levels(std::iter::once(5_000.0).chain(std::iter::repeat_n(0.0, 180)));
        let cooled = |level| all.iter().position(|found| *found == level);
        assert_eq!(cooled(Level::Hot), Some(60));
        assert_eq!(cooled(Level::Warm), Some(90));
        assert_eq!(cooled(Level::Normal), Some(120));
    }

    #[test]
    fn a_rate_that_swings_around_a_bar_does_not_flap() {
        for amplitude in [0.05_f64, 0.2, 0.35] {
            for period in [3.0, 10.0, 45.0, 120.0] {
                let wave = (0..3_600).map(|second| {
                    let phase = f64::from(second) * std::f64::consts::TAU / period;
                    400.0 * amplitude.mul_add(phase.sin(), 1.0)
                });
                let all = levels(wave);
                let changes = all.windows(2).filter(|pair| pair[0] != pair[1]).count();
                assert!(changes <= 2, "{changes} changes with {amplitude} and {period} s");
            }
        }
    }

    #[test]
    fn a_home_watches_what_is_reported_and_forgets_what_is_quiet() {
        let mut channels = Channels::default();
        let (costs, channel) = (Costs::default(), ChannelId::from_raw(7));
        let busy = BTreeMap::from([(channel, Work { entries: 500, ..Work::default() })]);
        let mut changes = Vec::new();
        for _ in 0..3 {
            changes.extend(channels.observe(&busy, &BARS, &costs));
        }
        let (from, to, rate, cause) = (Level::Normal, Level::Hot, 500.0, Cause::Entries);
        assert_eq!(changes, [LevelChange { channel, from, to, rate, cause }]);
        assert_eq!(channels.hot().collect::<Vec<_>>(), [(channel, Level::Hot)]);
        for _ in 3..200 {
            changes.extend(channels.observe(&BTreeMap::new(), &BARS, &costs));
        }
        assert_eq!(changes.last().map(|change| change.to), Some(Level::Normal));
        assert!(channels.watched.is_empty());
    }

    #[test]
    fn a_level_that_another_home_has_decided_goes_on() {
        let mut thermometer = Thermometer::at(Level::Blazing);
        assert_eq!(thermometer.observe(700.0, &BARS), None, "above three fifths of its bar");
        assert_eq!(thermometer.level(), Level::Blazing);
    }
}
