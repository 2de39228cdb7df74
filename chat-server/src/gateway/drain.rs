//! Sends the connections away politely: each is told when to come back, spread over a window.

use std::sync::Arc;
use std::time::Duration;

use madang_proto::{CloseReason, ServerFrame};

use super::outbound::Outbound;
use super::{Gateway, encode};

/// How often the window moves on.
const STEP: Duration = Duration::from_millis(100);

/// Waits for the drain, then closes all connections over the window.
pub async fn run(gateway: Arc<Gateway>) {
    gateway.tasks.drain().draining().await;
    let mut all: Vec<Arc<Outbound>> = Vec::new();
    gateway.registry.visit_all(|connection| all.push(Arc::clone(connection)));
    let window_ms = gateway.operations.config.gateway.drain_ms;
    let steps = usize::try_from(window_ms / 100).unwrap_or(1).max(1);
    tracing::info!(connections = all.len(), window_ms, "draining");
    for connections in all.chunks(all.len().div_ceil(steps).max(1)) {
        connections.iter().for_each(send_away);
        gateway.operations.clock.sleep(STEP).await;
    }
    // Who came in while the window was open.
    gateway.registry.visit_all(send_away);
}

fn send_away(connection: &Arc<Outbound>) {
    // Once; who is closed for another reason need not come back.
    if !connection.is_closing() {
        // The window spreads the closes, and the client spreads its return over the same second.
        let frame = ServerFrame::Reconnect { after_ms: 1_000 + connection.number % 1_000, nodes: Vec::new() };
        connection.post(encode::frame(&frame));
        connection.close(CloseReason::Draining);
    }
}
