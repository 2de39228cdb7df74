//! Maps failures to the errors that a caller gets, over the socket or over REST.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use madang_proto::{ErrorBody, ErrorCode};
use madang_store::StoreError;

/// The error for a failure of the store. The details are logged and not sent to the caller.
#[must_use]
pub fn refusal(error: &StoreError) -> ErrorBody {
    match error {
        StoreError::Unavailable(_) | StoreError::Unknown(_) => {
            tracing::warn!(%error, "a store operation failed");
            ErrorBody::unavailable("the store is unavailable", 1000)
        }
        StoreError::Corrupt(_) => {
            tracing::error!(%error, "the store is damaged");
            ErrorBody::new(ErrorCode::Internal, "internal server error")
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
