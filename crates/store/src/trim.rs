//! Removal of old data of each user, so that nothing grows for ever: old rows of the own log, and channels that were left long
//! ago.

use async_trait::async_trait;
use madang_ids::UserId;

use crate::error::StoreResult;

/// One step of a walk over all users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrimStep {
    /// The step begins after this user.
    pub after: Option<UserId>,
    /// The most users to look at.
    pub users: usize,
    /// The number of last rows of each own log that stay. It must be above the rows that a device may be behind, or a valid cursor
    /// would find a hole.
    pub own_rows: u64,
    /// The number of left channels of each user that stay.
    pub left_channels: usize,
    /// The most rows and channels to remove; the step ends when it reaches this.
    pub forgets: usize,
}

/// The result of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Trimmed {
    /// Removed rows of own logs.
    pub own_rows: u64,
    /// Removed left channels.
    pub left_channels: u64,
    /// The next step begins after this user.
    pub after: Option<UserId>,
    /// Whether there is a next step: not if all users were looked at.
    pub more: bool,
}

/// Removes data of users that is no longer needed.
#[async_trait]
pub trait TrimStore: Send + Sync + 'static {
    /// Removes up to `forgets` rows that only a deleted user read: the own log except its last row, to which the head belongs; left
    /// channels, as [`TrimStore::trim`] does; settings of channels and hidden messages; and blocks by the user, except those of
    /// users with whom there is a direct channel, which the block keeps closed. Returns the number of removed rows: fewer than
    /// `forgets` means that nothing is left.
    async fn forget_user(&self, user: UserId, forgets: usize) -> StoreResult<usize>;
}
