//! Drains the gateway: asks each connection to reconnect and closes it, spread over a window of time.

use std::sync::Arc;
use std::time::Duration;

use madang_ids::UserId;
use madang_proto::{CloseReason, ServerFrame};

use super::Gateway;
use super::connection::outbound::Outbound;
use super::delivery::encode;

/// The time between two groups of connections, and between a connection's `reconnect` and its close.
const STEP: Duration = Duration::from_millis(250);

/// Waits for the drain to begin, then closes all connections over the window.
pub async fn run(gateway: Arc<Gateway>) {
    gateway.tasks.drain().draining().await;
    let all = connections(&gateway);
    let window_ms = gateway.operations.config.gateway.drain_ms;
    let steps = usize::try_from(u128::from(window_ms) / STEP.as_millis()).unwrap_or(1).max(1);
    tracing::info!(connections = all.len(), window_ms, "draining");
    for connections in all.chunks(all.len().div_ceil(steps).max(1)) {
        send_away(&gateway, connections).await;
    }
    // Connections that finished their `hello` while the window was open.
    let mut late = connections(&gateway);
    late.retain(|(_, connection)| !connection.is_closing());
    if !late.is_empty() {
        send_away(&gateway, &late).await;
    }
}

/// A connection and its user.
type OfUser = (UserId, Arc<Outbound>);

fn connections(gateway: &Gateway) -> Vec<OfUser> {
    let mut all = Vec::new();
    gateway.registry.visit_devices(|user, _, connection| all.push((user, Arc::clone(connection))));
    all
}

/// Sends `reconnect`, gives the clients [`STEP`] to finish their requests, and closes the connections.
async fn send_away(gateway: &Gateway, connections: &[OfUser]) {
    for (user, connection) in connections {
        // A connection that is closed for another reason need not come back.
        if !connection.is_closing() {
            // The closes are spread over the window, and the clients spread their return over one second.
            let after_ms = 1_000 + connection.number % 1_000;
            // Tickets are valid for 30 s, so each client gets its own now, not at the begin of the window.
            let nodes = gateway.discovery().map_or_else(Vec::new, |discovery| discovery.elsewhere(*user));
            connection.post(encode::frame(&ServerFrame::Reconnect { after_ms, nodes }));
        }
    }
    // Not the gateway's clock: a test that moves the clock must not wait for this sleep.
    tokio::time::sleep(STEP).await;
    connections.iter().for_each(|(_, connection)| connection.close(CloseReason::Draining));
}
