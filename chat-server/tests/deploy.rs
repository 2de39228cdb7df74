//! The files that an operator installs: the example configuration and the unit; and what the process reports to systemd.
#![expect(clippy::unwrap_used, reason = "a test; clippy exempts test functions only, not their helpers")]

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use madang_chat_server::config::Config;
use madang_testkit::{Certificate, PATIENCE, Server};
use tokio::net::TcpStream;

const BINARY: &str = env!("CARGO_BIN_EXE_madang");

fn deployed(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(name)
}

/// The example without the `#` before its keys.
fn example() -> String {
    let text = std::fs::read_to_string(deployed("madang.toml")).unwrap();
    let lines =
        text.lines().map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line));
    lines.map(|line| format!("{line}\n")).collect()
}

#[test]
fn the_example_has_every_key_with_its_default() {
    let given: toml::Table = example().parse().unwrap();
    let defaults = toml::Table::try_from(Config::default()).unwrap();
    // Key by key, so that a failure names the key.
    for (section, keys) in &defaults {
        for (key, value) in keys.as_table().unwrap() {
            assert_eq!(given[section].get(key), Some(value), "{section}.{key}");
        }
    }
    assert_eq!(given, defaults, "the example has a key too many");
}

#[test]
fn the_example_is_valid_as_it_is_and_sets_nothing() {
    let config: Config = madang_service::config::load_from(Some(&deployed("madang.toml")), []).unwrap();
    assert_eq!(config.validate(), Ok(()));
    assert_eq!(toml::Table::try_from(config).unwrap(), toml::Table::try_from(Config::default()).unwrap());
}

#[test]
fn the_unit_leaves_time_for_the_drain() {
    let unit = std::fs::read_to_string(deployed("madang.service")).unwrap();
    let value = |key: &str| {
        let mut found = unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        found.next().unwrap_or_else(|| panic!("no {key}")).parse::<u64>().unwrap()
    };
    let config = Config::default();
    let drain_seconds = config.gateway.drain_ms / 1_000 + 10 + 2 + 1;
    assert!(value("TimeoutStopSec") > drain_seconds);
    assert!(value("LimitNOFILE") > config.gateway.connections as u64 + 500);
}

/// The next message of the process to its manager.
fn heard(ear: &UnixDatagram) -> String {
    let mut buffer = [0; 256];
    let length = ear.recv(&mut buffer).expect("a word to the manager");
    String::from_utf8(buffer[..length].to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn systemd_is_notified_of_ready_reloading_and_stopping() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify.sock");
    let ear = UnixDatagram::bind(&path).unwrap();
    ear.set_read_timeout(Some(PATIENCE)).unwrap();
    let variables = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "600000000")];
    let data = folder.path().join("data");
    let mut server = Server::start_with(BINARY, &data, &[], &variables).await.unwrap();
    assert_eq!(heard(&ear), "READY=1");
    server.rest.must("GET", "/readyz", None, None).await;
    assert_eq!(heard(&ear), "WATCHDOG=1");
    server.hang_up().unwrap();
    assert!(heard(&ear).starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert_eq!(heard(&ear), "READY=1");
    server.terminate().unwrap();
    assert_eq!(heard(&ear), "STOPPING=1");
    assert_eq!(server.wait().await.unwrap().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hangup_loads_the_new_certificate_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (Certificate::new(), Certificate::new());
    let tls = old.write(folder.path());
    let variables =
        [("MADANG_TLS__CERT", tls.cert.to_str().unwrap()), ("MADANG_TLS__KEY", tls.key.to_str().unwrap())];
    let data = folder.path().join("data");
    let server = Server::start_with(BINARY, &data, &[], &variables).await.unwrap();
    let trusts = async |certificate: &Certificate| {
        let tcp = TcpStream::connect(server.addr).await.unwrap();
        certificate.connect(tcp, rustls::ALL_VERSIONS, &[]).await.is_ok()
    };
    assert!(trusts(&old).await);
    let _ = new.write(folder.path());
    server.hang_up().unwrap();
    let taken = async { while !trusts(&new).await {} };
    tokio::time::timeout(PATIENCE, taken).await.expect("the new certificate");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_exit_code_says_whether_a_restart_can_help() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let ended = async |variables: &[(&str, &str)]| {
        Server::start_with(BINARY, &data, &[], variables).await.err().unwrap().to_string()
    };
    let wrong = ended(&[("MADANG_CHANNELS__GROUP_MEMBERS", "501")]).await;
    assert!(wrong.starts_with("exit status: 78: madang: channels.group_members is 501"), "{wrong}");
    let unknown = ended(&[("MADANG_CHANELS", "1")]).await;
    assert!(unknown.starts_with("exit status: 78: "), "{unknown}");
    let missing = ended(&[("MADANG_TLS__CERT", "/nonexistent"), ("MADANG_TLS__KEY", "/nonexistent")]).await;
    assert!(missing.starts_with("exit status: 1: madang: tls.cert /nonexistent"), "{missing}");
}
