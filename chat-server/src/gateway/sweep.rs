//! What is looked at each second, whoever asks or does not.

use std::sync::Arc;
use std::time::Duration;

use madang_proto::CloseReason;

use super::Gateway;

const EVERY: Duration = Duration::from_secs(1);

/// How long a connection may take nothing while the node has no room for what waits.
const HOARDING: Duration = Duration::from_secs(5);

impl Gateway {
    /// Closes connections that do not read once what waits for all of them has used up the node's bytes. They may come
    /// back; nothing durable is lost.
    fn let_go(&self) {
        if !self.ledger.is_full() {
            return;
        }
        tracing::warn!(
            bytes = self.ledger.bytes(),
            "the bytes under way are used up; connections that do not read are closed"
        );
        self.registry.visit_all(|connection| {
            if connection.is_hoarding(HOARDING) {
                connection.close(CloseReason::Overloaded);
            }
        });
    }
}

/// Wakes connections whose sessions must be looked at, tells passive subscribers what moved, and forgets homes that
/// rest, each second. Waits for nobody.
pub async fn run(gateway: Arc<Gateway>) {
    let clock = &gateway.operations.clock;
    let mut looked_at = clock.elapsed();
    loop {
        // From look to look, whatever the look takes.
        let rest = (looked_at + EVERY).saturating_sub(clock.elapsed());
        tokio::select! {
            () = clock.sleep(rest) => {}
            () = gateway.tasks.drain().draining() => break,
        }
        looked_at = clock.elapsed();
        gateway.registry.sweep(looked_at);
        gateway.let_go();
        gateway.tell_moved();
        gateway.operations.homes.forget_resting();
    }
}
