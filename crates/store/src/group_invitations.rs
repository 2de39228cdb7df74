//! Invitations to groups, for users who may not be added at once.

use async_trait::async_trait;
use madang_ids::{ChannelId, Millis, UserId};

use crate::error::StoreResult;

/// An invitation to a group. It gives nobody a seat and no entry of the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupInvitation {
    /// The invited user.
    pub user_id: UserId,
    /// The group.
    pub channel_id: ChannelId,
    /// The inviter.
    pub by: UserId,
    /// The time of the last change.
    pub at: Millis,
    /// Whether it waits, was declined, or has ended.
    pub state: GroupInvitationState,
    /// Rises with each change.
    pub rev: u64,
    /// Whether the user's own log has the note of this.
    pub is_recorded: bool,
}

/// The state of an invitation to a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupInvitationState {
    /// It waits for an answer.
    Waiting,
    /// The user declined, or one of the two blocked the other when it was made. It is remembered, so that the same person
    /// does not repeat it.
    Declined,
    /// It has ended, and is removed once the user's own log has the note of that.
    Ended,
}

/// The most invitations of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupInvitationLimits {
    /// Invitations that wait; above it the oldest ends.
    pub waiting: u32,
    /// Invitations by one inviter that wait; above it the oldest by that inviter ends, so that one inviter cannot displace the
    /// invitations of others.
    pub by_one: u32,
    /// Declined invitations that are kept; above it the oldest of the inviter with the most is removed, so that one inviter cannot
    /// displace those of others.
    pub declined: u32,
}

/// The invitations to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The invitation of a user to a group.
    One(UserId, ChannelId),
    /// The invitations of a user by one inviter.
    Between {
        /// The invited user.
        user: UserId,
        /// The inviter.
        by: UserId,
    },
    /// All invitations by an inviter.
    By(UserId),
    /// All invitations to a group.
    To(ChannelId),
}

/// A waiting and valid invitation, with the data of the group that its user may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenInvitation {
    /// The invitation.
    pub invitation: GroupInvitation,
    /// The group's name.
    pub name: String,
    /// The number of present members.
    pub members: u32,
}

/// Invitations to groups. All invitations of one user are one partition. An open membership removes the invitation to its
/// channel, in any state.
///
/// # Guarantees
/// Every write is durable when it returns, and repeating it is harmless. The limits are exact (G10).
#[async_trait]
pub trait GroupInvitationStore: Send + Sync + 'static {
    /// `by` invites users to a group. Nothing changes for users with a waiting invitation to it, nor for users who declined one by
    /// `by`. Where one of the two blocks the other, the invitation is kept as declined, and nobody is to be notified. Returns the
    /// invitations that have no note yet: those that wait, and those that made room for them.
    async fn invite(
        &self,
        channel: ChannelId,
        by: UserId,
        users: &[UserId],
        at: Millis,
        limits: GroupInvitationLimits,
    ) -> StoreResult<Vec<GroupInvitation>>;
    /// The invitation of a user to a group, in any state.
    async fn group_invitation(
        &self,
        user: UserId,
        channel: ChannelId,
    ) -> StoreResult<Option<GroupInvitation>>;
    /// Waiting and valid invitations of a user, by channel, after `after`: the group is active, the inviter may still add users,
    /// and the user is no member.
    async fn open_invitations(
        &self,
        user: UserId,
        after: Option<ChannelId>,
        limit: usize,
    ) -> StoreResult<Vec<OpenInvitation>>;
    /// The user declines a waiting invitation. Returns it if its change has no note yet; `None` if none waits.
    async fn decline_invitation(
        &self,
        user: UserId,
        channel: ChannelId,
        declined: u32,
    ) -> StoreResult<Option<GroupInvitation>>;
    /// Ends up to `limit` waiting invitations; returns them.
    async fn end_invitations(&self, which: Ending, limit: usize) -> StoreResult<Vec<GroupInvitation>>;
    /// Removes all invitations of a deleted user, in any state.
    async fn forget_group_invitations(&self, user: UserId) -> StoreResult<()>;
    /// Records that the user's own log has the note of the change with this `rev`, and removes an ended invitation. `false` if
    /// there was another change meanwhile.
    async fn settle_invitation(&self, user: UserId, channel: ChannelId, rev: u64) -> StoreResult<bool>;
    /// Up to `limit` invitations whose last change has no note in the user's own log yet.
    async fn due_invitations(&self, limit: usize) -> StoreResult<Vec<GroupInvitation>>;
}

/// The new invitation of a user by `by` where `found` is there already. Every implementation of
/// [`GroupInvitationStore::invite`] uses this.
pub(crate) fn renewed(
    found: Option<GroupInvitation>,
    new: GroupInvitation,
    is_blocked: bool,
) -> Option<GroupInvitation> {
    let rev = found.map_or(1, |found| found.rev + 1);
    let silent = GroupInvitation { state: GroupInvitationState::Declined, rev, is_recorded: true, ..new };
    match found {
        Some(found) if found.state == GroupInvitationState::Waiting => None,
        Some(found)
            if found.state == GroupInvitationState::Declined && (found.by == new.by || is_blocked) =>
        {
            None
        }
        // The note of an ended invitation must be appended first.
        Some(found) if is_blocked && !found.is_recorded => None,
        _ if is_blocked => Some(silent),
        _ => Some(GroupInvitation { rev, ..new }),
    }
}
