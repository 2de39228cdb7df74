//! Visits all users in turn and deletes what none of their devices can need: rows of a user's own log from before the last 10,000
//! items, and channels that the user left long ago.

use madang_ids::UserId;
use madang_proto::limits;
use madang_store::TrimStep;

use super::Operations;

/// One row more than a device may be behind. It proves that a cursor before it misses nothing.
const OWN_ROWS: u64 = limits::SYNC_ITEMS + 1;
/// Users in one round of a second: a million users take 33 minutes.
const USERS_A_ROUND: usize = 500;
/// Rows and channels that are deleted in one round. Half of it would be enough for everything that users may write to own logs
/// within their limits on a full node.
const FORGETS_A_ROUND: usize = 1_000;
/// Rounds between two walks.
const REST_ROUNDS: u32 = 3_600;
/// Rounds after a step that failed: it would probably fail again.
const FAILED_ROUNDS: u32 = 60;
/// Rounds before the first walk: a server that has just started has more urgent work.
const FIRST_ROUNDS: u32 = 60;

/// The state of a walk.
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
    /// Takes one step of the walk, or of the rest between two walks. A step that fails is repeated a minute later. A user whose
    /// rows are damaged does not make it fail.
    pub(super) async fn trim_some(&self, walk: &mut TrimWalk) {
        let Some(upkeep) = &self.upkeep else { return };
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
        match upkeep.trim(step).await {
            Ok(trimmed) => {
                walk.after = trimmed.after.filter(|_| trimmed.more);
                walk.rest_rounds = if trimmed.more { 0 } else { REST_ROUNDS };
                self.metrics.forgotten_own_rows.inc_by(trimmed.own_rows);
                self.metrics.forgotten_left_channels.inc_by(trimmed.left_channels);
            }
            Err(error) => {
                walk.rest_rounds = FAILED_ROUNDS;
                let after = walk.after.map(UserId::raw);
                tracing::error!(%error, user.after = after, "deleting old rows of users' own logs failed; retrying");
            }
        }
    }
}
