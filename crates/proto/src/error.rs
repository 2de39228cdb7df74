//! Errors that refuse a request.

use serde::{Deserialize, Serialize};

/// The kind of an error. The code is for programs; the message beside it is for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The frame is not JSON, or a field is missing, has a wrong type or exceeds its limit; `field` names it.
    Invalid,
    /// The server does not know this type of frame.
    Unsupported,
    /// There is no valid token.
    Unauthorized,
    /// The device of the token was revoked or logged out. The client deletes its tokens and its data.
    Revoked,
    /// The caller is known, but may not do this.
    Forbidden,
    /// It does not exist, or the caller may not know that it exists.
    NotFound,
    /// The key was used before with another body, or the handle is taken.
    Conflict,
    /// A value is larger than a limit; `field` names it.
    TooLarge,
    /// No seat is free, or a limit on the number of something is reached.
    Full,
    /// The caller exceeds a rate limit. Try again after `retry_after_ms`.
    Limited,
    /// The server cannot do this at present. Send the same request again after `retry_after_ms`.
    Unavailable,
    /// The server failed. The same request may be sent again.
    Internal,
}

impl ErrorCode {
    /// Whether the same request may succeed later.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        matches!(self, Self::Limited | Self::Unavailable | Self::Internal)
    }

    /// The HTTP status with which REST answers.
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

/// Longest error message, in bytes. A message that quotes what the client sent is truncated.
const MESSAGE_BYTES: usize = 400;
/// Longest name of a field, in bytes. The name may be a key that the client sent.
const FIELD_BYTES: usize = 100;

fn cut(mut text: String, bytes: usize) -> String {
    text.truncate(text.floor_char_boundary(bytes));
    text
}

/// An error, the same on the socket and over REST.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[error("{message}")]
pub struct ErrorBody {
    /// The kind of the error, for programs.
    pub code: ErrorCode,
    /// Text for people. It names the field and the limit.
    pub message: String,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// The field that was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Milliseconds to wait before the same request is sent again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl ErrorBody {
    /// An error without a field.
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

    /// An error of one field. The message should name the field and the limit.
    #[must_use]
    pub fn field(code: ErrorCode, field: &str, message: impl Into<String>) -> Self {
        Self { field: Some(cut(field.to_owned(), FIELD_BYTES)), ..Self::new(code, message) }
    }

    /// A field with a wrong value.
    #[must_use]
    pub fn invalid(field: &str, message: impl Into<String>) -> Self {
        Self::field(ErrorCode::Invalid, field, message)
    }

    /// It does not exist, or the caller may not know that it exists.
    #[must_use]
    pub fn not_found(what: &str) -> Self {
        Self::new(ErrorCode::NotFound, format!("{what} was not found"))
    }

    /// The caller is known, but may not do this.
    #[must_use]
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Forbidden, message)
    }

    /// The server cannot do this at present.
    #[must_use]
    pub fn unavailable(message: impl Into<String>, retry_after_ms: u64) -> Self {
        Self { retry_after_ms: Some(retry_after_ms), ..Self::new(ErrorCode::Unavailable, message) }
    }

    /// The caller exceeds a rate limit.
    #[must_use]
    pub fn limited(message: impl Into<String>, retry_after_ms: u64) -> Self {
        Self { retry_after_ms: Some(retry_after_ms), ..Self::new(ErrorCode::Limited, message) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_bounded_although_it_quotes_the_request() {
        let refused = ErrorBody::invalid(&"마".repeat(100), "당".repeat(1_000));
        assert_eq!(refused.message, "당".repeat(133));
        assert_eq!(refused.field, Some("마".repeat(33)));
        assert_eq!(ErrorBody::invalid("seq", "seq is 0").message, "seq is 0");
    }
}
