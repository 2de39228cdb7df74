//! How patient presence is.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Presence. A crash of a node shows within `lease_ms + grace_ms`, at most 30 s (G6); that of a client as soon as its node
/// has missed it (`gateway.silence_ms`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PresenceConfig {
    /// How long a node is believed without a word, in milliseconds; default 15,000. As long nobody is called offline
    /// after a start.
    pub lease_ms: u64,
    /// How often a node renews its lease, in milliseconds; default 5,000.
    pub renew_ms: u64,
    /// How long a user stays as she was after a connection was seen to end, in milliseconds; default 10,000.
    pub grace_ms: u64,
    /// The same after a drain; default 30,000.
    pub drain_grace_ms: u64,
    /// Changes of one user are told at most so often, in milliseconds; default 1,000. That she is offline is told at
    /// once.
    pub pace_ms: u64,
}

impl Default for PresenceConfig {
    fn default() -> Self {
        Self { lease_ms: 15_000, renew_ms: 5_000, grace_ms: 10_000, drain_grace_ms: 30_000, pace_ms: 1_000 }
    }
}

impl PresenceConfig {
    pub(crate) const fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms)
    }

    pub(crate) const fn grace(&self) -> Duration {
        Duration::from_millis(self.grace_ms)
    }

    pub(crate) const fn drain_grace(&self) -> Duration {
        Duration::from_millis(self.drain_grace_ms)
    }

    pub(crate) const fn pace(&self) -> Duration {
        Duration::from_millis(self.pace_ms)
    }
}
