//! Hot channels: their levels, how they are paced, and what of it may be set.

use serde::{Deserialize, Serialize};

/// How hot a channel is: how much of a node's capacity it takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum HeatLevel {
    /// As almost every channel.
    #[default]
    Normal,
    /// It is felt on its node.
    Warm,
    /// It would be felt by others.
    Hot,
    /// It would take its node for itself.
    Blazing,
}

impl HeatLevel {
    /// All of them, the coolest first.
    pub const ALL: [Self; 4] = [Self::Normal, Self::Warm, Self::Hot, Self::Blazing];

    /// The word in frames, configuration and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Warm => "warm",
            Self::Hot => "hot",
            Self::Blazing => "blazing",
        }
    }

    /// The next cooler level.
    #[must_use]
    pub fn cooler(self) -> Self {
        Self::ALL[(self as usize).saturating_sub(1)]
    }
}

/// How a channel is paced at present. Clients may show it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Pacing {
    /// The level from which the rest follows.
    pub level: HeatLevel,
    /// Milliseconds for which an entry may wait for others, so that they come in one frame.
    pub batch_ms: u16,
    /// Seconds between two messages of one member, if the server slows everybody down. Owner and admins are not slowed down.
    /// Absent: 0, only the channel's own slow mode holds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub slow_mode_seconds: u16,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(seconds: &u16) -> bool {
    *seconds == 0
}

/// What things cost, in units of one entry that is appended.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Costs {
    /// An entry that is appended.
    pub entry: f64,
    /// A KiB that is sent to one receiver.
    pub kib: f64,
    /// An entry to one receiver, whatever its size.
    pub delivery: f64,
    /// A read of history from the store.
    pub read: f64,
    /// A user who joins or leaves.
    pub join: f64,
}

impl Default for Costs {
    fn default() -> Self {
        Self { entry: 1.0, kib: 0.05, delivery: 0.02, read: 4.0, join: 8.0 }
    }
}

/// The settings of the adaptive bar.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CapacityConfig {
    /// The share of a node's capacity from which on a channel is warm, hot and blazing.
    pub shares: [f64; 3],
    /// The bars are never below these costs a second: a small machine that is idle has no hot channels.
    pub floor: [f64; 3],
    /// And never above these.
    pub cap: [f64; 3],
    /// A node is at its capacity when work waits for this many milliseconds.
    pub lag_ms: f64,
    /// The capacity that a node is assumed to have before it has been at it, in costs a second.
    pub assumed: f64,
}

impl Default for CapacityConfig {
    fn default() -> Self {
        Self {
            shares: [0.02, 0.08, 0.25],
            floor: [200.0, 800.0, 2_500.0],
            cap: [4_000.0, 16_000.0, 50_000.0],
            lag_ms: 20.0,
            assumed: 25_000.0,
        }
    }
}

/// How channels of one level are paced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct LevelPacing {
    /// Milliseconds for which entries wait for others, so that they leave together. At most a second: freshness depends on it.
    pub batch_ms: u16,
    /// Seconds between two heads for a passive subscriber. At least 1.
    pub heads_seconds: u32,
    /// Users who may join in a second, on each node. Zero: any number.
    pub joins_per_second: u32,
    /// Seconds between two messages of a member who is neither owner nor admin. Zero: only the channel's own slow mode holds.
    pub slow_mode_seconds: u16,
    /// Entries a second that a connection gets which reads too slowly; a gap covers the others. Zero: all that fit.
    pub slow_reader_entries: u32,
    /// Milliseconds for which a page of history that was read answers the same question of others. Zero: each reads the store.
    pub shared_read_ms: u32,
    /// Seconds for which alerts wait longer than usual, so that more messages fold into one.
    pub alert_hold_seconds: u32,
}

impl LevelPacing {
    /// Of a channel that is not hot.
    pub const NORMAL: Self = Self {
        batch_ms: 0,
        heads_seconds: 1,
        joins_per_second: 0,
        slow_mode_seconds: 0,
        slow_reader_entries: 0,
        shared_read_ms: 0,
        alert_hold_seconds: 0,
    };

    /// What clients are notified of.
    #[must_use]
    pub const fn notice(&self, level: HeatLevel) -> Pacing {
        Pacing { level, batch_ms: self.batch_ms, slow_mode_seconds: self.slow_mode_seconds }
    }
}

/// How channels are paced, by level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PacingConfig {
    /// Felt on its node.
    pub warm: LevelPacing,
    /// It would be felt by others.
    pub hot: LevelPacing,
    /// It would take its node for itself.
    pub blazing: LevelPacing,
}

impl Default for PacingConfig {
    fn default() -> Self {
        let warm = LevelPacing {
            batch_ms: 100,
            joins_per_second: 200,
            shared_read_ms: 100,
            alert_hold_seconds: 10,
            ..LevelPacing::NORMAL
        };
        let hot = LevelPacing {
            batch_ms: 250,
            heads_seconds: 5,
            joins_per_second: 100,
            shared_read_ms: 250,
            alert_hold_seconds: 30,
            ..warm
        };
        let blazing = LevelPacing {
            batch_ms: 500,
            heads_seconds: 10,
            joins_per_second: 50,
            slow_mode_seconds: 5,
            slow_reader_entries: 5,
            alert_hold_seconds: 60,
            ..hot
        };
        Self { warm, hot, blazing }
    }
}

impl PacingConfig {
    /// That of a level.
    #[must_use]
    pub const fn of(&self, level: HeatLevel) -> LevelPacing {
        match level {
            HeatLevel::Normal => LevelPacing::NORMAL,
            HeatLevel::Warm => self.warm,
            HeatLevel::Hot => self.hot,
            HeatLevel::Blazing => self.blazing,
        }
    }
}

/// Everything about hot channels that may be set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct HeatConfig {
    /// What things cost.
    pub costs: Costs,
    /// From which cost on channels are hot.
    pub capacity: CapacityConfig,
    /// What follows.
    pub pacing: PacingConfig,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_level_paces_at_least_as_much_as_the_one_below() {
        let config = PacingConfig::default();
        let all = HeatLevel::ALL.map(|level| config.of(level));
        for (cooler, hotter) in all.iter().zip(&all[1..]) {
            assert!(cooler.batch_ms < hotter.batch_ms && cooler.heads_seconds <= hotter.heads_seconds);
            assert!(cooler.slow_mode_seconds <= hotter.slow_mode_seconds);
            assert!(cooler.alert_hold_seconds < hotter.alert_hold_seconds);
            let joins = |pacing: &LevelPacing| match pacing.joins_per_second {
                0 => u32::MAX,
                joins => joins,
            };
            assert!(joins(cooler) > joins(hotter));
        }
        assert_eq!(LevelPacing::NORMAL.notice(HeatLevel::Normal), Pacing::default());
    }
}
