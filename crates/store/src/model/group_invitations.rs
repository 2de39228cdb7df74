//! The store of invitations to groups, in memory. The invitations of one user are one partition.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use async_trait::async_trait;
use madang_ids::{ChannelId, Millis, UserId};

use super::{Model, Mutant, State};
use crate::error::{StoreError, StoreResult};
use crate::group_invitations::{
    Ending, GroupInvitation, GroupInvitationLimits, GroupInvitationState, GroupInvitationStore,
    OpenInvitation, renewed,
};
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
        let is_endless = self.is_mutant(Mutant::InvitationsDisplaceNone);
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
                state.invite(new, limits, is_endless)
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
                let changed = state.change_invitation(found, GroupInvitationState::Declined);
                state.forget_declined(user, declined);
                Some(changed)
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
            ended.map(|found| state.change_invitation(found, GroupInvitationState::Ended)).collect()
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
    fn invite(
        &mut self,
        new: GroupInvitation,
        limits: GroupInvitationLimits,
        is_endless: bool,
    ) -> Vec<GroupInvitation> {
        let found = self.group_invitations.get(&(new.user_id, new.channel_id)).copied();
        let Some(renewed) = renewed(found, new, self.is_blocked(new.user_id, new.by)) else {
            return found.filter(|found| !found.is_recorded).into_iter().collect();
        };
        let mut untold = Vec::new();
        if renewed.state == GroupInvitationState::Waiting && !is_endless {
            untold.extend(self.make_room(new, limits));
        }
        self.group_invitations.insert((new.user_id, new.channel_id), renewed);
        if renewed.state == GroupInvitationState::Declined {
            self.forget_declined(new.user_id, limits.declined);
        }
        untold.extend(Some(renewed).filter(|renewed| !renewed.is_recorded));
        untold
    }

    fn make_room(&mut self, new: GroupInvitation, limits: GroupInvitationLimits) -> Option<GroupInvitation> {
        let all = self.waiting(|found| found.user_id == new.user_id);
        let by_one: Vec<GroupInvitation> = all.iter().filter(|found| found.by == new.by).copied().collect();
        let crowded = if by_one.len() >= limits.by_one as usize {
            by_one
        } else if all.len() >= limits.waiting as usize {
            all
        } else {
            return None;
        };
        let oldest = crowded.into_iter().min_by_key(|found| (found.at, found.channel_id))?;
        Some(self.change_invitation(oldest, GroupInvitationState::Ended))
    }

    fn waiting(&self, is_it: impl Fn(&GroupInvitation) -> bool) -> Vec<GroupInvitation> {
        let waiting = |found: &&GroupInvitation| found.state == GroupInvitationState::Waiting && is_it(found);
        self.group_invitations.values().filter(waiting).copied().collect()
    }

    fn change_invitation(&mut self, found: GroupInvitation, state: GroupInvitationState) -> GroupInvitation {
        let changed = GroupInvitation { state, rev: found.rev + 1, is_recorded: false, ..found };
        self.group_invitations.insert((found.user_id, found.channel_id), changed);
        changed
    }

    /// Keeps the `most` most relevant declines: first the latest decline of each inviter, then the second of each, and
    /// so on.
    fn forget_declined(&mut self, user: UserId, most: u32) {
        let declined = self
            .group_invitations
            .values()
            .filter(|found| found.user_id == user && found.state == GroupInvitationState::Declined);
        let mut declined: Vec<GroupInvitation> = declined.copied().collect();
        declined.sort_unstable_by_key(|found| Reverse((found.at, found.channel_id)));
        let mut counts = BTreeMap::new();
        let mut ranked: Vec<(u32, ChannelId)> = Vec::new();
        for found in declined {
            let count = counts.entry(found.by).or_insert(0_u32);
            *count += 1;
            ranked.push((*count, found.channel_id));
        }
        // The sort is stable: within one rank the later declines come first.
        ranked.sort_by_key(|(rank, _)| *rank);
        for (_, channel) in ranked.into_iter().skip(most as usize) {
            self.group_invitations.remove(&(user, channel));
        }
    }
}
