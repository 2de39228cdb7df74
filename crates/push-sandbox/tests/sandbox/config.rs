//! The files and the configuration for a server of the product.

use std::fs;

use toml::Table;

use crate::client::start;

#[tokio::test]
async fn the_configuration_names_the_files_and_addresses() {
    let (sandbox, _) = start().await;
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("new");
    sandbox.write_files(&folder).unwrap();
    let config: Table = sandbox.config_text(&folder).parse().unwrap();
    let push = &config["push"];
    let file = |value: &toml::Value| fs::read_to_string(value.as_str().unwrap()).unwrap();
    assert_eq!(file(&push["extra_roots_file"]), sandbox.ca_pem());
    assert_eq!(file(&push["apns"]["key_file"]), sandbox.apns().private_pem());
    assert_eq!(file(&push["fcm"]["service_account_file"]), sandbox.fcm().service_account_json());
    assert_eq!(push["apns"]["url"].as_str(), Some(sandbox.apns().url()));
    assert_eq!(push["apns"]["sandbox_url"].as_str(), Some(sandbox.apns().url()));
    assert_eq!(push["apns"]["topics"][0].as_str(), Some(sandbox.apns().topic()));
    assert_eq!(push["apns"]["key_id"].as_str(), Some(sandbox.apns().key().key_id.as_str()));
    assert_eq!(push["apns"]["team_id"].as_str(), Some(sandbox.apns().key().team_id.as_str()));
    assert_eq!(push["fcm"]["url"].as_str(), Some(sandbox.fcm().url()));
    assert_eq!(push["web_push"]["allowed_hosts"][0].as_str(), Some("localhost"));
    assert!(push["web_push"]["contact"].as_str().is_some_and(|contact| contact.starts_with("mailto:")));
    assert_eq!(push["webhook"]["enabled"].as_bool(), Some(true));
}
