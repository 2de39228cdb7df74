//! What a client needs to know about a server before the user signs in.

use std::collections::BTreeMap;

use madang_proto::rest::ServerInfo;
use madang_proto::{SUBPROTOCOL_JSON, limits};

use super::Operations;

impl Operations {
    /// The version, who may sign up, and the limits that differ between servers or that a client checks before it sends.
    #[must_use]
    pub fn server_info(&self) -> ServerInfo {
        let config = &self.config;
        let limits = [
            ("text_chars", limits::TEXT_CHARS as u64),
            ("text_bytes", limits::TEXT_BYTES as u64),
            ("data_bytes", limits::DATA_BYTES as u64),
            ("frame_bytes", limits::FRAME_BYTES_IN as u64),
            ("mentions", limits::MENTIONS as u64),
            ("reactions", limits::REACTIONS as u64),
            ("password_chars_min", limits::PASSWORD_CHARS_MIN as u64),
            ("password_bytes", limits::PASSWORD_BYTES_MAX as u64),
            ("devices", limits::DEVICES_PER_USER as u64),
            ("contacts", u64::from(limits::CONTACTS)),
            ("group_members", u64::from(config.channels.group_members)),
            ("open_members", u64::from(config.channels.open_members)),
            ("channels", u64::from(config.channels.per_user)),
            ("connections_per_device", config.gateway.connections_per_device as u64),
        ];
        let named = limits.into_iter().map(|(name, limit)| (name.to_owned(), limit));
        ServerInfo {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            subprotocols: vec![SUBPROTOCOL_JSON.to_owned()],
            sign_up: config.accounts.sign_up.to_string(),
            limits: named.collect::<BTreeMap<_, _>>(),
        }
    }
}
