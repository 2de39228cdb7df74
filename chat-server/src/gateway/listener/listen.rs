//! Accepts TCP connections and speaks HTTP/1.1 on them, through TLS if there is a certificate. Bounds the number of connections,
//! in total and of each address, and the time that each may take to send a request and to read its answer.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use madang_service::{Phase, Tasks};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tower::ServiceExt;

use crate::gateway::Gateway;
use crate::gateway::listener::addresses::Counted;
use crate::gateway::listener::places::Place;
use crate::gateway::listener::proxies;
use crate::gateway::listener::write_timeout::WriteTimeout;
use crate::rest::conform;

/// Connections that speak HTTP at the same time. An upgraded socket leaves this count and is counted among the gateway's seats.
pub(crate) const HTTP_CONNECTIONS: usize = 2_048;
/// From the first byte of a request, or the end of the last one, to the end of the head of the next.
const HEAD_PATIENCE: Duration = Duration::from_secs(30);
/// From the first byte to the end of a TLS handshake, which takes two round trips.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(10);
/// Replaces both of the above for connections that arrive while the node drains.
const DRAIN_PATIENCE: Duration = Duration::from_secs(1);
/// The head of a request, and the bytes of a body that are read ahead.
pub(crate) const HEAD_BYTES: usize = 16 * 1024;
/// The pause between two attempts to accept when the system has no more file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts connections and never returns. During the drain no socket is opened, but REST still answers, and load balancers can
/// still ask whether the node is ready.
pub async fn run(listener: TcpListener, router: Router, gateway: Arc<Gateway>) {
    let mut is_failing = false;
    loop {
        match listener.accept().await {
            Ok((socket, peer)) => {
                if std::mem::take(&mut is_failing) {
                    tracing::info!("accepting connections again");
                }
                // The gateway gathers frames before it writes, so a delay in the kernel would gain nothing.
                if let Err(error) = socket.set_nodelay(true) {
                    tracing::debug!(%error, %peer, "connection closed before it was accepted");
                    continue;
                }
                // A connection above the limit of its address is closed without an answer: an answer would cost more than it is
                // worth to a peer with this number of connections.
                if let Ok(counted) = gateway.count_peer(peer.ip()) {
                    // While this waits for a place, later connections wait in the kernel's backlog.
                    let place = Arc::new(gateway.place(peer.ip()).await);
                    let (router, of) = (router.clone(), Arc::clone(&gateway));
                    gateway.tasks.spawn("http", serve(socket, peer, router, of, (place, counted)));
                }
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
    gateway: Arc<Gateway>,
    (place, counted): (Arc<Place>, Option<Counted>),
) {
    tokio::select! {
        () = serve_placed(socket, peer, router, &gateway, &place) => {}
        () = place.evicted() => {
            gateway.operations.metrics.evicted.inc();
            tracing::debug!(%peer, "connection without a complete request closed to make room");
        }
    }
    drop(counted);
}

async fn serve_placed(
    socket: TcpStream,
    peer: SocketAddr,
    router: Router,
    gateway: &Gateway,
    place: &Arc<Place>,
) {
    let (tasks, place) = (&gateway.tasks, Arc::clone(place));
    let write_patience = Duration::from_secs(gateway.operations.config.gateway.write_seconds);
    match &gateway.tls {
        None => speak(WriteTimeout::new(socket, write_patience), peer, router, place, tasks).await,
        Some(tls) => {
            let patience = patience(tasks, HANDSHAKE_PATIENCE);
            match timeout(patience, tls.acceptor().accept(socket)).await {
                Ok(Ok(stream)) => {
                    speak(WriteTimeout::new(stream, write_patience), peer, router, place, tasks).await;
                }
                Ok(Err(error)) => tracing::debug!(%error, %peer, "TLS handshake failed"),
                Err(_) => tracing::debug!(%peer, "TLS handshake timed out"),
            }
        }
    }
}

/// A connection that arrives during the drain gets one answer and little time to send its request.
fn patience(tasks: &Tasks, usual: Duration) -> Duration {
    if tasks.drain().phase() == Phase::Running { usual } else { DRAIN_PATIENCE }
}

async fn speak<S>(stream: S, peer: SocketAddr, router: Router, place: Arc<Place>, tasks: &Tasks)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        conform::normalise(&mut request);
        request.extensions_mut().insert(ConnectInfo(peer));
        request.extensions_mut().insert(Arc::clone(&place));
        let router = router.clone();
        async move { Ok::<_, Infallible>(router.oneshot(request).await.unwrap_or_else(|never| match never {})) }
    });
    let is_draining = tasks.drain().phase() != Phase::Running;
    let mut http = http1::Builder::new();
    http.keep_alive(!is_draining);
    let patience = patience(tasks, HEAD_PATIENCE);
    http.timer(TokioTimer::new()).header_read_timeout(patience).max_buf_size(HEAD_BYTES);
    let connection = http.serve_connection(TokioIo::new(stream), service).with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = tasks.drain().draining(), if !is_draining => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, %peer, "HTTP connection closed early");
    }
}

/// The address has reached its limit.
#[derive(Debug)]
pub struct Crowded;

impl Gateway {
    /// Counts a connection of `peer`. The connections of a trusted proxy are not counted; its requests are counted for the
    /// address of each client.
    fn count_peer(&self, peer: IpAddr) -> Result<Option<Counted>, Crowded> {
        if proxies::is_trusted(peer, &self.operations.config.server) {
            return Ok(None);
        }
        self.count(peer).map(Some)
    }

    /// Waits for a place for a connection of `peer`. A trusted proxy keeps its places; its unfinished requests are listed under
    /// the address of the client.
    async fn place(&self, peer: IpAddr) -> Place {
        let is_trusted = proxies::is_trusted(peer, &self.operations.config.server);
        loop {
            let place = if is_trusted { self.places.try_keep() } else { self.places.try_take(peer) };
            match place {
                Some(place) => return place,
                None => self.places.freed().await,
            }
        }
    }

    /// Counts a connection or request of `address` until the result is dropped.
    ///
    /// # Errors
    /// [`Crowded`], which is also counted by the metric `crowded`.
    pub(crate) fn count(&self, address: IpAddr) -> Result<Counted, Crowded> {
        let limit = self.operations.config.limits.connections_of_address();
        self.addresses.count(address, limit).ok_or_else(|| {
            self.operations.metrics.crowded.inc();
            Crowded
        })
    }
}
