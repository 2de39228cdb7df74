//! What passes between the server and a face: a request, an answer, and the reason of a refusal.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method};
use serde_json::Value;

use crate::notice::Blame;

/// A request whose body was read.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Request {
    /// The first value of a header, if it is visible ASCII.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Whether the media type is `wanted`, with or without parameters such as `charset`.
    pub(crate) fn has_media_type(&self, wanted: &str) -> bool {
        let text = self.header("content-type").unwrap_or_default();
        text.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case(wanted))
    }
}

/// An answer. Header names are constants or come from a fault of a test.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(HeaderName, String)>,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Bytes::new() }
    }

    pub(crate) fn json(status: u16, body: &Value) -> Self {
        let body = Bytes::from(body.to_string());
        let json = (http::header::CONTENT_TYPE, "application/json; charset=UTF-8".to_owned());
        Self { status, headers: vec![json], body }
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((HeaderName::from_static(name), value.to_string()));
        self
    }
}

/// Why a face refuses a request.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) status: u16,
    /// The provider's own word, such as `BadDeviceToken`.
    pub(crate) reason: &'static str,
    /// What exactly is wrong, for the reader of a test.
    pub(crate) detail: String,
    pub(crate) blame: Blame,
    pub(crate) extra: Extra,
}

/// What some refusals say in addition.
#[derive(Debug)]
pub(crate) enum Extra {
    None,
    /// When a device token ended, in ms since 1970.
    EndedAt(u64),
    /// Seconds.
    RetryAfter(u64),
    /// The field of the body that is wrong.
    Field(&'static str),
    /// Where a redirect leads.
    Location(String),
}

impl Refused {
    /// The request itself is wrong.
    pub(crate) fn request(status: u16, reason: &'static str, detail: impl Into<String>) -> Self {
        Self { status, reason, detail: detail.into(), blame: Blame::Request, extra: Extra::None }
    }

    /// The request is right, and a test has set its target to be refused.
    pub(crate) fn state(status: u16, reason: &'static str) -> Self {
        let detail = "the state that the test has set".to_owned();
        Self { status, reason, detail, blame: Blame::State, extra: Extra::None }
    }

    pub(crate) fn with(mut self, extra: Extra) -> Self {
        self.extra = extra;
        self
    }
}
