//! Alerts for users who are away: settings of users, subscriptions of devices, and what became of each alert.

use madang_ids::{DeviceId, Millis, Seq};
use serde::{Deserialize, Serialize};

/// The messages of which a user wants to be alerted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum AlertLevel {
    /// Every message. In an open channel the same as `mentions`.
    #[default]
    All,
    /// Messages that mention the user, and replies to the user's own messages.
    Mentions,
    /// None.
    Nothing,
}

/// How much of a message an alert shows. Apple's and Google's servers can read an alert; the push service of a browser cannot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum AlertPreview {
    /// The sender and the text.
    #[default]
    Full,
    /// The sender without the text.
    Sender,
    /// Neither: only that there is a message.
    Nothing,
}

/// Hours of each day without alerts, by the local time of the user. They may span midnight.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct QuietHours {
    /// The beginning, such as `22:30`.
    pub from: String,
    /// The end, such as `07:00`.
    pub until: String,
    /// A name of the IANA time zone database, such as `Europe/Berlin`.
    pub zone: String,
}

/// A user's own settings of alerts, for all devices. A channel may have a level and a mute of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AlertSettings {
    /// The messages of which the user wants to be alerted, in channels without a level of their own. Default: `all`.
    #[serde(default)]
    pub level: AlertLevel,
    /// How much an alert shows. Default: `full`.
    #[serde(default)]
    pub preview: AlertPreview,
    /// There are no alerts until this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub muted_until: Option<Millis>,
    /// There are no alerts in these hours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiet_hours: Option<QuietHours>,
}

/// The environment of Apple's servers to which a token belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ApnsEnvironment {
    /// Apps from the store, and TestFlight.
    Production,
    /// Apps that were built for development.
    Sandbox,
}

/// The keys of a browser's push subscription (RFC 8291), in base64url.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct WebPushKeys {
    /// The public key: 65 bytes, an uncompressed point on P-256.
    pub p256dh: String,
    /// The authentication secret: 16 bytes.
    pub auth: String,
}

impl std::fmt::Debug for WebPushKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebPushKeys").finish_non_exhaustive()
    }
}

/// Where the alerts of a device go.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "provider", rename_all = "snake_case")]
pub enum PushTarget {
    /// An app on a device of Apple.
    Apns {
        /// The device token in hexadecimal digits, at most 400 characters.
        token: String,
        /// The bundle id of the app. The server has a list of those it serves.
        topic: String,
        /// Where the token is valid.
        environment: ApnsEnvironment,
    },
    /// An Android app with Firebase Cloud Messaging.
    Fcm {
        /// The registration token, at most 4,096 bytes.
        token: String,
        /// The id of the Firebase project.
        project: String,
    },
    /// A browser.
    WebPush {
        /// The `endpoint` of the browser's `PushSubscription`, at most 2,048 bytes.
        endpoint: String,
        /// Its `keys`.
        keys: WebPushKeys,
    },
    /// An Android app with UnifiedPush, which needs no account with Google. The app shows the notification by itself.
    UnifiedPush {
        /// The endpoint that the distributor gave to the app, at most 2,048 bytes.
        endpoint: String,
        /// The keys of the app.
        keys: WebPushKeys,
    },
    /// A program that receives the alerts of its user as signed requests (Standard Webhooks).
    Webhook {
        /// The address, at most 2,048 bytes.
        url: String,
    },
}

/// The service that brings alerts to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum PushProvider {
    /// Apple Push Notification service.
    Apns,
    /// Firebase Cloud Messaging.
    Fcm,
    /// The push service of a browser.
    WebPush,
    /// UnifiedPush.
    UnifiedPush,
    /// A webhook.
    Webhook,
}

impl PushProvider {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Apns, Self::Fcm, Self::WebPush, Self::UnifiedPush, Self::Webhook];

    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Apns => "apns",
            Self::Fcm => "fcm",
            Self::WebPush => "web_push",
            Self::UnifiedPush => "unified_push",
            Self::Webhook => "webhook",
        }
    }
}

impl PushTarget {
    /// The service that brings the alerts.
    #[must_use]
    pub const fn provider(&self) -> PushProvider {
        match self {
            Self::Apns { .. } => PushProvider::Apns,
            Self::Fcm { .. } => PushProvider::Fcm,
            Self::WebPush { .. } => PushProvider::WebPush,
            Self::UnifiedPush { .. } => PushProvider::UnifiedPush,
            Self::Webhook { .. } => PushProvider::Webhook,
        }
    }

    /// The secret part: the token, or the endpoint. But for webhooks, two subscriptions with the same one are the same app on the same
    /// device.
    #[must_use]
    pub fn token(&self) -> &str {
        match self {
            Self::Apns { token, .. } | Self::Fcm { token, .. } => token,
            Self::WebPush { endpoint, .. } | Self::UnifiedPush { endpoint, .. } => endpoint,
            Self::Webhook { url } => url,
        }
    }
}

/// Without the token, with which anybody could send to the device.
impl std::fmt::Debug for PushTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("PushTarget").field(&self.provider().as_str()).finish()
    }
}

/// What became of an alert, or why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum AlertOutcome {
    /// There is no alert; `detail` is the reason.
    Dropped,
    /// The provider has taken it. Whether the device has shown it is not known to any server.
    Taken,
    /// The provider has not taken it; it is sent again.
    NotTaken,
    /// Whether the provider has taken it is unknown. It is not sent again.
    Unknown,
    /// The subscription has ended, and is removed.
    Gone,
    /// The token belongs to another environment, topic or project. Nothing is sent to it until the app registers again.
    WrongEnvironment,
    /// The provider does not accept the keys of this server.
    Credential,
    /// The provider refuses the request itself. It is among the dead letters.
    Refused,
    /// It was not taken before it was worthless. It is among the dead letters.
    Expired,
    /// The alert was withdrawn, because the user has read the messages elsewhere.
    Withdrawn,
}

/// A line of the answer to "why was this alert (not) delivered?".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AlertNote {
    /// The time.
    pub at: Millis,
    /// The first message that it is about.
    pub first_seq: Seq,
    /// The last one.
    pub last_seq: Seq,
    /// The device; absent if it is about all devices of the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_id: Option<DeviceId>,
    /// What happened.
    pub outcome: AlertOutcome,
    /// The reason, or the answer of the provider, verbatim; at most 300 bytes.
    pub detail: String,
}
