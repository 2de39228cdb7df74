//! Sockets of devices that were revoked on another node, when the notice of it was lost.
//!
//! A notice comes within milliseconds, through Redis. Without Redis, or when a frame is lost, this closes the socket within 5 s (G5).

use std::sync::Arc;
use std::time::Duration;

use madang_proto::CloseReason;

use super::Gateway;

/// Together with a read of the store less than the five seconds of G5.
const EVERY: Duration = Duration::from_secs(2);

/// Asks the store every two seconds for devices that were revoked since the last answer. Ends with the drain.
pub async fn run(gateway: Arc<Gateway>) {
    let clock = &gateway.operations.clock;
    let (mut asked, mut is_answered) = (clock.elapsed(), true);
    loop {
        tokio::select! {
            () = clock.sleep(EVERY) => {}
            () = gateway.tasks.drain().draining() => return,
        }
        let begun = clock.elapsed();
        match gateway.operations.store.revoked_within(begun.saturating_sub(asked)).await {
            Ok(devices) => {
                for (user, device) in devices {
                    gateway.registry.close_device(user, device, CloseReason::DeviceRevoked);
                }
                (asked, is_answered) = (begun, true);
            }
            // The next question is for the whole time since the last answer.
            Err(error) => {
                if is_answered {
                    tracing::warn!(%error, "revoked devices cannot be read; sockets of them may stay open");
                }
                is_answered = false;
            }
        }
    }
}
