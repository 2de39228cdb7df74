//! Invitations to groups: listed, accepted, declined, taken back. Each change is noted in the own log of the invited user.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::join_all;
use madang_engine::home::{Command, JoinRequest, SeatRequest};
use madang_ids::{ChannelId, UserId};
use madang_proto::rest::{ChannelView, Page, PageQuery};
use madang_proto::{Content, ErrorBody, InvitationCard, Role, UserCard, limits};
use madang_store::{Ending, GroupInvitation, GroupInvitationLimits, GroupInvitationState, OpenInvitation};

use crate::operations::accounts::card;
use crate::operations::costs::Cost;
use crate::operations::postponed::Postponed;
use crate::operations::turns::Subject;
use crate::operations::{Caller, Operations, pages};
use crate::refusal::Result;

const LIMITS: GroupInvitationLimits = GroupInvitationLimits {
    waiting: limits::INVITATIONS,
    by_one: limits::INVITATIONS_BY_ONE,
    declined: limits::INVITATIONS_DECLINED,
};
/// Invitations that end in one commit, and that are noted concurrently.
const AT_ONCE: usize = 100;
/// How long an invitation waits for its inviter to become a member, because the creation of the group may be repeated. Longer
/// than any call takes.
const FOUNDED_WITHIN_MS: u64 = 10 * 60 * 1_000;

/// Whether there may be invitations that are not yet noted in the users' own logs.
#[derive(Debug)]
pub struct DueInvitations {
    may_be_due: AtomicBool,
    failed: Postponed<(UserId, ChannelId)>,
}

impl Default for DueInvitations {
    fn default() -> Self {
        // An earlier process may have left some.
        Self { may_be_due: AtomicBool::new(true), failed: Postponed::default() }
    }
}

impl Operations {
    /// The caller's open invitations: those that are neither answered nor void.
    ///
    /// # Errors
    /// `after` or `limit` out of bounds.
    pub async fn group_invitations(&self, caller: Caller, query: PageQuery) -> Result<Page<InvitationCard>> {
        let (after, limit) = pages::bounds::<ChannelId>(&query)?;
        let open = self.store.open_invitations(caller.user_id, after, limit).await?;
        let next = pages::next(&open, limit, |open| open.invitation.channel_id);
        let ids: Vec<UserId> = open.iter().map(|open| open.invitation.by).collect();
        self.callers.charge(caller.user_id, Cost::rows(ids.len()));
        let users = self.store.users(&ids).await?;
        let inviters: HashMap<UserId, UserCard> =
            users.into_iter().flatten().map(|user| (user.id, card(user))).collect();
        let row = |OpenInvitation { invitation, name, members }: OpenInvitation| {
            let by = inviters.get(&invitation.by)?.clone();
            let GroupInvitation { channel_id, at, .. } = invitation;
            Some(InvitationCard { channel_id, name, member_count: members, by, at })
        };
        Ok(Page { items: open.into_iter().filter_map(row).collect(), next })
    }

    /// The number of a user's open invitations, at most [`limits::INVITATIONS`].
    pub(in crate::operations) async fn count_invitations(&self, user: UserId) -> Result<u32> {
        let open = self.store.open_invitations(user, None, limits::INVITATIONS as usize).await?;
        Ok(u32::try_from(open.len()).unwrap_or(u32::MAX))
    }

    /// Accepts an invitation: the caller joins the group. Repeating it is harmless.
    ///
    /// # Errors
    /// `not_found` without an open invitation; `full`; `forbidden` where nobody can join.
    pub async fn accept_invitation(&self, caller: Caller, channel_id: ChannelId) -> Result<ChannelView> {
        let user = caller.user_id;
        let _turn = self.turns.take(Subject::Invitation(user, channel_id)).await;
        let found = self.store.group_invitation(user, channel_id).await?;
        let waiting = found.filter(|found| found.state == GroupInvitationState::Waiting);
        let Some(GroupInvitation { by, .. }) = waiting else {
            return self.accepted_before(caller, channel_id).await;
        };
        let channel = self.channel(channel_id).await?;
        if self.store.is_blocked(user, by).await? {
            return Err(ErrorBody::not_found("invitation").into());
        }
        let _room = self.room_for_channel(caller, "channel_id", &[user], Some(channel_id)).await?;
        self.callers.charge(user, Cost::MEMBER);
        let joins = vec![JoinRequest::of(user, Role::Member)];
        let request = SeatRequest { joins, invited_by: Some(by), ..SeatRequest::by(user) };
        self.homes.ask(&channel, Command::Seats(request)).await?;
        self.joined_view(caller, channel_id).await
    }

    /// The answer if there is no waiting invitation: an earlier call may have joined, and its answer was lost.
    async fn accepted_before(&self, caller: Caller, channel: ChannelId) -> Result<ChannelView> {
        match self.store.membership(caller.user_id, channel).await? {
            Some(membership) if membership.spans.is_open() => self.channel_view(caller, channel).await,
            _ => Err(ErrorBody::not_found("invitation").into()),
        }
    }

    /// Declines an invitation: the same user cannot repeat it. Without an invitation nothing changes.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn decline_invitation(&self, caller: Caller, channel: ChannelId) -> Result<()> {
        let declined =
            self.store.decline_invitation(caller.user_id, channel, limits::INVITATIONS_DECLINED).await?;
        self.note_invitations(self.unnoted(declined)).await;
        Ok(())
    }

    /// Writes invitations to a group. They must be noted once the inviter is a member. Repeating it is harmless.
    pub(in crate::operations) async fn put_invitations(
        &self,
        by: UserId,
        channel: ChannelId,
        users: &[UserId],
    ) -> Result<UnnotedInvitations<'_>> {
        if users.is_empty() {
            return Ok(self.unnoted([]));
        }
        let unnoted = self.store.invite(channel, by, users, self.clock.now_ms(), LIMITS).await?;
        Ok(self.unnoted(unnoted))
    }

    /// Ends waiting invitations.
    pub(in crate::operations) async fn end_invitations(&self, which: Ending) -> Result<()> {
        loop {
            let ended = self.store.end_invitations(which, AT_ONCE).await?;
            let is_last = ended.len() < AT_ONCE;
            self.note_invitations(self.unnoted(ended)).await;
            if is_last {
                return Ok(());
            }
        }
    }

    /// Wraps invitations that must be noted.
    pub(in crate::operations) fn unnoted(
        &self,
        list: impl IntoIterator<Item = GroupInvitation>,
    ) -> UnnotedInvitations<'_> {
        UnnotedInvitations { list: list.into_iter().collect(), of: &self.due_invitations }
    }

    /// Notes the state of invitations in the users' own logs. Upkeep repeats what fails.
    pub(in crate::operations) async fn note_invitations(&self, unnoted: UnnotedInvitations<'_>) {
        self.note_each(&unnoted.list).await;
    }

    /// An invitation that fails is tried again later and does not hold up the others.
    async fn note_each(&self, unnoted: &[GroupInvitation]) {
        let failed = &self.due_invitations.failed;
        let mut groups = HashMap::new();
        for some in unnoted.chunks(AT_ONCE) {
            for invitation in some.iter().filter(|it| it.state == GroupInvitationState::Waiting) {
                if let Entry::Vacant(place) = groups.entry(invitation.channel_id) {
                    match self.group(invitation.channel_id).await {
                        Ok(group) => drop(place.insert(group)),
                        Err(error) => {
                            tracing::warn!(channel.id = %invitation.channel_id, %error, "reading a group failed");
                        }
                    }
                }
            }
            let each = some.iter().map(|it| self.note_invitation(it.user_id, it.channel_id, &groups));
            let noted = join_all(each).await;
            let now = self.clock.elapsed();
            for (GroupInvitation { user_id, channel_id, .. }, noted) in some.iter().zip(noted) {
                match noted {
                    Ok(Noted::Yes) => failed.done(&(*user_id, *channel_id)),
                    Ok(Noted::NotYet) => failed.failed((*user_id, *channel_id), now),
                    Err(error) => {
                        failed.failed((*user_id, *channel_id), now);
                        tracing::error!(user.id = %user_id, channel.id = %channel_id, %error, "appending a change \
                             of an invitation failed; retrying");
                    }
                }
            }
        }
    }

    /// Notes one invitation. The turn makes the last note say what is in the store.
    async fn note_invitation(
        &self,
        user: UserId,
        channel_id: ChannelId,
        groups: &HashMap<ChannelId, Group>,
    ) -> Result<Noted> {
        let _turn = self.turns.take(Subject::Invitation(user, channel_id)).await;
        loop {
            let found = self.store.group_invitation(user, channel_id).await?;
            let Some(invitation) = found.filter(|found| !found.is_recorded) else { return Ok(Noted::Yes) };
            let content = if invitation.state == GroupInvitationState::Waiting {
                if !self.has_seat(channel_id, invitation.by).await? {
                    if self.clock.now_ms() < invitation.at.plus(FOUNDED_WITHIN_MS) {
                        return Ok(Noted::NotYet);
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
            // Fails if the invitation has changed since it was read. The loop then notes the newer state.
            if self.store.settle_invitation(user, channel_id, invitation.rev).await? {
                return Ok(Noted::Yes);
            }
        }
    }

    async fn has_seat(&self, channel: ChannelId, user: UserId) -> Result<bool> {
        let members = self.store.members_of(channel, &[user]).await?;
        Ok(members.iter().flatten().any(|member| member.spans.is_open()))
    }

    /// Ends an invitation whose inviter is not a member. If the invitation was never changed before, it was never noted, so its
    /// end need not be noted either.
    async fn end_untold(&self, invitation: GroupInvitation) -> Result<()> {
        let GroupInvitation { user_id, channel_id, rev, .. } = invitation;
        let ended = self.store.end_invitations(Ending::One(user_id, channel_id), 1).await?;
        for ended in ended.iter().filter(|_| rev == 1) {
            self.store.settle_invitation(user_id, channel_id, ended.rev).await?;
        }
        Ok(())
    }

    async fn group(&self, channel: ChannelId) -> Result<Group> {
        let row = self.store.channel(channel).await?;
        let seats = self.store.seats(channel).await?;
        let name = row.and_then(|row| row.card.name).unwrap_or_default();
        Ok(Group { name, member_count: seats.count })
    }

    /// Continues the notes that an earlier call or an earlier process left undone. Upkeep calls this once a second.
    pub(in crate::operations) async fn note_due_invitations(&self) {
        let DueInvitations { may_be_due, failed } = &self.due_invitations;
        let now = self.clock.elapsed();
        // Cleared before the read: an invitation that is written later sets the flag again.
        if !may_be_due.swap(false, Ordering::Relaxed) && !failed.has_due(now) {
            return;
        }
        let unnoted = match self.store.due_invitations(AT_ONCE + failed.len()).await {
            Ok(unnoted) => unnoted,
            Err(error) => {
                may_be_due.store(true, Ordering::Relaxed);
                return tracing::warn!(%error, "reading changed invitations failed; retrying");
            }
        };
        let there: HashSet<_> = unnoted.iter().map(|it| (it.user_id, it.channel_id)).collect();
        failed.keep(|key| there.contains(key));
        let is_due = |it: &GroupInvitation| failed.is_due(&(it.user_id, it.channel_id), now);
        let mut due: Vec<GroupInvitation> = unnoted.into_iter().filter(is_due).collect();
        if due.len() >= AT_ONCE {
            due.truncate(AT_ONCE);
            may_be_due.store(true, Ordering::Relaxed);
        }
        self.note_each(&due).await;
    }
}

/// Whether an invitation is noted in the user's own log.
enum Noted {
    Yes,
    /// The inviter is not a member yet.
    NotYet,
}

/// Invitations that must be noted. If the call that holds them stops, dropping this makes upkeep look for them.
pub(in crate::operations) struct UnnotedInvitations<'a> {
    list: Vec<GroupInvitation>,
    of: &'a DueInvitations,
}

impl Drop for UnnotedInvitations<'_> {
    fn drop(&mut self) {
        if !self.list.is_empty() {
            self.of.may_be_due.store(true, Ordering::Relaxed);
        }
    }
}

/// What an invited user may know about a group.
#[derive(Debug, Clone)]
struct Group {
    name: String,
    member_count: u32,
}
