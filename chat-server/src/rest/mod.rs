//! REST: parse, call the use case, map the error. One resource in each file.

mod access;
mod accounts;
mod board_page;
mod channels;
pub(crate) mod conform;
mod connect;
mod contacts;
mod describe;
mod devices;
mod export;
mod extract;
mod health;
mod invitations;
mod messages;
mod meter;
mod moderation;
mod open;
pub(crate) mod operator;
mod push;
mod table;

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{Method, header};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::get;
use madang_proto::limits;
use madang_service::{Health, Metrics};
use tower_http::CompressionLevel;
use tower_http::compression::predicate::SizeAbove;
use tower_http::compression::{CompressionLayer, Predicate};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::gateway::Gateway;
use crate::gateway::socket::accept::{ANY_ORIGIN, accept, is_allowed};
use crate::operators::Watched;

/// The state that the handlers share. Each layer of each request has a clone of it.
#[derive(Clone)]
pub struct Api(Arc<Shared>);

/// What [`Api`] shares.
pub struct Shared {
    /// The sockets and the use cases.
    pub gateway: Arc<Gateway>,
    /// Whether the node is ready.
    pub health: Arc<Health>,
    /// The metrics of the whole process.
    pub metrics: Metrics,
    /// The state for operators.
    pub watched: Arc<Watched>,
}

impl From<Shared> for Api {
    fn from(shared: Shared) -> Self {
        Self(Arc::new(shared))
    }
}

impl Deref for Api {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl axum::extract::FromRef<Api> for Arc<Gateway> {
    fn from_ref(api: &Api) -> Self {
        Self::clone(&api.gateway)
    }
}

/// All routes.
pub fn router(api: Api) -> Router {
    let v1 = table::routes()
        .into_router()
        .route("/ws", get(accept))
        .route("/operator/live", get(operator::live))
        .layer(DefaultBodyLimit::max(limits::FRAME_BYTES_IN));
    let allowed = &api.gateway.operations.config.server.allowed_origins;
    let cors = cors(allowed);
    Router::new()
        .route("/", get(health::hello))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .nest("/v1", v1)
        .merge(describe::router())
        .merge(board_page::router())
        .fallback(health::not_found)
        .method_not_allowed_fallback(health::not_allowed)
        // A request passes the last layer first.
        .layer(from_fn_with_state(api.clone(), meter::meter))
        .layer(compression())
        .layer(from_fn_with_state(api.clone(), access::count))
        .layer(from_fn(access::in_time))
        .layer(cors)
        .layer(from_fn(conform::options))
        .layer(from_fn_with_state(api.clone(), access::note))
        .with_state(api)
}

/// The routes that the operators' own listener serves.
pub fn router_for_operators(api: Api) -> Router {
    router(api).layer(from_fn(operator::only_operators))
}

/// Compresses for clients that ask for it; see `docs/decisions/0017-rest-answers-are-compressed.md`.
fn compression() -> CompressionLayer<impl Predicate> {
    let is_wanted = SizeAbove::new(meter::COMPRESSED_BYTES).and(meter::may_be_compressed);
    CompressionLayer::new().quality(CompressionLevel::Fastest).compress_when(is_wanted)
}

/// Pages call with a token in a header and never with cookies. Therefore credentials are not allowed, and `*` is a valid answer.
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
        .expose_headers([header::RETRY_AFTER, header::WWW_AUTHENTICATE, header::ETAG, access::REQUEST_ID])
        .max_age(Duration::from_secs(3600))
}
