//! Leases and grace periods of presence.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Where the presence of a fleet is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Placement {
    /// Each chat process has a presence core.
    #[default]
    Inside,
    /// In processes of their own: `madang-presence`.
    Remote,
}

/// Settings of presence. A crash of a node is visible within `lease_ms + grace_ms`, at most 30 s (G6); that of a client once its
/// node has missed it (`gateway.silence_ms`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PresenceConfig {
    /// `inside` (the default): each chat process knows the presence of a part of the users. `remote`: processes of their own do.
    /// Without effect in a server of one process.
    pub placement: Placement,
    /// The address on which `madang-presence` serves `/healthz`, `/readyz` and `/metrics`; default 127.0.0.1:7200.
    pub addr: SocketAddr,
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
        Self {
            placement: Placement::Inside,
            addr: (Ipv4Addr::LOCALHOST, 7_200).into(),
            lease_ms: 15_000,
            renew_ms: 5_000,
            grace_ms: 10_000,
            drain_grace_ms: 30_000,
            pace_ms: 1_000,
        }
    }
}

impl PresenceConfig {
    pub(crate) const fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms)
    }

    pub(crate) const fn renew(&self) -> Duration {
        Duration::from_millis(self.renew_ms)
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
