//! What clients ask: `POST /v1/connect`, as on every node; see docs/protocol.md.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use madang_auth::Tokens;
use madang_engine::bucket::{Bucket, Rate};
use madang_ids::UserId;
use madang_proto::rest::{Assignment, Connect, parse_body};
use madang_proto::{ErrorBody, ErrorCode, limits};
use madang_service::Clock;
use parking_lot::Mutex;
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::connect::Connector;

/// The largest body. A region has at most 64 characters.
const BODY_BYTES: usize = 4 * 1024;
/// Asks of one user.
const ASKS: Rate = Rate { per_second: 5, burst: 30 };
/// Users whose rate is remembered, of 40 bytes each. Above it those who have not asked for [`REST`], and have a full bucket again, are
/// forgotten.
const RATES: usize = 100_000;
const REST: Duration = Duration::from_secs(10);

/// What the handler needs.
pub(super) struct Public {
    connector: Connector,
    tokens: Tokens,
    allowed_origins: Vec<String>,
    /// The bucket of each user, and when the user asked last.
    rates: Mutex<HashMap<UserId, (Bucket, Duration)>>,
    clock: Clock,
}

impl Public {
    pub(super) fn new(
        connector: Connector,
        tokens: Tokens,
        allowed_origins: Vec<String>,
        clock: Clock,
    ) -> Self {
        Self { connector, tokens, allowed_origins, rates: Mutex::default(), clock }
    }

    fn connect(&self, headers: &HeaderMap, body: &[u8]) -> Result<Assignment, ErrorBody> {
        let user = self.user(headers)?;
        self.count(user)?;
        let Connect { region } = parse_body(body)?;
        if region.as_ref().is_some_and(|region| region.chars().count() > limits::REGION_CHARS) {
            let message = format!("region: has more than {} characters", limits::REGION_CHARS);
            return Err(ErrorBody::field(ErrorCode::TooLarge, "region", message));
        }
        Ok(self.connector.assign(user, region.as_deref()))
    }

    /// While more users ask than are remembered, those who are not are let through: each has a valid token.
    fn count(&self, user: UserId) -> Result<(), ErrorBody> {
        let (mut rates, now) = (self.rates.lock(), self.clock.elapsed());
        if rates.len() >= RATES {
            rates.retain(|_, (_, asked)| now.saturating_sub(*asked) < REST);
        }
        if rates.len() >= RATES && !rates.contains_key(&user) {
            return Ok(());
        }
        let (bucket, asked) = rates.entry(user).or_insert_with(|| (Bucket::full(ASKS, now), now));
        *asked = now;
        bucket.take(ASKS, 1, now).map_err(|wait_ms| {
            ErrorBody::limited("too many calls: wait as long as the last answer said", wait_ms)
        })
    }

    /// The user of the token. Whether the device was revoked is known to nodes only, which check it at `hello`.
    fn user(&self, headers: &HeaderMap) -> Result<UserId, ErrorBody> {
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let value = values.next().filter(|_| values.next().is_none()).and_then(|value| value.to_str().ok());
        let bearer = value.and_then(|value| value.split_once(' '));
        let Some((_, token)) = bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")) else {
            let message = "Authorization: Bearer with an access token is missing";
            return Err(ErrorBody::field(ErrorCode::Unauthorized, "Authorization", message));
        };
        let claims = self.tokens.verify(token.trim_matches(' '), self.clock.raw_ms());
        claims
            .map(|claims| claims.user_id)
            .map_err(|error| ErrorBody::field(ErrorCode::Unauthorized, "token", error.to_string()))
    }
}

pub(super) fn router(public: Arc<Public>) -> Router {
    let cors = cors(&public.allowed_origins);
    Router::new()
        .route("/v1/connect", post(connect))
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .layer(cors)
        .fallback(async || refusal(&ErrorBody::not_found("this path")))
        .with_state(public)
}

/// Pages call with a token in a header and never with cookies. Without a list, pages of this machine may.
fn cors(allowed: &[String]) -> CorsLayer {
    let origin = if allowed.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        let allowed = allowed.to_vec();
        AllowOrigin::predicate(move |origin, _| is_allowed(origin, &allowed))
    };
    CorsLayer::new()
        .allow_origin(origin)
        .allow_methods([Method::POST])
        .allow_headers([header::AUTHORIZATION, header::CONTENT_TYPE])
        .expose_headers([header::RETRY_AFTER])
        .max_age(Duration::from_secs(3600))
}

fn is_allowed(origin: &HeaderValue, allowed: &[String]) -> bool {
    if !allowed.is_empty() {
        return allowed.iter().any(|one| one.as_bytes() == origin.as_bytes());
    }
    let host = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map_or("", |(_, host)| host);
    let host = if host.starts_with('[') { host.split_inclusive(']').next() } else { host.split(':').next() };
    matches!(host, Some("localhost" | "127.0.0.1" | "[::1]"))
}

async fn connect(
    State(public): State<Arc<Public>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let answer = match body {
        Ok(body) => public.connect(&headers, &body),
        Err(rejection) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            let message = format!("the body is too large, the limit is {BODY_BYTES} bytes");
            Err(ErrorBody::field(ErrorCode::TooLarge, "body", message))
        }
        Err(_) => Err(ErrorBody::invalid("body", "reading the body failed")),
    };
    match answer {
        // The answer has tickets: it belongs to one client and one moment.
        Ok(assignment) => ([(header::CACHE_CONTROL, "no-store")], Json(assignment)).into_response(),
        Err(error) => refusal(&error),
    }
}

fn refusal(error: &ErrorBody) -> Response {
    let status = StatusCode::from_u16(error.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, Json(error)).into_response();
    if status == StatusCode::UNAUTHORIZED {
        let challenge = HeaderValue::from_static("Bearer realm=\"madang\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    if let Some(wait_ms) = error.retry_after_ms {
        response.headers_mut().insert(header::RETRY_AFTER, wait_ms.div_ceil(1_000).max(1).into());
    }
    response
}
