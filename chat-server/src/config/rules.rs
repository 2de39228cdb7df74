//! Rules of the configuration that its types cannot express.

use madang_bus::BusKind;
use madang_proto::limits;

use madang_store::{StoreConfig, StoreKind};

use super::{Config, InvalidConfig, values};

impl Config {
    /// Whether the data folder has what a command looks for: the accounts and messages of a fleet are in its cluster.
    ///
    /// # Errors
    /// For the configuration of a fleet.
    pub fn needs_folder(&self) -> Result<(), InvalidConfig> {
        match self.store.kind {
            StoreKind::Embedded => Ok(()),
            StoreKind::Scylla => Err(InvalidConfig {
                field: "store.kind",
                value: "scylla".to_owned(),
                rule: "so nothing is in the data folder: run this command beside a running chat node, with the node's --data",
            }),
        }
    }

    /// Checks all rules.
    ///
    /// # Errors
    /// The first setting that breaks a rule.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        let rule = |holds: bool, field, value: &dyn ToString, rule| {
            if holds { Ok(()) } else { Err(InvalidConfig { field, value: value.to_string(), rule }) }
        };
        let any = |value: &str| value == "*";
        let origins = &self.server.allowed_origins;
        rule(
            origins.iter().all(|origin| values::origin(origin).as_deref() == Ok(origin)),
            "server.allowed_origins",
            &origins.join(", "),
            "must be origins, such as https://chat.example: scheme, host and port, without a path",
        )?;
        rule(
            origins.len() < 2 || !origins.iter().any(|origin| any(origin)),
            "server.allowed_origins",
            &origins.join(", "),
            "must be \"*\" alone or a list of origins",
        )?;
        check_store(&self.store)?;
        check_fleet(self)?;
        let cost = self.passwords;
        let most = "must be at most: 1048576 KiB, 100 passes, 16 lanes";
        rule(cost.memory_kib <= 1_048_576, "passwords.memory_kib", &cost.memory_kib, most)?;
        rule(cost.passes <= 100, "passwords.passes", &cost.passes, most)?;
        rule(cost.lanes <= 16, "passwords.lanes", &cost.lanes, most)?;
        rule(!self.server.data.as_os_str().is_empty(), "server.data", &"empty", "must name a folder")?;
        let graphs = &self.operator.graphs_url;
        let is_address = ["https://", "http://"].iter().any(|scheme| graphs.starts_with(scheme));
        rule(
            graphs.is_empty() || (is_address && graphs.len() <= 1_000),
            "operator.graphs_url",
            graphs,
            "must be an address that begins with https:// or http://, of at most 1000 bytes",
        )?;
        let hsts = self.tls.hsts_seconds;
        rule(hsts <= 63_072_000, "tls.hsts_seconds", &hsts, "must be at most 63072000, two years")?;
        let key_is_set = !self.tls.key.as_os_str().is_empty();
        rule(self.tls.is_on() || !key_is_set, "tls.cert", &"empty", "must be set together with tls.key")?;
        rule(key_is_set || !self.tls.is_on(), "tls.key", &"empty", "must be set together with tls.cert")?;
        let reserved = &self.accounts.reserved_handles;
        rule(
            reserved.iter().all(|handle| values::is_handle(handle)),
            "accounts.reserved_handles",
            &reserved.join(", "),
            "must be handles in lower case, such as admin: 2 to 32 of a-z, 0-9, '_', '.', '-'",
        )?;
        let group = self.channels.group_members;
        let gateway = &self.gateway;
        rule(
            (2..=limits::GROUP_MEMBERS_MAX).contains(&group),
            "channels.group_members",
            &group,
            "must be 2 to 500",
        )?;
        let open = self.channels.open_members;
        rule(
            (2..=limits::OPEN_MEMBERS_MAX).contains(&open),
            "channels.open_members",
            &open,
            "must be 2 to 100000",
        )?;
        let open = self.channels.open_per_user;
        rule((1..=1_000_000).contains(&open), "channels.open_per_user", &open, "must be 1 to 1000000")?;
        let per_user = self.channels.per_user;
        rule((2..=1_000_000).contains(&per_user), "channels.per_user", &per_user, "must be 2 to 1000000")?;
        let access = self.tokens.access_seconds;
        rule((60..=86_400).contains(&access), "tokens.access_seconds", &access, "must be 60 to 86400")?;
        let refresh = self.tokens.refresh_days;
        rule((1..=3_650).contains(&refresh), "tokens.refresh_days", &refresh, "must be 1 to 3650")?;
        let silence = gateway.silence_ms;
        let slowest = gateway.heartbeat_ms.saturating_mul(2);
        rule(
            (1_000..=86_400_000).contains(&gateway.heartbeat_ms),
            "gateway.heartbeat_ms",
            &gateway.heartbeat_ms,
            "must be 1000 to 86400000",
        )?;
        rule(
            silence >= slowest,
            "gateway.silence_ms",
            &silence,
            "must be at least twice gateway.heartbeat_ms",
        )?;
        rule(silence <= 86_400_000, "gateway.silence_ms", &silence, "must be at most 86400000")?;
        let per_device = gateway.connections_per_device;
        rule(per_device >= 1, "gateway.connections_per_device", &per_device, "must be at least 1")?;
        let drain = gateway.drain_ms;
        rule(drain <= 600_000, "gateway.drain_ms", &drain, "must be at most 600000")?;
        let drain_grace = self.presence.drain_grace_ms;
        rule(drain_grace <= 600_000, "presence.drain_grace_ms", &drain_grace, "must be at most 600000")?;
        let (delay, kept) = (self.push.delay_ms, self.push.kept_hours);
        rule(delay <= 60_000, "push.delay_ms", &delay, "must be at most 60000")?;
        rule((1..=168).contains(&kept), "push.kept_hours", &kept, "must be 1 to 168")?;
        // Devices report what they have received to their nodes, which write it once a second.
        let is_fleet = self.store.kind == StoreKind::Scylla;
        rule(!is_fleet || delay >= 2_000, "push.delay_ms", &delay, "must be at least 2000 in a fleet")?;
        let pace = self.presence.pace_ms;
        rule(pace <= 60_000, "presence.pace_ms", &pace, "must be at most 60000")?;
        for (key, bytes) in [
            ("limits.user_bytes", self.limits.user_bytes),
            ("limits.address_bytes", self.limits.address_bytes),
        ] {
            rule(
                bytes == 0 || bytes >= 1_048_576,
                key,
                &bytes,
                "must be 0, for no limit, or at least 1048576",
            )?;
        }
        let write = gateway.write_seconds;
        rule((1..=3_600).contains(&write), "gateway.write_seconds", &write, "must be 1 to 3600")?;
        let (presence, lease) = (&self.presence, self.presence.lease_ms);
        let renewals = presence.renew_ms.saturating_mul(2);
        rule(
            presence.renew_ms >= 100 && lease >= renewals,
            "presence.lease_ms",
            &lease,
            "must be at least twice presence.renew_ms, and that at least 100",
        )?;
        rule(
            lease.saturating_add(presence.grace_ms) <= 30_000,
            "presence.grace_ms",
            &presence.grace_ms,
            "must be at most 30000 together with presence.lease_ms",
        )?;
        let outbound = gateway.outbound_bytes;
        rule(
            (16_384..=16_777_216).contains(&outbound),
            "gateway.outbound_bytes",
            &outbound,
            "must be 16384 to 16777216",
        )?;
        let node_bytes = gateway.node_bytes;
        rule(node_bytes >= 16 * 1024 * 1024, "gateway.node_bytes", &node_bytes, "must be at least 16777216")?;
        rule(gateway.connections >= 1, "gateway.connections", &gateway.connections, "must be at least 1")?;
        let requests = gateway.requests_in_flight;
        rule((1..=65_536).contains(&requests), "gateway.requests_in_flight", &requests, "must be 1 to 65536")
    }
}

/// A server is one process or a node of a fleet, and nothing in between.
fn check_fleet(config: &Config) -> Result<(), InvalidConfig> {
    let rule = |holds: bool, field, value: &str, rule| {
        let value = if value.is_empty() { "empty" } else { value };
        if holds { Ok(()) } else { Err(InvalidConfig { field, value: value.to_owned(), rule }) }
    };
    let (is_fleet, bus) = (config.store.kind == StoreKind::Scylla, &config.bus);
    let kind = if bus.kind == BusKind::Redis { "redis" } else { "local" };
    let kind_rule = if is_fleet {
        "must be \"redis\" because store.kind is \"scylla\""
    } else {
        "must be \"local\" because store.kind is \"embedded\""
    };
    rule((bus.kind == BusKind::Redis) == is_fleet, "bus.kind", kind, kind_rule)?;
    let url_rule = "must be the address of Redis or Valkey, such as redis://10.0.0.5:6379";
    let is_url = ["redis://", "rediss://", "unix://"].iter().any(|scheme| bus.url.starts_with(scheme));
    rule(!is_fleet || is_url, "bus.url", &bus.url, url_rule)?;
    rule(is_fleet || bus.url.is_empty(), "bus.url", &bus.url, "needs bus.kind = \"redis\"")?;
    let secret = config.tokens.secret_file.to_string_lossy();
    let secret_rule = "must name the file with the secret that all processes of the fleet share";
    rule(!is_fleet || !secret.is_empty(), "tokens.secret_file", &secret, secret_rule)?;
    let url = &config.node.url;
    let is_socket = url.is_empty() || url.starts_with("ws://") || url.starts_with("wss://");
    let socket_rule = "must be empty, or the address of this node's sockets, such as wss://chat-1.example";
    rule(is_socket, "node.url", url, socket_rule)?;
    config.discovery.check().map_err(|wrong| InvalidConfig {
        field: wrong.field,
        value: wrong.value,
        rule: wrong.rule,
    })
}

/// The rules of `[store]`.
fn check_store(store: &StoreConfig) -> Result<(), InvalidConfig> {
    let rule = |holds: bool, field, value: &str, rule| {
        let value = if value.is_empty() { "empty" } else { value };
        if holds { Ok(()) } else { Err(InvalidConfig { field, value: value.to_owned(), rule }) }
    };
    let keyspace = &store.keyspace;
    let is_name = keyspace.starts_with(|c: char| c.is_ascii_lowercase())
        && keyspace.len() <= 48
        && keyspace.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    let name_rule = "must be 1 to 48 of a-z, 0-9 and '_', beginning with a letter, and not system";
    rule(is_name && !keyspace.starts_with("system"), "store.keyspace", keyspace, name_rule)?;
    let data_center = &store.data_center;
    let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ' ');
    let data_center_rule = "must be the name of a data center: letters, digits, '_', '-', '.' and spaces";
    rule(data_center.chars().all(is_plain), "store.data_center", data_center, data_center_rule)?;
    let (has_user, has_password) = (!store.user.is_empty(), !store.password_file.as_os_str().is_empty());
    rule(has_user || !has_password, "store.user", "", "must be set together with store.password_file")?;
    rule(has_password || !has_user, "store.password_file", "", "must be set together with store.user")?;
    let nodes = store.nodes.join(", ");
    if store.kind == StoreKind::Embedded {
        return rule(nodes.is_empty(), "store.nodes", &nodes, "needs store.kind = \"scylla\"");
    }
    rule(
        cfg!(feature = "fleet"),
        "store.kind",
        "scylla",
        "which this program was built without: build it with --features fleet, or use \"embedded\"",
    )?;
    let are_addresses =
        !store.nodes.is_empty() && store.nodes.iter().all(|node| values::is_host_and_port(node));
    let address_rule = "must be addresses of nodes of the cluster with their port, such as 10.0.0.1:9042";
    rule(are_addresses, "store.nodes", &nodes, address_rule)
}
