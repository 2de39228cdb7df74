//! The section `[discovery]`, which all processes of a fleet read.

use std::net::SocketAddr;
use std::time::Duration;

use madang_engine::bucket::Rate;
use serde::{Deserialize, Serialize};

/// Shortest and longest lease, in seconds. Below it, one slow second of Redis would end leases.
pub const LEASE_SECONDS: std::ops::RangeInclusive<u64> = 5..=300;

/// Where clients are assigned to nodes, and how fast a node admits sockets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DiscoveryConfig {
    /// `inside` (the default): every chat node does it itself, over the Redis of the fleet. `remote`: the processes at `urls` do.
    pub placement: Placement,
    /// The internal API of each discovery process, such as `https://10.0.0.9:7100`; for `remote`. A node asks the next one when one
    /// does not answer.
    pub urls: Vec<String>,
    /// Sockets without a ticket that a node of a fleet admits in a second; default 200. Zero: no limit.
    pub admission_per_second: u32,
    /// Seconds after which a process that has fallen silent counts as gone, 5 to 300; default 15. It renews three times as often.
    pub lease_seconds: u64,
    /// Where `madang-discovery` serves clients: `POST /v1/connect`; default 127.0.0.1:7000.
    pub addr: SocketAddr,
    /// Where `madang-discovery` serves other processes of the fleet; default 127.0.0.1:7100. Keep it off the internet.
    pub internal_addr: SocketAddr,
}

/// Where a role is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Placement {
    /// In every chat node.
    #[default]
    Inside,
    /// In processes of its own.
    Remote,
}

impl Default for DiscoveryConfig {
    fn default() -> Self {
        Self {
            placement: Placement::Inside,
            urls: Vec::new(),
            admission_per_second: 200,
            lease_seconds: 15,
            addr: SocketAddr::from(([127, 0, 0, 1], 7000)),
            internal_addr: SocketAddr::from(([127, 0, 0, 1], 7100)),
        }
    }
}

impl DiscoveryConfig {
    /// Checks the rules. The error names the key, its value and the rule.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check(&self) -> Result<(), InvalidDiscovery> {
        let wrong = |field, value: String, rule| Err(InvalidDiscovery { field, value, rule });
        if !LEASE_SECONDS.contains(&self.lease_seconds) {
            let value = self.lease_seconds.to_string();
            return wrong("discovery.lease_seconds", value, "must be 5 to 300");
        }
        if self.placement == Placement::Remote && self.urls.is_empty() {
            let rule = "must name the discovery processes, because discovery.placement is \"remote\"";
            return wrong("discovery.urls", "empty".to_owned(), rule);
        }
        let is_url = |url: &String| url.starts_with("http://") || url.starts_with("https://");
        if let Some(url) = self.urls.iter().find(|url| !is_url(url)) {
            return wrong("discovery.urls", url.clone(), "must be URLs such as https://10.0.0.9:7100");
        }
        Ok(())
    }

    /// The lease of a process.
    #[must_use]
    pub const fn lease(&self) -> Duration {
        Duration::from_secs(self.lease_seconds)
    }

    /// The rate of sockets without a ticket. The burst is that of one second.
    #[must_use]
    pub const fn admission(&self) -> Rate {
        Rate { per_second: self.admission_per_second, burst: self.admission_per_second }
    }
}

/// A setting whose value is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {value}, {rule}")]
pub struct InvalidDiscovery {
    /// The key, with its section.
    pub field: &'static str,
    /// The value.
    pub value: String,
    /// The rule that the value breaks.
    pub rule: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_an_error_names_the_key() {
        let config = DiscoveryConfig::default();
        assert_eq!(config.check(), Ok(()));
        let text = |config: DiscoveryConfig| config.check().unwrap_err().to_string();
        assert_eq!(
            text(DiscoveryConfig { lease_seconds: 4, ..config.clone() }),
            "discovery.lease_seconds is 4, must be 5 to 300"
        );
        let remote = DiscoveryConfig { placement: Placement::Remote, ..config };
        assert!(text(remote.clone()).starts_with("discovery.urls is empty"));
        let remote = DiscoveryConfig { urls: vec!["10.0.0.9:7100".into()], ..remote };
        assert!(text(remote).starts_with("discovery.urls is 10.0.0.9:7100"));
    }
}
