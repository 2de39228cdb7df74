//! Accepts connections and speaks HTTP/1.1 on them, within bounds. A TLS proxy in front of the process encrypts what clients send.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use madang_service::{Phase, Tasks};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tower::ServiceExt;

/// Connections at the same time. Later ones wait in the kernel's backlog.
const CONNECTIONS: usize = 4_096;
/// From the first byte of a request, or the end of the last one, to the end of the head of the next.
const HEAD_PATIENCE: Duration = Duration::from_secs(10);
/// The longest life of a connection: a peer that neither reads nor writes does not keep its place.
const LIFE: Duration = Duration::from_secs(300);
/// The head of a request, and the bytes of a body that are read ahead.
const HEAD_BYTES: usize = 16 * 1024;
/// The pause between two attempts to accept when the system has no more file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts connections; never returns.
pub(super) async fn run(listener: TcpListener, router: Router, tasks: Tasks) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut is_failing = false;
    loop {
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((socket, peer)) => {
                is_failing = false;
                tasks.spawn("http", serve(socket, peer, router.clone(), tasks.clone(), place));
            }
            Err(error) => {
                if !std::mem::replace(&mut is_failing, true) {
                    tracing::warn!(%error, "accepting a connection failed");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(
    socket: TcpStream,
    peer: SocketAddr,
    router: Router,
    tasks: Tasks,
    place: OwnedSemaphorePermit,
) {
    // An answer is one write, so a delay in the kernel would gain nothing.
    if let Err(error) = socket.set_nodelay(true) {
        return tracing::debug!(%error, %peer, "connection closed before it was accepted");
    }
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        let router = router.clone();
        async move { Ok::<_, Infallible>(router.oneshot(request).await.unwrap_or_else(|never| match never {})) }
    });
    let is_draining = tasks.drain().phase() != Phase::Running;
    let mut http = http1::Builder::new();
    http.keep_alive(!is_draining).timer(TokioTimer::new());
    http.header_read_timeout(HEAD_PATIENCE).max_buf_size(HEAD_BYTES);
    let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(socket), service));
    let ended = timeout(LIFE, async {
        tokio::select! {
            ended = connection.as_mut() => ended,
            () = tasks.drain().draining(), if !is_draining => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    });
    if let Ok(Err(error)) = ended.await {
        tracing::debug!(%error, %peer, "HTTP connection closed early");
    }
    drop(place);
}
