//! Open channels: created, found, joined.

use std::ops::RangeInclusive;

use madang_engine::home::JoinRequest;
use madang_engine::log::Row;
use madang_engine::overload::Class;
use madang_engine::spans::Spans;
use madang_engine::subscriptions::At;
use madang_ids::{ChannelId, LogId, Seq, UserId};
use madang_proto::rest::{ChannelView, NewChannel, OpenChannel, OpenChannelQuery, Page, PageQuery};
use madang_proto::{ChannelCard, ChannelKind, ErrorBody, ErrorCode, Role, limits};
use madang_store::{FoundChannel, FoundPage};

use crate::operations::accounts::request_hash;
use crate::operations::channels::details::check_topic;
use crate::operations::channels::members::no_longer;
use crate::operations::channels::{Founding, check_name, seats};
use crate::operations::costs::Cost;
use crate::operations::{Caller, Operations, pages};
use crate::refusal::{OperationError, Result};

/// Open channels that one page of a search looks at.
const LOOKED_AT: usize = 2_000;

impl Operations {
    pub(in crate::operations) async fn create_open(
        &self,
        caller: Caller,
        request: &NewChannel,
        key: Option<&str>,
    ) -> Result<ChannelId> {
        let name = check_name(request.name.as_deref())?;
        let topic = check_topic(request.topic.as_deref().unwrap_or_default())?;
        if !request.members.is_empty() {
            let message = "members must be empty: users join an open channel by themselves";
            return Err(ErrorBody::invalid("members", message).into());
        }
        let hash = request_hash(&[b"open", name.as_bytes(), topic.as_bytes()]);
        let id = ChannelId::from_raw(self.claim_channel(caller, key, hash).await?);
        let _room = self.room_for_channel(caller, "members", &[caller.user_id], Some(id)).await?;
        self.check_open_made(caller, id).await?;
        self.callers.charge(caller.user_id, Cost::MEMBER);
        let card = ChannelCard { topic, ..ChannelCard::new(id, ChannelKind::Open, Some(name), None) };
        let joins = vec![JoinRequest::of(caller.user_id, Role::Owner)];
        let capacity = self.config.channels.open_members;
        self.establish(caller, Founding { card, capacity, joins, invited: &[] }).await?;
        Ok(id)
    }

    /// Limits how many open channels a user may make, because a search looks at all of them.
    async fn check_open_made(&self, caller: Caller, id: ChannelId) -> Result<()> {
        let most = self.config.channels.open_per_user;
        let made = self.store.open_made(caller.user_id, most).await?;
        // The repeated creation of a channel that exists makes no new one.
        if made < most || self.store.channel(id).await?.is_some() {
            return Ok(());
        }
        let message = format!("you have created {most} open channels, the limit");
        Err(ErrorBody::new(ErrorCode::Full, message).into())
    }

    /// Finds open channels by name and topic.
    ///
    /// # Errors
    /// `query`, `after` or `limit` out of bounds.
    pub async fn find_open(&self, caller: Caller, query: OpenChannelQuery) -> Result<Page<OpenChannel>> {
        let OpenChannelQuery { query, after, limit } = query;
        let (query, max) = (query.unwrap_or_default(), limits::CHANNEL_NAME_CHARS);
        let chars = query.chars().count();
        if chars > max {
            let message = format!("query has {chars} characters, the limit is {max}");
            return Err(ErrorBody::invalid("query", message).into());
        }
        let (after, limit) = pages::bounds::<ChannelId>(&PageQuery { after, limit })?;
        let FoundPage { channels, next } =
            self.store.find_open(query.trim(), after, limit, LOOKED_AT).await?;
        let looked_at = if channels.len() == limit { limit } else { LOOKED_AT };
        self.callers.charge(caller.user_id, Cost::looked_at(looked_at));
        let row = |FoundChannel { card, members }| OpenChannel { card, member_count: members };
        let next = next.map(|last| last.to_string());
        Ok(Page { items: channels.into_iter().map(row).collect(), next })
    }

    /// Admits a user to [`Self::join`] a channel, or not. Reads nothing: a crowd at the door must cost as little as possible.
    ///
    /// # Errors
    /// `limited`: others join this channel at the moment; `unavailable`: the node has too much to do.
    pub fn admit_join(&self, user: UserId, channel_id: ChannelId) -> Result<()> {
        self.shedding.admit(Class::Joins, user.raw())?;
        if let Some(hot) = self.heats.hot(channel_id) {
            hot.take_join(self.clock.elapsed()).inspect_err(|_| _ = self.metrics.joins_refused.inc())?;
        }
        Ok(())
    }

    /// The caller, who was admitted, joins an open channel. A member stays a member.
    ///
    /// # Errors
    /// `full`; `forbidden` for a group or direct channel of the caller, `not_found` for those of others.
    pub async fn join(&self, caller: Caller, channel_id: ChannelId) -> Result<ChannelView> {
        let channel = self.channel(channel_id).await?;
        if channel.card.kind != ChannelKind::Open {
            self.overview_of(caller.user_id, channel_id).await?;
            return Err(ErrorBody::forbidden(
                "only open channels can be joined; users are added to this one",
            )
            .into());
        }
        let _room = self.room_for_channel(caller, "members", &[caller.user_id], Some(channel_id)).await?;
        self.callers.charge(caller.user_id, Cost::MEMBER);
        let joins = vec![JoinRequest::of(caller.user_id, Role::Member)];
        self.homes.ask(&channel, seats(caller.user_id, joins, false)).await?;
        self.joined_view(caller, channel_id).await
    }

    /// The place from which the caller may receive the entries of an open channel. The seats are asked, which change before the
    /// log does: if this finds a member whose leave is in progress, the row of the leave comes later and ends the subscription.
    ///
    /// # Errors
    /// `unsupported` for other channels; `forbidden` for a user who is not a member.
    pub async fn check_subscriber(&self, user: UserId, channel_id: ChannelId) -> Result<Seq> {
        let channel = self.channel(channel_id).await?;
        if channel.card.kind != ChannelKind::Open {
            self.overview_of(user, channel_id).await?;
            let message =
                "channel_id is not an open channel: entries of other channels come without a subscription";
            return Err(ErrorBody::field(ErrorCode::Unsupported, "channel_id", message).into());
        }
        let members = self.store.members_of(channel_id, &[user]).await?;
        let Some(member) = members.into_iter().next().flatten() else { return Err(join_first().into()) };
        let stay = member.spans.last().filter(|stay| stay.until.is_none());
        Ok(stay.map(|stay| stay.from).ok_or_else(no_longer)?)
    }

    /// The head of an open channel.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn open_head(&self, channel: ChannelId) -> Result<At> {
        Ok(self.open_heads(&[channel]).await?.first().copied().unwrap_or_default())
    }

    /// The heads of open channels, in the order of `channels`.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn open_heads(&self, channels: &[ChannelId]) -> Result<Vec<At>> {
        let logs: Vec<LogId> = channels.iter().map(|&channel| LogId::Channel(channel)).collect();
        let heads = self.logs.heads(&logs).await?;
        Ok(heads.into_iter().map(|head| At { seq: head.seq, ordinal: head.ordinal }).collect())
    }

    /// All rows of a range of an open channel, as a user may read them. `None` if they are more than one frame may hold.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn open_rows(
        &self,
        user: UserId,
        channel: ChannelId,
        range: RangeInclusive<Seq>,
    ) -> Result<Option<Vec<Row>>> {
        if range.is_empty() {
            return Ok(Some(Vec::new()));
        }
        let end = *range.end();
        let mut rows = self.logs.rows(LogId::Channel(channel), range, limits::BATCH_BYTES_OUT).await?;
        let hidden = self.hidden_from(user, [(LogId::Channel(channel), &rows[..])]).await?;
        self.carry(channel, &Spans::since(Seq::new(1)), &mut rows, limits::BATCH_BYTES_OUT).await?;
        hidden.withhold(channel, &mut rows);
        Ok(rows.last().is_some_and(|last| last.entry.seq == end).then_some(rows))
    }

    /// Whether each of these users is a member at the moment.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn are_members(&self, channel: ChannelId, users: &[UserId]) -> Result<Vec<bool>> {
        let members = self.store.members_of(channel, users).await?;
        Ok(members
            .iter()
            .map(|member| member.as_ref().is_some_and(|member| member.spans.is_open()))
            .collect())
    }

    /// The refusal for a user who has never been a member. The existence of an open channel is not a secret.
    pub(in crate::operations) async fn refuse_stranger(&self, channel: ChannelId) -> OperationError {
        match self.channel(channel).await {
            Ok(channel) if channel.card.kind == ChannelKind::Open => join_first().into(),
            Ok(_) => ErrorBody::not_found("channel_id").into(),
            Err(error) => error,
        }
    }
}

fn join_first() -> ErrorBody {
    ErrorBody::forbidden("not a member of this open channel: join it first")
}
