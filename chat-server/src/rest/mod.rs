//! REST: parse, call the use case, map the error. One resource a file.

mod access;
mod accounts;
mod channels;
mod contacts;
mod devices;
mod extract;
mod health;
mod messages;
mod moderation;
mod open;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{Method, StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::routing::{delete, get, patch, post, put};
use madang_proto::limits;
use madang_service::{Health, Metrics};
use tower_http::cors::{AllowOrigin, CorsLayer};
use tower_http::timeout::TimeoutLayer;

use crate::gateway::Gateway;
use crate::gateway::accept::{ANY_ORIGIN, accept, is_allowed};

/// How long a request may take, its body included.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the handlers share.
#[derive(Clone)]
pub struct Api {
    /// Sockets and use cases.
    pub gateway: Arc<Gateway>,
    /// Whether the node is ready.
    pub health: Arc<Health>,
    /// All metrics of the process.
    pub metrics: Metrics,
}

impl axum::extract::FromRef<Api> for Arc<Gateway> {
    fn from_ref(api: &Api) -> Self {
        Self::clone(&api.gateway)
    }
}

/// All routes.
pub fn router(api: Api) -> Router {
    let v1 = Router::new()
        .route("/ws", get(accept))
        .route("/accounts", post(accounts::sign_up))
        .route("/sessions", post(accounts::log_in).delete(accounts::log_out))
        .route("/tokens", post(accounts::refresh))
        .route("/me", get(accounts::me).merge(patch(accounts::change_me)))
        .route("/users", get(accounts::find_user))
        .route("/users/{user_id}", get(accounts::user))
        .route("/devices", get(devices::list).post(devices::add))
        .route("/devices/{device_id}", delete(devices::revoke))
        .route("/blocks", get(accounts::blocks))
        .route("/blocks/{user_id}", put(accounts::block).delete(accounts::unblock))
        .route("/contacts", get(contacts::list))
        .route("/contacts/{user_id}", put(contacts::put).delete(contacts::remove))
        .route("/presence", get(contacts::presence))
        .route("/channels", get(channels::list).post(channels::create))
        .route("/channels/{channel_id}", get(channels::view).patch(channels::change))
        .route("/channels/{channel_id}/pins/{seq}", put(channels::pin).delete(channels::unpin))
        .route("/open-channels", get(open::find))
        .route("/channels/{channel_id}/membership", put(open::join))
        .route("/channels/{channel_id}/members", get(channels::members).put(channels::add_members))
        .route(
            "/channels/{channel_id}/members/{user_id}",
            delete(channels::remove_member).patch(moderation::change_member),
        )
        .route("/channels/{channel_id}/bans", get(moderation::bans))
        .route("/channels/{channel_id}/bans/{user_id}", put(moderation::ban).delete(moderation::unban))
        .route("/channels/{channel_id}/mutes/{user_id}", put(moderation::mute).delete(moderation::unmute))
        .route("/channels/{channel_id}/entries", get(messages::history))
        .route("/channels/{channel_id}/messages", post(messages::send))
        .route("/channels/{channel_id}/messages/{seq}", patch(messages::edit).delete(messages::delete))
        .route(
            "/channels/{channel_id}/messages/{seq}/reactions/{emoji}",
            get(messages::reactors).put(messages::react).delete(messages::unreact),
        )
        .route("/channels/{channel_id}/presence", get(contacts::of_channel))
        .route("/channels/{channel_id}/read", put(messages::mark_read))
        .route("/snapshot", post(channels::snapshot))
        .layer(DefaultBodyLimit::max(limits::FRAME_BYTES_IN));
    let allowed = &api.gateway.operations.config.server.allowed_origins;
    let cors = cors(allowed);
    Router::new()
        .route("/", get(health::hello))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .nest("/v1", v1)
        .fallback(health::not_found)
        .method_not_allowed_fallback(health::not_allowed)
        // The last is the first that a request meets.
        .layer(from_fn_with_state(api.clone(), access::count))
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, PATIENCE))
        .layer(cors)
        .layer(from_fn_with_state(api.clone(), access::note))
        .with_state(api)
}

/// Pages call with a token in a header, never with cookies: credentials are not allowed, and `*` is an answer.
fn cors(allowed: &[String]) -> CorsLayer {
    let origin = if allowed.iter().any(|origin| origin == ANY_ORIGIN) {
        AllowOrigin::any()
    } else {
        let allowed = allowed.to_vec();
        AllowOrigin::predicate(move |origin, _| is_allowed(origin.as_bytes(), &allowed))
    };
    CorsLayer::new()
        .allow_origin(origin)
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            header::HeaderName::from_static("idempotency-key"),
            access::REQUEST_ID,
        ])
        .expose_headers([header::RETRY_AFTER, access::REQUEST_ID])
        .max_age(Duration::from_secs(3600))
}
