//! The store of invitations to groups, in memory. The invitations of one user are one partition.

use async_trait::async_trait;
use madang_ids::{ChannelId, Millis, UserId};

use super::{Model, Mutant, State};
use crate::error::{StoreError, StoreResult};
use crate::group_invitations::{
    Ending, GroupInvitation, GroupInvitationLimits, GroupInvitationState, GroupInvitationStore,
    OpenInvitation,
};
use crate::group_invitations_of_user::OfUser;
use crate::log::ChannelState;

#[async_trait]
impl GroupInvitationStore for Model {
    async fn invite(
        &self,
        channel: ChannelId,
        by: UserId,
        users: &[UserId],
        at: Millis,
        limits: GroupInvitationLimits,
    ) -> StoreResult<Vec<GroupInvitation>> {
        let _call = self.journal.begin("invite");
        let limits = match self.is_mutant(Mutant::InvitationsDisplaceNone) {
            true => GroupInvitationLimits { waiting: u32::MAX, by_one: u32::MAX, ..limits },
            false => limits,
        };
        let is_forgetful = self.is_mutant(Mutant::InvitationsForgetDeclines);
        let mut untold = Vec::new();
        for (index, &user_id) in users.iter().enumerate() {
            let state = GroupInvitationState::Waiting;
            let new =
                GroupInvitation { user_id, channel_id: channel, by, at, state, rev: 1, is_recorded: false };
            let invited = self.write(|state| {
                if is_forgetful {
                    state.group_invitations.remove(&(user_id, channel));
                }
                let is_blocked = state.is_blocked(user_id, by);
                state.with_invitations(user_id, |own| own.invite(new, limits, is_blocked))
            });
            match invited.await {
                Ok(changed) => untold.extend(changed),
                Err(StoreError::Unavailable(why)) if index > 0 => return Err(StoreError::Unknown(why)),
                Err(error) => return Err(error),
            }
        }
        Ok(untold)
    }

    async fn group_invitation(
        &self,
        user: UserId,
        channel: ChannelId,
    ) -> StoreResult<Option<GroupInvitation>> {
        let _call = self.journal.begin("group_invitation");
        self.read(|state| state.group_invitations.get(&(user, channel)).copied()).await
    }

    async fn open_invitations(
        &self,
        user: UserId,
        after: Option<ChannelId>,
        limit: usize,
    ) -> StoreResult<Vec<OpenInvitation>> {
        let _call = self.journal.begin("open_invitations");
        let shows_all = self.is_mutant(Mutant::InvitationsOutliveTheirInviter);
        self.read(|state| {
            let waiting = state.waiting(|found| found.user_id == user && Some(found.channel_id) > after);
            let open = waiting.into_iter().filter_map(|invitation| {
                let id = invitation.channel_id;
                let channel = state.channels.get(&id).filter(|row| row.state == ChannelState::Active)?;
                let open = |user| state.members.get(&(id, user)).filter(|member| member.spans.is_open());
                let may_add = open(invitation.by).is_some_and(|inviter| inviter.role.is_admin());
                let members = state.seats.get(&id)?.count;
                let name = channel.card.name.clone().unwrap_or_default();
                ((may_add || shows_all) && open(user).is_none()).then_some(OpenInvitation {
                    invitation,
                    name,
                    members,
                })
            });
            open.take(limit).collect()
        })
        .await
    }

    async fn decline_invitation(
        &self,
        user: UserId,
        channel: ChannelId,
        declined: u32,
    ) -> StoreResult<Option<GroupInvitation>> {
        let _call = self.journal.begin("decline_invitation");
        self.write(|state| match state.group_invitations.get(&(user, channel)).copied() {
            Some(found) if found.state == GroupInvitationState::Waiting => {
                state.with_invitations(user, |own| {
                    let changed = own.change(found, GroupInvitationState::Declined);
                    own.forget_declined(declined);
                    Some(changed)
                })
            }
            found => found.filter(|found| !found.is_recorded),
        })
        .await
    }

    async fn end_invitations(&self, which: Ending, limit: usize) -> StoreResult<Vec<GroupInvitation>> {
        let _call = self.journal.begin("end_invitations");
        let is_it = move |found: &GroupInvitation| match which {
            Ending::One(user, channel) => (found.user_id, found.channel_id) == (user, channel),
            Ending::Between { user, by } => (found.user_id, found.by) == (user, by),
            Ending::By(by) => found.by == by,
            Ending::To(channel) => found.channel_id == channel,
        };
        self.write(|state| {
            let waiting = state.waiting(is_it);
            let ended = waiting.into_iter().take(limit);
            let end = |found: GroupInvitation| {
                state.with_invitations(found.user_id, |own| own.change(found, GroupInvitationState::Ended))
            };
            ended.map(end).collect()
        })
        .await
    }

    async fn forget_group_invitations(&self, user: UserId) -> StoreResult<()> {
        let _call = self.journal.begin("forget_group_invitations");
        self.write(|state| state.group_invitations.retain(|(of, _), _| *of != user)).await
    }

    async fn settle_invitation(&self, user: UserId, channel: ChannelId, rev: u64) -> StoreResult<bool> {
        let _call = self.journal.begin("settle_invitation");
        let is_blind = self.is_mutant(Mutant::SettleInvitationIgnoresLaterChange);
        self.write(|state| {
            let found = state.group_invitations.get_mut(&(user, channel));
            let Some(found) = found.filter(|found| found.rev == rev || is_blind) else { return false };
            found.is_recorded = true;
            if found.state == GroupInvitationState::Ended {
                state.group_invitations.remove(&(user, channel));
            }
            true
        })
        .await
    }

    async fn due_invitations(&self, limit: usize) -> StoreResult<Vec<GroupInvitation>> {
        let _call = self.journal.begin("due_invitations");
        self.read(|state| {
            let untold = state.group_invitations.values().filter(|found| !found.is_recorded);
            untold.take(limit).copied().collect()
        })
        .await
    }
}

impl State {
    /// Changes the invitations of one user.
    fn with_invitations<T>(&mut self, user: UserId, change: impl FnOnce(&mut OfUser) -> T) -> T {
        let own = self.group_invitations.extract_if(.., |(of, _), _| *of == user);
        let mut own = OfUser(own.map(|((_, channel), found)| (channel, found)).collect());
        let outcome = change(&mut own);
        self.group_invitations.extend(own.0.into_iter().map(|(channel, found)| ((user, channel), found)));
        outcome
    }

    fn waiting(&self, is_it: impl Fn(&GroupInvitation) -> bool) -> Vec<GroupInvitation> {
        let waiting = |found: &&GroupInvitation| found.state == GroupInvitationState::Waiting && is_it(found);
        self.group_invitations.values().filter(waiting).copied().collect()
    }
}
