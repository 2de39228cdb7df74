//! Why a request was refused.

use serde::{Deserialize, Serialize};

/// What went wrong. The code is for programs, the message beside it for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The frame is no JSON, or a field is missing, of a wrong type or beyond its limit; `field` names it.
    Invalid,
    /// The type of the frame is not known here.
    Unsupported,
    /// No valid token.
    Unauthorized,
    /// The device of the token was revoked or logged out: forget its tokens and its data.
    Revoked,
    /// Known, but not allowed.
    Forbidden,
    /// There is none, or its existence is private.
    NotFound,
    /// The same key with another first body; or a handle that is taken.
    Conflict,
    /// Larger than a limit; `field` names it.
    TooLarge,
    /// No seat is free, or there are as many of something as there may be.
    Full,
    /// The caller is faster than allowed; come back after `retry_after_ms`.
    Limited,
    /// The server cannot just now; the same request may be sent again after `retry_after_ms`.
    Unavailable,
    /// A fault of the server. The same request may be sent again.
    Internal,
}

impl ErrorCode {
    /// Whether the same request may succeed later.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        matches!(self, Self::Limited | Self::Unavailable | Self::Internal)
    }

    /// The status that REST answers with.
    #[must_use]
    pub const fn http_status(self) -> u16 {
        match self {
            Self::Invalid | Self::Unsupported => 400,
            Self::Unauthorized | Self::Revoked => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::Conflict | Self::Full => 409,
            Self::TooLarge => 413,
            Self::Limited => 429,
            Self::Internal => 500,
            Self::Unavailable => 503,
        }
    }
}

/// Longest message of a refusal, in bytes: one that quotes what was sent is cut.
const MESSAGE_BYTES: usize = 400;
/// Longest name of a field, in bytes: one may be a key that was sent.
const FIELD_BYTES: usize = 100;

fn cut(mut text: String, bytes: usize) -> String {
    text.truncate(text.floor_char_boundary(bytes));
    text
}

/// A refusal, the same on the socket and over REST.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[error("{message}")]
pub struct ErrorBody {
    /// For programs.
    pub code: ErrorCode,
    /// For people; names the field and the limit.
    pub message: String,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// Which field was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// How long to wait before the same request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl ErrorBody {
    /// A refusal without a field.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: cut(message.into(), MESSAGE_BYTES),
            retryable: code.is_retryable(),
            field: None,
            retry_after_ms: None,
        }
    }

    /// A refusal of one field. The message should name field and limit.
    #[must_use]
    pub fn field(code: ErrorCode, field: &str, message: impl Into<String>) -> Self {
        Self { field: Some(cut(field.to_owned(), FIELD_BYTES)), ..Self::new(code, message) }
    }

    /// A field that is not as it should be.
    #[must_use]
    pub fn invalid(field: &str, message: impl Into<String>) -> Self {
        Self::field(ErrorCode::Invalid, field, message)
    }

    /// There is none, or its existence is private.
    #[must_use]
    pub fn not_found(what: &str) -> Self {
        Self::new(ErrorCode::NotFound, format!("{what} was not found"))
    }

    /// Known, but not allowed.
    #[must_use]
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Forbidden, message)
    }

    /// Not just now.
    #[must_use]
    pub fn unavailable(message: impl Into<String>, retry_after_ms: u64) -> Self {
        Self { retry_after_ms: Some(retry_after_ms), ..Self::new(ErrorCode::Unavailable, message) }
    }

    /// Too fast.
    #[must_use]
    pub fn limited(message: impl Into<String>, retry_after_ms: u64) -> Self {
        Self { retry_after_ms: Some(retry_after_ms), ..Self::new(ErrorCode::Limited, message) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_does_not_grow_with_what_was_sent() {
        let refused = ErrorBody::invalid(&"마".repeat(100), "당".repeat(1_000));
        assert_eq!(refused.message, "당".repeat(133));
        assert_eq!(refused.field, Some("마".repeat(33)));
        assert_eq!(ErrorBody::invalid("seq", "seq is 0").message, "seq is 0");
    }
}
