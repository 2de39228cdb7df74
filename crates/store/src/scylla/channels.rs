//! Channels, memberships by user, markers, and lists of channels.

use async_trait::async_trait;
use futures_util::future::try_join;
use madang_engine::spans::Spans;
use madang_ids::{ChannelId, LogId, Millis, Ordinal, Seq, UserId};
use madang_proto::{ChannelCard, ChannelKind, Role};
use scylla::DeserializeRow;

use super::codec::{int, json, number};
use super::log::{StoredHead, each};
use super::members::accepts;
use super::session::{Class, Statement};
use super::{Scylla, details};
use crate::channels::{
    Channel, ChannelStore, Member, Membership, Overview, OverviewOrder, SeatChange, SeatOutcome, Seating,
    Seats,
};
use crate::error::{StoreError, StoreResult};
use crate::log::{ChannelState, Details, Head, Marker};

const CHANNEL: Statement = Statement {
    class: Class::Read,
    cql: "SELECT kind, between_one, between_other, created_by, created_at, capacity, details FROM channels WHERE id = ?",
};
const CREATE: Statement = Statement {
    class: Class::Conditional,
    cql: "INSERT INTO channels (id, kind, between_one, between_other, created_by, created_at, capacity, details)
          VALUES (?, ?, ?, ?, ?, ?, ?, ?) IF NOT EXISTS",
};
const PUT_MADE: Statement = Statement {
    class: Class::Write,
    cql: "INSERT INTO open_channels_by_creator (user, channel) VALUES (?, ?)",
};
const MADE: Statement =
    Statement { class: Class::Read, cql: "SELECT channel FROM open_channels_by_creator WHERE user = ?" };
const CLAIM_DIRECT: Statement = Statement {
    class: Class::Conditional,
    cql: "INSERT INTO directs (one, other, channel) VALUES (?, ?, ?) IF NOT EXISTS",
};
const DIRECT: Statement =
    Statement { class: Class::SerialRead, cql: "SELECT channel FROM directs WHERE one = ? AND other = ?" };
const PUT_MEMBERSHIP: Statement = Statement {
    class: Class::Write,
    cql: "INSERT INTO memberships (user, channel, role, spans, is_open, version, in_inbox, has_accepted)
          VALUES (?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?",
};
const ACCEPT: Statement = Statement {
    class: Class::Write,
    cql: "UPDATE memberships USING TIMESTAMP ? SET accepted = ? WHERE user = ? AND channel = ?",
};
const MEMBERSHIP: Statement = Statement {
    class: Class::Read,
    cql: "SELECT channel, role, spans, version, in_inbox, has_accepted, accepted FROM memberships
          WHERE user = ? AND channel = ?",
};
const MEMBERSHIPS: Statement = Statement {
    class: Class::Read,
    cql: "SELECT channel, role, spans, version, in_inbox, has_accepted, accepted FROM memberships
          WHERE user = ? AND channel > ? LIMIT ?",
};
const OPEN_MEMBERSHIPS: Statement = Statement {
    class: Class::Read,
    cql: "SELECT channel, is_open FROM memberships WHERE user = ? AND channel > ? LIMIT ?",
};
const AMONG: Statement = Statement {
    class: Class::Read,
    cql: "SELECT channel, role FROM memberships WHERE user = ? AND channel IN ?",
};
const MARKER: Statement =
    Statement { class: Class::Read, cql: "SELECT seq, ordinal FROM markers WHERE user = ? AND channel = ?" };
/// Memberships that are read at once.
const PAGE_ROWS: i32 = 500;

#[derive(Debug, DeserializeRow)]
struct StoredChannel {
    kind: String,
    between_one: Option<i64>,
    between_other: Option<i64>,
    created_by: i64,
    created_at: i64,
    capacity: i32,
    details: String,
}

#[derive(Debug, DeserializeRow)]
struct StoredMembership {
    channel: i64,
    role: Option<String>,
    spans: Option<String>,
    version: Option<i64>,
    in_inbox: Option<bool>,
    has_accepted: Option<bool>,
    accepted: Option<i64>,
}

impl StoredMembership {
    /// The membership; `None` if there is none, or it cannot be read.
    fn membership(self, user_id: UserId) -> Option<Membership> {
        let role = serde_json::from_str::<Role>(&self.role?).ok()?;
        let spans: Spans = serde_json::from_str(&self.spans?).ok()?;
        Some(Membership {
            user_id,
            channel_id: ChannelId::from_raw(number(self.channel)),
            role,
            version: Seq::new(number(self.version?)),
            in_inbox: self.in_inbox?,
            has_accepted: self.has_accepted? || accepts(self.accepted, &spans),
            spans,
        })
    }
}

fn kind_text(kind: ChannelKind) -> &'static str {
    match kind {
        ChannelKind::Direct => "direct",
        ChannelKind::Group => "group",
        ChannelKind::Open => "open",
    }
}

pub(super) fn kind(text: &str) -> StoreResult<ChannelKind> {
    match text {
        "direct" => Ok(ChannelKind::Direct),
        "group" => Ok(ChannelKind::Group),
        "open" => Ok(ChannelKind::Open),
        other => Err(StoreError::Corrupt(format!("a channel of the kind {other}"))),
    }
}

impl Scylla {
    pub(super) async fn channel_with_head(
        &self,
        id: ChannelId,
    ) -> StoreResult<Option<(Channel, Head, Option<Millis>)>> {
        let row = self.cql.read_one::<StoredChannel>(&CHANNEL, (int(id.raw()),));
        let (row, last) = try_join(row, self.last_bucket(LogId::Channel(id))).await?;
        let Some(row) = row else { return Ok(None) };
        let now = last.stored.as_ref().and_then(|stored| stored.details.as_deref());
        let Details { state, name, topic, avatar, slow_mode_seconds, pins } =
            details::from_json(now.unwrap_or(&row.details))?;
        let user = |id: i64| UserId::from_raw(number(id));
        let between = row.between_one.zip(row.between_other).map(|(one, other)| [user(one), user(other)]);
        let mut card = ChannelCard::new(id, kind(&row.kind)?, name, between);
        (card.topic, card.avatar) = (topic, avatar);
        let channel = Channel {
            card,
            created_by: user(row.created_by),
            created_at: Millis::new(number(row.created_at)),
            capacity: row.capacity.cast_unsigned(),
            slow_mode_seconds,
            pins,
            state,
        };
        let message_at = last.stored.as_ref().and_then(|stored: &StoredHead| stored.message_at);
        Ok(Some((channel, last.head(), message_at.map(|at| Millis::new(number(at))))))
    }

    pub(super) async fn marker(&self, user: UserId, channel: ChannelId) -> StoreResult<Marker> {
        let row: Option<(i64, i64)> =
            self.cql.read_one(&MARKER, (int(user.raw()), int(channel.raw()))).await?;
        Ok(row.map_or_else(Marker::default, |(seq, ordinal)| Marker {
            seq: Seq::new(number(seq)),
            ordinal: Ordinal::new(number(ordinal)),
        }))
    }

    /// All memberships of a user, page by page, that `wants` keeps.
    pub(super) async fn all_memberships(
        &self,
        user: UserId,
        after: Option<ChannelId>,
        limit: usize,
        wants: impl Fn(&Membership) -> bool + Send,
    ) -> StoreResult<Vec<Membership>> {
        let (mut found, mut after) = (Vec::new(), after.map_or(-1, |after| int(after.raw())));
        while found.len() < limit {
            let page: Vec<StoredMembership> =
                self.cql.read(&MEMBERSHIPS, (int(user.raw()), after, PAGE_ROWS)).await?;
            let Some(last) = page.last() else { break };
            after = last.channel;
            let is_end = page.len() < PAGE_ROWS as usize;
            found.extend(page.into_iter().filter_map(|row| row.membership(user)).filter(&wants));
            if is_end {
                break;
            }
        }
        found.truncate(limit);
        Ok(found)
    }

    async fn put_membership(&self, membership: Membership) -> StoreResult<()> {
        let Membership { user_id, channel_id, role, spans, version, in_inbox, has_accepted } = &membership;
        let (user_id, channel_id, in_inbox, has_accepted) = (*user_id, *channel_id, *in_inbox, *has_accepted);
        let version = int(version.get());
        let is_open = spans.is_open();
        let values = (
            int(user_id.raw()),
            int(channel_id.raw()),
            json(role)?,
            json(spans)?,
            is_open,
            version,
            in_inbox,
            has_accepted,
            version,
        );
        self.cql.write(&PUT_MEMBERSHIP, values).await?;
        if is_open {
            return self.end_by_joining(user_id, channel_id).await;
        }
        self.forget_old_stays(&membership).await;
        Ok(())
    }
}

#[async_trait]
impl ChannelStore for Scylla {
    async fn create_channel(&self, channel: &Channel) -> StoreResult<()> {
        let Channel { card, created_by, created_at, capacity, .. } = channel;
        let details = channel.details();
        let pair = card.between.map(|pair| pair.map(|user| int(user.raw())));
        let values = (
            int(card.id.raw()),
            kind_text(card.kind),
            pair.map(|[one, _]| one),
            pair.map(|[_, other]| other),
            int(created_by.raw()),
            int(created_at.get()),
            capacity.cast_signed(),
            details::to_json(&details)?,
        );
        if card.kind == ChannelKind::Open {
            self.cql.write(&PUT_MADE, (int(created_by.raw()), int(card.id.raw()))).await?;
            self.list_open(card.id, &details, Seq::ZERO).await?;
        }
        self.cql.conditional(&CREATE, values).await.map(drop)
    }

    async fn channel(&self, id: ChannelId) -> StoreResult<Option<Channel>> {
        Ok(self.channel_with_head(id).await?.map(|(channel, ..)| channel))
    }

    async fn open_made(&self, user: UserId, most: u32) -> StoreResult<u32> {
        let made: Vec<(i64,)> = self.cql.read(&MADE, (int(user.raw()),)).await?;
        let channels = each(made, |(id,)| self.channel(ChannelId::from_raw(number(id)))).await?;
        let active = channels.iter().flatten().filter(|channel| channel.state == ChannelState::Active);
        Ok(u32::try_from(active.take(most as usize).count()).unwrap_or(most))
    }

    async fn claim_direct(&self, one: UserId, other: UserId, candidate: ChannelId) -> StoreResult<ChannelId> {
        let pair = (int(one.min(other).raw()), int(one.max(other).raw()));
        if self.cql.conditional(&CLAIM_DIRECT, (pair.0, pair.1, int(candidate.raw()))).await? {
            return Ok(candidate);
        }
        let found = self.direct(one, other).await?;
        found.ok_or_else(|| StoreError::Unknown("the channel of a pair is there and cannot be read".into()))
    }

    async fn direct(&self, one: UserId, other: UserId) -> StoreResult<Option<ChannelId>> {
        let pair = (int(one.min(other).raw()), int(one.max(other).raw()));
        let row: Option<(i64,)> = self.cql.read_one(&DIRECT, pair).await?;
        Ok(row.map(|(channel,)| ChannelId::from_raw(number(channel))))
    }

    async fn seats(&self, channel: ChannelId) -> StoreResult<Seats> {
        self.seats_of(channel).await
    }

    async fn change_seats(&self, change: SeatChange, memberships: &[Membership]) -> StoreResult<SeatOutcome> {
        let outcome = self.put_seats(&change).await?;
        if let SeatOutcome::Changed(_) = outcome {
            let put = self.put_memberships(memberships).await;
            put.map_err(|error| StoreError::Unknown(error.to_string()))?;
        }
        Ok(outcome)
    }

    async fn accept_stay(&self, user: UserId, channel: ChannelId) -> StoreResult<()> {
        // The member's row is written first: a later call that finds it written repeats the write of the membership.
        self.accept_member(channel, user).await?;
        let Some(membership) = self.membership(user, channel).await? else { return Ok(()) };
        let Some(span) = membership.spans.last().filter(|span| span.until.is_none()) else { return Ok(()) };
        let from = int(span.from.get());
        self.cql.write(&ACCEPT, (from, from, int(user.raw()), int(channel.raw()))).await
    }

    async fn settle_members(&self, channel: ChannelId, members: &[Member]) -> StoreResult<()> {
        self.settle(channel, members).await
    }

    async fn members_of(&self, channel: ChannelId, users: &[UserId]) -> StoreResult<Vec<Option<Member>>> {
        each(users.to_vec(), |user| self.member(channel, user)).await
    }

    async fn members(
        &self,
        channel: ChannelId,
        after: Option<UserId>,
        limit: usize,
    ) -> StoreResult<Vec<Member>> {
        self.present(channel, after, limit).await
    }

    async fn members_ever(
        &self,
        channel: ChannelId,
        after: Option<UserId>,
        limit: usize,
    ) -> StoreResult<Vec<Member>> {
        self.all_members(channel, after, limit).await
    }

    async fn successor(&self, channel: ChannelId, owner: UserId) -> StoreResult<Option<UserId>> {
        self.next_owner(channel, owner).await
    }

    async fn seating(&self, channel: ChannelId, users: &[UserId]) -> StoreResult<Seating> {
        self.seating_of(channel, users).await
    }

    async fn banned(
        &self,
        channel: ChannelId,
        after: Option<UserId>,
        limit: usize,
    ) -> StoreResult<Vec<Member>> {
        self.banned_members(channel, after, limit).await
    }

    async fn put_memberships(&self, memberships: &[Membership]) -> StoreResult<()> {
        each(memberships.to_vec(), |membership| self.put_membership(membership)).await.map(drop)
    }

    async fn channels_among(&self, user: UserId, channels: &[ChannelId]) -> StoreResult<Vec<ChannelId>> {
        let ids: Vec<i64> = channels.iter().map(|channel| int(channel.raw())).collect();
        let found: Vec<(i64, Option<String>)> = self.cql.read(&AMONG, (int(user.raw()), ids)).await?;
        let is_there =
            |id: &ChannelId| found.iter().any(|(found, role)| number(*found) == id.raw() && role.is_some());
        Ok(channels.iter().copied().filter(is_there).collect())
    }

    async fn membership(&self, user: UserId, channel: ChannelId) -> StoreResult<Option<Membership>> {
        let row: Option<StoredMembership> =
            self.cql.read_one(&MEMBERSHIP, (int(user.raw()), int(channel.raw()))).await?;
        Ok(row.and_then(|row| row.membership(user)))
    }

    async fn memberships(
        &self,
        user: UserId,
        after: Option<ChannelId>,
        limit: usize,
    ) -> StoreResult<Vec<Membership>> {
        self.all_memberships(user, after, limit, |_| true).await
    }

    async fn channel_counts(&self, users: &[UserId], most: u32) -> StoreResult<Vec<u32>> {
        let count = |user: UserId| async move {
            let (mut count, mut after) = (0, -1);
            loop {
                let page: Vec<(i64, Option<bool>)> =
                    self.cql.read(&OPEN_MEMBERSHIPS, (int(user.raw()), after, PAGE_ROWS)).await?;
                let Some((last, _)) = page.last() else { break };
                after = *last;
                count += page.iter().filter(|(_, is_open)| *is_open == Some(true)).count();
                if count >= most as usize || page.len() < PAGE_ROWS as usize {
                    break;
                }
            }
            Ok(u32::try_from(count).unwrap_or(most).min(most))
        };
        each(users.to_vec(), count).await
    }

    async fn overview(&self, user: UserId, order: OverviewOrder, limit: usize) -> StoreResult<Vec<Overview>> {
        self.overview_page(user, order, limit).await
    }

    async fn overview_of(&self, user: UserId, channel: ChannelId) -> StoreResult<Option<Overview>> {
        match self.membership(user, channel).await? {
            Some(membership) => self.overview_with(membership).await,
            None => Ok(None),
        }
    }

    async fn markers(&self, channel: ChannelId, users: &[UserId]) -> StoreResult<Vec<Marker>> {
        each(users.to_vec(), |user| self.marker(user, channel)).await
    }

    async fn advance_marker(&self, user: UserId, channel: ChannelId, marker: Marker) -> StoreResult<()> {
        self.put_marker(user, int(channel.raw()), marker).await
    }
}
