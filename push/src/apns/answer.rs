//! What APNs answers: "Handling notification responses from APNs", Apple.

use std::time::Duration;

use madang_ids::Millis;
use serde::Deserialize;

use crate::core::Verdict;

/// Apple asks for this wait when its service is not there.
const UNAVAILABLE: Duration = Duration::from_secs(900);
/// One device got too much.
const DEVICE_BUSY: Duration = Duration::from_secs(60);

/// The body of a refusal.
#[derive(Debug, Default, Deserialize)]
struct Refusal {
    #[serde(default)]
    reason: String,
    /// When the token ended, in milliseconds.
    timestamp: Option<u64>,
}

/// What follows for the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connection {
    /// It can be used again.
    Keep,
    /// It answers everything like this from now on, or is about to end.
    Drop,
}

/// The meaning of an answer, and whether its connection is still good.
#[must_use]
pub fn verdict(status: u16, body: &[u8]) -> (Verdict, Connection) {
    // A body that cannot be read leaves the status.
    let Refusal { reason, timestamp } = serde_json::from_slice(body).unwrap_or_default();
    let soon = Verdict::NotTaken { after: Some(Duration::ZERO) };
    let after = |wait| Verdict::NotTaken { after: Some(wait) };
    let verdict = match (status, reason.as_str()) {
        (200, _) => Verdict::Delivered,
        // A sandbox token at the production service is answered like a token that is none.
        (400, "BadDeviceToken" | "DeviceTokenNotForTopic") => Verdict::WrongEnvironment,
        // The app chooses among the topics of this server.
        (400, "TopicDisallowed") => Verdict::WrongEnvironment,
        (400, "IdleTimeout") => return (soon, Connection::Drop),
        (403, "ExpiredProviderToken") => return (soon, Connection::Drop),
        (403, _) => Verdict::Credential,
        (410, _) => Verdict::Gone { at: timestamp.map(Millis::new) },
        // It concerns all devices: nothing is sent for a while.
        (429, "TooManyProviderTokenUpdates") => Verdict::Credential,
        (429, _) => after(DEVICE_BUSY),
        (503, "Shutdown") => return (soon, Connection::Drop),
        (503, _) => after(UNAVAILABLE),
        (400..=499, _) => Verdict::Ours,
        _ => Verdict::Unknown,
    };
    (verdict, Connection::Keep)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16, reason: &str) -> (Verdict, Connection) {
        verdict(status, format!("{{\"reason\":\"{reason}\"}}").as_bytes())
    }

    #[test]
    fn every_reason_that_apple_lists_has_one_meaning() {
        let soon = Verdict::NotTaken { after: Some(Duration::ZERO) };
        let not_taken = |seconds| Verdict::NotTaken { after: Some(Duration::from_secs(seconds)) };
        let ours = [
            (400, "BadCollapseId"),
            (400, "BadExpirationDate"),
            (400, "BadMessageId"),
            (400, "BadPriority"),
            (400, "BadTopic"),
            (400, "DuplicateHeaders"),
            (400, "InvalidPushType"),
            (400, "MissingDeviceToken"),
            (400, "MissingTopic"),
            (400, "PayloadEmpty"),
            (404, "BadPath"),
            (405, "MethodNotAllowed"),
            (413, "PayloadTooLarge"),
        ];
        for (status, reason) in ours {
            assert_eq!(of(status, reason), (Verdict::Ours, Connection::Keep), "{reason}");
        }
        for reason in ["BadDeviceToken", "DeviceTokenNotForTopic"] {
            assert_eq!(of(400, reason), (Verdict::WrongEnvironment, Connection::Keep), "{reason}");
        }
        for reason in [
            "InvalidProviderToken",
            "MissingProviderToken",
            "BadCertificate",
            "BadCertificateEnvironment",
            "Forbidden",
            "UnrelatedKeyIdInToken",
            "BadEnvironmentKeyIdInToken",
        ] {
            assert_eq!(of(403, reason), (Verdict::Credential, Connection::Keep), "{reason}");
        }
        assert_eq!(of(400, "TopicDisallowed").0, Verdict::WrongEnvironment);
        for (status, reason) in [(403, "ExpiredProviderToken"), (400, "IdleTimeout"), (503, "Shutdown")] {
            assert_eq!(of(status, reason), (soon, Connection::Drop), "{reason}");
        }
        assert_eq!(of(429, "TooManyRequests").0, not_taken(60));
        assert_eq!(of(429, "TooManyProviderTokenUpdates").0, Verdict::Credential, "all devices wait");
        assert_eq!(of(503, "ServiceUnavailable").0, not_taken(900));
        for status in [500, 502, 504] {
            assert_eq!(of(status, "InternalServerError").0, Verdict::Unknown, "it may have been taken");
        }
    }

    #[test]
    fn the_end_of_a_token_has_its_time() {
        let body = br#"{"reason":"Unregistered","timestamp":1800000000000}"#;
        let at = Some(Millis::new(1_800_000_000_000));
        assert_eq!(verdict(410, body).0, Verdict::Gone { at });
        assert_eq!(verdict(410, b"").0, Verdict::Gone { at: None });
        assert_eq!(verdict(200, b"").0, Verdict::Delivered);
        assert_eq!(verdict(400, b"<html>").0, Verdict::Ours);
    }
}
