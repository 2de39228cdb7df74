//! The process `madang-discovery`: clients ask it where to connect ([`public`]), and processes of the fleet register with it
//! ([`internal`]).

mod internal;
mod listen;
mod public;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use madang_auth::{InternalCalls, Tickets, Tokens};
use madang_bus::registry::Registry;
use madang_service::{Clock, Drain, Health, METRICS_CONTENT_TYPE, Metrics, Tasks};
use tokio::net::TcpListener;

use crate::api::Local;
use crate::config::DiscoveryConfig;
use crate::connect::Connector;
use crate::metrics::DiscoveryMetrics;
use crate::service::LiveView;

use internal::Internal;
use public::Public;

/// What the process is made of. The caller chooses registry and clock.
pub struct Parts {
    /// The section of the configuration.
    pub config: DiscoveryConfig,
    /// `server.allowed_origins`: the pages that may ask where to connect.
    pub allowed_origins: Vec<String>,
    /// The secret of the fleet.
    pub secret: [u8; 32],
    /// The live processes.
    pub registry: Arc<dyn Registry>,
    /// The clock.
    pub clock: Clock,
}

/// A discovery process.
pub struct Server {
    /// The connections. A drain waits for them.
    connections: Tasks,
    /// The reading of the view, and the listeners. They end afterwards.
    background: Tasks,
    health: Arc<Health>,
    metrics: Metrics,
    public: Arc<Public>,
    internal: Arc<Internal>,
}

impl Server {
    /// Builds the process and starts to read the view.
    #[must_use]
    pub fn start(parts: Parts, drain: Drain) -> Self {
        let Parts { config, allowed_origins, secret, registry, clock } = parts;
        let (connections, background) = (Tasks::new(drain.clone()), Tasks::new(Drain::new()));
        let (metrics, health) = (Metrics::new(), Arc::new(Health::new(drain)));
        let of_discovery = DiscoveryMetrics::register(&metrics);
        let local = Arc::new(Local::new(Arc::clone(&registry), config.lease()));
        let view = LiveView::new(Arc::clone(&local) as _, None, &config, clock.clone(), of_discovery.clone());
        let tickets = Arc::new(Tickets::new(&secret));
        let connector = Connector::new(view.subscribe(), tickets, clock.clone(), of_discovery.clone());
        // Only to verify: the lifetime of tokens is that of the nodes, which mint them.
        let tokens = Tokens::new(&secret, Duration::from_secs(1));
        let public = Arc::new(Public::new(connector, tokens, allowed_origins, clock.clone()));
        let calls = InternalCalls::new(&secret);
        let internal = Internal::new(calls, local, registry, view.subscribe(), clock, of_discovery);
        background.spawn("view", view.keep(health.check("view")));
        Self { connections, background, health, metrics, public, internal: Arc::new(internal) }
    }

    /// Serves clients and the processes of the fleet on these sockets, in the background.
    pub fn serve(&self, public: TcpListener, internal: TcpListener) {
        let for_clients = self.pages().merge(public::router(Arc::clone(&self.public)));
        let for_fleet = self.pages().merge(internal::router(Arc::clone(&self.internal)));
        for (check, listener, router) in
            [("listen", public, for_clients), ("listen_internal", internal, for_fleet)]
        {
            let listening = listen::run(listener, router, self.connections.clone());
            self.background.spawn_vital(self.health.check(check), listening);
        }
    }

    /// Finishes the requests under way and ends. New connections are served until then, and find the process not ready.
    pub async fn drain(self, patience: Duration) {
        if let Err(stragglers) = self.connections.close_and_wait(patience).await {
            tracing::debug!(%stragglers, "connections were cut off");
        }
        self.background.drain().stop();
    }

    /// Whether the process is ready.
    #[must_use]
    pub fn health(&self) -> Arc<Health> {
        Arc::clone(&self.health)
    }

    fn pages(&self) -> Router {
        Router::new()
            .route("/healthz", get(async || "ok\n"))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .with_state((Arc::clone(&self.health), self.metrics.clone()))
    }
}

type Pages = (Arc<Health>, Metrics);

async fn readyz(State((health, _)): State<Pages>) -> Response {
    let readiness = health.readiness();
    if readiness.ready {
        return Json(readiness).into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], Json(readiness)).into_response()
}

async fn metrics(State((_, metrics)): State<Pages>) -> Response {
    match metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, METRICS_CONTENT_TYPE)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
