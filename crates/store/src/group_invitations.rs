//! Invitations to groups: what becomes of adding somebody who may not be added at once.

use async_trait::async_trait;
use madang_ids::{ChannelId, Millis, UserId};

use crate::error::StoreResult;

/// An invitation to a group. It gives nobody a seat and no entry of the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupInvitation {
    /// The invited user.
    pub user_id: UserId,
    /// To which group.
    pub channel_id: ChannelId,
    /// The inviter.
    pub by: UserId,
    /// Since when.
    pub at: Millis,
    /// What became of it.
    pub state: GroupInvitationState,
    /// Rises with each change.
    pub rev: u64,
    /// Whether the user's own log tells of this.
    pub is_told: bool,
}

/// What became of an invitation to a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupInvitationState {
    /// It waits for an answer.
    Waiting,
    /// The user declined, or one of the two blocked the other when it was made. It is remembered, so that the same person
    /// does not repeat it.
    Declined,
    /// It is over, and goes once the user's own log tells so.
    Ended,
}

/// How many invitations a user may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupInvitationLimits {
    /// That wait; of more the oldest ends.
    pub waiting: u32,
    /// That wait, by one inviter; of more the oldest of theirs ends, so that nobody displaces those of others with many.
    pub by_one: u32,
    /// That are remembered as declined; of more the oldest of the inviter with the most is forgotten, so that nobody
    /// displaces those of others with many.
    pub declined: u32,
}

/// Which invitations end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// That of a user to a group.
    One(UserId, ChannelId),
    /// Those of a user by somebody.
    Between {
        /// The invited user.
        user: UserId,
        /// The inviter.
        by: UserId,
    },
    /// Those that somebody made.
    By(UserId),
    /// Those to a group.
    To(ChannelId),
}

/// An invitation that waits and holds, with what its user may know of the group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenInvitation {
    /// The invitation.
    pub invitation: GroupInvitation,
    /// The group's name.
    pub name: String,
    /// Members now.
    pub members: u32,
}

/// Invitations to groups. Everything of one invited user is one partition, and a membership that is open takes the
/// invitation to its channel away, whatever its state.
///
/// # Guarantees
/// Every write is durable when it returns, and repeating it is harmless. The limits are exact (G10).
#[async_trait]
pub trait GroupInvitationStore: Send + Sync + 'static {
    /// `by` invites users to a group. Nothing changes for whom an invitation to it waits, nor for those who declined one of
    /// `by`. Where one of the two blocks the other, the invitation is kept as declined, and nobody is to be notified.
    /// Returns what is not told yet: invitations that wait, and those that made room for them.
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
    /// Invitations of a user that wait and hold, by channel, after `after`: the group is active, its inviter may still add
    /// people, and the user is no member.
    async fn open_invitations(
        &self,
        user: UserId,
        after: Option<ChannelId>,
        limit: usize,
    ) -> StoreResult<Vec<OpenInvitation>>;
    /// The user declines an invitation that waits. Returns it if it is not told; `None` if nothing waits.
    async fn decline_invitation(
        &self,
        user: UserId,
        channel: ChannelId,
        declined: u32,
    ) -> StoreResult<Option<GroupInvitation>>;
    /// Ends up to `limit` invitations that wait; returns them.
    async fn end_invitations(&self, which: Ending, limit: usize) -> StoreResult<Vec<GroupInvitation>>;
    /// Forgets all invitations of a user, whatever their state: the user is deleted.
    async fn forget_group_invitations(&self, user: UserId) -> StoreResult<()>;
    /// The user's own log tells of the change with this `rev`; one that has ended goes. `false` if there was another change
    /// meanwhile.
    async fn settle_invitation(&self, user: UserId, channel: ChannelId, rev: u64) -> StoreResult<bool>;
    /// Up to `limit` invitations of which their users' own logs do not tell yet.
    async fn untold_invitations(&self, limit: usize) -> StoreResult<Vec<GroupInvitation>>;
}

/// What becomes of an invitation of a user by `by`, where `found` is there already. What every implementation of
/// [`GroupInvitationStore::invite`] asks.
pub(crate) fn renewed(
    found: Option<GroupInvitation>,
    new: GroupInvitation,
    is_blocked: bool,
) -> Option<GroupInvitation> {
    let rev = found.map_or(1, |found| found.rev + 1);
    let silent = GroupInvitation { state: GroupInvitationState::Declined, rev, is_told: true, ..new };
    match found {
        Some(found) if found.state == GroupInvitationState::Waiting => None,
        Some(found)
            if found.state == GroupInvitationState::Declined && (found.by == new.by || is_blocked) =>
        {
            None
        }
        // What has ended and is not told must be told first.
        Some(found) if is_blocked && !found.is_told => None,
        _ if is_blocked => Some(silent),
        _ => Some(GroupInvitation { rev, ..new }),
    }
}
