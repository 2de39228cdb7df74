//! Bodies about alerts.

use std::collections::BTreeMap;

use madang_ids::{ChannelId, DeviceId, Millis, Seq, UserId};
use serde::{Deserialize, Serialize};

use crate::alerts::{
    AlertLevel, AlertNote, AlertOutcome, AlertPreview, AlertSettings, PushProvider, PushTarget, QuietHours,
};

/// `GET /v1/push`: what an app needs to subscribe.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PushInfo {
    /// The providers that this server uses. Empty: it sends no alerts.
    pub providers: Vec<PushProvider>,
    /// The public key of this server in base64url, the `applicationServerKey` of a browser's subscription (RFC 8292).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vapid_public_key: Option<String>,
    /// The bundle ids of apps for APNs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub apns_topics: Vec<String>,
    /// The Firebase projects.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fcm_projects: Vec<String>,
}

/// `PUT /v1/push/subscription`: where the alerts of the caller's device go. It replaces an earlier one of the device.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PushRegistration {
    /// The provider, and the address there.
    #[serde(flatten)]
    pub target: PushTarget,
    /// The version of the app, at most 32 bytes. For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub app_version: String,
    /// The language of the user, such as `de-DE`; at most 35 bytes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub locale: String,
}

/// A subscription, without the secrets in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PushSubscription {
    /// The device.
    pub device_id: DeviceId,
    /// The provider.
    pub provider: PushProvider,
    /// The topic, the project, or the origin of the endpoint.
    pub destination: String,
    /// When the app registered this token or endpoint first.
    pub registered_at: Millis,
    /// When the app registered it last.
    pub seen_at: Millis,
    /// The version of the app.
    pub app_version: String,
    /// The language of the user.
    pub locale: String,
    /// Why nothing is sent to it until the app registers it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub halted: Option<AlertOutcome>,
}

/// The answer to `PUT /v1/push/subscription`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PushRegistered {
    /// The subscription.
    #[serde(flatten)]
    pub subscription: PushSubscription,
    /// The secret with which the requests to a webhook are signed, once: it is not shown again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_secret: Option<String>,
}

/// The answer to `POST /v1/push/subscriptions/{device_id}/test`: what the provider said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PushTest {
    /// The device.
    pub device_id: DeviceId,
    /// The provider.
    pub provider: PushProvider,
    /// The meaning of the answer.
    pub outcome: AlertOutcome,
    /// The status of HTTP; absent if there was no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The answer, verbatim, at most 300 bytes; or why there is none.
    pub answer: String,
    /// Milliseconds until the answer.
    pub took_ms: u64,
}

/// `PUT /v1/push/settings`: all settings; absent ones get their defaults.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NewAlertSettings {
    /// The messages of which the user wants to be alerted, in channels without a level of their own. Default: `all`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<AlertLevel>,
    /// How much an alert shows. Default: `full`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preview: Option<AlertPreview>,
    /// There are no alerts until this time. For ever: 9007199254740991.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub muted_until: Option<Millis>,
    /// There are no alerts in these hours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiet_hours: Option<QuietHours>,
}

impl From<NewAlertSettings> for AlertSettings {
    fn from(new: NewAlertSettings) -> Self {
        let NewAlertSettings { level, preview, muted_until, quiet_hours } = new;
        Self {
            level: level.unwrap_or_default(),
            preview: preview.unwrap_or_default(),
            muted_until,
            quiet_hours,
        }
    }
}

/// `?channel_id=…&seq=…`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AlertQuery {
    /// The channel.
    pub channel_id: ChannelId,
    /// The message.
    pub seq: Seq,
}

/// The answer to `GET /v1/push/why`: what happened about one message, in order. Kept for 7 days.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AlertHistory {
    /// The lines.
    pub items: Vec<AlertNote>,
    /// Whether the message still waits to be decided or sent.
    pub is_waiting: bool,
}

/// An alert that was given up, as its operator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DeadLetterCard {
    /// Its id.
    pub id: String,
    /// The user.
    pub user_id: UserId,
    /// The channel.
    pub channel_id: ChannelId,
    /// What happened.
    #[serde(flatten)]
    pub note: AlertNote,
}

/// Facts of an alert that every provider carries in its data, so that an app can show it in its own words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AlertData {
    /// `alert`, `read` (messages were read elsewhere: remove their notifications) or `test`.
    pub kind: AlertKind,
    /// The channel of the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel_id: Option<ChannelId>,
    /// The message that is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<Seq>,
    /// The number of messages for which the alert stands.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub count: usize,
    /// The number for the badge of the app.
    pub badge: u32,
    /// Channels whose messages up to this one were read elsewhere.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub read: BTreeMap<ChannelId, Seq>,
}

/// The kind of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum AlertKind {
    /// A message.
    Alert,
    /// Messages were read elsewhere.
    Read,
    /// A test.
    Test,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
const fn is_zero(value: &usize) -> bool {
    *value == 0
}
