//! Channels: created, listed, read.

pub(super) mod channel_settings;
pub(super) mod details;
pub(super) mod erasure;
pub(super) mod group_invitations;
pub(super) mod members;
pub(super) mod moderation;
pub(super) mod open_channels;

use std::sync::Arc;

use madang_engine::home::{Command, JoinRequest, SeatRequest};
use madang_ids::{ChannelId, LogId, Millis, UserId};
use madang_proto::rest::{ChannelOrder, ChannelView, ChannelsQuery, NewChannel, Page, PageQuery};
use madang_proto::{ChannelCard, ChannelKind, ErrorBody, ErrorCode, Role, limits};
use madang_store::{Channel, ChannelState, Head, Member, Overview, OverviewOrder, User, UserState};

use super::accounts::request_hash;
use super::channels::details::check_topic;
use super::channels::group_invitations::UnnotedInvitations;
use super::costs::Cost;
use super::messages::texts::check_text;
use super::people::consent::Division;
use super::{Caller, Operations, check_not_deleted, pages};
use crate::refusal::Result;

impl Operations {
    /// Makes a channel. If the pair has a direct channel already, that one is returned. The creation of other channels may be
    /// repeated with an idempotency key.
    ///
    /// # Errors
    /// `not_found` for an unknown user; `full` without a seat for everybody, or above somebody's limit of channels; `forbidden`
    /// for a user whom the caller blocks, and for a direct channel with a user who accepts no messages of the caller.
    pub async fn create_channel(
        &self,
        caller: Caller,
        request: NewChannel,
        key: Option<&str>,
    ) -> Result<ChannelView> {
        let (channel, invited) = match request.kind {
            ChannelKind::Direct => (self.create_direct(caller, &request).await?, Vec::new()),
            ChannelKind::Group => self.create_group(caller, &request, key).await?,
            ChannelKind::Open => (self.create_open(caller, &request, key).await?, Vec::new()),
        };
        Ok(ChannelView { invited, ..self.joined_view(caller, channel).await? })
    }

    /// A channel in which the caller has just been seated. The home goes on without a member whose own partition cannot be
    /// written, and writes it later.
    async fn joined_view(&self, caller: Caller, channel: ChannelId) -> Result<ChannelView> {
        let Some(mut row) = self.store.overview_of(caller.user_id, channel).await? else {
            self.channel(channel).await?;
            return Err(ErrorBody::unavailable("the channel is not in your list yet; try again", 500).into());
        };
        self.end_where_left(&mut row).await?;
        check_not_deleted(&row.channel)?;
        Ok(view(row))
    }

    async fn create_direct(&self, caller: Caller, request: &NewChannel) -> Result<ChannelId> {
        let [other] = request.members[..] else {
            return Err(
                ErrorBody::invalid("members", "members of a direct channel must be one other user").into()
            );
        };
        if other == caller.user_id {
            return Err(ErrorBody::invalid(
                "members",
                "members contains your own id; a direct channel has two users",
            )
            .into());
        }
        if request.name.is_some() {
            return Err(ErrorBody::invalid("name", "a direct channel has no name").into());
        }
        if request.topic.is_some() {
            return Err(ErrorBody::invalid("topic", "a direct channel has no topic").into());
        }
        self.check_users("members", &[other]).await?;
        let candidate = ChannelId::from_raw(self.mint()?);
        let found = self.store.direct(caller.user_id, other).await?;
        // Held until the channel is established: the limit of channels is exact while the turns are held.
        let mut _room = Vec::new();
        if found.is_none() {
            self.check_not_blocked(caller.user_id, other).await?;
            self.check_takes_messages(caller.user_id, other).await?;
            _room = self.room_for_channel(caller, "members", &[caller.user_id, other], None).await?;
        }
        let id = self.store.claim_direct(caller.user_id, other, candidate).await?;
        let mut between = [caller.user_id, other];
        between.sort_unstable();
        let card = ChannelCard::new(id, ChannelKind::Direct, None, Some(between));
        let joins = between.map(|user_id| JoinRequest::of(user_id, Role::Member)).to_vec();
        // If an earlier call stopped half-way, this one finishes its work: every step can be repeated.
        self.establish(caller, Founding { card, capacity: 2, joins, invited: &[] }).await?;
        Ok(id)
    }

    async fn create_group(
        &self,
        caller: Caller,
        request: &NewChannel,
        key: Option<&str>,
    ) -> Result<(ChannelId, Vec<UserId>)> {
        let name = check_name(request.name.as_deref())?;
        let topic = check_topic(request.topic.as_deref().unwrap_or_default())?;
        let mut others = request.members.clone();
        others.sort_unstable();
        others.dedup();
        others.retain(|&user| user != caller.user_id);
        let capacity = self.config.channels.group_members;
        if others.len() + 1 > capacity as usize {
            let message =
                format!("members and you are {} users, the limit of a group is {capacity}", others.len() + 1);
            return Err(ErrorBody::field(ErrorCode::Full, "members", message).into());
        }
        let members: Vec<u8> = others.iter().flat_map(|user| user.raw().to_be_bytes()).collect();
        let hash = request_hash(&[name.as_bytes(), &members, topic.as_bytes()]);
        let id = ChannelId::from_raw(self.claim_channel(caller, key, hash).await?);
        let card = ChannelCard { topic, ..ChannelCard::new(id, ChannelKind::Group, Some(name), None) };
        self.callers.charge(caller.user_id, Cost::MEMBER.times(1 + others.len()));
        // An earlier try has made the group: consent is not checked again.
        if key.is_some() && self.store.seats(id).await?.rev > 0 {
            self.establish(caller, Founding { card, capacity, joins: Vec::new(), invited: &[] }).await?;
            return Ok((id, self.never_members(id, others).await?));
        }
        let Division { added, invited } = self.divide(caller, "members", &others).await?;
        let all: Vec<UserId> = added.iter().copied().chain([caller.user_id]).collect();
        let room = self.room_for_channel(caller, "members", &all, None).await?;
        others.iter().try_for_each(|&user| self.callers.take_nudge(caller.user_id, user))?;
        let accepts = self.consent().is_given();
        let mut joins = vec![JoinRequest::of(caller.user_id, Role::Owner)];
        joins.extend(added.into_iter().map(|user_id| JoinRequest { user_id, role: Role::Member, accepts }));
        let unnoted = self.establish(caller, Founding { card, capacity, joins, invited: &invited }).await?;
        drop(room);
        self.note_invitations(unnoted).await;
        Ok((id, invited))
    }

    /// Those of `users` who have never been members. These were invited.
    async fn never_members(&self, id: ChannelId, users: Vec<UserId>) -> Result<Vec<UserId>> {
        let members = self.store.members_of(id, &users).await?;
        let has_been = |member: &Member| member.spans.last().is_some();
        let never =
            users.into_iter().zip(members).filter(|(_, member)| !member.as_ref().is_some_and(has_been));
        Ok(never.map(|(user, _)| user).collect())
    }

    /// The id of a new group or open channel, or that of an earlier try with the same key.
    pub(super) async fn claim_channel(
        &self,
        caller: Caller,
        key: Option<&str>,
        hash: [u8; 16],
    ) -> Result<u64> {
        let id = self.mint()?;
        let Some(key) = key else { return Ok(id) };
        self.claim(&format!("group by {}", caller.user_id), key, id, hash).await
    }

    /// Makes a channel. Each step can be repeated. Returns the invitations that must be noted.
    pub(super) async fn establish(
        &self,
        caller: Caller,
        founding: Founding<'_>,
    ) -> Result<UnnotedInvitations<'_>> {
        let Founding { card, capacity, joins, invited } = founding;
        let id = card.id;
        let (created_by, created_at) = (caller.user_id, self.clock.now_ms());
        let row = Channel::new(card, created_by, created_at, capacity);
        self.store.create_channel(&row).await?;
        let channel: Arc<Channel> = self.channel(id).await?;
        // A repeated creation does not bring back members who have left meanwhile, nor invitations that were taken back.
        if self.store.seats(id).await?.rev > 0 {
            self.homes.ask(&channel, seats(caller.user_id, Vec::new(), true)).await?;
            return Ok(self.unnoted([]));
        }
        // Before the seats: if the call stops here, the repeated one finds no seats and does both again. Invitations count only
        // once their inviter is a member.
        let unnoted = self.put_invitations(caller.user_id, id, invited).await?;
        self.homes.ask(&channel, seats(caller.user_id, joins, true)).await?;
        Ok(unnoted)
    }

    /// The caller's channels, by activity or by id; or those that the caller has left and may still read.
    ///
    /// # Errors
    /// `after` or `limit` out of bounds.
    pub async fn channels(&self, caller: Caller, query: ChannelsQuery) -> Result<Page<ChannelView>> {
        let ChannelsQuery { order, left, after, limit } = query;
        let (order, limit) = match order {
            _ if left => {
                let (after, limit) = pages::bounds(&PageQuery { after, limit })?;
                (OverviewOrder::Left(after), limit)
            }
            ChannelOrder::Activity => {
                let (_, limit) = pages::bounds::<u64>(&PageQuery { after: None, limit })?;
                let after = after.as_deref().map(parse_activity).transpose()?;
                (OverviewOrder::Activity(after), limit)
            }
            ChannelOrder::Id => {
                let (after, limit) = pages::bounds(&PageQuery { after, limit })?;
                (OverviewOrder::Id(after), limit)
            }
        };
        let mut rows = self.store.overview(caller.user_id, order, limit).await?;
        let sorting = match order {
            OverviewOrder::Activity(_) => Cost::ACTIVITY,
            OverviewOrder::Id(_) => Cost::default(),
            OverviewOrder::Left(_) => Cost::rows(rows.len()),
        };
        self.callers.charge(caller.user_id, sorting.and(Cost::rows(rows.len())));
        let next = pages::next(&rows, limit, |row| match order {
            OverviewOrder::Activity(_) => format!("{}-{}", row.head.at, row.channel.card.id),
            OverviewOrder::Id(_) | OverviewOrder::Left(_) => row.channel.card.id.to_string(),
        });
        if left {
            for row in &mut rows {
                self.end_where_left(row).await?;
            }
        }
        Ok(Page { items: rows.into_iter().map(view).collect(), next })
    }

    /// One of the caller's channels, including one that the caller has left.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn channel_view(&self, caller: Caller, channel: ChannelId) -> Result<ChannelView> {
        let overview = self.overview_of(caller.user_id, channel).await?;
        check_not_deleted(&overview.channel)?;
        Ok(view(overview))
    }

    /// A channel with the caller's membership. A user who has never been a member learns nothing, not even that the channel
    /// exists, unless it is open.
    pub(super) async fn overview_of(&self, user: UserId, channel: ChannelId) -> Result<Overview> {
        let row = self.store.overview_of(user, channel).await?;
        let Some(mut row) = row else { return Err(self.refuse_stranger(channel).await) };
        self.end_where_left(&mut row).await?;
        Ok(row)
    }

    /// For a user who has left, the channel ends at the entry of the leave.
    async fn end_where_left(&self, row: &mut Overview) -> Result<()> {
        let Some(until) = row.membership.spans.last().and_then(|span| span.until) else { return Ok(()) };
        let rows = self.logs.rows(LogId::Channel(row.channel.card.id), until..=until, 1).await?;
        row.head = rows.first().map(Head::after).unwrap_or_default();
        row.last_message_at = None;
        if row.channel.card.kind != ChannelKind::Open {
            hide_details(&mut row.channel);
        }
        Ok(())
    }

    /// These users, none of them deleted. `field` names the field of the request that holds the ids.
    pub(super) async fn check_users(&self, field: &'static str, users: &[UserId]) -> Result<Vec<User>> {
        let found = self.store.users(users).await?;
        let check = |(id, found): (&UserId, Option<User>)| {
            let missing = || ErrorBody::field(ErrorCode::NotFound, field, format!("user {id} was not found"));
            found.filter(|user| user.state != UserState::Deleted).ok_or_else(missing)
        };
        Ok(users.iter().zip(found).map(check).collect::<Result<_, _>>()?)
    }

    /// Refuses if one of the two blocks the other.
    async fn check_not_blocked(&self, user: UserId, other: UserId) -> Result<()> {
        if self.store.is_blocked(user, other).await? {
            let message = format!("you and user {other} cannot share a new channel: one blocks the other");
            return Err(ErrorBody::forbidden(message).into());
        }
        Ok(())
    }

    async fn check_takes_messages(&self, from: UserId, to: UserId) -> Result<()> {
        if self.takes_messages(to, from).await? {
            return Ok(());
        }
        let message = format!("user {to} accepts no messages from strangers; send a contact request first");
        Err(ErrorBody::forbidden(message).into())
    }
}

/// A channel that is to be made, with its members.
pub(super) struct Founding<'a> {
    pub(super) card: ChannelCard,
    pub(super) capacity: u32,
    pub(super) joins: Vec<JoinRequest>,
    /// Users who are invited besides.
    pub(super) invited: &'a [UserId],
}

pub(super) fn seats(by: UserId, joins: Vec<JoinRequest>, is_creation: bool) -> Command {
    Command::Seats(SeatRequest { joins, is_creation, ..SeatRequest::by(by) })
}

/// Removes what members may have changed since. The name stays: without it the user could not tell which channel this was.
fn hide_details(channel: &mut Channel) {
    let name = channel.card.name.take();
    channel.card = ChannelCard::new(channel.card.id, channel.card.kind, name, channel.card.between);
    (channel.pins, channel.slow_mode_seconds) = (Vec::new(), 0);
}

pub(super) fn view(row: Overview) -> ChannelView {
    let span = row.membership.spans.last();
    ChannelView {
        card: row.channel.card,
        head_seq: row.head.seq,
        head_ordinal: row.head.ordinal,
        active_at: row.head.at,
        read_seq: row.marker.seq,
        unread: row.head.ordinal.get().saturating_sub(row.marker.ordinal.get()),
        mentions: row.mentions,
        from_seq: span.map_or(madang_ids::Seq::ZERO, |span| span.from),
        until_seq: span.and_then(|span| span.until),
        role: row.membership.role,
        pins: row.channel.pins,
        slow_mode_seconds: row.channel.slow_mode_seconds,
        archived: row.channel.state == ChannelState::Archived,
        last_message_at: row.last_message_at,
        settings: row.settings,
        invited: Vec::new(),
    }
}

pub(super) fn check_name(name: Option<&str>) -> Result<String, ErrorBody> {
    check_text("name", name.unwrap_or_default(), 1..=limits::CHANNEL_NAME_CHARS)
}

fn parse_activity(after: &str) -> Result<(Millis, ChannelId), ErrorBody> {
    let parsed =
        after.split_once('-').and_then(|(at, id)| Some((Millis::new(at.parse().ok()?), id.parse().ok()?)));
    parsed.ok_or_else(|| {
        ErrorBody::invalid(
            "after",
            "after is not the next of an earlier page of this list of \
         this list",
        )
    })
}
