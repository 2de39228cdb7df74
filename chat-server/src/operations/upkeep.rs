//! Work that the server does by itself: writes received positions, deletes expired retry keys and old rows of users' own logs,
//! finishes revocations, deletions and erasures, and notes invitations.

use std::sync::Arc;
use std::time::Duration;

use madang_proto::limits;
use madang_service::{Drain, Phase};
use madang_store::{NOTES_KEPT_DAYS, StoreResult};

use super::Operations;
use super::trim::TrimWalk;

/// How long recorded sends are kept (G2): 30 days.
const SENDS_KEPT_MS: u64 = 30 * 86_400_000;
const CLAIMS_KEPT_MS: u64 = limits::IDEMPOTENCY_KEY_HOURS * 3_600_000;
const DAY_MS: u64 = 86_400_000;
/// Devices that are revoked in a minute because their tokens have expired. Each is a write and an entry. It is enough for 140,000
/// a day, and a clock that jumps ahead for a moment does not log everybody out.
const ENDED_AT_ONCE: usize = 100;
/// Keys that are deleted in one transaction, so that other writes do not wait long.
const AT_ONCE: usize = 1_000;
/// The time between two rounds. A revocation must take effect within five seconds (G5).
const ROUND: Duration = Duration::from_secs(1);
/// Old keys are deleted once a minute, and in each round while there are more. A round makes at most [`FORGET_TIMES`]
/// transactions, so that other work gets its turn. It is enough for 16,000 messages a second.
const FORGET_EVERY_ROUNDS: u32 = 60;
const FORGET_TIMES: usize = 16;

impl Operations {
    /// Deletes some of the recorded sends that are older than 30 days, and of the idempotency keys of REST that are older than a
    /// day. Returns whether there may be more.
    pub async fn forget_old_keys(&self) -> bool {
        let Some(store) = &self.upkeep else { return false };
        let now = self.clock.past_ms();
        let sends = store.forget_sends(now.minus(SENDS_KEPT_MS), AT_ONCE).await;
        let claims = store.forget_claims(now.minus(CLAIMS_KEPT_MS), AT_ONCE).await;
        let is_more = |forgotten: StoreResult<usize>| match forgotten {
            Ok(forgotten) => forgotten == AT_ONCE,
            Err(error) => {
                tracing::warn!(error = %error, "deleting old retry keys failed");
                false
            }
        };
        is_more(sends) | is_more(claims)
    }

    /// Revokes devices that cannot sign in any more without a password, and deletes devices that were revoked long ago and
    /// invitations that expired long ago.
    pub async fn end_old_sessions(&self) {
        let Some(store) = &self.upkeep else { return };
        let now = self.clock.now_ms();
        // An access token may outlive its refresh token, and a session its access token by a minute.
        let ended = self.clock.raw_ms().minus((self.config.tokens.access_seconds + 60) * 1_000);
        let long_ago = now.minus(limits::REVOKED_KEPT_DAYS * DAY_MS);
        let work = async {
            for (user, device) in store.ended_devices(ended, ENDED_AT_ONCE).await? {
                if let Err(error) = self.begin_revocation(user, device).await {
                    tracing::warn!(user.id = %user, device.id = %device, %error, "revoking a device failed; \
                         retrying");
                }
            }
            store.forget_devices(long_ago, AT_ONCE).await?;
            store.forget_invitations(long_ago, AT_ONCE).await?;
            let notes_from = now.minus(NOTES_KEPT_DAYS * DAY_MS);
            for _ in 0..FORGET_TIMES {
                if store.forget_alert_notes(notes_from, AT_ONCE).await? < AT_ONCE {
                    break;
                }
            }
            Ok(())
        };
        let done: StoreResult<()> = work.await;
        if let Err(error) = done {
            tracing::warn!(error = %error, "reading old devices failed");
        }
    }

    async fn forget_some(&self, drain: &Drain) -> bool {
        for _ in 0..FORGET_TIMES {
            if drain.phase() != Phase::Running || !self.forget_old_keys().await {
                return false;
            }
        }
        true
    }

    /// Runs until the drain begins.
    pub async fn run_upkeep(self: Arc<Self>, drain: Drain) {
        let mut forget_in = FORGET_EVERY_ROUNDS;
        let mut walk = TrimWalk::new();
        loop {
            tokio::select! {
                () = self.clock.sleep(ROUND) => {}
                () = drain.draining() => return,
            }
            self.finish_revocations().await;
            self.flush_received().await;
            self.finish_erasures().await;
            self.finish_deletions().await;
            self.trim_some(&mut walk).await;
            self.turn_written();
            self.note_due_invitations().await;
            forget_in -= 1;
            if forget_in == 0 {
                forget_in = if self.forget_some(&drain).await { 1 } else { FORGET_EVERY_ROUNDS };
                self.end_old_sessions().await;
            }
        }
    }
}
