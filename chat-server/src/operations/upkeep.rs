//! What the server does by itself: forgets retry keys that have had their 30 days (G2), and finishes revocations.

use std::sync::Arc;
use std::time::Duration;

use madang_service::Drain;

use super::Operations;
use crate::refusal::refusal;

const KEPT_MS: u64 = 30 * 86_400_000;
/// Forgotten in one transaction, so that nobody waits long behind it.
const AT_ONCE: usize = 1_000;
/// Between two tries of what must be finished; G5 allows five seconds.
const TRY_AGAIN: Duration = Duration::from_secs(1);

impl Operations {
    /// Forgets some of the recorded sends that are older than 30 days; says whether there may be more.
    pub async fn forget_old_sends(&self) -> bool {
        let before = self.clock.now_ms().minus(KEPT_MS);
        match self.store.forget_sends(before, AT_ONCE).await {
            Ok(forgotten) => forgotten == AT_ONCE,
            Err(error) => {
                tracing::warn!(error = %refusal(&error), "old retry keys were not forgotten");
                false
            }
        }
    }

    /// Finishes each second what callers began and did not bring to its end, until the drain.
    pub async fn run_upkeep(self: Arc<Self>, drain: Drain) {
        loop {
            tokio::select! {
                () = self.clock.sleep(TRY_AGAIN) => {}
                () = drain.draining() => return,
            }
            self.finish_revocations().await;
        }
    }
}
