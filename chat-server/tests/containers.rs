//! The configuration of a fleet in containers is one that the programs accept. `cargo xtask tidy` compares it with the other files of
//! deploy/.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use madang_bus::BusKind;
use madang_chat_server::config::Config;
use madang_discovery::Placement;
use madang_presence::Placement as PresencePlacement;
use madang_store::StoreKind;

fn fleet() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/fleet.toml")
}

/// Loads a file as the chat node `chat-1` does.
fn load(file: &Path) -> Result<Config, String> {
    let name = ("MADANG_NODE__NAME".to_owned(), "chat-1".to_owned());
    let config: Config =
        madang_service::config::load_from(Some(file), [name]).map_err(|error| error.to_string())?;
    let without_feature = "store.kind is scylla, which this program was built without";
    match config.validate() {
        Err(error) if cfg!(feature = "fleet") || !error.to_string().starts_with(without_feature) => {
            return Err(error.to_string());
        }
        _ => {}
    }
    // These rules come after the feature.
    config.discovery.check().map_err(|error| error.to_string())?;
    madang_service::telemetry::check(&config.telemetry).map_err(|error| error.to_string())?;
    Ok(config)
}

/// The sections are of the same types in `madang-discovery` and `madang-presence`, which ignore the others.
#[test]
fn the_configuration_is_accepted_and_describes_a_fleet() {
    let config = load(&fleet()).unwrap();
    assert_eq!((config.store.kind, config.bus.kind), (StoreKind::Scylla, BusKind::Redis));
    assert_eq!(config.discovery.placement, Placement::Remote);
    assert_eq!(config.presence.placement, PresencePlacement::Remote);
    assert!(config.bus.url.starts_with("redis://") && !config.tokens.secret_file.as_os_str().is_empty());
    assert_eq!((config.node.name(), config.node.url), ("chat-1".to_owned(), String::new()));
}

#[test]
fn a_wrong_configuration_is_refused() {
    let text = std::fs::read_to_string(fleet()).unwrap();
    for (from, to, expected) in [
        ("trusted_proxies", "trusted_proxy", "server.trusted_proxy"),
        ("\"10.213.0.10\"", "\"haproxy\"", "trusted_proxies"),
        ("\"http://discovery-1", "\"discovery-1", "discovery.urls"),
        ("placement = \"remote\"\naddr", "placement = \"outside\"\naddr", "presence.placement"),
    ] {
        assert!(text.contains(from), "{from}");
        let mut file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
        file.write_all(text.replace(from, to).as_bytes()).unwrap();
        let error = load(file.path()).err().unwrap_or_else(|| panic!("{to} is accepted"));
        assert!(error.contains(expected), "{to}: {error}");
    }
}
