//! The errors of use cases, and how a caller sees them over the socket and over REST.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use madang_proto::{ErrorBody, ErrorCode};
use madang_store::StoreError;

/// The result of a use case.
pub type Result<T, E = OperationError> = std::result::Result<T, E>;

/// Why a use case has no result.
///
/// Both kinds convert into it, so `?` suffices. The kinds stay apart until the error is handled: an answer to a caller is made with
/// [`ErrorBody::from`], which logs a failure of the store; a task that repeats its work logs the error itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OperationError {
    /// The caller may not do this, or not now.
    #[error(transparent)]
    Refused(#[from] ErrorBody),
    /// The store failed. Its text is for the log and is not sent to the caller.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl OperationError {
    /// The code that a caller gets.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Refused(error) => error.code,
            Self::Store(error) => code(error),
        }
    }
}

/// An error as the answer to a caller. A failure of the store is logged.
impl From<OperationError> for ErrorBody {
    fn from(error: OperationError) -> Self {
        match error {
            OperationError::Refused(error) => error,
            OperationError::Store(error) => refusal(&error),
        }
    }
}

const fn code(error: &StoreError) -> ErrorCode {
    match error {
        StoreError::Unavailable(_) | StoreError::Unknown(_) => ErrorCode::Unavailable,
        StoreError::Corrupt(_) => ErrorCode::Internal,
    }
}

/// The answer to a caller for a failure of the store. The details are logged and not sent.
#[must_use]
pub(crate) fn refusal(error: &StoreError) -> ErrorBody {
    match code(error) {
        ErrorCode::Unavailable => {
            tracing::warn!(%error, "a store operation failed");
            ErrorBody::unavailable("the store is unavailable", 1000)
        }
        code => {
            tracing::error!(%error, "the store is damaged");
            ErrorBody::new(code, "internal server error")
        }
    }
}

const CHALLENGE: &str = "Bearer realm=\"madang\"";
const INVALID_TOKEN: &str = "Bearer realm=\"madang\", error=\"invalid_token\"";

/// A refusal as an HTTP answer.
#[derive(Debug)]
pub struct Refusal(pub ErrorBody);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.0.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let is_for_later = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        let wait_ms = self.0.retry_after_ms.or(is_for_later.then_some(1_000));
        let retry_after = wait_ms.map(|ms| ms.div_ceil(1_000).max(1).to_string());
        let mut response = (status, axum::Json(&self.0)).into_response();
        if status == StatusCode::UNAUTHORIZED {
            // RFC 6750 §3: if there was no token, the challenge does not say what is wrong with it.
            let is_of_token = self.0.field.as_deref() == Some("token");
            let challenge = if is_of_token { INVALID_TOKEN } else { CHALLENGE };
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if let Some(value) = retry_after.and_then(|seconds| HeaderValue::from_str(&seconds).ok()) {
            response.headers_mut().insert(header::RETRY_AFTER, value);
        }
        response
    }
}

impl From<ErrorBody> for Refusal {
    fn from(error: ErrorBody) -> Self {
        Self(error)
    }
}

impl From<OperationError> for Refusal {
    fn from(error: OperationError) -> Self {
        Self(error.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_gets_the_code_of_a_failed_store_and_not_its_details() {
        let details = || "/var/lib/madang/store.db".to_owned();
        let failures = [
            (StoreError::Unavailable(details()), ErrorCode::Unavailable),
            (StoreError::Unknown(details()), ErrorCode::Unavailable),
            (StoreError::Corrupt(details()), ErrorCode::Internal),
        ];
        for (failure, code) in failures {
            let error = OperationError::from(failure);
            assert!(error.to_string().contains(&details()), "the log has the details");
            assert_eq!(error.code(), code);
            let answer = ErrorBody::from(error);
            assert_eq!((answer.code, answer.retryable), (code, true));
            assert!(!answer.message.contains(&details()), "{answer}");
        }
        let refused = ErrorBody::forbidden("you are no longer a member of this channel");
        assert_eq!(OperationError::from(refused.clone()).code(), ErrorCode::Forbidden);
        assert_eq!(ErrorBody::from(OperationError::from(refused.clone())), refused);
    }
}
