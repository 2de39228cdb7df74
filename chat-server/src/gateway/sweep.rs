//! Checks that are made once a second, whether there are requests or not.

use std::sync::Arc;
use std::time::Duration;

use madang_proto::CloseReason;

use super::Gateway;

const EVERY: Duration = Duration::from_secs(1);

/// The time for which a connection may take nothing while the node has no room for waiting frames.
const HOARDING: Duration = Duration::from_secs(5);

/// Large enough for the allocator to take whole pages for it.
const PURGING_BYTES: usize = 1024 * 1024;

/// mimalloc returns freed pages to the system only while pages are allocated or freed, so a process that is idle after a burst
/// would keep them. This allocates and frees pages that are never touched.
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

    /// Closes connections that do not read, once the frames that wait for all connections have used up the bytes of the node.
    /// Their clients may connect again; nothing durable is lost.
    fn let_go(&self) {
        if !self.ledger.is_full() {
            return;
        }
        tracing::warn!(
            bytes = self.ledger.bytes(),
            "the bytes in progress are used up; closing connections that do not read"
        );
        self.registry.visit_all(|connection| {
            if connection.is_hoarding(HOARDING) {
                connection.close(CloseReason::Overloaded);
            }
        });
    }
}

/// Once a second: wakes connections whose sessions must be looked at, sends moved heads to passive subscribers, and evicts idle
/// homes. Never waits for another task.
pub async fn run(gateway: Arc<Gateway>) {
    let clock = &gateway.operations.clock;
    let mut looked_at = clock.elapsed();
    loop {
        // Measured from the start of the last round, however long it took.
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
        gateway.send_moved_heads();
        gateway.operations.homes.forget_resting();
    }
}
