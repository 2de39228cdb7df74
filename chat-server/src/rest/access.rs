//! What every request gets: an id, the address of its client, a line in the log.
//!
//! The id and, once known, the user are fields of every line that is logged for the request. The lines name the route and not the
//! path, and never contain a token or a body.

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::HttpBody;
use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use madang_ids::UserId;
use madang_proto::ErrorBody;
use madang_service::Clock;
use tokio::time::timeout;
use tracing::field::{Empty, display};
use tracing::{Instrument, Span};
use uuid::Uuid;

use super::{Api, conform};
use crate::gateway::listener::proxies;
use crate::refusal::Refusal;

/// The id of a request, the caller's or a new one. The answer has it in the same header.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Lengths of a caller's id that is accepted.
const ID_BYTES: std::ops::RangeInclusive<usize> = 8..=64;
/// The longest method that is logged.
const METHOD_BYTES: usize = 16;
/// Routes that machines ask every few seconds. They are logged at `debug`.
const QUIET: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// How long a request may take, including its body.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Marks a request of a trusted proxy. It is counted for the address of its client.
#[derive(Clone, Copy)]
struct Proxied;

/// Gives the request an id and the address of its client, and logs the answer.
pub(super) async fn note(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let id = id_of(request.headers()).unwrap_or_else(new_id);
    let is_v1 = request.uri().path().starts_with("/v1/");
    let text = id.to_str().unwrap_or_default();
    // At the highest level, so that the span is part of every line that is logged.
    let span = tracing::error_span!("request", request.id = text, user.id = Empty);
    let mut response = async {
        find_client(&api, &mut request);
        let mut line = Line::new(&request, &api.operations().clock);
        let refusal = is_from_listener(&request).then(|| conform::refusal(&request)).flatten();
        let response = match refusal {
            Some(refusal) => refusal,
            None => next.run(request).await,
        };
        line.answer = Some((response.status().as_u16(), response.body().size_hint().lower()));
        line.is_quiet = line.is_noise() && !api.gateway.take_noise();
        response
    }
    .instrument(span)
    .await;
    response.headers_mut().insert(REQUEST_ID, id);
    if is_v1 {
        // The answers hold tokens, messages and names for this caller. An answer that may be cached says so itself.
        let no_store = HeaderValue::from_static("no-store");
        response.headers_mut().entry(header::CACHE_CONTROL).or_insert(no_store);
    }
    if let Some(hsts) = strict_transport(&api) {
        response.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, hsts);
    }
    response
}

/// Only if this server speaks TLS itself (RFC 6797 §7.2: not over plain HTTP).
fn strict_transport(api: &Api) -> Option<HeaderValue> {
    let seconds = api.operations().config.tls.hsts_seconds;
    let is_on = api.gateway.tls.is_some() && seconds > 0;
    is_on.then(|| HeaderValue::from_str(&format!("max-age={seconds}")).ok())?
}

/// A request that a test has made by hand has no peer.
fn is_from_listener(request: &Request) -> bool {
    request.extensions().get::<ConnectInfo<SocketAddr>>().is_some()
}

/// Ends a request that takes too long. What it has written by then stays.
pub(super) async fn in_time(request: Request, next: Next) -> Response {
    match timeout(PATIENCE, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Refusal(ErrorBody::unavailable("the request took too long", 1000)).into_response(),
    }
}

/// Counts requests of proxies for the addresses of their clients, as connections without a proxy are counted.
pub(super) async fn count(State(api): State<Api>, request: Request, next: Next) -> Response {
    let client = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let counted = match (request.extensions().get::<Proxied>(), client) {
        (Some(Proxied), Some(client)) => api.gateway.count(client.ip()).map(Some),
        _ => Ok(None),
    };
    match counted {
        Ok(_counted) => next.run(request).await,
        Err(_) => {
            let limit = api.operations().config.limits.address_connections;
            let message = format!("more than {limit} requests of this address are in progress");
            Refusal(ErrorBody::limited(message, 1_000)).into_response()
        }
    }
}

/// Adds the user to the lines that are logged for the request.
pub(super) fn name_user(user: UserId) {
    Span::current().record("user.id", display(user));
}

fn id_of(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut ids = headers.get_all(REQUEST_ID).iter();
    let id = ids.next().filter(|_| ids.next().is_none())?;
    let is_good = ID_BYTES.contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic);
    is_good.then(|| id.clone())
}

fn new_id() -> HeaderValue {
    let id = Uuid::new_v4().simple().to_string();
    HeaderValue::from_str(&id).unwrap_or_else(|_| HeaderValue::from_static("without-id"))
}

/// Replaces the address of a proxy by that of its client.
fn find_client(api: &Api, request: &mut Request) {
    let config = &api.operations().config.server;
    let Some(&ConnectInfo(peer)) = request.extensions().get::<ConnectInfo<SocketAddr>>() else { return };
    if proxies::is_trusted(peer.ip(), config) {
        let client = proxies::client(peer.ip(), request.headers(), config);
        request.extensions_mut().insert(ConnectInfo(SocketAddr::new(client, 0)));
        request.extensions_mut().insert(Proxied);
    } else {
        api.gateway.unnamed.note(peer.ip(), request.headers());
    }
}

/// What is logged at the end of a request, whether it was answered or the caller has hung up.
struct Line {
    method: Method,
    route: Option<MatchedPath>,
    client: Option<SocketAddr>,
    clock: Clock,
    begun: Duration,
    /// The status, and the bytes of the body.
    answer: Option<(u16, u64)>,
    /// Logged at `debug`, because too many lines of this kind were logged already.
    is_quiet: bool,
}

impl Line {
    fn new(request: &Request, clock: &Clock) -> Self {
        let extensions = request.extensions();
        let client = extensions.get::<ConnectInfo<SocketAddr>>().map(|client| client.0);
        let (method, route) = (request.method().clone(), extensions.get().cloned());
        Self {
            method,
            route,
            client,
            clock: clock.clone(),
            begun: clock.elapsed(),
            answer: None,
            is_quiet: false,
        }
    }

    /// Whether anybody could cause any number of such lines: paths that do not exist, and refusals by a limit.
    fn is_noise(&self) -> bool {
        self.route.is_none() || matches!(self.answer, Some((405 | 429, _)))
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // A method may be any word of any length.
        let method = if self.method.as_str().len() <= METHOD_BYTES { self.method.as_str() } else { "other" };
        let route = self.route.as_ref().map_or("none", MatchedPath::as_str);
        let client = self.client.map(|client| display(client.ip()));
        let duration_ms = self.clock.elapsed().saturating_sub(self.begun).as_micros() as f64 / 1e3;
        let Some((status, bytes)) = self.answer else {
            return tracing::info!(method, route, duration_ms, client.address = client, "not answered");
        };
        macro_rules! tell {
            ($level:ident) => {
                tracing::$level!(
                    method,
                    route,
                    status,
                    duration_ms,
                    bytes,
                    client.address = client,
                    "answered"
                )
            };
        }
        if self.is_quiet || QUIET.contains(&route) { tell!(debug) } else { tell!(info) }
    }
}
