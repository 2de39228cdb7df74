//! Limits of collapsible messages: "About FCM messages" and "Throttling and quotas", Google.
//!
//! Google keeps four collapse keys per device and forgets any of them at a fifth, without an error. The sandbox refuses the fifth,
//! so that a test notices.

use std::collections::{BTreeSet, HashMap};

use parking_lot::Mutex;

use super::message::Message;
use crate::answer::{Extra, Refused};

/// Different collapse keys of one device.
const KEYS: usize = 4;
/// Collapsible messages that a device may get at once.
const BURST: u64 = 20;
/// After a burst, one message in this time.
const REFILL_MS: u64 = 180_000;

/// The limits of all devices.
#[derive(Debug, Default)]
pub(super) struct Quotas(Mutex<HashMap<String, Device>>);

#[derive(Debug, Default)]
struct Device {
    keys: BTreeSet<String>,
    /// When the bucket is full again, in ms since 1970: each message moves it by [`REFILL_MS`].
    full_ms: u64,
}

impl Quotas {
    /// Counts a message. Messages that are not collapsible are not limited.
    pub(super) fn check(&self, message: &Message, now_ms: u64) -> Result<(), Refused> {
        if !message.is_collapsible() {
            return Ok(());
        }
        let mut devices = self.0.lock();
        let device = devices.entry(message.token.clone()).or_default();
        device.check_key(message.collapse_key.as_deref())?;
        device.check_rate(now_ms)
    }
}

impl Device {
    fn check_key(&mut self, key: Option<&str>) -> Result<(), Refused> {
        let Some(key) = key.filter(|key| !self.keys.contains(*key)) else { return Ok(()) };
        if self.keys.len() >= KEYS {
            return Err(exceeded("a fifth collapse key for one device", REFILL_MS / 1_000));
        }
        self.keys.insert(key.to_owned());
        Ok(())
    }

    fn check_rate(&mut self, now_ms: u64) -> Result<(), Refused> {
        let full_ms = self.full_ms.max(now_ms) + REFILL_MS;
        let limit_ms = now_ms + BURST * REFILL_MS;
        if full_ms > limit_ms {
            let wait_s = (full_ms - limit_ms).div_ceil(1_000);
            return Err(exceeded("more than 20 collapsible messages, then one in 3 minutes", wait_s));
        }
        self.full_ms = full_ms;
        Ok(())
    }
}

fn exceeded(detail: &str, wait_s: u64) -> Refused {
    Refused::request(429, "QUOTA_EXCEEDED", detail).with(Extra::RetryAfter(wait_s))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(token: &str, key: Option<&str>, has_notification: bool) -> Message {
        let mut body = serde_json::json!({ "message": { "token": token, "android": {} } });
        if let Some(key) = key {
            body["message"]["android"]["collapse_key"] = key.into();
        }
        if has_notification {
            body["message"]["notification"] = serde_json::json!({ "title": "x" });
        }
        Message::read(body.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_burst_of_collapsible_messages_passes_and_then_one_in_three_minutes() {
        let quotas = Quotas::default();
        let pushed = message("a", None, true);
        for _ in 0..BURST {
            quotas.check(&pushed, 1_000).unwrap();
        }
        let refused = quotas.check(&pushed, 1_000).unwrap_err();
        assert!(matches!(refused.extra, Extra::RetryAfter(180)), "{refused:?}");
        assert!(quotas.check(&pushed, 180_999).is_err());
        quotas.check(&message("a", None, false), 1_000).unwrap();
        quotas.check(&message("b", None, true), 1_000).unwrap();
        quotas.check(&pushed, 181_000).unwrap();
        assert!(quotas.check(&pushed, 181_000).is_err());
    }

    #[test]
    fn a_device_has_four_collapse_keys() {
        let quotas = Quotas::default();
        for key in ["a", "b", "c", "d", "a"] {
            quotas.check(&message("x", Some(key), false), 0).unwrap();
        }
        assert!(quotas.check(&message("x", Some("e"), false), 0).is_err());
        quotas.check(&message("y", Some("e"), false), 0).unwrap();
    }
}
