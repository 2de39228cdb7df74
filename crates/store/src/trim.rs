//! What upkeep forgets of each user, so that nothing grows for ever: old rows of the own log, and channels that were left long
//! ago.

use async_trait::async_trait;
use madang_ids::UserId;

use crate::error::StoreResult;

/// What one step of a walk over all users does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrimStep {
    /// Behind this user the step goes on.
    pub after: Option<UserId>,
    /// Users that it looks at.
    pub users: usize,
    /// Rows of each own log that stay, the last ones. More than a device may be behind, or a cursor that is still good
    /// would find a hole.
    pub own_rows: u64,
    /// Channels that a user has left and that stay known.
    pub left_channels: usize,
    /// Rows and channels that it forgets; it ends with the one that reaches this.
    pub forgets: usize,
}

/// What a step has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Trimmed {
    /// Rows of own logs that it forgot.
    pub own_rows: u64,
    /// Left channels that it forgot.
    pub left_channels: u64,
    /// Behind this user the next step goes on.
    pub after: Option<UserId>,
    /// Whether there is a next step: not when all users were looked at.
    pub more: bool,
}

/// Forgets what is no longer needed of users.
#[async_trait]
pub trait TrimStore: Send + Sync + 'static {
    /// One step over the users who have an own log, by id.
    ///
    /// Of an own log the first rows go; its head stays, and a [`scan`](crate::CommitOrder::scan) from before the rows that
    /// are left gives up. Of left channels the membership and the member's row go, with the read marker, the settings and
    /// the hidden messages: open channels first, since who has left one reads nothing of it, then stays that were not
    /// accepted, since anybody could have caused them, and of the rest those that were left longest ago. A scan from before the
    /// end of a stay in a group that is forgotten gives up. A ban or a change that is pending keeps the row.
    ///
    /// A user whose rows are damaged is left out. Each user is one write where the store can. Repeating a step is harmless.
    async fn trim(&self, step: TrimStep) -> StoreResult<Trimmed>;

    /// Forgets up to `forgets` rows of what a deleted user alone read: the own log but its last row, which its head is of;
    /// channels that were left, as [`TrimStore::trim`] does; settings of channels and hidden messages; and whom the user
    /// blocks, but for those with whom there is a direct channel, which the block keeps closed. Says how many went: fewer
    /// than `forgets` means that nothing is left.
    async fn forget_user(&self, user: UserId, forgets: usize) -> StoreResult<usize>;
}
