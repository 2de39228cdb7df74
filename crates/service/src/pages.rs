//! `/healthz`, `/readyz` and `/metrics` of a process that serves no clients, for operators and their tools.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tower::ServiceExt;

use crate::{Health, METRICS_CONTENT_TYPE, Metrics, Tasks};

/// Connections at the same time, each for one request. Later ones wait in the kernel's backlog.
const CONNECTIONS: usize = 64;
/// The longest life of a connection.
const LIFE: Duration = Duration::from_secs(10);
/// The head of a request.
const HEAD_BYTES: usize = 16 * 1024;
/// The pause between two attempts to accept when the system has no more file descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// Serves the pages; never returns.
pub async fn serve(listener: TcpListener, health: Health, metrics: Metrics, tasks: Tasks) {
    let router = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(page))
        .with_state((health, metrics));
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((socket, _)) => {
                let router = router.clone();
                tasks.spawn("http", async move {
                    answer(socket, router).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "accepting a connection failed");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn answer(socket: TcpStream, router: Router) {
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let router = router.clone();
        async move { Ok::<_, Infallible>(router.oneshot(request).await.unwrap_or_else(|never| match never {})) }
    });
    let mut http = http1::Builder::new();
    http.keep_alive(false).timer(TokioTimer::new()).header_read_timeout(LIFE).max_buf_size(HEAD_BYTES);
    if let Ok(Err(error)) = timeout(LIFE, http.serve_connection(TokioIo::new(socket), service)).await {
        tracing::debug!(%error, "HTTP connection closed early");
    }
}

async fn readyz(State((health, _)): State<(Health, Metrics)>) -> Response {
    let readiness = health.readiness();
    match readiness.ready {
        true => Json(readiness).into_response(),
        false => {
            (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], Json(readiness)).into_response()
        }
    }
}

async fn page(State((_, metrics)): State<(Health, Metrics)>) -> Response {
    match metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, METRICS_CONTENT_TYPE)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
