//! The configuration of the chat server. No file is needed: every field has a default.

mod rules;
pub(crate) mod values;

use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use madang_auth::PasswordConfig;
use madang_bus::BusConfig;
use madang_discovery::DiscoveryConfig;
use madang_engine::bucket::Rate;
use madang_engine::session::SessionConfig;
use madang_ids::ChannelId;
use madang_presence::PresenceConfig;
use madang_proto::limits;
use madang_push::PushConfig;
use madang_store::StoreConfig;
use serde::{Deserialize, Serialize};

/// All settings, by sections of the file.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Addresses, the data folder, origins and proxies.
    pub server: ServerConfig,
    /// This node among the others of a fleet.
    pub node: NodeConfig,
    /// Inbox and bus: within the process, or over Redis.
    pub bus: BusConfig,
    /// The store, and where a cluster is.
    pub store: StoreConfig,
    /// How nodes find each other, and clients their node.
    pub discovery: DiscoveryConfig,
    /// TLS of the server itself.
    pub tls: TlsConfig,
    /// Lifetimes of tokens.
    pub tokens: TokenConfig,
    /// The cost of password hashes.
    pub passwords: PasswordConfig,
    /// How users get an account.
    pub accounts: AccountConfig,
    /// Sizes of channels.
    pub channels: ChannelConfig,
    /// Sockets.
    pub gateway: GatewayConfig,
    /// Presence.
    pub presence: PresenceConfig,
    /// Alerts for users who are away.
    pub push: PushConfig,
    /// Channels with much traffic.
    pub heat: HeatSection,
    /// What happens if work waits.
    pub overload: OverloadSection,
    /// The calls of operators.
    pub operator: OperatorSection,
    /// Rate limits and limits of bytes.
    pub limits: LimitConfig,
    /// Logs.
    pub telemetry: madang_service::TelemetryConfig,
}

/// This node among the others of a fleet.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeConfig {
    /// Its name, unique in the fleet. Empty (the default): the name of the host.
    pub name: String,
    /// Where it is; clients of the same region are preferred. Empty (the default): nowhere in particular.
    pub region: String,
    /// The address of its sockets for clients, such as `wss://chat-1.example`. Empty (the default): clients reach all nodes by one
    /// address, behind a load balancer.
    pub url: String,
}

impl NodeConfig {
    /// The name of the node.
    #[must_use]
    pub fn name(&self) -> String {
        match self.name.is_empty() {
            true => rustix::system::uname().nodename().to_string_lossy().into_owned(),
            false => self.name.clone(),
        }
    }
}

/// Addresses, the data folder, origins and proxies.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// The address of HTTP and WebSocket; default 127.0.0.1:8080.
    #[serde(deserialize_with = "values::address")]
    pub addr: SocketAddr,
    /// The data folder, private to its owner; default `madang-data`.
    pub data: PathBuf,
    /// Origins whose pages may open sockets and call REST, such as `https://chat.example`. Empty (the default): any page on
    /// localhost, and clients that are not browsers. `["*"]`: any page. Tokens are not cookies, so a browser never sends one by
    /// itself.
    #[serde(deserialize_with = "values::origins")]
    pub allowed_origins: Vec<String>,
    /// Networks of the proxies in front of this server, such as `10.0.0.0/8` or `::1/128`; default none. Only these peers are
    /// trusted to name the address of the client. Limits by address and log lines use that address.
    #[serde(deserialize_with = "values::networks")]
    pub trusted_proxies: Vec<IpNet>,
    /// The header in which the proxies name it: `x-forwarded-for` (the default) or `forwarded` (RFC 7239). The other header is
    /// not read, because a proxy forwards what a client wrote into it.
    #[serde(deserialize_with = "values::proxy_header")]
    pub proxy_header: ProxyHeader,
}

/// The header in which a proxy names the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProxyHeader {
    /// `X-Forwarded-For`: one address for each hop.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// TLS of the server itself. Without it, or a proxy with TLS, tokens and messages are not encrypted on the wire.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// The PEM file of the certificate and those up to its root; default empty: no TLS. Read again when it changes, and on
    /// SIGHUP.
    pub cert: PathBuf,
    /// The PEM file of the key (PKCS#8, SEC1 or PKCS#1); default empty. Set both files or neither.
    pub key: PathBuf,
    /// Seconds for which a browser uses this host over TLS only (`Strict-Transport-Security`), 0 to 63,072,000; default
    /// 31,536,000. Zero: the header is not sent. It is never sent unless the server itself speaks TLS.
    pub hsts_seconds: u64,
}

impl Default for TlsConfig {
    fn default() -> Self {
        Self { cert: PathBuf::new(), key: PathBuf::new(), hsts_seconds: 31_536_000 }
    }
}

impl TlsConfig {
    /// Whether the server speaks TLS. It then accepts nothing else.
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

/// What happens if work waits.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OverloadSection {
    /// Whether the least important requests are refused while work waits for more than 20 ms; default true.
    pub shed: bool,
}

impl Default for OverloadSection {
    fn default() -> Self {
        Self { shed: true }
    }
}

/// The calls of operators, and their page.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OperatorSection {
    /// A listener of their own, such as 127.0.0.1:7400. Default: none.
    #[serde(
        deserialize_with = "values::optional_address",
        serialize_with = "values::write_optional_address"
    )]
    pub addr: Option<SocketAddr>,
    /// Whether they are served on `server.addr` as well if that is not an address of this machine alone; default false.
    pub public: bool,
    /// The address of graphs, such as a dashboard of Grafana, to which the page of a channel links; `{channel}` stands for its id.
    /// Default: none.
    pub graphs_url: String,
}

impl OperatorSection {
    /// The address of the graphs of a channel.
    #[must_use]
    pub fn graphs_of(&self, channel: ChannelId) -> Option<String> {
        let is_set = !self.graphs_url.is_empty();
        is_set.then(|| self.graphs_url.replace("{channel}", &channel.to_string()))
    }
}

/// Channels with much traffic.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HeatSection {
    /// Whether hot channels are found and paced; default true. `false` shows in a load test what that is worth.
    pub enabled: bool,
}

impl Default for HeatSection {
    fn default() -> Self {
        Self { enabled: true }
    }
}

/// Lifetimes of tokens.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TokenConfig {
    /// The file with the 32 bytes that sign tokens and seal cursors, the same on every node of a fleet. It must exist. Default
    /// empty: `token.secret` in the data folder, which the first start creates.
    pub secret_file: PathBuf,
    /// The lifetime of an access token in seconds; default 900. A revoked device is closed at once in any case.
    pub access_seconds: u64,
    /// The lifetime of a refresh token in days; default 90. Each use starts it again.
    pub refresh_days: u64,
}

impl Default for TokenConfig {
    fn default() -> Self {
        Self { secret_file: PathBuf::new(), access_seconds: 900, refresh_days: 90 }
    }
}

/// How users get an account.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccountConfig {
    /// `open` (the default): anybody can sign up. `invitation`: only with a code of the operator (`madang invitations`).
    /// `operator`: only the operator makes accounts (`madang users create`). `off`: nobody does.
    pub sign_up: SignUpMode,
    /// Handles that only the operator can give, in lower case. Hyphens, dots and underscores in a handle are ignored.
    pub reserved_handles: Vec<String>,
    /// Whether users who share no group and are not contacts are invited to a group instead of added; default true. `false` is
    /// for a closed team: everybody can be added at once, and shows their presence to their groups. The user's own choice
    /// overrides either.
    pub consent: bool,
}

/// The users who may sign up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SignUpMode {
    /// Anybody.
    #[default]
    Open,
    /// Anybody with an invitation code.
    Invitation,
    /// Nobody: only the operator makes accounts.
    Operator,
    /// Nobody, and the operator makes no accounts either.
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
    /// Members of an open channel, 2 to 100,000; default 100,000. Existing channels keep their limit.
    pub open_members: u32,
    /// Channels of all kinds that one user may be in at the same time, 2 to 1,000,000; default 10,000. Lists and snapshots of the
    /// user grow with it.
    pub per_user: u32,
    /// Open channels that one user may make, 1 to 1,000,000; default 100. A search looks at all open channels.
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
    /// Sockets of this node; default 15,000, below the usual limit of open files. Above it new sockets get 503.
    pub connections: usize,
    /// Sockets of one device; default 8. A new one above it replaces the oldest.
    pub connections_per_device: usize,
    /// Milliseconds between the heartbeats of a client; default 5,000.
    pub heartbeat_ms: u64,
    /// Milliseconds of silence after which a client counts as gone; default 25,000.
    pub silence_ms: u64,
    /// Bytes that may wait for one slow reader; default 262,144. Above it the connection reads its inbox instead.
    pub outbound_bytes: usize,
    /// Bytes under way on this node, at least 16,777,216; default 536,870,912: partly received messages and bodies, requests, and
    /// what waits for slow readers. Above it connections that do not read are closed, and no large request is accepted.
    pub node_bytes: usize,
    /// Requests in flight of one connection; default 256. Above it the socket is not read.
    pub requests_in_flight: u32,
    /// Seconds after which a connection that has not accepted one byte is closed, 1 to 3,600; default 60.
    pub write_seconds: u64,
    /// Milliseconds over which a drain spreads its `reconnect` frames; default 5,000.
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

/// Rate limits and limits of bytes. Zero means no limit.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitConfig {
    /// `false` switches all limits off: for load tests only.
    pub enabled: bool,
    /// Frames of one connection in a second; default 50.
    pub connection_frames: u32,
    /// Messages of one connection in a second; default 20.
    pub connection_sends: u32,
    /// Messages of one user in a second, over all connections and REST; default 40.
    pub user_sends: u32,
    /// KiB of messages and changes of one user in a second; default 512. They stay on the disk and go to every reader.
    pub user_write_kib: u32,
    /// REST requests of one user in a second; default 50. A large answer costs several: see docs/limits.md.
    pub user_requests: u32,
    /// Sockets that are opened, and REST calls without a token, from one address in a second; default 20.
    pub address_requests: u32,
    /// Sign-ups and logins from one address in a second; default 1, and 60 at once after a rest.
    pub address_logins: u32,
    /// Connections that speak HTTP from one address at the same time; default 256: an eighth of what the node accepts, and more
    /// than the browsers behind one router open. An upgraded socket is not counted. A connection above it is closed.
    pub address_connections: u32,
    /// Sockets of one user at the same time; default 100. A new one above it replaces the oldest.
    pub user_sockets: u32,
    /// Sockets of one address at the same time; default 2,000, an eighth of the default of a node. One above it gets 429.
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
    /// A rate whose burst is the number of ten seconds.
    #[must_use]
    pub const fn rate(&self, per_second: u32) -> Rate {
        let per_second = if self.enabled { per_second } else { 0 };
        Rate { per_second, burst: per_second.saturating_mul(10) }
    }

    /// The most connections from one address that speak HTTP.
    #[must_use]
    pub const fn connections_of_address(&self) -> u32 {
        if self.enabled && self.address_connections > 0 { self.address_connections } else { u32::MAX }
    }

    /// The most sockets of one address.
    #[must_use]
    pub const fn sockets_of_address(&self) -> u32 {
        if self.enabled && self.address_sockets > 0 { self.address_sockets } else { u32::MAX }
    }

    /// The most sockets of one user.
    #[must_use]
    pub const fn sockets_of_user(&self) -> usize {
        if self.enabled && self.user_sockets > 0 { self.user_sockets as usize } else { usize::MAX }
    }

    /// The rate of logins, with a burst of one minute.
    #[must_use]
    pub const fn logins(&self) -> Rate {
        let per_second = if self.enabled { self.address_logins } else { 0 };
        Rate { per_second, burst: per_second.saturating_mul(60) }
    }
}

/// A setting whose value is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {value}, {rule}")]
pub struct InvalidConfig {
    /// The key, with its section.
    pub field: &'static str,
    /// The value.
    pub value: String,
    /// The rule that the value breaks.
    pub rule: &'static str,
}

impl Config {
    /// Checks settings that depend on this machine.
    ///
    /// # Errors
    /// The first setting that breaks a rule.
    pub fn check_files(&self) -> Result<(), InvalidConfig> {
        let data = &self.server.data;
        if data.exists() && !data.is_dir() {
            let value = data.display().to_string();
            return Err(InvalidConfig {
                field: "server.data",
                value,
                rule: "must name a folder, but this is a file",
            });
        }
        Ok(())
    }

    /// The file of the token secret, and whether the server may create it.
    #[must_use]
    pub fn secret_file(&self) -> (PathBuf, bool) {
        match self.tokens.secret_file.as_os_str().is_empty() {
            true => (self.server.data.join("token.secret"), true),
            false => (self.tokens.secret_file.clone(), false),
        }
    }

    /// The configuration of sessions.
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
    use madang_bus::BusKind;
    use madang_store::StoreKind;

    #[test]
    fn the_defaults_are_valid_and_errors_name_wrong_values() {
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
    fn half_of_a_tls_pair_is_reported() {
        let mut config = Config::default();
        config.tls.key = "key.pem".into();
        assert_eq!(
            config.validate().unwrap_err().to_string(),
            "tls.cert is empty, must be set together with tls.key"
        );
        config.tls = TlsConfig { cert: "cert.pem".into(), ..TlsConfig::default() };
        assert_eq!(
            config.validate().unwrap_err().to_string(),
            "tls.key is empty, must be set together with tls.cert"
        );
        config.tls.key = "key.pem".into();
        assert_eq!(config.validate(), Ok(()));
    }

    #[test]
    fn a_cluster_needs_nodes_a_keyspace_and_whole_credentials() {
        let check = |change: &dyn Fn(&mut StoreConfig)| {
            let mut config = Config::default();
            let nodes = ["10.0.0.1:9042", "[::1]:9042", "cql.example:9042"];
            config.store.kind = StoreKind::Scylla;
            config.store.nodes = nodes.map(str::to_owned).to_vec();
            (config.bus.kind, config.bus.url) = (BusKind::Redis, "redis://10.0.0.5:6379".to_owned());
            config.tokens.secret_file = "secret".into();
            change(&mut config.store);
            config.validate().map_err(|error| error.field)
        };
        let good = if cfg!(feature = "fleet") { Ok(()) } else { Err("store.kind") };
        assert_eq!(check(&|_| {}), good);
        if good.is_err() {
            return;
        }
        assert_eq!(check(&|store| store.nodes.clear()), Err("store.nodes"));
        for node in ["10.0.0.1", "10.0.0.1:", ":9042", "a:b:9042", "10.0.0.1:99999"] {
            assert_eq!(check(&|store| store.nodes[0] = node.to_owned()), Err("store.nodes"), "{node}");
        }
        for keyspace in ["", "Madang", "a-b", "1a", "system", "system_schema"] {
            assert_eq!(
                check(&|store| store.keyspace = keyspace.to_owned()),
                Err("store.keyspace"),
                "{keyspace}"
            );
        }
        assert_eq!(check(&|store| store.user = "chat".to_owned()), Err("store.password_file"));
        assert_eq!(check(&|store| store.password_file = "p".into()), Err("store.user"));
        assert_eq!(check(&|store| store.data_center = "a'b".to_owned()), Err("store.data_center"));
    }

    #[test]
    fn nodes_of_a_cluster_without_its_kind_are_reported() {
        let mut config = Config::default();
        config.store.nodes = vec!["10.0.0.1:9042".to_owned()];
        assert_eq!(
            config.validate().unwrap_err().to_string(),
            "store.nodes is 10.0.0.1:9042, needs store.kind = \"scylla\""
        );
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
