//! Bodies of refusals: "ErrorCode" in the FCM REST API, and `google.rpc.Status`.

use serde_json::{Value, json};

use crate::answer::{Answer, Extra, Refused};

/// A message that cannot be right.
pub(super) fn invalid(detail: impl Into<String>) -> Refused {
    Refused::request(400, "INVALID_ARGUMENT", detail)
}

/// The same, with the name of the field.
pub(super) fn invalid_field(field: &'static str, detail: impl Into<String>) -> Refused {
    invalid(detail).with(Extra::Field(field))
}

/// The answer. `error.status` is coarser than the code in the details, as in the answers of Google.
pub(super) fn answer(refused: &Refused) -> Answer {
    let status = match refused.reason {
        "UNREGISTERED" => "NOT_FOUND",
        "SENDER_ID_MISMATCH" => "PERMISSION_DENIED",
        "QUOTA_EXCEEDED" => "RESOURCE_EXHAUSTED",
        other => other,
    };
    let error = json!({
        "code": refused.status, "message": message(refused), "status": status, "details": details(refused),
    });
    let answer = Answer::json(refused.status, &json!({ "error": error }));
    match refused.extra {
        Extra::RetryAfter(seconds) => answer.with("retry-after", seconds),
        _ => answer,
    }
}

fn message(refused: &Refused) -> &str {
    match (refused.reason, &refused.extra) {
        ("UNREGISTERED", _) => "Requested entity was not found.",
        ("SENDER_ID_MISMATCH", _) => "SenderId mismatch",
        ("INVALID_ARGUMENT", Extra::Field("message.token")) => {
            "The registration token is not a valid FCM registration token"
        }
        _ => &refused.detail,
    }
}

fn details(refused: &Refused) -> Vec<Value> {
    let mut details = Vec::new();
    if !matches!(refused.reason, "UNAUTHENTICATED" | "PERMISSION_DENIED" | "NOT_FOUND") {
        let kind = "type.googleapis.com/google.firebase.fcm.v1.FcmError";
        details.push(json!({ "@type": kind, "errorCode": refused.reason }));
    }
    if let Extra::Field(field) = refused.extra {
        let violations = json!([{ "field": field, "description": refused.detail }]);
        details.push(
            json!({ "@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": violations }),
        );
    }
    details
}
