//! A message: "REST Resource: projects.messages" in the FCM REST API.

use serde_json::{Map, Value};

use super::refusal::{invalid, invalid_field};
use crate::answer::Refused;
use crate::notice::{Face, Notice};

/// Bytes of all keys and values of `data`.
const DATA_BYTES: usize = 4_096;
/// 28 days, which is also the default.
const TTL_S: u64 = 2_419_200;
const REQUEST_FIELDS: [&str; 2] = ["message", "validate_only"];
const MESSAGE_FIELDS: [&str; 6] = ["token", "data", "notification", "android", "fcm_options", "apns"];
const ANDROID_FIELDS: [&str; 9] = [
    "collapse_key",
    "priority",
    "ttl",
    "restricted_package_name",
    "data",
    "notification",
    "fcm_options",
    "direct_boot_ok",
    "bandwidth_constrained_ok",
];

/// A message that was checked.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) token: String,
    /// `validate_only`: it is checked and not sent.
    pub(super) is_dry_run: bool,
    pub(super) collapse_key: Option<String>,
    /// Whether Google shows a notification by itself. Such a message is always collapsible.
    pub(super) has_notification: bool,
    is_high: bool,
    ttl_s: u64,
    body: Value,
}

impl Message {
    pub(super) fn read(body: &[u8]) -> Result<Self, Refused> {
        let request: Value = serde_json::from_slice(body).map_err(|_| invalid("the body is not JSON"))?;
        let request = object("request", &request)?;
        check_fields("request", request, &REQUEST_FIELDS)?;
        let body = request.get("message").cloned().unwrap_or_default();
        let message = object("message", &body)?;
        check_fields("message", message, &MESSAGE_FIELDS)?;
        let token = message.get("token").and_then(Value::as_str).unwrap_or_default();
        if token.is_empty() {
            return Err(invalid("Recipient of the message is not set."));
        }
        check_data(message.get("data"))?;
        let nothing = Value::Object(Map::new());
        let android = object("message.android", message.get("android").unwrap_or(&nothing))?;
        check_fields("message.android", android, &ANDROID_FIELDS)?;
        check_data(android.get("data"))?;
        Ok(Self {
            token: token.to_owned(),
            is_dry_run: request.get("validate_only") == Some(&Value::Bool(true)),
            collapse_key: collapse_key(android.get("collapse_key"))?,
            has_notification: message.contains_key("notification") || android.contains_key("notification"),
            is_high: is_high(android.get("priority"))?,
            ttl_s: ttl_s(android.get("ttl"))?,
            body,
        })
    }

    pub(super) fn is_collapsible(&self) -> bool {
        self.has_notification || self.collapse_key.is_some()
    }

    pub(super) fn notice(self) -> Notice {
        let is_visible = self.has_notification || self.body["data"]["kind"] == "alert";
        let tag = self.body["android"]["notification"]["tag"].as_str();
        Notice {
            is_visible,
            is_high_without_alert: self.is_high && !is_visible,
            replaces: tag.map(str::to_owned),
            collapse_key: self.collapse_key,
            priority: Some(if self.is_high { "HIGH" } else { "NORMAL" }.to_owned()),
            ttl_s: Some(self.ttl_s),
            ..Notice::new(Face::Fcm, &self.token, self.body)
        }
    }
}

fn object<'a>(name: &str, value: &'a Value) -> Result<&'a Map<String, Value>, Refused> {
    value.as_object().ok_or_else(|| invalid(format!("{name} is not an object")))
}

fn check_fields(place: &str, object: &Map<String, Value>, known: &[&str]) -> Result<(), Refused> {
    let unknown = object.keys().find(|name| !known.contains(&name.as_str()));
    unknown.map_or(Ok(()), |name| {
        Err(invalid(format!(
            "Invalid JSON payload received. Unknown name \"{name}\" at '{place}': Cannot find field."
        )))
    })
}

fn check_data(data: Option<&Value>) -> Result<(), Refused> {
    let Some(data) = data else { return Ok(()) };
    let mut bytes = 0;
    for (key, value) in object("message.data", data)? {
        let Some(value) = value.as_str() else {
            return Err(invalid_field("message.data", format!("the value of `{key}` is not a string")));
        };
        let is_reserved = matches!(key.as_str(), "from" | "message_type")
            || key.starts_with("google")
            || key.starts_with("gcm");
        if is_reserved {
            return Err(invalid_field("message.data", format!("Invalid data payload key: {key}")));
        }
        bytes += key.len() + value.len();
    }
    if bytes > DATA_BYTES {
        let detail = format!("Android message is too big: data has {bytes} bytes, the limit is {DATA_BYTES}");
        return Err(invalid_field("message.data", detail));
    }
    Ok(())
}

fn collapse_key(key: Option<&Value>) -> Result<Option<String>, Refused> {
    let Some(key) = key else { return Ok(None) };
    let key = key.as_str().ok_or_else(|| invalid_field("message.android.collapse_key", "not a string"))?;
    Ok(Some(key.to_owned()))
}

fn is_high(priority: Option<&Value>) -> Result<bool, Refused> {
    match priority.map(Value::as_str) {
        None | Some(Some("NORMAL")) => Ok(false),
        Some(Some("HIGH")) => Ok(true),
        Some(_) => Err(invalid_field("message.android.priority", "priority is not HIGH or NORMAL")),
    }
}

/// A duration of protocol buffers in JSON: seconds with up to nine decimals, and `s`.
fn ttl_s(ttl: Option<&Value>) -> Result<u64, Refused> {
    let Some(ttl) = ttl else { return Ok(TTL_S) };
    let wrong = |detail: &str| invalid_field("message.android.ttl", detail);
    let text = ttl.as_str().and_then(|text| text.strip_suffix('s'));
    let text = text.ok_or_else(|| wrong("ttl is not a string such as \"3600s\""))?;
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let is_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = whole.parse::<u64>().ok();
    let seconds = seconds.filter(|_| is_digits(whole) && is_digits(decimals) && decimals.len() <= 9);
    let seconds = seconds.ok_or_else(|| wrong("ttl is not a number of seconds"))?;
    if seconds > TTL_S {
        return Err(wrong("ttl is more than four weeks"));
    }
    Ok(seconds)
}
