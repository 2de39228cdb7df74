//! A public file with the same bytes for everybody, and a validator, so that a client that has it downloads nothing.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use sha2::{Digest, Sha256};

/// The bytes and their entity tag.
pub(in crate::rest) struct Prepared {
    kind: &'static str,
    bytes: Bytes,
    tag: String,
}

impl Prepared {
    /// Hashes the bytes once.
    pub(in crate::rest) fn new(kind: &'static str, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let digest = Sha256::digest(&bytes);
        let tag = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect::<String>();
        // Weak, because the compressed answer has the same tag.
        Self { kind, bytes, tag: format!("W/\"{tag}\"") }
    }

    /// Answers 304 to a caller that has these bytes (RFC 9110 §13.1.2).
    pub(in crate::rest) fn answer(&self, headers: &HeaderMap) -> Response {
        let tag = HeaderValue::from_str(&self.tag).unwrap_or(HeaderValue::from_static("W/\"\""));
        let known = [(header::ETAG, tag), (header::CACHE_CONTROL, HeaderValue::from_static("no-cache"))];
        let mut tags = headers
            .get_all(header::IF_NONE_MATCH)
            .iter()
            .flat_map(|line| line.as_bytes().split(|&b| b == b','));
        if tags.any(|tag| self.is(tag.trim_ascii())) {
            return (StatusCode::NOT_MODIFIED, known).into_response();
        }
        (known, [(header::CONTENT_TYPE, self.kind)], self.bytes.clone()).into_response()
    }

    /// Weak comparison.
    fn is(&self, tag: &[u8]) -> bool {
        tag == b"*" || tag.strip_prefix(b"W/").unwrap_or(tag) == &self.tag.as_bytes()[2..]
    }
}
