//! How hot channels are paced, as clients are notified.

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
