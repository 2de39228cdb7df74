//! What is looked at each second, whoever asks or does not.

use std::sync::Arc;
use std::time::Duration;

use super::Gateway;

const EVERY: Duration = Duration::from_secs(1);

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
        gateway.tell_moved();
        gateway.operations.homes.forget_resting();
    }
}
