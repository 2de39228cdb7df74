//! Settings of push.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where the alerts of a fleet are decided and sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Placement {
    /// Each chat process does that for some of them.
    #[default]
    Inside,
    /// In processes of their own: `madang-push`.
    Remote,
}

/// Alerts for users who are away. Without a provider there are none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PushConfig {
    /// `inside` (the default): each chat process decides and sends alerts. `remote`: processes of their own do, `madang-push`. Without
    /// effect in a server of one process.
    pub placement: Placement,
    /// The address on which `madang-push` serves `/healthz`, `/readyz` and `/metrics`; default 127.0.0.1:7300.
    pub addr: SocketAddr,
    /// The name of the app, the title of an alert that shows nothing else; default `Madang`.
    pub app: String,
    /// The page that a click on a notification of a browser opens, such as `https://chat.example/#/{channel_id}`; default `/`.
    pub link: String,
    /// Milliseconds for which an alert waits while a device of the user is online, 0 to 60,000; default 5,000. If a device receives the
    /// message meanwhile, there is no alert.
    pub delay_ms: u64,
    /// Hours after which an alert is worthless, 1 to 168; default 168.
    pub kept_hours: u64,
    /// A PEM file with further certificate authorities, of which push services may be; default empty.
    pub extra_roots_file: PathBuf,
    /// Browsers, and UnifiedPush on Android. No account with anybody is needed.
    pub web_push: WebPushConfig,
    /// Apple Push Notification service.
    pub apns: ApnsConfig,
    /// Firebase Cloud Messaging.
    pub fcm: FcmConfig,
    /// Signed requests to addresses that users name.
    pub webhook: WebhookConfig,
}

impl PushConfig {
    /// Whether a provider is configured.
    #[must_use]
    pub fn has_provider(&self) -> bool {
        !self.web_push.contact.is_empty()
            || !self.apns.key_file.as_os_str().is_empty()
            || !self.fcm.service_account_file.as_os_str().is_empty()
            || self.webhook.enabled
    }
}

impl Default for PushConfig {
    fn default() -> Self {
        Self {
            placement: Placement::Inside,
            addr: (Ipv4Addr::LOCALHOST, 7_300).into(),
            app: "Madang".to_owned(),
            link: "/".to_owned(),
            delay_ms: 5_000,
            kept_hours: 168,
            extra_roots_file: PathBuf::new(),
            web_push: WebPushConfig::default(),
            apns: ApnsConfig::default(),
            fcm: FcmConfig::default(),
            webhook: WebhookConfig::default(),
        }
    }
}

/// Browsers and UnifiedPush.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebPushConfig {
    /// How a push service reaches the operator: a `mailto:` or `https:` address of a real domain. Empty (the default): there are no
    /// alerts for browsers.
    pub contact: String,
    /// The PEM file of the key that proves who sends (PKCS #8, P-256). Empty (the default): `vapid.pem` in the data folder, which the
    /// first start creates. All nodes of a fleet have the same. With another key every browser has to subscribe again.
    pub key_file: PathBuf,
    /// Hosts that may be endpoints although they are not on the public internet, such as a UnifiedPush server in the local network;
    /// default none. These may also speak `http`.
    pub allowed_hosts: Vec<String>,
}

/// Apple Push Notification service with token authentication.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApnsConfig {
    /// The PEM file of the key (`AuthKey_….p8`); default empty: there are no alerts over APNs.
    pub key_file: PathBuf,
    /// The id of the key, 10 characters.
    pub key_id: String,
    /// The id of the team, 10 characters.
    pub team_id: String,
    /// The bundle ids of the apps that may subscribe.
    pub topics: Vec<String>,
    /// The production service; default `https://api.push.apple.com`.
    pub url: String,
    /// The service for apps under development; default `https://api.sandbox.push.apple.com`.
    pub sandbox_url: String,
}

impl Default for ApnsConfig {
    fn default() -> Self {
        Self {
            key_file: PathBuf::new(),
            key_id: String::new(),
            team_id: String::new(),
            topics: Vec::new(),
            url: "https://api.push.apple.com".to_owned(),
            sandbox_url: "https://api.sandbox.push.apple.com".to_owned(),
        }
    }
}

/// Firebase Cloud Messaging.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FcmConfig {
    /// The JSON file of the service account; default empty: there are no alerts over FCM.
    pub service_account_file: PathBuf,
    /// The service; default `https://fcm.googleapis.com`.
    pub url: String,
}

impl Default for FcmConfig {
    fn default() -> Self {
        Self { service_account_file: PathBuf::new(), url: "https://fcm.googleapis.com".to_owned() }
    }
}

/// Webhooks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebhookConfig {
    /// Whether users may name an address to which their alerts are sent; default false.
    pub enabled: bool,
}
