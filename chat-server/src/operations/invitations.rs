//! Invitations to groups: listed, accepted, declined, taken back. The invited user's own log tells of each change.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::join_all;
use madang_engine::home::{Command, JoinRequest, SeatRequest};
use madang_ids::{ChannelId, UserId};
use madang_proto::rest::{ChannelView, Page, PageQuery};
use madang_proto::{Content, ErrorBody, InvitationCard, Role, UserCard, limits};
use madang_store::{Ending, GroupInvitation, GroupInvitationLimits, GroupInvitationState, OpenInvitation};

use super::accounts::card;
use super::costs::Cost;
use super::postponed::Postponed;
use super::turns::Subject;
use super::{Caller, Operations, pages};
use crate::refusal::refusal;

const LIMITS: GroupInvitationLimits = GroupInvitationLimits {
    waiting: limits::INVITATIONS,
    by_one: limits::INVITATIONS_BY_ONE,
    declined: limits::INVITATIONS_DECLINED,
};
/// Invitations that end in one commit, and that are told at a time.
const AT_ONCE: usize = 100;
/// So long an invitation waits for its inviter to have a seat: the creation of the group may be repeated. Longer than any
/// call takes.
const FOUNDED_WITHIN_MS: u64 = 10 * 60 * 1_000;

/// Whether there may be invitations whose users' devices have not been notified.
#[derive(Debug)]
pub struct UntoldInvitations {
    may_be_due: AtomicBool,
    failed: Postponed<(UserId, ChannelId)>,
}

impl Default for UntoldInvitations {
    fn default() -> Self {
        // Of an earlier process.
        Self { may_be_due: AtomicBool::new(true), failed: Postponed::default() }
    }
}

impl Operations {
    /// The caller's invitations that wait and hold.
    ///
    /// # Errors
    /// `after` or `limit` out of bounds.
    pub async fn group_invitations(
        &self,
        caller: Caller,
        query: PageQuery,
    ) -> Result<Page<InvitationCard>, ErrorBody> {
        let (after, limit) = pages::bounds::<ChannelId>(&query)?;
        let open = self.store.open_invitations(caller.user_id, after, limit).await;
        let open = open.map_err(|error| refusal(&error))?;
        let next = pages::next(&open, limit, |open| open.invitation.channel_id);
        let ids: Vec<UserId> = open.iter().map(|open| open.invitation.by).collect();
        self.callers.charge(caller.user_id, Cost::rows(ids.len()));
        let users = self.store.users(&ids).await.map_err(|error| refusal(&error))?;
        let inviters: HashMap<UserId, UserCard> =
            users.into_iter().flatten().map(|user| (user.id, card(user))).collect();
        let row = |OpenInvitation { invitation, name, members }: OpenInvitation| {
            let by = inviters.get(&invitation.by)?.clone();
            let GroupInvitation { channel_id, at, .. } = invitation;
            Some(InvitationCard { channel_id, name, member_count: members, by, at })
        };
        Ok(Page { items: open.into_iter().filter_map(row).collect(), next })
    }

    /// How many invitations of a user wait and hold.
    pub(super) async fn count_invitations(&self, user: UserId) -> Result<u32, ErrorBody> {
        let open = self.store.open_invitations(user, None, limits::INVITATIONS as usize).await;
        Ok(u32::try_from(open.map_err(|error| refusal(&error))?.len()).unwrap_or(u32::MAX))
    }

    /// The caller joins a group to which they are invited. Repeating it is harmless.
    ///
    /// # Errors
    /// `not_found` without an invitation that holds; `full`; `forbidden` where nobody joins.
    pub async fn accept_invitation(
        &self,
        caller: Caller,
        channel_id: ChannelId,
    ) -> Result<ChannelView, ErrorBody> {
        let user = caller.user_id;
        let _turn = self.turns.take(Subject::Invitation(user, channel_id)).await;
        let found = self.store.group_invitation(user, channel_id).await.map_err(|error| refusal(&error))?;
        let waiting = found.filter(|found| found.state == GroupInvitationState::Waiting);
        let Some(GroupInvitation { by, .. }) = waiting else {
            return self.accepted_before(caller, channel_id).await;
        };
        let channel = self.channel(channel_id).await?;
        if self.store.is_blocked(user, by).await.map_err(|error| refusal(&error))? {
            return Err(ErrorBody::not_found("invitation"));
        }
        let _room = self.room_for_channel(caller, "channel_id", &[user], Some(channel_id)).await?;
        self.callers.charge(user, Cost::MEMBER);
        let joins = vec![JoinRequest::of(user, Role::Member)];
        let request = SeatRequest { joins, invited_by: Some(by), ..SeatRequest::by(user) };
        self.homes.ask(&channel, Command::Seats(request)).await?;
        self.channel_view(caller, channel_id).await
    }

    /// An earlier call may have been done, and its answer lost.
    async fn accepted_before(&self, caller: Caller, channel: ChannelId) -> Result<ChannelView, ErrorBody> {
        let membership = self.store.membership(caller.user_id, channel).await;
        match membership.map_err(|error| refusal(&error))? {
            Some(membership) if membership.spans.is_open() => self.channel_view(caller, channel).await,
            _ => Err(ErrorBody::not_found("invitation")),
        }
    }

    /// The caller declines an invitation: the same person does not repeat it. Without one nothing changes.
    ///
    /// # Errors
    /// The store's.
    pub async fn decline_invitation(&self, caller: Caller, channel: ChannelId) -> Result<(), ErrorBody> {
        let declined =
            self.store.decline_invitation(caller.user_id, channel, limits::INVITATIONS_DECLINED).await;
        let declined = declined.map_err(|error| refusal(&error))?;
        self.tell_invitations(self.untold(declined)).await;
        Ok(())
    }

    /// Invites people to a group; they are to be told when the group knows its inviter. Repeating it is harmless.
    pub(super) async fn put_invitations(
        &self,
        by: UserId,
        channel: ChannelId,
        users: &[UserId],
    ) -> Result<Untold<'_>, ErrorBody> {
        if users.is_empty() {
            return Ok(self.untold([]));
        }
        let untold = self.store.invite(channel, by, users, self.clock.now_ms(), LIMITS).await;
        Ok(self.untold(untold.map_err(|error| refusal(&error))?))
    }

    /// Ends invitations that wait.
    pub(super) async fn end_invitations(&self, which: Ending) -> Result<(), ErrorBody> {
        loop {
            let ended = self.store.end_invitations(which, AT_ONCE).await.map_err(|error| refusal(&error))?;
            let is_last = ended.len() < AT_ONCE;
            self.tell_invitations(self.untold(ended)).await;
            if is_last {
                return Ok(());
            }
        }
    }

    /// Invitations that are to be told.
    pub(super) fn untold(&self, list: impl IntoIterator<Item = GroupInvitation>) -> Untold<'_> {
        Untold { list: list.into_iter().collect(), of: &self.untold_invitations }
    }

    /// The own logs of invited users tell how things stand. What fails is told by the upkeep.
    pub(super) async fn tell_invitations(&self, untold: Untold<'_>) {
        self.tell_each(&untold.list).await;
    }

    /// One that fails is tried again later, and holds up no other.
    async fn tell_each(&self, untold: &[GroupInvitation]) {
        let failed = &self.untold_invitations.failed;
        let mut groups = HashMap::new();
        for some in untold.chunks(AT_ONCE) {
            for invitation in some.iter().filter(|it| it.state == GroupInvitationState::Waiting) {
                if let Entry::Vacant(place) = groups.entry(invitation.channel_id)
                    && let Ok(group) = self.group(invitation.channel_id).await
                {
                    place.insert(group);
                }
            }
            let each = some.iter().map(|it| self.tell_invitation(it.user_id, it.channel_id, &groups));
            let told = join_all(each).await;
            let now = self.clock.elapsed();
            for (GroupInvitation { user_id, channel_id, .. }, told) in some.iter().zip(told) {
                match told {
                    Ok(Told::Yes) => failed.done(&(*user_id, *channel_id)),
                    Ok(Told::NotYet) => failed.failed((*user_id, *channel_id), now),
                    Err(error) => {
                        failed.failed((*user_id, *channel_id), now);
                        tracing::error!(user.id = %user_id, channel.id = %channel_id, %error, "an invitation is told later");
                    }
                }
            }
        }
    }

    /// One at a time for each invitation, so that the last word is what is.
    async fn tell_invitation(
        &self,
        user: UserId,
        channel_id: ChannelId,
        groups: &HashMap<ChannelId, Group>,
    ) -> Result<Told, ErrorBody> {
        let _turn = self.turns.take(Subject::Invitation(user, channel_id)).await;
        loop {
            let found =
                self.store.group_invitation(user, channel_id).await.map_err(|error| refusal(&error))?;
            let Some(invitation) = found.filter(|found| !found.is_told) else { return Ok(Told::Yes) };
            let content = if invitation.state == GroupInvitationState::Waiting {
                if !self.has_seat(channel_id, invitation.by).await? {
                    if self.clock.now_ms() < invitation.at.plus(FOUNDED_WITHIN_MS) {
                        return Ok(Told::NotYet);
                    }
                    self.end_untold(invitation).await?;
                    continue;
                }
                let group = match groups.get(&channel_id) {
                    Some(group) => group.clone(),
                    None => self.group(channel_id).await?,
                };
                let Group { name, member_count } = group;
                Content::Invited { channel_id, name, member_count, by: invitation.by }
            } else {
                Content::InvitationRemoved { channel_id }
            };
            self.homes.note(user, content).await?;
            let is_last = self.store.settle_invitation(user, channel_id, invitation.rev).await;
            if is_last.map_err(|error| refusal(&error))? {
                return Ok(Told::Yes);
            }
        }
    }

    async fn has_seat(&self, channel: ChannelId, user: UserId) -> Result<bool, ErrorBody> {
        let members = self.store.members_of(channel, &[user]).await.map_err(|error| refusal(&error))?;
        Ok(members.iter().flatten().any(|member| member.spans.is_open()))
    }

    /// Ends an invitation whose inviter has no seat. Of one that was never changed before, the user's log says nothing, so it
    /// need not say that it is over.
    async fn end_untold(&self, invitation: GroupInvitation) -> Result<(), ErrorBody> {
        let GroupInvitation { user_id, channel_id, rev, .. } = invitation;
        let ended = self.store.end_invitations(Ending::One(user_id, channel_id), 1).await;
        let ended = ended.map_err(|error| refusal(&error))?;
        for ended in ended.iter().filter(|_| rev == 1) {
            let settled = self.store.settle_invitation(user_id, channel_id, ended.rev).await;
            settled.map_err(|error| refusal(&error))?;
        }
        Ok(())
    }

    async fn group(&self, channel: ChannelId) -> Result<Group, ErrorBody> {
        let row = self.store.channel(channel).await.map_err(|error| refusal(&error))?;
        let seats = self.store.seats(channel).await.map_err(|error| refusal(&error))?;
        let name = row.and_then(|row| row.card.name).unwrap_or_default();
        Ok(Group { name, member_count: seats.count })
    }

    /// Goes on with what an earlier call, or an earlier process, did not come to tell; called by upkeep each second.
    pub(super) async fn tell_untold_invitations(&self) {
        let UntoldInvitations { may_be_due, failed } = &self.untold_invitations;
        let now = self.clock.elapsed();
        if !may_be_due.swap(false, Ordering::Relaxed) && !failed.has_due(now) {
            return;
        }
        let untold = match self.store.untold_invitations(AT_ONCE + failed.len()).await {
            Ok(untold) => untold,
            Err(error) => {
                may_be_due.store(true, Ordering::Relaxed);
                return tracing::warn!(%error, "invitations are told later");
            }
        };
        let there: HashSet<_> = untold.iter().map(|it| (it.user_id, it.channel_id)).collect();
        failed.keep(|key| there.contains(key));
        let is_due = |it: &GroupInvitation| failed.is_due(&(it.user_id, it.channel_id), now);
        let mut due: Vec<GroupInvitation> = untold.into_iter().filter(is_due).collect();
        if due.len() >= AT_ONCE {
            due.truncate(AT_ONCE);
            may_be_due.store(true, Ordering::Relaxed);
        }
        self.tell_each(&due).await;
    }
}

/// Whether the user's own log tells of an invitation.
enum Told {
    Yes,
    /// Its inviter has no seat yet.
    NotYet,
}

/// Invitations that are to be told. Whatever becomes of the call that has them, upkeep looks whether they were.
pub(super) struct Untold<'a> {
    list: Vec<GroupInvitation>,
    of: &'a UntoldInvitations,
}

impl Drop for Untold<'_> {
    fn drop(&mut self) {
        if !self.list.is_empty() {
            self.of.may_be_due.store(true, Ordering::Relaxed);
        }
    }
}

/// What an invited user may know of a group.
#[derive(Debug, Clone)]
struct Group {
    name: String,
    member_count: u32,
}
