//! Upgrades an HTTP request to WebSocket if the origin, the subprotocol and the limits allow it and there is room.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use hyper::upgrade::OnUpgrade;
use madang_engine::overload::Class;
use madang_proto::ErrorBody;
use madang_service::Phase;
use tracing::Instrument;

use crate::gateway::Gateway;
use crate::gateway::connection;
use crate::gateway::listener::addresses::Counted;
use crate::gateway::listener::places::Place;
use crate::gateway::socket::handshake;
use crate::gateway::socket::pipe::Pipe;
use crate::metrics::ChatMetrics;
use crate::operations::network;
use crate::refusal::Refusal;

/// `GET /v1/ws`
pub(crate) async fn accept(
    State(gateway): State<Arc<Gateway>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    mut request: Request,
) -> Response {
    match gateway.admit(peer, &mut request) {
        Ok((response, upgrade, mut seat)) => {
            seat.ticket = ticket_in(request.uri().query());
            let tasks = gateway.tasks.clone();
            // The buffers of the handshake are freed with this task; a new task runs the connection.
            tasks.spawn("upgrade", upgraded(gateway, upgrade, seat).in_current_span());
            response
        }
        Err(refusal) => *refusal,
    }
}

async fn upgraded(gateway: Arc<Gateway>, upgrade: OnUpgrade, seat: SocketPlace) {
    let upgraded = match upgrade.await {
        Ok(upgraded) => upgraded,
        Err(error) => return tracing::debug!(%error, "upgrade not completed"),
    };
    match Pipe::take(upgraded) {
        Ok((pipe, read_ahead)) => {
            let tasks = gateway.tasks.clone();
            let number = gateway.next_number();
            // The only line with both ids: that of the request (from the span) and that of the connection, which all later lines
            // carry.
            tracing::info!(connection.id = number, "connection opened");
            tasks.spawn("connection", connection::run(gateway, number, pipe, read_ahead, seat));
        }
        Err(_) => tracing::error!("an upgraded connection is not a connection of this server"),
    }
}

impl Gateway {
    /// Checks a request that wants to open a socket. Returns the answer and the place that the socket takes.
    fn admit(
        &self,
        peer: SocketAddr,
        request: &mut Request,
    ) -> Result<(Response, OnUpgrade, SocketPlace), Box<Response>> {
        let refuse = |error: ErrorBody| Box::new(Refusal(error).into_response());
        self.check(peer, request.headers()).map_err(refuse)?;
        let upgrade = hyper::upgrade::on(&mut *request);
        let (parts, body) = std::mem::take(request).into_parts();
        let answer = handshake::answer(&parts);
        *request = Request::from_parts(parts, body);
        let response = answer.map_err(|refusal| Box::new(refusal.into_response()))?;
        Ok((response, upgrade, SocketPlace::take(self, peer.ip()).map_err(refuse)?))
    }

    fn check(&self, peer: SocketAddr, headers: &HeaderMap) -> Result<(), ErrorBody> {
        if self.tasks.drain().phase() != Phase::Running {
            return Err(ErrorBody::unavailable("this node is draining", 1000));
        }
        self.operations.shedding.admit(Class::Connections, caller_at(peer.ip()))?;
        self.operations.callers.take_address(peer.ip())?;
        let allowed = &self.operations.config.server.allowed_origins;
        let mut origins = headers.get_all(header::ORIGIN).iter();
        if origins.all(|origin| is_allowed(origin.as_bytes(), allowed)) {
            return Ok(());
        }
        Err(ErrorBody::forbidden("pages of this origin may not open sockets; see server.allowed_origins"))
    }
}

/// Stands for a caller whose user is not known yet.
fn caller_at(address: IpAddr) -> u64 {
    match network(address) {
        IpAddr::V4(address) => u64::from(address.to_bits()),
        // The lower half is zero.
        IpAddr::V6(address) => u64::try_from(address.to_bits() >> 64).unwrap_or_default(),
    }
}

/// The longest ticket that is kept until `hello`. Ours are shorter.
const TICKET_BYTES: usize = 128;

/// The ticket in the query of the request, if it can be one. It is judged when the user is known.
fn ticket_in(query: Option<&str>) -> Option<Box<str>> {
    let mut tickets = query?.split('&').filter_map(|pair| pair.strip_prefix("ticket="));
    tickets.next().filter(|ticket| ticket.len() <= TICKET_BYTES).map(Box::from)
}

/// An entry of the list of allowed origins that allows every origin.
pub(crate) const ANY_ORIGIN: &str = "*";

/// Whether a page of `origin` may open a socket. If `allowed` is empty, only pages from this machine may.
#[must_use]
pub(crate) fn is_allowed(origin: &[u8], allowed: &[String]) -> bool {
    if !allowed.is_empty() {
        return allowed.iter().any(|one| one == ANY_ORIGIN || one.as_bytes() == origin);
    }
    let origin = String::from_utf8_lossy(origin);
    let host = origin.split_once("://").map_or("", |(_, rest)| rest);
    let host = if host.starts_with('[') { host.split_inclusive(']').next() } else { host.split(':').next() };
    matches!(host, Some("localhost" | "127.0.0.1" | "[::1]"))
}

/// A place among the sockets of the node and among those of its address. Both are freed when it is dropped.
pub(in crate::gateway) struct SocketPlace {
    /// What the client has brought from discovery, until `hello`.
    ticket: Option<Box<str>>,
    place: Place,
    _counted: Counted,
    address: IpAddr,
    metrics: ChatMetrics,
}

impl SocketPlace {
    fn take(gateway: &Gateway, address: IpAddr) -> Result<Self, ErrorBody> {
        let config = &gateway.operations.config;
        let of_address = config.limits.sockets_of_address();
        let counted = gateway.seated.count(address, of_address).ok_or_else(|| {
            gateway.operations.metrics.crowded.inc();
            let message =
                format!("this address has {of_address} sockets, the limit (limits.address_sockets)");
            ErrorBody::limited(message, 5_000)
        })?;
        let place = gateway.seats.try_take(address).ok_or_else(|| {
            let limit = config.gateway.connections;
            ErrorBody::unavailable(format!("this node has {limit} sockets, the limit"), 5_000)
        })?;
        let metrics = gateway.operations.metrics.clone();
        metrics.connections.inc();
        Ok(Self { ticket: None, place, _counted: counted, address, metrics })
    }

    /// The ticket of the socket; `None` from then on.
    pub(in crate::gateway) const fn take_ticket(&mut self) -> Option<Box<str>> {
        self.ticket.take()
    }

    /// The address that the socket is counted for.
    pub(in crate::gateway) const fn address(&self) -> IpAddr {
        self.address
    }

    /// The connection was welcomed: its place can no longer be given to another socket.
    pub(in crate::gateway) fn keep(&self) {
        self.place.set(None, self.address);
    }

    /// Waits until the place is given to another socket. Cancel safe.
    pub(in crate::gateway) async fn evicted(&self) {
        self.place.evicted().await;
    }
}

impl Drop for SocketPlace {
    fn drop(&mut self) {
        self.metrics.connections.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::{TICKET_BYTES, is_allowed, ticket_in};

    #[test]
    fn a_ticket_is_taken_from_the_query() {
        assert_eq!(ticket_in(Some("ticket=AbYx3k")).as_deref(), Some("AbYx3k"));
        assert_eq!(ticket_in(Some("v=1&ticket=AbYx3k&x")).as_deref(), Some("AbYx3k"));
        let long = format!("ticket={}", "A".repeat(TICKET_BYTES + 1));
        for query in [None, Some(""), Some("ticket"), Some("tickets=A"), Some(&*long)] {
            assert_eq!(ticket_in(query), None, "{query:?}");
        }
    }

    #[test]
    fn pages_on_this_machine_are_allowed_unless_there_is_a_list() {
        for origin in ["http://localhost:5173", "http://127.0.0.1", "https://[::1]:8443"] {
            assert!(is_allowed(origin.as_bytes(), &[]), "{origin}");
        }
        for origin in
            ["https://evil.example", "null", "http://localhost.evil.example", "http://127.0.0.1.evil.example"]
        {
            assert!(!is_allowed(origin.as_bytes(), &[]), "{origin}");
        }
        let list = ["https://chat.example".to_owned()];
        assert!(is_allowed(b"https://chat.example", &list));
        assert!(!is_allowed(b"http://localhost", &list));
        assert!(is_allowed(b"http://localhost", &["*".to_owned()]));
    }
}
