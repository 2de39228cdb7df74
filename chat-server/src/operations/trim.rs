//! Walks over all users and forgets what none of their devices can need: rows of the own log from before the last 10,000 items,
//! and channels that were left long ago.

use madang_ids::UserId;
use madang_proto::limits;
use madang_store::TrimStep;

use super::Operations;

/// One row more than a device may be behind: it says that a cursor in front of it misses nothing.
const OWN_ROWS: u64 = limits::SYNC_ITEMS + 1;
/// Users that are looked at in a round of a second: a million take 33 minutes.
const USERS_A_ROUND: usize = 500;
/// Rows and channels that are forgotten in a round. Half as many are enough for all that users may write to own logs
/// within their limits on a node that is full.
const FORGETS_A_ROUND: usize = 1_000;
/// Between two walks.
const REST_ROUNDS: u32 = 3_600;
/// Behind a step that failed: it would most likely fail again.
const FAILED_ROUNDS: u32 = 60;
/// Before the first one: a server that has just started has other things to do.
const FIRST_ROUNDS: u32 = 60;

/// How far a walk has come.
#[derive(Debug)]
pub(super) struct TrimWalk {
    after: Option<UserId>,
    rest_rounds: u32,
}

impl TrimWalk {
    pub(super) const fn new() -> Self {
        Self { after: None, rest_rounds: FIRST_ROUNDS }
    }
}

impl Operations {
    /// One step of the walk, or of the rest between two walks. A step that fails is repeated a minute later;
    /// a user whose rows are damaged does not fail it.
    pub(super) async fn trim_some(&self, walk: &mut TrimWalk) {
        if walk.rest_rounds > 0 {
            walk.rest_rounds -= 1;
            return;
        }
        let step = TrimStep {
            after: walk.after,
            users: USERS_A_ROUND,
            own_rows: OWN_ROWS,
            left_channels: limits::LEFT_CHANNELS,
            forgets: FORGETS_A_ROUND,
        };
        match self.store.trim(step).await {
            Ok(trimmed) => {
                walk.after = trimmed.after.filter(|_| trimmed.more);
                walk.rest_rounds = if trimmed.more { 0 } else { REST_ROUNDS };
                self.metrics.forgotten_own_rows.inc_by(trimmed.own_rows);
                self.metrics.forgotten_left_channels.inc_by(trimmed.left_channels);
            }
            Err(error) => {
                walk.rest_rounds = FAILED_ROUNDS;
                let after = walk.after.map(UserId::raw);
                tracing::error!(%error, user.after = after, "old rows of users' own logs were not forgotten yet");
            }
        }
    }
}
