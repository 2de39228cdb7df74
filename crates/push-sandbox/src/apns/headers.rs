//! The headers of a request to APNs: table 2 of "Sending notification requests to APNs".

use http::HeaderMap;
use serde_json::Value;
use uuid::Uuid;

use super::payload;
use crate::answer::{Refused, Request};
use crate::notice::{Face, Notice};

const ONCE: [&str; 7] = [
    "authorization",
    "apns-id",
    "apns-topic",
    "apns-push-type",
    "apns-priority",
    "apns-expiration",
    "apns-collapse-id",
];
const PUSH_TYPES: [&str; 11] = [
    "alert",
    "background",
    "complication",
    "controls",
    "fileprovider",
    "liveactivity",
    "location",
    "mdm",
    "pushtotalk",
    "voip",
    "widgets",
];
/// In bytes.
const COLLAPSE_ID_BYTES: usize = 64;

/// The headers except the provider token.
#[derive(Debug)]
pub(super) struct Headers {
    topic: String,
    pub(super) push_type: String,
    priority: u8,
    expiration_s: Option<u64>,
    collapse_id: Option<String>,
}

/// Refuses headers that are there twice.
pub(super) fn check_duplicates(headers: &HeaderMap) -> Result<(), Refused> {
    let twice = ONCE.into_iter().find(|name| headers.get_all(*name).iter().nth(1).is_some());
    twice.map_or(Ok(()), |name| Err(bad("DuplicateHeaders", format!("{name} is there more than once"))))
}

/// The id of the answer: that of the request if it is one, and otherwise a new one.
pub(super) fn id_of(request: &Request) -> String {
    let given = request.header("apns-id").filter(|id| is_id(id));
    given.map_or_else(|| Uuid::new_v4().to_string(), str::to_owned)
}

/// 32 lower-case hexadecimal digits in groups of 8-4-4-4-12.
fn is_id(text: &str) -> bool {
    Uuid::try_parse(text).is_ok_and(|id| id.hyphenated().to_string() == text)
}

fn bad(reason: &'static str, detail: impl Into<String>) -> Refused {
    Refused::request(400, reason, detail)
}

impl Headers {
    /// `allowed` is the topic of the app.
    pub(super) fn read(request: &Request, allowed: &str) -> Result<Self, Refused> {
        if let Some(id) = request.headers.get("apns-id")
            && !id.to_str().is_ok_and(is_id)
        {
            return Err(bad("BadMessageId", "apns-id is not a UUID in lower case"));
        }
        let push_type = push_type(request)?;
        Ok(Self {
            topic: topic(request, allowed)?,
            priority: priority(request, &push_type)?,
            push_type,
            expiration_s: expiration(request)?,
            collapse_id: collapse_id(request)?,
        })
    }

    pub(super) fn notice(self, token: &str, payload: Value) -> Notice {
        Notice {
            is_visible: payload::is_visible(&payload, &self.push_type),
            replaces: self.collapse_id.clone(),
            collapse_key: self.collapse_id,
            topic: Some(self.topic),
            push_type: Some(self.push_type),
            priority: Some(self.priority.to_string()),
            expiration_s: self.expiration_s,
            ..Notice::new(Face::Apns, token, payload)
        }
    }
}

fn topic(request: &Request, allowed: &str) -> Result<String, Refused> {
    let Some(topic) = request.headers.get("apns-topic") else {
        return Err(bad("MissingTopic", "apns-topic is required with a provider token"));
    };
    let topic = topic.to_str().unwrap_or_default();
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    if topic.is_empty() || !topic.bytes().all(is_name) {
        return Err(bad("BadTopic", "apns-topic is not a bundle id"));
    }
    if topic != allowed {
        return Err(bad("TopicDisallowed", format!("apns-topic is not {allowed}")));
    }
    Ok(topic.to_owned())
}

fn push_type(request: &Request) -> Result<String, Refused> {
    let kind = request.header("apns-push-type").unwrap_or_default();
    let known = PUSH_TYPES.contains(&kind);
    known
        .then(|| kind.to_owned())
        .ok_or_else(|| bad("InvalidPushType", format!("apns-push-type is `{kind}`")))
}

/// 10 is the default, and an error for a background notice.
fn priority(request: &Request, push_type: &str) -> Result<u8, Refused> {
    let priority = match request.headers.get("apns-priority").map(|value| value.as_bytes()) {
        None | Some(b"10") => 10,
        Some(b"5") => 5,
        Some(b"1") => 1,
        Some(_) => return Err(bad("BadPriority", "apns-priority is not 10, 5 or 1")),
    };
    if priority == 10 && push_type == "background" {
        return Err(bad("BadPriority", "a background notice has priority 10, which is the default"));
    }
    Ok(priority)
}

/// Seconds since 1970, with 32 bits: milliseconds are found.
fn expiration(request: &Request) -> Result<Option<u64>, Refused> {
    let Some(text) = request.headers.get("apns-expiration") else { return Ok(None) };
    let text = text.to_str().unwrap_or_default();
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = text.parse::<u32>().ok().filter(|_| is_number);
    let detail = "apns-expiration is not a number of seconds since 1970";
    seconds.map(|seconds| Some(seconds.into())).ok_or_else(|| bad("BadExpirationDate", detail))
}

fn collapse_id(request: &Request) -> Result<Option<String>, Refused> {
    let Some(id) = request.headers.get("apns-collapse-id") else { return Ok(None) };
    let bytes = id.as_bytes();
    if bytes.is_empty() || bytes.len() > COLLAPSE_ID_BYTES {
        let detail = format!("apns-collapse-id has {} bytes, not 1 to {COLLAPSE_ID_BYTES}", bytes.len());
        return Err(bad("BadCollapseId", detail));
    }
    Ok(Some(String::from_utf8_lossy(bytes).into_owned()))
}
