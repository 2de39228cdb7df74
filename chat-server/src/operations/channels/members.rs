//! Members: listed, added, removed, leaving.

use std::collections::HashSet;

use madang_engine::home::{Command, JoinRequest, Reply, SeatRequest};
use madang_ids::{ChannelId, UserId};
use madang_proto::rest::{AddMembers, Added, MemberCard, Page, PageQuery};
use madang_proto::{ErrorBody, ErrorCode, Role, limits};
use madang_store::{Ending, Marker, Member, User};

use crate::operations::accounts::card;
use crate::operations::costs::Cost;
use crate::operations::people::consent::Division;
use crate::operations::turns::{Subject, Turn};
use crate::operations::{Caller, Operations, pages};
use crate::refusal::Result;

/// Within this distance of the limit of channels, joins of one user take turns. It is more than the requests that one user can
/// have in flight.
const NEAR: u32 = 64;

impl Operations {
    /// The members of a channel of the caller.
    ///
    /// # Errors
    /// `not_found` for a channel that the caller is not a member of.
    pub async fn members(
        &self,
        caller: Caller,
        channel: ChannelId,
        query: PageQuery,
    ) -> Result<Page<MemberCard>> {
        self.check_is_member(caller, channel).await?;
        let (after, limit) = pages::bounds::<UserId>(&query)?;
        let members = self.store.members(channel, after, limit).await?;
        let next = pages::next(&members, limit, |member| member.user_id);
        let ids: Vec<UserId> = members.iter().map(|member| member.user_id).collect();
        let users = self.store.users(&ids).await?;
        let markers = self.store.markers(channel, &ids).await?;
        self.callers.charge(caller.user_id, Cost::rows(ids.len()));
        let rows = self.store.presence(&ids).await?;
        let invisible: HashSet<UserId> =
            ids.iter().zip(rows).filter(|(_, row)| row.invisible).map(|(user, _)| *user).collect();
        let apart = self.apart_from(caller.user_id).await?;
        // A read marker shows that the user was online, so it is withheld for invisible users and across blocks.
        let shows_marker = |user: UserId| {
            let is_apart = apart.as_ref().is_none_or(|apart| apart.binary_search(&user).is_ok());
            user == caller.user_id || !(is_apart || invisible.contains(&user))
        };
        let now = self.clock.raw_ms();
        let row = |((member, user), marker): ((Member, Option<User>), Marker)| {
            let user = user?;
            let read_seq = (user.sends_receipts && shows_marker(user.id)).then_some(marker.seq);
            let muted = member.muted.filter(|_| member.is_muted(now));
            let Member { role, joined_at, .. } = member;
            Some(MemberCard { user: card(user), role, joined_at, read_seq, muted })
        };
        let rows = members.into_iter().zip(users).zip(markers);
        Ok(Page { items: rows.filter_map(row).collect(), next })
    }

    /// Adds users, or invites those who do not let the caller add them. Users who are members already are left as they are.
    ///
    /// # Errors
    /// `forbidden` without the right, for a user whom the caller blocks, or who is banned; `full` without a seat for everybody
    /// who would be added. Nobody is added or invited then.
    pub async fn add_members(
        &self,
        caller: Caller,
        channel: ChannelId,
        request: AddMembers,
    ) -> Result<Added> {
        let max = limits::GROUP_MEMBERS_MAX as usize;
        if request.user_ids.is_empty() || request.user_ids.len() > max {
            let message = format!("user_ids has {} ids, it must be 1 to {max}", request.user_ids.len());
            return Err(ErrorBody::invalid("user_ids", message).into());
        }
        self.check_may_add(caller, channel).await?;
        let newcomers = self.newcomers(channel, &request.user_ids).await?;
        let Division { added, invited } = self.divide(caller, "user_ids", &newcomers).await?;
        newcomers.iter().try_for_each(|&user| self.callers.take_nudge(caller.user_id, user))?;
        self.callers.charge(caller.user_id, Cost::MEMBER.times(newcomers.len()));
        self.seat(caller, channel, added).await?;
        let unnoted = self.put_invitations(caller.user_id, channel, &invited).await?;
        self.note_invitations(unnoted).await;
        Ok(Added { invited })
    }

    /// Checks the right to add members before anything about the named users is read, because the refusals reveal something about
    /// them.
    async fn check_may_add(&self, caller: Caller, id: ChannelId) -> Result<()> {
        self.check_is_member(caller, id).await?;
        let channel = self.channel(id).await?;
        let request = SeatRequest { adds: true, ..SeatRequest::by(caller.user_id) };
        self.homes.ask(&channel, Command::Seats(request)).await?;
        Ok(())
    }

    /// Those of `users` who are not members.
    async fn newcomers(&self, channel: ChannelId, users: &[UserId]) -> Result<Vec<UserId>> {
        let members = self.store.members_of(channel, users).await?;
        let now = self.clock.raw_ms();
        let mut newcomers = Vec::new();
        for (&user, member) in users.iter().zip(members) {
            match member {
                Some(member) if member.spans.is_open() => {}
                Some(member) if member.is_banned(now) => {
                    return Err(
                        ErrorBody::forbidden(format!("user {user} is banned from this channel")).into()
                    );
                }
                _ => newcomers.push(user),
            }
        }
        Ok(newcomers)
    }

    /// Makes users members, if the caller may add them.
    async fn seat(&self, caller: Caller, id: ChannelId, users: Vec<UserId>) -> Result<()> {
        let _room = self.room_for_channel(caller, "user_ids", &users, Some(id)).await?;
        let channel = self.channel(id).await?;
        let accepts = self.consent().is_given();
        let join = |user_id| JoinRequest { user_id, role: Role::Member, accepts };
        let joins = users.into_iter().map(join).collect();
        let request = SeatRequest { joins, adds: true, ..SeatRequest::by(caller.user_id) };
        self.homes.ask(&channel, Command::Seats(request)).await?;
        Ok(())
    }

    /// Removes a member or takes an invitation back, or lets the caller leave. If the owner leaves, another member becomes the
    /// owner. Repeating it is harmless, because an earlier try may have stopped half-way. For a user who is not a member the
    /// answer is the same, so that it does not reveal what became of an invitation.
    ///
    /// # Errors
    /// `forbidden` without the right; `not_found` for an unknown user.
    pub async fn remove_member(&self, caller: Caller, channel: ChannelId, user: UserId) -> Result<()> {
        let own = match self.check_is_member(caller, channel).await {
            // An earlier leave may be half done. The home finishes it.
            Err(error) if error.code() == ErrorCode::Forbidden && user == caller.user_id => None,
            own => Some(own?),
        };
        let promote = match own {
            Some(Role::Owner) if user == caller.user_id => self.store.successor(channel, user).await?,
            _ => None,
        };
        let request = SeatRequest { leaves: vec![user], promote, ..SeatRequest::by(caller.user_id) };
        self.callers.charge(caller.user_id, Cost::MEMBER);
        let channel = self.channel(channel).await?;
        match self.homes.ask(&channel, Command::Seats(request)).await? {
            Reply::Seated { members } if members.is_empty() => {
                self.end_invitations(Ending::One(user, channel.card.id)).await?;
                self.check_exists(user).await
            }
            _ => Ok(()),
        }
    }

    /// Deleted users count as well: they may have been members, or invited.
    async fn check_exists(&self, user: UserId) -> Result<()> {
        let found = self.store.users(&[user]).await?;
        if found.iter().any(Option::is_some) { Ok(()) } else { Err(ErrorBody::not_found("user_id").into()) }
    }

    /// The caller's role. A user who has never been a member learns nothing; one who has left gets `forbidden`.
    pub(in crate::operations) async fn check_is_member(
        &self,
        caller: Caller,
        channel: ChannelId,
    ) -> Result<Role> {
        let membership = self.store.membership(caller.user_id, channel).await?;
        let Some(membership) = membership else { return Err(self.refuse_stranger(channel).await) };
        self.channel(channel).await?;
        if membership.spans.is_open() {
            return Ok(membership.role);
        }
        Err(no_longer().into())
    }

    /// Checks that each of these users has room for a channel: for one that they are in already, or for one more. `field` names
    /// the field of the request that holds the ids.
    ///
    /// The count is exact while the result is held: users close to their limit join one channel at a time. All others have more
    /// room than one user can have requests in flight.
    pub(in crate::operations) async fn room_for_channel(
        &self,
        caller: Caller,
        field: &'static str,
        users: &[UserId],
        channel: Option<ChannelId>,
    ) -> Result<Vec<Turn<'_>>> {
        let most = self.config.channels.per_user;
        let mut near = self.users_in(users, most.saturating_sub(NEAR)).await?;
        // Turns are taken in the order of the ids, so that two requests never wait for each other.
        near.sort_unstable();
        near.dedup();
        let mut turns = Vec::with_capacity(near.len());
        for &user in &near {
            turns.push(self.turns.take(Subject::Channels(user)).await);
        }
        // Counted again while the turns are held: the first count only found the users who are close to their limit.
        self.check_room(caller, field, &near, channel).await?;
        Ok(turns)
    }

    /// Those of `users` who are in at least `count` channels.
    async fn users_in(&self, users: &[UserId], count: u32) -> Result<Vec<UserId>> {
        if users.is_empty() {
            return Ok(Vec::new());
        }
        let counts = self.store.channel_counts(users, count).await?;
        Ok(users.iter().zip(counts).filter(|(_, found)| *found >= count).map(|(&user, _)| user).collect())
    }

    async fn check_room(
        &self,
        caller: Caller,
        field: &'static str,
        users: &[UserId],
        channel: Option<ChannelId>,
    ) -> Result<()> {
        let most = self.config.channels.per_user;
        let laden = self.users_in(users, most).await?;
        let are_here = match channel {
            Some(channel) if !laden.is_empty() => self.are_members(channel, &laden).await?,
            _ => vec![false; laden.len()],
        };
        let Some((&user, _)) = laden.iter().zip(are_here).find(|(_, is_here)| !is_here) else {
            return Ok(());
        };
        if user == caller.user_id {
            let message = format!("you are in {most} channels, the limit; leave one first");
            return Err(ErrorBody::new(ErrorCode::Full, message).into());
        }
        let message = format!("user {user} is in {most} channels, the limit");
        Err(ErrorBody::field(ErrorCode::Full, field, message).into())
    }
}

/// The refusal for a user who has left.
pub(in crate::operations) fn no_longer() -> ErrorBody {
    ErrorBody::forbidden("you are no longer a member of this channel")
}
