//! What the processes of a fleet ask: to be registered, and who is alive. Each call and each answer is signed; see docs/internal.md.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use madang_auth::{InternalCall, InternalCalls, InternalError, SEEN_WINDOW_MS, Stamp};
use madang_bus::registry::{Registry, RegistryView};
use madang_engine::bucket::{Bucket, Rate};
use madang_ids::Millis;
use madang_service::Clock;
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::api::wire::{self, Refused};
use crate::api::{Discovery, Local};
use crate::core::{View, ViewRevision};
use crate::metrics::DiscoveryMetrics;

/// The largest body of a call: a card has at most 1.5 KiB.
const BODY_BYTES: usize = 16 * 1024;
/// How long a body may take to arrive.
const BODY_PATIENCE: Duration = Duration::from_secs(5);
/// How long a view waits for a change.
const VIEW_PATIENCE: Duration = Duration::from_secs(1);
/// Nonces that are remembered: 1,000 calls a second for their minute. Beyond that calls are refused. Only processes with the secret
/// of the fleet add to them.
const NONCES: usize = 60_000;
/// Log lines about calls that are refused.
const NOISE: Rate = Rate { per_second: 1, burst: 20 };

/// What the handler needs.
pub(super) struct Internal {
    calls: InternalCalls,
    local: Arc<Local>,
    registry: Arc<dyn Registry>,
    view: watch::Receiver<Arc<View>>,
    /// Nonces of calls, and until when each is remembered.
    seen: Mutex<HashMap<String, Millis>>,
    noise: Mutex<Bucket>,
    clock: Clock,
    metrics: DiscoveryMetrics,
}

impl Internal {
    pub(super) fn new(
        calls: InternalCalls,
        local: Arc<Local>,
        registry: Arc<dyn Registry>,
        view: watch::Receiver<Arc<View>>,
        clock: Clock,
        metrics: DiscoveryMetrics,
    ) -> Self {
        let noise = Mutex::new(Bucket::full(NOISE, clock.elapsed()));
        Self { calls, local, registry, view, seen: Mutex::default(), noise, clock, metrics }
    }

    /// Checks the credentials of a call, and that it was not made before.
    fn authenticate(&self, call: InternalCall<'_>, stamp: &Stamp) -> Result<(), Denied> {
        let now = self.clock.raw_ms();
        self.calls.verify(call, stamp, now)?;
        let mut seen = self.seen.lock();
        if seen.len() >= NONCES {
            seen.retain(|_, until| *until > now);
        }
        let until = now.plus(SEEN_WINDOW_MS);
        match seen.len() {
            NONCES.. => Err(Denied::Busy),
            _ if seen.insert(stamp.nonce.clone(), until).is_some() => Err(Denied::Repeated),
            _ => Ok(()),
        }
    }

    /// A call that changes something is made once over all discovery processes: otherwise one that was overheard could be repeated
    /// at another of them.
    async fn use_once(&self, nonce: &str) -> Result<(), Refused> {
        let ttl = Duration::from_millis(SEEN_WINDOW_MS);
        match self.registry.use_ticket(&format!("call-{nonce}"), ttl).await? {
            true => Ok(()),
            false => Err(Refused::Invalid { message: "this call was made before".into() }),
        }
    }

    async fn carry_out(&self, call: InternalCall<'_>, nonce: &str) -> Result<Vec<u8>, Refused> {
        let path = call.target.strip_prefix(wire::PREFIX).unwrap_or_default();
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        match (call.method, path) {
            ("GET", "/view") => return encoded(&self.view(query).await?),
            ("POST", "/register" | "/renew" | "/leave") => self.use_once(nonce).await?,
            _ => return Err(Refused::Invalid { message: "there is no such call".into() }),
        }
        match path {
            "/register" => {
                let wire::Register { card, state } = parsed(call.body)?;
                encoded(&self.local.register(&card, state).await?)
            }
            "/renew" => {
                let wire::Renew { run, state } = parsed(call.body)?;
                encoded(&self.local.renew(run, state).await?)
            }
            _ => encoded(&self.local.leave(parsed::<wire::Leave>(call.body)?.run).await?),
        }
    }

    /// Waits until the view has other processes than those that the caller knows. Loads may be a second old.
    async fn view(&self, query: &str) -> Result<RegistryView, Refused> {
        let known = query.strip_prefix("known=").and_then(|text| text.parse().ok()).map(ViewRevision);
        let mut view = self.view.clone();
        let has_changed = |view: &Arc<View>| known != Some(view.revision);
        // At the end of the time the caller gets the view as it is.
        let _ = timeout(VIEW_PATIENCE, view.wait_for(has_changed)).await;
        let view = Arc::clone(&self.view.borrow());
        if view.revision == ViewRevision::default() {
            // The registry was not read yet: an empty view would make the caller believe that it is alone.
            return Err(Refused::Unavailable { message: "the view is not read yet".to_owned() });
        }
        // This process has kept those who were missing after a loss of the registry.
        Ok(RegistryView { incarnation: 0, processes: view.processes().to_vec() })
    }

    fn deny(&self, denied: &Denied, peer: SocketAddr, target: &str) {
        self.metrics.calls_refused.inc();
        if self.noise.lock().take(NOISE, 1, self.clock.elapsed()).is_ok() {
            let path: String = target.chars().take(100).collect();
            tracing::warn!(%peer, path, reason = %denied, "internal call refused");
        }
    }
}

/// Why a call is not carried out.
#[derive(Debug, thiserror::Error)]
enum Denied {
    #[error("it has no credentials")]
    NoCredentials,
    #[error(transparent)]
    Credentials(#[from] InternalError),
    #[error("it was made before")]
    Repeated,
    #[error("too many calls are remembered")]
    Busy,
}

pub(super) fn router(internal: Arc<Internal>) -> Router {
    let path = format!("{}/{{call}}", wire::PREFIX);
    Router::new().route(&path, any(answer)).fallback(async || StatusCode::NOT_FOUND).with_state(internal)
}

async fn answer(
    State(internal): State<Arc<Internal>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
    let Some(stamp) = stamp(&parts.headers) else {
        internal.deny(&Denied::NoCredentials, peer, target);
        return StatusCode::UNAUTHORIZED.into_response();
    };
    let Some(body) = read(body).await else { return StatusCode::PAYLOAD_TOO_LARGE.into_response() };
    let call = InternalCall { method: parts.method.as_str(), target, body: &body };
    if let Err(denied) = internal.authenticate(call, &stamp) {
        internal.deny(&denied, peer, target);
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let (status, body) = match internal.carry_out(call, &stamp.nonce).await {
        Ok(body) => (StatusCode::OK, body),
        Err(refused) => {
            let status = StatusCode::from_u16(refused.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            (status, serde_json::to_vec(&refused).unwrap_or_default())
        }
    };
    let mac = internal.calls.sign_answer(&stamp.nonce, status.as_u16(), &body);
    (status, [(header::CONTENT_TYPE.as_str(), "application/json"), (wire::MAC, &mac)], body).into_response()
}

async fn read(body: Body) -> Option<Bytes> {
    timeout(BODY_PATIENCE, to_bytes(body, BODY_BYTES)).await.ok()?.ok()
}

fn stamp(headers: &HeaderMap) -> Option<Stamp> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    Some(Stamp {
        time: Millis::new(text(wire::TIME)?.parse().ok()?),
        nonce: text(wire::NONCE)?.to_owned(),
        mac: text(wire::MAC)?.to_owned(),
    })
}

fn parsed<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refused> {
    serde_json::from_slice(body).map_err(|error| Refused::Invalid { message: error.to_string().into() })
}

fn encoded(answer: &impl Serialize) -> Result<Vec<u8>, Refused> {
    serde_json::to_vec(answer).map_err(|error| Refused::Unavailable { message: error.to_string() })
}
