//! The configuration of the chat server. No file is needed; every field has a default.

mod rules;
pub(crate) mod values;

use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use madang_auth::PasswordConfig;
use madang_engine::bucket::Rate;
use madang_engine::session::SessionConfig;
use madang_presence::PresenceConfig;
use madang_proto::limits;
use serde::{Deserialize, Serialize};

/// Everything that can be set, by sections of the file.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where it listens and stores.
    pub server: ServerConfig,
    /// TLS of its own.
    pub tls: TlsConfig,
    /// Tokens.
    pub tokens: TokenConfig,
    /// The cost of passwords.
    pub passwords: PasswordConfig,
    /// How people get an account.
    pub accounts: AccountConfig,
    /// Sizes of channels.
    pub channels: ChannelConfig,
    /// Sockets.
    pub gateway: GatewayConfig,
    /// Who is there.
    pub presence: PresenceConfig,
    /// How fast callers may go.
    pub limits: LimitConfig,
    /// Logs.
    pub telemetry: madang_service::TelemetryConfig,
}

/// Where it listens and stores.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// Address of HTTP and WebSocket; default 127.0.0.1:8080.
    #[serde(deserialize_with = "values::address")]
    pub addr: SocketAddr,
    /// The data folder; default `madang-data`. Private to its owner.
    pub data: PathBuf,
    /// Origins whose pages may open sockets and call REST, such as `https://chat.example`. Empty (the default):
    /// any page on localhost, and clients that are no browsers. `["*"]`: any page; tokens are no cookies, so nobody's
    /// browser is signed in by itself.
    #[serde(deserialize_with = "values::origins")]
    pub allowed_origins: Vec<String>,
    /// Networks of the proxies in front of this server, such as `10.0.0.0/8` or `::1/128`; default none. What they say
    /// about the client's address is believed, and what anybody else says is not. Limits by address and logs go by it.
    #[serde(deserialize_with = "values::networks")]
    pub trusted_proxies: Vec<IpNet>,
    /// The header in which they say it: `x-forwarded-for` (the default) or `forwarded` (RFC 7239). The other one is
    /// not read: a proxy hands on what a client wrote in it.
    #[serde(deserialize_with = "values::proxy_header")]
    pub proxy_header: ProxyHeader,
}

/// Where a proxy says for whom it asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProxyHeader {
    /// Addresses, one a hop.
    #[default]
    XForwardedFor,
    /// RFC 7239.
    Forwarded,
}

/// TLS of its own. Without it, or a proxy that speaks it, tokens and messages go over the wire as they are.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// PEM file of the certificate and those that lead to its root; default empty: no TLS. Read again when it changes,
    /// and on SIGHUP.
    pub cert: PathBuf,
    /// PEM file of its key (PKCS#8, SEC1 or PKCS#1); default empty. Set both or neither.
    pub key: PathBuf,
    /// Seconds for which a browser uses this host over TLS only (`Strict-Transport-Security`), 0 to 63,072,000; default
    /// 31,536,000. Zero: the header is not sent. It is never sent without TLS of the server's own.
    pub hsts_seconds: u64,
}

impl Default for TlsConfig {
    fn default() -> Self {
        Self { cert: PathBuf::new(), key: PathBuf::new(), hsts_seconds: 31_536_000 }
    }
}

impl TlsConfig {
    /// Whether the server speaks TLS, and nothing else.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.cert.as_os_str().is_empty()
    }
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            addr: SocketAddr::from(([127, 0, 0, 1], 8080)),
            data: PathBuf::from("madang-data"),
            allowed_origins: Vec::new(),
            trusted_proxies: Vec::new(),
            proxy_header: ProxyHeader::default(),
        }
    }
}

/// Tokens.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TokenConfig {
    /// Life of an access token in seconds; default 900. A revoked device is closed at once, whatever this says.
    pub access_seconds: u64,
    /// Life of a refresh token in days; default 90. Each use begins it anew.
    pub refresh_days: u64,
}

impl Default for TokenConfig {
    fn default() -> Self {
        Self { access_seconds: 900, refresh_days: 90 }
    }
}

/// How people get an account.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccountConfig {
    /// `open` (the default): anybody signs up. `invitation`: with a code of the operator's (`madang invitations`).
    /// `operator`: only the operator makes accounts (`madang users create`). `off`: nobody does.
    pub sign_up: SignUpMode,
    /// Handles that only the operator gives, in lower case; hyphens, dots and underscores in a handle do not count.
    pub reserved_handles: Vec<String>,
    /// Whether people who share no group and are no contacts are invited to a group instead of added; default true. `false`
    /// for a closed team: everybody may be added at once and shows presence to their groups. What a user chose rules either
    /// way.
    pub consent: bool,
}

/// Who may sign up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SignUpMode {
    /// Anybody.
    #[default]
    Open,
    /// Anybody with an invitation code.
    Invitation,
    /// Nobody: the operator makes accounts.
    Operator,
    /// Nobody, and no account is made.
    Off,
}

impl std::fmt::Display for SignUpMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Invitation => "invitation",
            Self::Operator => "operator",
            Self::Off => "off",
        })
    }
}

impl Default for AccountConfig {
    fn default() -> Self {
        let reserved_handles = limits::RESERVED_HANDLES.map(str::to_owned).to_vec();
        Self { sign_up: SignUpMode::Open, reserved_handles, consent: true }
    }
}

/// Sizes of channels.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChannelConfig {
    /// Members of a group, 2 to 500; default 100.
    pub group_members: u32,
    /// Members of an open channel, 2 to 100,000; default 100,000. Channels that were made before keep theirs.
    pub open_members: u32,
    /// Channels of all kinds that one person may be in at a time, 2 to 1,000,000; default 10,000. What she looks through
    /// when she lists them or comes back grows with them.
    pub per_user: u32,
    /// Open channels that one person may make, 1 to 1,000,000; default 100. Searches look through all open channels.
    pub open_per_user: u32,
}

impl Default for ChannelConfig {
    fn default() -> Self {
        Self {
            group_members: 100,
            open_members: limits::OPEN_MEMBERS_MAX,
            per_user: 10_000,
            open_per_user: 100,
        }
    }
}

/// Sockets.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GatewayConfig {
    /// Sockets of this node; default 15,000, below the usual limit of open files. Above it new ones get 503.
    pub connections: usize,
    /// Sockets of one device; default 8. A further one takes the place of the oldest.
    pub connections_per_device: usize,
    /// Milliseconds between heartbeats that clients are asked for; default 5,000.
    pub heartbeat_ms: u64,
    /// Milliseconds of silence after which a client is taken for gone; default 25,000.
    pub silence_ms: u64,
    /// Bytes that wait for one slow reader before it falls back to reading its inbox; default 262,144.
    pub outbound_bytes: usize,
    /// Bytes under way on this node, at least 16,777,216; default 536,870,912: half messages and bodies, requests, and what waits
    /// for slow readers. Beyond it connections that do not read are closed, and no large request is taken.
    pub node_bytes: usize,
    /// Requests of one connection under way; default 256. Beyond it the socket is not read.
    pub requests_in_flight: u32,
    /// Seconds after which a connection that took not one byte of what is to be written is dead, 1 to 3,600; default 60.
    pub write_seconds: u64,
    /// Milliseconds over which a drain spreads its `reconnect`s; default 5,000.
    pub drain_ms: u64,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            connections: 15_000,
            connections_per_device: 8,
            heartbeat_ms: 5_000,
            silence_ms: 25_000,
            outbound_bytes: 256 * 1024,
            node_bytes: 512 * 1024 * 1024,
            requests_in_flight: 256,
            write_seconds: 60,
            drain_ms: 5_000,
        }
    }
}

/// How fast callers may go. Zero means no limit.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitConfig {
    /// `false` lifts all of them: for load tests only.
    pub enabled: bool,
    /// Frames of one connection, a second; default 50.
    pub connection_frames: u32,
    /// Messages of one connection, a second; default 20.
    pub connection_sends: u32,
    /// Messages of one user, a second, over all her connections and REST; default 40.
    pub user_sends: u32,
    /// KiB of messages and changes of one user, a second; default 512. What is written stays on the disk and goes to every
    /// reader.
    pub user_write_kib: u32,
    /// Requests of one user over REST, a second; default 50. A large answer costs several: see docs/limits.md.
    pub user_requests: u32,
    /// Sockets opened and REST calls without a token from one address, a second; default 20.
    pub address_requests: u32,
    /// Sign-ups and logins from one address, a second; default 1, and 60 at once after a rest.
    pub address_logins: u32,
    /// Connections from one address at once that speak HTTP; default 256, an eighth of what the node takes, and more
    /// than the browsers behind one router open. A socket that was upgraded does not count. A further one is closed.
    pub address_connections: u32,
    /// Sockets of one user at once; default 100. A further one takes the place of the oldest.
    pub user_sockets: u32,
    /// Sockets of one address at once; default 2,000, an eighth of what a node takes by default. A further one gets 429.
    pub address_sockets: u32,
    /// Bytes under way of one user; default 16,777,216. See `gateway.node_bytes`.
    pub user_bytes: usize,
    /// Bytes under way of one address; default 67,108,864.
    pub address_bytes: usize,
}

impl Default for LimitConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            connection_frames: 50,
            connection_sends: 20,
            user_sends: 40,
            user_write_kib: 512,
            user_requests: 50,
            address_requests: 20,
            address_logins: 1,
            address_connections: 256,
            user_sockets: 100,
            address_sockets: 2_000,
            user_bytes: 16 * 1024 * 1024,
            address_bytes: 64 * 1024 * 1024,
        }
    }
}

impl LimitConfig {
    /// A rate whose burst is ten seconds' worth.
    #[must_use]
    pub const fn rate(&self, per_second: u32) -> Rate {
        let per_second = if self.enabled { per_second } else { 0 };
        Rate { per_second, burst: per_second.saturating_mul(10) }
    }

    /// Connections from one address that speak HTTP.
    #[must_use]
    pub const fn connections_of_address(&self) -> u32 {
        if self.enabled && self.address_connections > 0 { self.address_connections } else { u32::MAX }
    }

    /// Sockets of one address.
    #[must_use]
    pub const fn sockets_of_address(&self) -> u32 {
        if self.enabled && self.address_sockets > 0 { self.address_sockets } else { u32::MAX }
    }

    /// Sockets of one user.
    #[must_use]
    pub const fn sockets_of_user(&self) -> usize {
        if self.enabled && self.user_sockets > 0 { self.user_sockets as usize } else { usize::MAX }
    }

    /// Logins: a minute's worth at once, then one by one.
    #[must_use]
    pub const fn logins(&self) -> Rate {
        let per_second = if self.enabled { self.address_logins } else { 0 };
        Rate { per_second, burst: per_second.saturating_mul(60) }
    }
}

/// A value that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {value}, {rule}")]
pub struct InvalidConfig {
    /// The key, with its section.
    pub field: &'static str,
    /// Its value.
    pub value: String,
    /// What it must be.
    pub rule: &'static str,
}

impl Config {
    /// Checks what only the machine can say.
    ///
    /// # Errors
    /// Names the key, its value and the rule.
    pub fn check_files(&self) -> Result<(), InvalidConfig> {
        let data = &self.server.data;
        if data.exists() && !data.is_dir() {
            let value = data.display().to_string();
            return Err(InvalidConfig {
                field: "server.data",
                value,
                rule: "must name a folder, and this is a file",
            });
        }
        Ok(())
    }

    /// What a session needs to know.
    #[must_use]
    pub fn session(&self) -> SessionConfig {
        SessionConfig {
            frames: self.limits.rate(self.limits.connection_frames),
            sends: self.limits.rate(self.limits.connection_sends),
            silence_ms: self.gateway.silence_ms,
            token_grace_ms: 60_000,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_wrong_values_are_named() {
        let mut config = Config::default();
        assert_eq!(config.validate(), Ok(()));
        config.channels.group_members = 501;
        let text = config.validate().unwrap_err().to_string();
        assert_eq!(text, "channels.group_members is 501, must be 2 to 500");
        config.channels.group_members = 500;
        config.channels.open_members = 100_001;
        let text = config.validate().unwrap_err().to_string();
        assert_eq!(text, "channels.open_members is 100001, must be 2 to 100000");
    }

    #[test]
    fn half_a_pair_for_tls_is_named() {
        let mut config = Config::default();
        config.tls.key = "key.pem".into();
        assert_eq!(
            config.validate().unwrap_err().to_string(),
            "tls.cert is empty, must be set beside tls.key"
        );
        config.tls = TlsConfig { cert: "cert.pem".into(), ..TlsConfig::default() };
        assert_eq!(
            config.validate().unwrap_err().to_string(),
            "tls.key is empty, must be set beside tls.cert"
        );
        config.tls.key = "key.pem".into();
        assert_eq!(config.validate(), Ok(()));
    }

    #[test]
    fn an_origin_that_no_browser_sends_is_refused() {
        let check = |origins: &[&str]| {
            let mut config = Config::default();
            config.server.allowed_origins = origins.iter().map(|&origin| origin.to_owned()).collect();
            config.validate().map_err(|error| error.field)
        };
        let good: [&[&str]; 4] =
            [&[], &["*"], &["https://chat.example", "http://localhost:5173"], &["https://[::1]:8443"]];
        for origins in good {
            assert_eq!(check(origins), Ok(()), "{origins:?}");
        }
        let bad =
            ["https://chat.example/", "chat.example", "https://Chat.example", "https://a@b", "", "https://"];
        for origin in bad {
            assert_eq!(check(&[origin]), Err("server.allowed_origins"), "{origin}");
        }
        assert_eq!(check(&["*", "https://chat.example"]), Err("server.allowed_origins"));
    }
}
