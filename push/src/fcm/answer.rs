//! What FCM answers: "ErrorCode" in the reference of its REST API, Google.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::core::Verdict;

/// The type of the detail that has the code. `error.status` is another, coarser one.
const FCM_ERROR: &str = "type.googleapis.com/google.firebase.fcm.v1.FcmError";
/// The least wait after a quota was used up, if the answer names none.
const QUOTA: Duration = Duration::from_secs(60);
/// The same if the service is not there.
const UNAVAILABLE: Duration = Duration::from_secs(10);

#[derive(Debug, Default, Deserialize)]
struct Answer {
    #[serde(default)]
    error: Error,
}

#[derive(Debug, Default, Deserialize)]
struct Error {
    #[serde(default)]
    message: String,
    #[serde(default)]
    details: Vec<Value>,
}

impl Error {
    fn code(&self) -> &str {
        let detail = self.details.iter().find(|detail| detail["@type"] == FCM_ERROR);
        detail.and_then(|detail| detail["errorCode"].as_str()).unwrap_or_default()
    }

    /// Whether the token is at fault, and not another field.
    fn names_token(&self) -> bool {
        let violations =
            self.details.iter().filter_map(|detail| detail["fieldViolations"].as_array()).flatten();
        violations.into_iter().any(|violation| violation["field"] == "message.token")
            || self.message.contains("registration token")
    }
}

/// What an answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// The verdict.
    Verdict(Verdict),
    /// The access token has expired: get another, and send it once more.
    Renew,
}

/// The meaning of an answer. `retry_after` is its header.
#[must_use]
pub fn meaning(status: u16, body: &[u8], retry_after: Option<Duration>) -> Meaning {
    // A body that cannot be read leaves the status.
    let Answer { error } = serde_json::from_slice(body).unwrap_or_default();
    let not_taken =
        |least: Duration| Verdict::NotTaken { after: Some(retry_after.unwrap_or(least).max(least)) };
    let gone = Verdict::Gone { at: None };
    Meaning::Verdict(match (status, error.code()) {
        (200, _) => Verdict::Delivered,
        (404, "UNREGISTERED") => gone,
        (400, _) if error.names_token() => gone,
        // The token belongs to another project.
        (403, "SENDER_ID_MISMATCH") => Verdict::WrongEnvironment,
        // The keys of Apple or of browsers that a project has at Google: of this token alone.
        (401, "THIRD_PARTY_AUTH_ERROR") => Verdict::WrongEnvironment,
        (403, _) => Verdict::Credential,
        (401, _) => return Meaning::Renew,
        (429, _) => not_taken(QUOTA),
        (503, _) => not_taken(UNAVAILABLE),
        (400..=499, _) => Verdict::Ours,
        _ => Verdict::Unknown,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(status: u16, code: &str) -> Meaning {
        let details = json!([{ "@type": FCM_ERROR, "errorCode": code }]);
        // The status within the body is misleading on purpose: an unregistered token has NOT_FOUND there.
        let body = json!({ "error": { "code": status, "message": "no", "status": "NOT_FOUND", "details": details } });
        meaning(status, body.to_string().as_bytes(), None)
    }

    #[test]
    fn every_code_that_google_lists_has_one_meaning() {
        let verdict = Meaning::Verdict;
        let not_taken = |seconds| verdict(Verdict::NotTaken { after: Some(Duration::from_secs(seconds)) });
        assert_eq!(meaning(200, br#"{"name":"projects/p/messages/1"}"#, None), verdict(Verdict::Delivered));
        assert_eq!(of(404, "UNREGISTERED"), verdict(Verdict::Gone { at: None }));
        assert_eq!(of(400, "INVALID_ARGUMENT"), verdict(Verdict::Ours));
        assert_eq!(of(403, "SENDER_ID_MISMATCH"), verdict(Verdict::WrongEnvironment));
        assert_eq!(of(403, "PERMISSION_DENIED"), verdict(Verdict::Credential));
        assert_eq!(of(401, "THIRD_PARTY_AUTH_ERROR"), verdict(Verdict::WrongEnvironment));
        assert_eq!(of(401, ""), Meaning::Renew);
        assert_eq!(of(429, "QUOTA_EXCEEDED"), not_taken(60));
        assert_eq!(of(503, "UNAVAILABLE"), not_taken(10));
        assert_eq!(of(500, "INTERNAL"), verdict(Verdict::Unknown));
        assert_eq!(of(404, ""), verdict(Verdict::Ours), "a wrong project is no end of a token");
    }

    #[test]
    fn an_invalid_argument_ends_the_token_only_if_it_names_it() {
        let of = |error: Value| meaning(400, json!({ "error": error }).to_string().as_bytes(), None);
        let gone = Meaning::Verdict(Verdict::Gone { at: None });
        let field = |field| json!({ "details": [{ "fieldViolations": [{ "field": field }] }] });
        assert_eq!(of(field("message.token")), gone);
        assert_eq!(of(field("message.data")), Meaning::Verdict(Verdict::Ours));
        let message = "The registration token is not a valid FCM registration token";
        assert_eq!(of(json!({ "message": message })), gone);
    }

    #[test]
    fn the_wait_that_is_asked_for_is_kept_and_never_below_the_least() {
        let at = |status, asked| meaning(status, b"", Some(Duration::from_secs(asked)));
        let not_taken =
            |seconds| Meaning::Verdict(Verdict::NotTaken { after: Some(Duration::from_secs(seconds)) });
        assert_eq!(at(429, 300), not_taken(300));
        assert_eq!(at(429, 1), not_taken(60));
        assert_eq!(at(503, 1), not_taken(10));
    }
}
