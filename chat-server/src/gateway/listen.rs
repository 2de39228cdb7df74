//! Takes TCP connections and speaks HTTP/1.1 on them, through TLS if there is a certificate, with bounds on how many
//! there are, of all and of one address, and how long each may take to say what it wants and to take its answer.

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

use super::addresses::Counted;
use super::places::Place;
use super::write_timeout::WriteTimeout;
use super::{Gateway, proxies};
use crate::rest::conform;

/// Connections that speak HTTP at once; an upgraded socket has left this count and is among the gateway's seats.
pub(crate) const HTTP_CONNECTIONS: usize = 2_048;
/// From the first byte of a request, or the end of the last one, to the end of the head of the next.
const HEAD_PATIENCE: Duration = Duration::from_secs(30);
/// From the first byte to the end of a TLS handshake, two round trips later.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(10);
/// The first two, for who comes while the node drains.
const DRAIN_PATIENCE: Duration = Duration::from_secs(1);
/// Head of a request, and what is read ahead of a body.
pub(crate) const HEAD_BYTES: usize = 16 * 1024;
/// Between two tries to accept when the system has no more files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts for ever: during the drain no socket is opened, but REST answers, and whether the node is ready can be
/// asked.
pub async fn run(listener: TcpListener, router: Router, gateway: Arc<Gateway>) {
    let mut is_failing = false;
    loop {
        match listener.accept().await {
            Ok((socket, peer)) => {
                if std::mem::take(&mut is_failing) {
                    tracing::info!("connections are accepted again");
                }
                // Frames are gathered before they are written, so there is nothing for the kernel to wait for.
                if let Err(error) = socket.set_nodelay(true) {
                    tracing::debug!(%error, %peer, "a connection was gone at once");
                    continue;
                }
                // Who is crowded is closed without a word: an answer would cost more than it is worth to who opens so
                // many.
                if let Ok(counted) = gateway.count_peer(peer.ip()) {
                    // Until there is a place for it the kernel's backlog holds those behind it.
                    let place = Arc::new(gateway.place(peer.ip()).await);
                    let (router, of) = (router.clone(), Arc::clone(&gateway));
                    gateway.tasks.spawn("http", serve(socket, peer, router, of, (place, counted)));
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut is_failing, true) {
                    tracing::warn!(%error, "connections cannot be accepted");
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
            tracing::debug!(%peer, "a connection without a whole request gave its place to another one");
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
                Ok(Err(error)) => tracing::debug!(%error, %peer, "a TLS handshake failed"),
                Err(_) => tracing::debug!(%peer, "a TLS handshake took too long"),
            }
        }
    }
}

/// Who comes during the drain gets one answer, and must not be long about the question.
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
        tracing::debug!(%error, %peer, "an HTTP connection ended early");
    }
}

/// An address has as many connections as it may have.
#[derive(Debug)]
pub struct Crowded;

impl Gateway {
    /// Counts a connection of `peer` in; a trusted proxy's are not counted, but what it asks for each of its clients.
    fn count_peer(&self, peer: IpAddr) -> Result<Option<Counted>, Crowded> {
        if proxies::is_trusted(peer, &self.operations.config.server) {
            return Ok(None);
        }
        self.count(peer).map(Some)
    }

    /// A place for a connection of `peer`, once there is one. A trusted proxy keeps its places; what it asks for is
    /// listed under the address of its client.
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

    /// Counts something of `address` in, until it is dropped.
    ///
    /// # Errors
    /// [`Crowded`]; counted by its metric.
    pub(crate) fn count(&self, address: IpAddr) -> Result<Counted, Crowded> {
        let limit = self.operations.config.limits.connections_of_address();
        self.addresses.count(address, limit).ok_or_else(|| {
            self.operations.metrics.crowded.inc();
            Crowded
        })
    }
}
