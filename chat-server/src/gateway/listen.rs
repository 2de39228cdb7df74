//! Takes TCP connections and speaks HTTP/1.1 on them, with bounds on how many there are, of all and of one address, and
//! how long each may take to say what it wants.

use std::collections::HashMap;
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
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::ServiceExt;

use super::Gateway;
use crate::operations::network;

/// Connections that speak HTTP at once; an upgraded socket has left this count and is in the registry's.
const HTTP_CONNECTIONS: usize = 2_048;
/// From the first byte of a request, or the end of the last one, to the end of the head of the next.
const HEAD_PATIENCE: Duration = Duration::from_secs(30);
/// The same for who comes while the node drains.
const DRAIN_PATIENCE: Duration = Duration::from_secs(1);
/// Head of a request, and what is read ahead of a body.
const HEAD_BYTES: usize = 16 * 1024;
/// Between two tries to accept when the system has no more files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts for ever: during the drain no socket is opened, but REST answers, and whether the node is ready can be
/// asked.
pub async fn run(listener: TcpListener, router: Router, gateway: Arc<Gateway>) {
    let (tasks, metrics) = (&gateway.tasks, &gateway.operations.metrics);
    let of_address = gateway.operations.config.limits.connections_of_address();
    let addresses = Addresses::default();
    let places = Arc::new(Semaphore::new(HTTP_CONNECTIONS));
    loop {
        match next(&listener, &places).await {
            Ok((socket, peer, place)) => match addresses.count(peer.ip(), of_address) {
                Some(counted) => {
                    let connection = serve(socket, peer, router.clone(), tasks.clone(), (place, counted));
                    tasks.spawn("http", connection);
                }
                // Closed without a word: an answer would cost more than it is worth to who opens so many.
                None => {
                    metrics.crowded.inc();
                }
            },
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The next connection, once there is a place for it; until then the kernel's backlog holds it.
async fn next(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(std::io::Error::other)?;
    let (socket, peer) = listener.accept().await?;
    // Frames are gathered before they are written, so there is nothing for the kernel to wait for.
    socket.set_nodelay(true)?;
    Ok((socket, peer, place))
}

async fn serve(
    socket: TcpStream,
    peer: SocketAddr,
    router: Router,
    tasks: Tasks,
    place: (OwnedSemaphorePermit, Counted),
) {
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        let router = router.clone();
        async move { Ok::<_, Infallible>(router.oneshot(request).await.unwrap_or_else(|never| match never {})) }
    });
    let is_draining = tasks.drain().phase() != Phase::Running;
    let mut http = http1::Builder::new();
    // Who comes during the drain gets one answer, and must not be long about the question.
    let patience = if is_draining { DRAIN_PATIENCE } else { HEAD_PATIENCE };
    http.keep_alive(!is_draining);
    http.timer(TokioTimer::new()).header_read_timeout(patience).max_buf_size(HEAD_BYTES);
    let connection = http.serve_connection(TokioIo::new(socket), service).with_upgrades();
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
    drop(place);
}

/// Connections of each address that speak HTTP now; together at most [`HTTP_CONNECTIONS`].
#[derive(Debug, Clone, Default)]
struct Addresses(Arc<Mutex<HashMap<IpAddr, u32>>>);

/// A connection among those of its address; leaves them when dropped.
struct Counted {
    addresses: Addresses,
    address: IpAddr,
}

impl Addresses {
    /// Counts a connection in, unless its address has `limit` already.
    fn count(&self, address: IpAddr, limit: u32) -> Option<Counted> {
        let address = network(address);
        let mut counts = self.0.lock();
        let count = counts.entry(address).or_default();
        if *count >= limit {
            return None;
        }
        *count += 1;
        Some(Counted { addresses: self.clone(), address })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.addresses.0.lock();
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_counted_until_its_last_connection_ends() {
        let addresses = Addresses::default();
        let count = |address: &str| addresses.count(address.parse().unwrap(), 2);
        let (first, second) = (count("2001:db8::1"), count("2001:db8::ffff:2"));
        assert!(first.is_some() && second.is_some());
        // Its whole /64 is one caller, and no other is.
        assert!(count("2001:db8::3").is_none());
        let others = [count("2001:db8:0:1::1"), count("10.0.0.1"), count("::ffff:10.0.0.1")];
        assert!(others.iter().all(Option::is_some));
        assert!(count("10.0.0.1").is_none());
        drop(first);
        let third = count("2001:db8::3");
        assert!(third.is_some() && count("2001:db8::4").is_none());
        drop((second, third, others));
        assert!(addresses.0.lock().is_empty());
    }
}
