//! Every key of the configuration: which values are normalised, and which are refused with advice.
#![expect(clippy::unwrap_used, reason = "a test; clippy exempts test functions only, not their helpers")]

use std::collections::{BTreeMap, BTreeSet};

use madang_chat_server::config::Config;
use madang_service::config::load_from;

/// Loads `section.key = value` and validates it. The error is a text.
fn load(key: &str, value: &str) -> Result<Config, String> {
    let (section, name) = key.rsplit_once('.').unwrap();
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    std::fs::write(file.path(), format!("[{section}]\n{name} = {value}\n")).unwrap();
    let config: Config = load_from(Some(file.path()), []).map_err(|error| error.to_string())?;
    config.validate().map_err(|error| error.to_string())?;
    madang_service::telemetry::check(&config.telemetry).map_err(|error| error.to_string())?;
    Ok(config)
}

fn load_env(key: &str, value: &str) -> Result<Config, String> {
    let name = format!("MADANG_{}", key.to_ascii_uppercase().replace('.', "__"));
    let config: Config = load_from(None, [(name, value.to_owned())]).map_err(|error| error.to_string())?;
    config.validate().map_err(|error| error.to_string())?;
    Ok(config)
}

/// Bad values of each key, with words that the refusal must contain.
const BAD: &[(&str, &[(&str, &str)])] = &[
    (
        "server.addr",
        &[
            ("':8080'", "[::]:8080"),
            ("'*:8080'", "127.0.0.1:8080"),
            ("8080", "127.0.0.1:8080"),
            ("'127.0.0.1'", "127.0.0.1:8080"),
            ("'::1'", "[::1]:8080"),
            ("'chat.example:8080'", "names are not resolved"),
            ("'http://127.0.0.1:8080'", "127.0.0.1:8080"),
            ("'127.0.0.1:99999'", "127.0.0.1:8080"),
            ("''", "127.0.0.1:8080"),
            ("['127.0.0.1:8080']", ""),
        ],
    ),
    ("server.data", &[("''", "folder"), ("7", "")]),
    (
        "server.allowed_origins",
        &[
            ("['chat.example']", "https://chat.example"),
            ("['https://chat.example/app']", "https://chat.example"),
            ("['https://chat.example?x']", "https://chat.example"),
            ("['null']", "sandboxed"),
            ("['https://*.chat.example']", "list each origin"),
            ("['*.chat.example']", "\"https://chat.example\""),
            ("['https:/chat.example']", "\"https://chat.example\""),
            ("['https://a.example,https://b.example']", "\"https://a.example\""),
            ("['https://a..b']", ""),
            ("['https://.example']", ""),
            ("['https://-a.example']", ""),
            ("['https://256.1.1.1']", ""),
            ("['wss://chat.example']", "https://chat.example"),
            ("['https://user@chat.example']", ""),
            ("['https://']", ""),
            ("['']", ""),
            ("['https://chat.example:']", ""),
            ("['https://chat.example:99999']", ""),
            ("['https://b\u{fc}cher.example']", "xn--"),
            ("['*', 'https://chat.example']", "alone"),
            ("[7]", ""),
        ],
    ),
    (
        "server.trusted_proxies",
        &[
            ("['proxy.example']", "10.0.0.0/8"),
            ("['10.0.0.0/33']", "10.0.0.0/8"),
            ("['0.0.0.0/0']", "forge"),
            ("['::/0']", "forge"),
            ("['']", ""),
            ("['10.0.0.1:80']", ""),
        ],
    ),
    ("server.proxy_header", &[("'x-real-ip'", "x-forwarded-for"), ("''", "forwarded")]),
    ("store.kind", &[("'sqlite'", "scylla"), ("''", "embedded"), ("7", "")]),
    ("store.nodes", &[("['10.0.0.1:9042']", "store.kind"), ("'10.0.0.1:9042'", ""), ("[7]", "")]),
    ("store.keyspace", &[("''", ""), ("'Madang'", "a-z"), ("'system'", "system"), ("7", "")]),
    ("store.data_center", &[("\"a'b\"", "digits"), ("7", "")]),
    ("store.user", &[("'chat'", "password_file"), ("7", "")]),
    ("store.password_file", &[("'p'", "store.user"), ("7", "")]),
    ("node.name", &[("7", "")]),
    ("node.region", &[("7", "")]),
    ("node.url", &[("'https://chat-1.example'", "wss://"), ("7", "")]),
    ("bus.kind", &[("'redis'", "store.kind"), ("'kafka'", "redis"), ("7", "")]),
    ("bus.url", &[("'redis://10.0.0.5:6379'", "bus.kind"), ("7", "")]),
    ("bus.password_file", &[("7", "")]),
    ("discovery.placement", &[("'remote'", "discovery.urls"), ("'outside'", "inside"), ("7", "")]),
    ("discovery.urls", &[("['10.0.0.9:7100']", "https://"), ("'http://10.0.0.9'", ""), ("[7]", "")]),
    ("discovery.admission_per_second", &[("-1", ""), ("'fast'", "")]),
    ("discovery.lease_seconds", &[("4", "5 to 300"), ("301", ""), ("-1", "")]),
    ("discovery.addr", &[("'localhost'", ""), ("7", "")]),
    ("discovery.internal_addr", &[("'localhost'", ""), ("7", "")]),
    ("tls.cert", &[("'cert.pem'", "tls.key"), ("7", "")]),
    ("tls.key", &[("'key.pem'", "tls.cert"), ("7", "")]),
    ("tls.hsts_seconds", &[("63072001", "63072000"), ("-1", "")]),
    ("operator.graphs_url", &[("\"grafana.example\"", "https://"), ("\"javascript:alert(1)\"", "https://")]),
    ("accounts.sign_up", &[("'closed'", "invitation"), ("''", "operator"), ("7", "")]),
    ("accounts.reserved_handles", &[("['A Name']", ""), ("['']", ""), ("[7]", ""), ("'admin'", "")]),
    ("accounts.consent", &[("'off'", ""), ("0", "")]),
    ("tokens.secret_file", &[("7", "")]),
    ("tokens.access_seconds", &[("0", "60"), ("86401", ""), ("'15m'", "")]),
    ("tokens.refresh_days", &[("0", ""), ("3651", "")]),
    ("passwords.memory_kib", &[("-1", ""), ("'much'", ""), ("99999999", "1048576 KiB")]),
    ("passwords.passes", &[("-1", ""), ("'much'", ""), ("101", "100 passes")]),
    ("passwords.lanes", &[("-1", ""), ("'much'", ""), ("17", "16 lanes")]),
    ("channels.group_members", &[("1", "2 to 500"), ("501", "")]),
    ("channels.open_members", &[("1", ""), ("100001", "")]),
    ("channels.open_per_user", &[("0", "1 to 1000000"), ("1000001", "")]),
    ("channels.per_user", &[("1", ""), ("1000001", "")]),
    ("gateway.connections", &[("0", "at least 1"), ("-1", "")]),
    ("gateway.connections_per_device", &[("0", "at least 1")]),
    ("gateway.heartbeat_ms", &[("0", ""), ("999", "1000"), ("86400001", "")]),
    ("gateway.silence_ms", &[("0", ""), ("9999", "twice"), ("86400001", "")]),
    ("gateway.outbound_bytes", &[("0", "16384"), ("16777217", "16777216")]),
    ("gateway.node_bytes", &[("0", "16777216"), ("1", "")]),
    ("gateway.requests_in_flight", &[("0", ""), ("65537", "")]),
    ("gateway.write_seconds", &[("0", ""), ("3601", "")]),
    ("gateway.drain_ms", &[("600001", "600000"), ("-1", "")]),
    ("presence.placement", &[("'outside'", "inside"), ("7", "")]),
    ("presence.addr", &[("'localhost'", ""), ("7", "")]),
    ("presence.lease_ms", &[("0", "renew_ms")]),
    ("presence.renew_ms", &[("0", "")]),
    ("presence.grace_ms", &[("30001", "30000")]),
    ("presence.drain_grace_ms", &[("600001", "600000")]),
    ("presence.pace_ms", &[("60001", "60000")]),
    ("heat.enabled", &[("7", "")]),
    ("overload.shed", &[("7", "")]),
    ("operator.addr", &[("'localhost'", ""), ("7", "")]),
    ("operator.public", &[("7", "")]),
    ("push.placement", &[("'outside'", ""), ("7", "")]),
    ("push.addr", &[("'localhost'", ""), ("7", "")]),
    ("push.app", &[("7", "")]),
    ("push.link", &[("7", "")]),
    ("push.delay_ms", &[("60001", "60000"), ("-1", "")]),
    ("push.kept_hours", &[("0", "1 to 168"), ("169", "")]),
    ("push.extra_roots_file", &[("7", "")]),
    ("push.web_push.contact", &[("7", "")]),
    ("push.web_push.key_file", &[("7", "")]),
    ("push.web_push.allowed_hosts", &[("'push.example'", ""), ("[7]", "")]),
    ("push.apns.key_file", &[("7", "")]),
    ("push.apns.key_id", &[("7", "")]),
    ("push.apns.team_id", &[("7", "")]),
    ("push.apns.topics", &[("'com.example.chat'", ""), ("[7]", "")]),
    ("push.apns.url", &[("7", "")]),
    ("push.apns.sandbox_url", &[("7", "")]),
    ("push.fcm.service_account_file", &[("7", "")]),
    ("push.fcm.url", &[("7", "")]),
    ("push.webhook.enabled", &[("'off'", ""), ("0", "")]),
    ("limits.enabled", &[("'off'", ""), ("0", "")]),
    ("limits.connection_frames", &[("-1", ""), ("4294967296", "")]),
    ("limits.connection_sends", &[("-1", ""), ("1.5", "")]),
    ("limits.user_sends", &[("-1", ""), ("'fast'", "")]),
    ("limits.user_requests", &[("-1", ""), ("'fast'", "")]),
    ("limits.address_requests", &[("-1", ""), ("'fast'", "")]),
    ("limits.address_logins", &[("-1", ""), ("'fast'", "")]),
    ("limits.address_connections", &[("-1", ""), ("'few'", "")]),
    ("limits.user_sockets", &[("-1", ""), ("'few'", "")]),
    ("limits.address_sockets", &[("-1", ""), ("'few'", "")]),
    ("limits.user_write_kib", &[("-1", ""), ("'fast'", "")]),
    ("limits.user_bytes", &[("1", "1048576"), ("-1", "")]),
    ("limits.address_bytes", &[("1", "1048576"), ("-1", "")]),
    ("telemetry.format", &[("'xml'", "json"), ("''", "")]),
    ("telemetry.filter", &[("7", ""), ("'infoo'", "info"), ("'madang'", "has no level"), ("''", "")]),
];

/// Keys whose bad values are tested in the crate that owns them.
const ELSEWHERE: &[&str] = &[];

/// The keys of the example, with their sections.
fn keys() -> BTreeSet<String> {
    let example = include_str!("../../deploy/madang.toml");
    let (mut section, mut keys) = ("", BTreeSet::new());
    for line in example.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name;
        } else if let Some((name, _)) = line.strip_prefix('#').and_then(|line| line.split_once(" = "))
            && name.chars().all(|c| c.is_ascii_lowercase() || c == '_')
        {
            keys.insert(format!("{section}.{name}"));
        }
    }
    keys
}

#[test]
fn every_key_has_bad_values_and_their_refusals_name_it() {
    let known: BTreeMap<&str, _> = BAD.iter().copied().collect();
    for key in keys().iter().filter(|key| !ELSEWHERE.contains(&key.as_str())) {
        let bad = known.get(key.as_str()).unwrap_or_else(|| panic!("{key} has no bad values in this test"));
        for (value, hint) in *bad {
            let error = load(key, value).err().unwrap_or_else(|| panic!("{key} = {value} is accepted"));
            let name = key.rsplit_once('.').unwrap().1;
            assert!(error.contains(name), "{key} = {value}: {error}");
            assert!(error.contains(hint), "{key} = {value} does not say {hint:?}: {error}");
        }
    }
    assert_eq!(known.len(), BAD.len());
    let all = keys();
    assert!(known.keys().all(|key| all.contains(*key)), "a key of this test is not in deploy/madang.toml");
}

#[test]
fn values_written_in_several_ways_are_normalised() {
    let origin = |value: &str| load("server.allowed_origins", value).unwrap().server.allowed_origins;
    for text in [
        "https://chat.example",
        "https://chat.example/",
        "HTTPS://Chat.Example",
        "https://chat.example:443",
        " https://chat.example:443/ ",
    ] {
        assert_eq!(origin(&format!("['{text}']")), ["https://chat.example"], "{text}");
    }
    assert_eq!(
        origin("['https://127.1', 'https://0x7f.1', 'https://192.168.001.001', 'http://[0::1]:8080']"),
        ["https://127.0.0.1", "https://127.0.0.1", "https://192.168.1.1", "http://[::1]:8080"]
    );
    assert_eq!(
        origin("['http://localhost:80', 'http://LOCALHOST:5173']"),
        ["http://localhost", "http://localhost:5173"]
    );
    assert_eq!(origin("['https://[0:0:0:0:0:0:0:1]:8443']"), ["https://[::1]:8443"]);
    assert_eq!(origin("['capacitor://localhost']"), ["capacitor://localhost"]);
    assert_eq!(origin("'*'"), ["*"]);
    let proxies = |value: &str| {
        let networks = load("server.trusted_proxies", value).unwrap().server.trusted_proxies;
        networks.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(proxies("['10.0.0.1', '::1', '10.1.2.3/8']"), ["10.0.0.1/32", "::1/128", "10.0.0.0/8"]);
    assert_eq!(proxies("['::ffff:10.0.0.1', '::ffff:10.0.0.0/104']"), ["10.0.0.1/32", "10.0.0.0/8"]);
    assert_eq!(load("server.addr", "'localhost:8080'").unwrap().server.addr.to_string(), "127.0.0.1:8080");
    for name in ["X-Forwarded-For", "x-forwarded-for", "X-FORWARDED-FOR"] {
        assert!(load("server.proxy_header", &format!("'{name}'")).is_ok(), "{name}");
    }
}

#[test]
fn the_environment_is_read_by_the_same_rules() {
    let config = load_env("server.trusted_proxies", "10.0.0.1").unwrap();
    assert_eq!(config.server.trusted_proxies[0].to_string(), "10.0.0.1/32");
    let config = load_env("server.allowed_origins", "[https://Chat.Example/]").unwrap();
    assert_eq!(config.server.allowed_origins, ["https://chat.example"]);
    let config = load_env("server.addr", "localhost:9000").unwrap();
    assert_eq!(config.server.addr.to_string(), "127.0.0.1:9000");
    for (key, value) in [
        ("server.addr", ":8080"),
        ("server.addr", "8080"),
        ("server.addr", ""),
        ("server.data", ""),
        ("server.allowed_origins", "null"),
        ("gateway.write_seconds", "0"),
        ("limits.user_sends", "-1"),
    ] {
        let error = load_env(key, value).err().unwrap_or_else(|| panic!("{key}={value} is accepted"));
        assert!(error.contains(key.split_once('.').unwrap().1), "{key}={value}: {error}");
    }
}
