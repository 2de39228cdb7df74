//! Headers of a push: RFC 8030, sections 5.2 to 5.4; RFC 8291, section 4.

use crate::answer::{Refused, Request};

const ONCE: [&str; 5] = ["ttl", "urgency", "topic", "content-encoding", "content-type"];
const URGENCIES: [&str; 4] = ["very-low", "low", "normal", "high"];
const TOPIC_CHARS: usize = 32;
/// RFC 8030, section 7.2: every push service takes this many.
const BODY_BYTES: usize = 4_096;

/// The headers except the credentials.
#[derive(Debug)]
pub(super) struct Headers {
    pub(super) ttl_s: u64,
    /// `normal` if the request names none.
    pub(super) urgency: String,
    pub(super) topic: Option<String>,
}

fn bad(reason: &'static str, detail: impl Into<String>) -> Refused {
    Refused::request(400, reason, detail)
}

impl Headers {
    pub(super) fn read(request: &Request) -> Result<Self, Refused> {
        let twice = ONCE.into_iter().find(|name| request.headers.get_all(*name).iter().nth(1).is_some());
        if let Some(name) = twice {
            return Err(bad("DuplicateHeaders", format!("{name} is there more than once")));
        }
        check_content(request)?;
        Ok(Self { ttl_s: ttl_s(request)?, urgency: urgency(request)?, topic: topic(request)? })
    }
}

fn check_content(request: &Request) -> Result<(), Refused> {
    if request.header("content-encoding") != Some("aes128gcm") {
        return Err(bad("BadContentEncoding", "content-encoding is not aes128gcm"));
    }
    if !request.has_media_type("application/octet-stream") {
        return Err(bad("BadContentType", "content-type is not application/octet-stream"));
    }
    if request.body.len() > BODY_BYTES {
        let detail = format!("the body has {} bytes, the limit is {BODY_BYTES}", request.body.len());
        return Err(Refused::request(413, "PayloadTooLarge", detail));
    }
    Ok(())
}

fn ttl_s(request: &Request) -> Result<u64, Refused> {
    let Some(text) = request.headers.get("ttl") else { return Err(bad("MissingTtl", "TTL is required")) };
    let text = text.to_str().unwrap_or_default();
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number).ok_or_else(|| bad("BadTtl", "TTL is not a number of seconds"))
}

fn urgency(request: &Request) -> Result<String, Refused> {
    let Some(word) = request.headers.get("urgency") else { return Ok("normal".to_owned()) };
    let word = word.to_str().unwrap_or_default();
    let known = URGENCIES.contains(&word).then(|| word.to_owned());
    known.ok_or_else(|| bad("BadUrgency", format!("Urgency is `{word}`")))
}

fn topic(request: &Request) -> Result<Option<String>, Refused> {
    let Some(topic) = request.headers.get("topic") else { return Ok(None) };
    let topic = topic.to_str().unwrap_or_default();
    let is_char = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if topic.is_empty() || topic.len() > TOPIC_CHARS || !topic.bytes().all(is_char) {
        return Err(bad("BadWebPushTopic", "Topic is not 1 to 32 characters of base64url"));
    }
    Ok(Some(topic.to_owned()))
}
