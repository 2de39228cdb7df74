//! What a ledger contains: notices that were taken, and requests that were refused.

use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};

/// A part of the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Face {
    /// `POST /3/device/<token>`.
    Apns,
    /// Where access tokens for FCM are granted: `POST /token`. It shares the port of [`Self::Fcm`].
    FcmGrant,
    /// `POST /v1/projects/<project>/messages:send`.
    Fcm,
    /// Endpoints of browsers and UnifiedPush.
    WebPush,
    /// `POST /hook/<name>`.
    Webhook,
}

impl Face {
    pub(crate) const COUNT: usize = 5;

    pub(crate) const fn index(self) -> usize {
        self as usize
    }

    /// The name in logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Apns => "apns",
            Self::FcmGrant => "fcm_grant",
            Self::Fcm => "fcm",
            Self::WebPush => "web_push",
            Self::Webhook => "webhook",
        }
    }
}

/// A request that was taken.
#[derive(Debug, Clone)]
pub struct Notice {
    /// The face that took it.
    pub face: Face,
    /// The device token, the endpoint, or the name of the hook.
    pub target: String,
    /// Whether a person sees an alert.
    pub is_visible: bool,
    /// A message of FCM with priority HIGH that shows no alert: Google lowers the priority of apps that send many of these.
    pub is_high_without_alert: bool,
    /// `apns-id` or `webhook-id`.
    pub id: Option<String>,
    /// A later alert with the same key takes the place of this one on the screen: `apns-collapse-id`, the tag of an Android
    /// notification, or the tag of a browser's notification.
    pub replaces: Option<String>,
    /// A later notice with the same key takes its place in the provider's store: `apns-collapse-id`, `collapse_key`, `Topic`.
    pub collapse_key: Option<String>,
    /// `apns-topic`.
    pub topic: Option<String>,
    /// `apns-push-type`.
    pub push_type: Option<String>,
    /// `apns-priority`, the priority of FCM, or `Urgency`.
    pub priority: Option<String>,
    /// `apns-expiration`, in seconds since 1970; 0 means one try.
    pub expiration_s: Option<u64>,
    /// The time to live of FCM or Web Push, in seconds.
    pub ttl_s: Option<u64>,
    /// The decrypted body. A body of Web Push that is not JSON is a string.
    pub payload: Value,
    /// Arrival on the clock of the sandbox, in ms since 1970.
    pub at_ms: u64,
    /// Arrival on the steady clock.
    pub arrived: Instant,
}

impl Notice {
    pub(crate) fn new(face: Face, target: &str, payload: Value) -> Self {
        Self {
            face,
            target: target.to_owned(),
            is_visible: false,
            is_high_without_alert: false,
            id: None,
            replaces: None,
            collapse_key: None,
            topic: None,
            push_type: None,
            priority: None,
            expiration_s: None,
            ttl_s: None,
            payload,
            at_ms: 0,
            arrived: Instant::now(),
        }
    }

    /// One object for a line of a log. It contains the payload, unlike logs of the product.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "face": self.face.name(), "target": self.target, "is_visible": self.is_visible, "id": self.id,
            "is_high_without_alert": self.is_high_without_alert, "replaces": self.replaces,
            "collapse_key": self.collapse_key, "topic": self.topic, "push_type": self.push_type,
            "priority": self.priority, "expiration_s": self.expiration_s, "ttl_s": self.ttl_s,
            "payload": self.payload, "at_ms": self.at_ms,
        })
    }
}

/// The cause of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The request is wrong: a bug of its sender.
    Request,
    /// The test has set the state of the target.
    State,
    /// The test has ordered [`crate::Fault::Status`].
    Fault,
}

/// A request that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The face that refused it.
    pub face: Face,
    /// The path of the request; empty if there was none.
    pub path: String,
    /// The status of the answer; 0 if the connection or the stream was refused.
    pub status: u16,
    /// The provider's word.
    pub reason: String,
    /// What exactly is wrong.
    pub detail: String,
    /// The cause.
    pub blame: Blame,
    /// Arrival, in ms since 1970.
    pub at_ms: u64,
}

impl Refusal {
    /// One object for a line of a log.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "face": self.face.name(), "path": self.path, "refused": self.status, "reason": self.reason,
            "detail": self.detail, "at_ms": self.at_ms,
        })
    }
}

/// Something that was recorded.
#[derive(Debug, Clone)]
pub enum Event {
    /// A notice was taken.
    Notice(Arc<Notice>),
    /// A request was refused.
    Refusal(Arc<Refusal>),
}

/// Counts since the start. They do not shrink.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections whose TLS handshake succeeded.
    pub connections: u64,
    /// Requests, including those that a fault hit.
    pub requests: u64,
    /// Notices taken.
    pub notices: u64,
    /// Different credentials with a valid signature: provider tokens of APNs, access tokens granted for FCM, VAPID tokens.
    pub provider_tokens: u64,
}

/// The alerts on the screen of one device: an alert with the key of an earlier one takes its place, at the end of the list.
#[must_use]
pub fn shown(notices: &[Arc<Notice>], target: &str) -> Vec<Arc<Notice>> {
    let mut shown: Vec<Arc<Notice>> = Vec::new();
    for notice in notices.iter().filter(|notice| notice.is_visible && notice.target == target) {
        let is_replaced =
            |earlier: &Arc<Notice>| notice.replaces.is_some() && earlier.replaces == notice.replaces;
        shown.retain(|earlier| !is_replaced(earlier));
        shown.push(Arc::clone(notice));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(target: &str, replaces: Option<&str>) -> Notice {
        let notice = Notice::new(Face::Apns, target, Value::Null);
        Notice { is_visible: true, replaces: replaces.map(str::to_owned), ..notice }
    }

    #[test]
    fn a_screen_shows_the_latest_of_each_key() {
        let mut notices = Vec::new();
        for (target, key) in
            [("a", Some("x")), ("a", None), ("b", Some("x")), ("a", Some("y")), ("a", Some("x")), ("a", None)]
        {
            notices.push(Arc::new(alert(target, key)));
        }
        notices.push(Arc::new(Notice { is_visible: false, ..alert("a", Some("z")) }));
        let keys = |target| -> Vec<Option<String>> {
            shown(&notices, target).iter().map(|notice| notice.replaces.clone()).collect()
        };
        assert_eq!(keys("a"), [None, Some("y".to_owned()), Some("x".to_owned()), None]);
        assert_eq!(keys("b"), [Some("x".to_owned())]);
    }
}
