//! Invitations to groups: listed, accepted, declined, taken back. The invited user's own log tells of each change.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::join_all;
use madang_engine::home::{Command, JoinRequest, SeatRequest};
use madang_ids::{ChannelId, UserId};
use madang_proto::rest::{ChannelView, Page, PageQuery};
use madang_proto::{Content, ErrorBody, InvitationCard, Role, UserCard, limits};
use madang_store::{Ending, GroupInvitation, GroupInvitationLimits, GroupInvitationState, OpenInvitation};

use super::accounts::card;
use super::costs::Cost;
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

/// Whether there may be invitations whose users' devices have not been notified.
#[derive(Debug)]
pub struct UntoldInvitations {
    may_be_due: AtomicBool,
}

impl Default for UntoldInvitations {
    fn default() -> Self {
        // Of an earlier process.
        Self { may_be_due: AtomicBool::new(true) }
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

    /// Takes an invitation back. `true` if there was one, in whatever state: the answer must not say that it was declined.
    pub(super) async fn withdraw_invitation(
        &self,
        user: UserId,
        channel: ChannelId,
    ) -> Result<bool, ErrorBody> {
        if self.end_invitations(Ending::One(user, channel)).await? {
            return Ok(true);
        }
        let found = self.store.group_invitation(user, channel).await.map_err(|error| refusal(&error))?;
        Ok(found.is_some())
    }

    /// Ends invitations that wait; `true` if there were any.
    pub(super) async fn end_invitations(&self, which: Ending) -> Result<bool, ErrorBody> {
        let mut count = 0;
        loop {
            let ended = self.store.end_invitations(which, AT_ONCE).await.map_err(|error| refusal(&error))?;
            let is_last = ended.len() < AT_ONCE;
            count += ended.len();
            self.tell_invitations(self.untold(ended)).await;
            if is_last {
                return Ok(count > 0);
            }
        }
    }

    /// Invitations that are to be told.
    pub(super) fn untold(&self, list: impl IntoIterator<Item = GroupInvitation>) -> Untold<'_> {
        Untold { list: list.into_iter().collect(), of: &self.untold_invitations }
    }

    /// The own logs of invited users tell how things stand. What fails is told by the upkeep.
    pub(super) async fn tell_invitations(&self, untold: Untold<'_>) {
        if let Err(error) = self.tell_each(&untold.list).await {
            tracing::debug!(%error, "an invitation is told later");
        }
    }

    async fn tell_each(&self, untold: &[GroupInvitation]) -> Result<(), ErrorBody> {
        let mut groups = HashMap::new();
        for some in untold.chunks(AT_ONCE) {
            for invitation in some.iter().filter(|it| it.state == GroupInvitationState::Waiting) {
                if let Entry::Vacant(place) = groups.entry(invitation.channel_id) {
                    place.insert(self.group(invitation.channel_id).await?);
                }
            }
            let each = some.iter().map(|it| self.tell_invitation(it.user_id, it.channel_id, &groups));
            join_all(each).await.into_iter().collect::<Result<(), ErrorBody>>()?;
        }
        Ok(())
    }

    /// One at a time for each invitation, so that the last word is what is.
    async fn tell_invitation(
        &self,
        user: UserId,
        channel_id: ChannelId,
        groups: &HashMap<ChannelId, Group>,
    ) -> Result<(), ErrorBody> {
        let _turn = self.turns.take(Subject::Invitation(user, channel_id)).await;
        loop {
            let found =
                self.store.group_invitation(user, channel_id).await.map_err(|error| refusal(&error))?;
            let Some(invitation) = found.filter(|found| !found.is_told) else { return Ok(()) };
            let content = if invitation.state == GroupInvitationState::Waiting {
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
                return Ok(());
            }
        }
    }

    async fn group(&self, channel: ChannelId) -> Result<Group, ErrorBody> {
        let row = self.store.channel(channel).await.map_err(|error| refusal(&error))?;
        let seats = self.store.seats(channel).await.map_err(|error| refusal(&error))?;
        let name = row.and_then(|row| row.card.name).unwrap_or_default();
        Ok(Group { name, member_count: seats.count })
    }

    /// Goes on with what an earlier call, or an earlier process, did not come to tell; called by upkeep each second.
    pub(super) async fn tell_untold_invitations(&self) {
        if !self.untold_invitations.may_be_due.swap(false, Ordering::Relaxed) {
            return;
        }
        let told = async {
            let untold = self.store.untold_invitations(AT_ONCE).await.map_err(|error| refusal(&error))?;
            self.tell_each(&untold).await?;
            Ok(untold.len() == AT_ONCE)
        };
        let is_more: Result<bool, ErrorBody> = told.await;
        if let Err(error) = &is_more {
            tracing::debug!(%error, "invitations are told later");
        }
        if is_more.unwrap_or(true) {
            self.untold_invitations.may_be_due.store(true, Ordering::Relaxed);
        }
    }
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
