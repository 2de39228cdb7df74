//! What follows from a level.

use madang_proto::Pacing;
use serde::{Deserialize, Serialize};

use super::{CapacityConfig, Costs, Level};

/// How channels of one level are paced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
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
    pub const fn notice(&self, level: Level) -> Pacing {
        Pacing { level, batch_ms: self.batch_ms, slow_mode_seconds: self.slow_mode_seconds }
    }
}

/// How channels are paced, by level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
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
            batch_ms: 500,
            heads_seconds: 5,
            joins_per_second: 100,
            shared_read_ms: 250,
            alert_hold_seconds: 30,
            ..warm
        };
        let blazing = LevelPacing {
            batch_ms: 1_000,
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
    pub const fn of(&self, level: Level) -> LevelPacing {
        match level {
            Level::Normal => LevelPacing::NORMAL,
            Level::Warm => self.warm,
            Level::Hot => self.hot,
            Level::Blazing => self.blazing,
        }
    }
}

/// Everything about hot channels that may be set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
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
        let all = Level::ALL.map(|level| config.of(level));
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
        assert_eq!(LevelPacing::NORMAL.notice(Level::Normal), Pacing::default());
    }
}
