//! What is looked at each second, whoever asks or does not.

use std::sync::Arc;
use std::time::Duration;

use madang_proto::CloseReason;

use super::Gateway;

const EVERY: Duration = Duration::from_secs(1);

/// How long a connection may take nothing while the node has no room for what waits.
const HOARDING: Duration = Duration::from_secs(5);

/// Large enough that the allocator takes whole pages for it.
const PURGING_BYTES: usize = 1024 * 1024;

/// mimalloc gives freed pages back to the system only while pages are taken or freed: a process that rests behind a burst
/// would keep all of it. This takes and frees some that nobody touches.
fn purge_freed() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(PURGING_BYTES)));
}

impl Gateway {
    /// Closes the sockets of devices whose revocation the store has not taken yet (G5).
    fn close_revoking(&self) {
        for (device, user) in self.operations.revocations.pending() {
            self.registry.close_device(user, device, CloseReason::DeviceRevoked);
        }
    }

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
        let bytes = i64::try_from(gateway.ledger.bytes()).unwrap_or(i64::MAX);
        gateway.operations.metrics.bytes_under_way.set(bytes);
        gateway.let_go();
        gateway.close_revoking();
        purge_freed();
        gateway.tell_moved();
        gateway.operations.homes.forget_resting();
    }
}
