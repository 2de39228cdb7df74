//! Leases and grace periods of presence.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Settings of presence. A crash of a node is visible within `lease_ms + grace_ms`, at most 30 s (G6); that of a client once its
/// node has missed it (`gateway.silence_ms`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PresenceConfig {
    /// Milliseconds for which a node counts as alive after its last report; default 15,000. For the same time after a start
    /// nobody is reported as offline.
    pub lease_ms: u64,
    /// Milliseconds between two renewals of a node's lease; default 5,000.
    pub renew_ms: u64,
    /// Milliseconds for which a user's state stays as it was after a connection was seen to end; default 10,000.
    pub grace_ms: u64,
    /// The same after a drain, in milliseconds; default 30,000.
    pub drain_grace_ms: u64,
    /// The least number of milliseconds between two notices about one user; default 1,000. Going offline is sent at once.
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
