//! What the server does by itself: forgets retry keys that have had their 30 days (G2).

use super::Operations;
use crate::refusal::refusal;

const KEPT_MS: u64 = 30 * 86_400_000;
/// Forgotten in one transaction, so that nobody waits long behind it.
const AT_ONCE: usize = 1_000;

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
}
