//! Upgrades HTTP to WebSocket, if origin, subprotocol, limits and room allow it.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use madang_proto::{ErrorBody, SUBPROTOCOL_JSON, limits};
use madang_service::Phase;

use super::Gateway;
use super::connection;
use crate::refusal::Refusal;

/// What is read at once; small, because every connection keeps as much.
const READ_BUFFER_BYTES: usize = 1024;
/// Frames are gathered up to here before they are written.
const WRITE_BUFFER_BYTES: usize = 16 * 1024;
/// A written frame waits in memory at most with one that is this large.
const WRITE_BUFFER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// `GET /v1/ws`
pub async fn accept(
    State(gateway): State<Arc<Gateway>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Response {
    if let Err(error) = gateway.check(peer, &headers) {
        return Refusal(error).into_response();
    }
    let upgrade = upgrade
        .protocols([SUBPROTOCOL_JSON])
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_write_buffer_size(WRITE_BUFFER_BYTES_MAX)
        .max_message_size(limits::FRAME_BYTES_LIBRARY)
        .max_frame_size(limits::FRAME_BYTES_LIBRARY);
    if upgrade.selected_protocol().is_none() {
        let message = format!("offer the subprotocol {SUBPROTOCOL_JSON}");
        return Refusal(ErrorBody::invalid("Sec-WebSocket-Protocol", message)).into_response();
    }
    let seat = match Seat::take(&gateway) {
        Ok(seat) => seat,
        Err(error) => return Refusal(error).into_response(),
    };
    upgrade.on_upgrade(move |socket| async move {
        // A fresh task: this one carries the handshake's buffers with it.
        let tasks = gateway.tasks.clone();
        tasks.spawn("connection", connection::run(gateway, socket, seat));
    })
}

impl Gateway {
    fn check(&self, peer: SocketAddr, headers: &HeaderMap) -> Result<(), ErrorBody> {
        if self.tasks.drain().phase() != Phase::Running {
            return Err(ErrorBody::unavailable("this node is leaving", 1000));
        }
        self.operations.callers.take_address(peer.ip(), self.operations.clock.now_ms())?;
        match headers.get(header::ORIGIN) {
            Some(origin)
                if !is_allowed(origin.as_bytes(), &self.operations.config.server.allowed_origins) =>
            {
                Err(ErrorBody::forbidden(
                    "pages of this origin may not open sockets; see server.allowed_origins",
                ))
            }
            _ => Ok(()),
        }
    }
}

/// Whether a page of `origin` may talk to this server. Without a list, pages on this machine may.
#[must_use]
pub fn is_allowed(origin: &[u8], allowed: &[String]) -> bool {
    if !allowed.is_empty() {
        return allowed.iter().any(|one| one.as_bytes() == origin);
    }
    let origin = String::from_utf8_lossy(origin);
    let host = origin.split_once("://").map_or("", |(_, rest)| rest);
    let host = if host.starts_with('[') { host.split_inclusive(']').next() } else { host.split(':').next() };
    matches!(host, Some("localhost" | "127.0.0.1" | "[::1]"))
}

/// A place among the node's sockets; given back when dropped.
pub(super) struct Seat(Arc<Gateway>);

impl Seat {
    fn take(gateway: &Arc<Gateway>) -> Result<Self, ErrorBody> {
        let limit = gateway.operations.config.gateway.connections;
        if !gateway.registry.admit(limit) {
            return Err(ErrorBody::unavailable(format!("this node has its {limit} connections"), 5000));
        }
        gateway.operations.metrics.connections.inc();
        Ok(Self(Arc::clone(gateway)))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.registry.dismiss();
        self.0.operations.metrics.connections.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::is_allowed;

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
    }
}
