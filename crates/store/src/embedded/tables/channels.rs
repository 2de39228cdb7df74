//! Channels, seats, and read markers; members and memberships are read in [`super::members`].

use async_trait::async_trait;
use madang_ids::{ChannelId, Millis, Ordinal, Seq, UserId};
use madang_proto::ChannelCard;
use rusqlite::{Connection, OptionalExtension, Result, Row, params};

use super::members::{
    member, member_page, membership, membership_at, put_member, put_memberships, settle_member,
};
use super::open_channels;
use super::overviews::Overviews;
use crate::channels::{
    Channel, ChannelStore, Member, Membership, Overview, OverviewOrder, SeatChange, SeatOutcome, Seating,
    Seats,
};
use crate::directory::{DirectoryStore, FoundPage, caseless, searched};
use crate::embedded::Embedded;
use crate::embedded::codec::{
    bound, from_json, int, json, kind, kind_text, limit, number, optional_number, small_number, state,
    state_number,
};
use crate::embedded::readable::{readable, readable_page};
use crate::error::StoreResult;
use crate::log::Details;
use crate::log::Marker;

#[async_trait]
impl ChannelStore for Embedded {
    async fn create_channel(&self, channel: &Channel) -> StoreResult<()> {
        let channel = channel.clone();
        self.write(move |transaction| insert_channel(transaction.db(), &channel)).await
    }

    async fn channel(&self, id: ChannelId) -> StoreResult<Option<Channel>> {
        self.read(move |db| {
            let mut statement = db.prepare_cached(
                "SELECT id, kind, name, between_one, between_other, topic, avatar, created_by, created_at, capacity,
                 slow_mode_s, pins, state FROM channels WHERE id = ?1",
            )?;
            statement.query_row([int(id.raw())], |row| channel_at(row, 0)).optional()
        })
        .await
    }

    async fn open_made(&self, user: UserId, most: u32) -> StoreResult<u32> {
        self.read(move |db| open_channels::made_by(db, user, most)).await
    }

    async fn channels_among(&self, user: UserId, channels: &[ChannelId]) -> StoreResult<Vec<ChannelId>> {
        let channels = channels.to_vec();
        self.read(move |db| {
            let mut statement = db.prepare_cached(
                "SELECT 1 FROM memberships WHERE user = ?1 AND channel = ?2 AND role IS NOT NULL",
            )?;
            let mut among = Vec::new();
            for channel in channels {
                if statement.exists([int(user.raw()), bound(channel.raw())])? {
                    among.push(channel);
                }
            }
            Ok(among)
        })
        .await
    }

    async fn claim_direct(&self, one: UserId, other: UserId, candidate: ChannelId) -> StoreResult<ChannelId> {
        let pair = (int(one.min(other).raw()), int(one.max(other).raw()));
        self.write(move |transaction| claim_direct(transaction.db(), pair, candidate)).await
    }

    async fn direct(&self, one: UserId, other: UserId) -> StoreResult<Option<ChannelId>> {
        let pair = (int(one.min(other).raw()), int(one.max(other).raw()));
        self.read(move |db| direct(db, pair)).await
    }

    async fn seats(&self, channel: ChannelId) -> StoreResult<Seats> {
        self.read(move |db| seats(db, channel)).await
    }

    async fn change_seats(&self, change: SeatChange, memberships: &[Membership]) -> StoreResult<SeatOutcome> {
        let (memberships, unreadables) = (memberships.to_vec(), self.unreadables.clone());
        self.write(move |transaction| {
            let outcome = change_seats(transaction.db(), &change)?;
            if let SeatOutcome::Changed(_) = outcome {
                put_memberships(transaction.db(), &memberships, &unreadables)?;
            }
            Ok(outcome)
        })
        .await
    }

    async fn accept_stay(&self, user: UserId, channel: ChannelId) -> StoreResult<()> {
        let ids = [int(user.raw()), int(channel.raw())];
        self.write(move |transaction| {
            let db = transaction.db();
            db.prepare_cached(
                "UPDATE members SET has_accepted = 1 WHERE user = ?1 AND channel = ?2 AND is_open = 1",
            )?
            .execute(ids)?;
            db.prepare_cached(
                "UPDATE memberships SET has_accepted = 1 WHERE user = ?1 AND channel = ?2 AND is_open = 1",
            )?
            .execute(ids)
            .map(drop)
        })
        .await
    }

    async fn settle_members(&self, channel: ChannelId, members: &[Member]) -> StoreResult<()> {
        let (members, unreadables) = (members.to_vec(), self.unreadables.clone());
        self.write(move |transaction| {
            let db = transaction.db();
            members.iter().try_for_each(|member| settle_member(db, channel, member, &unreadables))
        })
        .await
    }

    async fn members_of(&self, channel: ChannelId, users: &[UserId]) -> StoreResult<Vec<Option<Member>>> {
        let (users, unreadables) = (users.to_vec(), self.unreadables.clone());
        self.read(move |db| users.iter().map(|&user| member(db, channel, user, &unreadables)).collect()).await
    }

    async fn members(
        &self,
        channel: ChannelId,
        after: Option<UserId>,
        limit: usize,
    ) -> StoreResult<Vec<Member>> {
        let sql = "SELECT user, role, joined_at, spans, pending, muted_until, banned_until, has_accepted FROM members
                   WHERE channel = ?1 AND is_open = 1 AND user > ?2 ORDER BY user LIMIT ?3";
        let unreadables = self.unreadables.clone();
        self.read(move |db| member_page(db, sql, (channel, after), limit, &unreadables)).await
    }

    async fn members_ever(
        &self,
        channel: ChannelId,
        after: Option<UserId>,
        limit: usize,
    ) -> StoreResult<Vec<Member>> {
        let sql = "SELECT user, role, joined_at, spans, pending, muted_until, banned_until, has_accepted FROM members
                   WHERE channel = ?1 AND user > ?2 ORDER BY user LIMIT ?3";
        let unreadables = self.unreadables.clone();
        self.read(move |db| member_page(db, sql, (channel, after), limit, &unreadables)).await
    }

    async fn successor(&self, channel: ChannelId, owner: UserId) -> StoreResult<Option<UserId>> {
        self.read(move |db| open_channels::successor(db, channel, owner)).await
    }

    async fn seating(&self, channel: ChannelId, users: &[UserId]) -> StoreResult<Seating> {
        let sql = "SELECT user, role, joined_at, spans, pending, muted_until, banned_until, has_accepted FROM members
                   WHERE channel = ?1 AND pending IS NOT NULL AND user > ?2 ORDER BY user LIMIT ?3";
        let (users, unreadables) = (users.to_vec(), self.unreadables.clone());
        self.read(move |db| {
            Ok(Seating {
                seats: seats(db, channel)?,
                pending: member_page(db, sql, (channel, None), usize::MAX, &unreadables)?,
                members: users
                    .iter()
                    .map(|&user| member(db, channel, user, &unreadables))
                    .collect::<Result<_>>()?,
            })
        })
        .await
    }

    async fn banned(
        &self,
        channel: ChannelId,
        after: Option<UserId>,
        limit: usize,
    ) -> StoreResult<Vec<Member>> {
        let sql = "SELECT user, role, joined_at, spans, pending, muted_until, banned_until, has_accepted FROM members
                   WHERE channel = ?1 AND banned_until IS NOT NULL AND user > ?2 ORDER BY user LIMIT ?3";
        let unreadables = self.unreadables.clone();
        self.read(move |db| member_page(db, sql, (channel, after), limit, &unreadables)).await
    }

    async fn put_memberships(&self, memberships: &[Membership]) -> StoreResult<()> {
        let (memberships, unreadables) = (memberships.to_vec(), self.unreadables.clone());
        self.write(move |transaction| put_memberships(transaction.db(), &memberships, &unreadables)).await
    }

    async fn membership(&self, user: UserId, channel: ChannelId) -> StoreResult<Option<Membership>> {
        let unreadables = self.unreadables.clone();
        self.read(move |db| membership(db, user, channel, &unreadables)).await
    }

    async fn memberships(
        &self,
        user: UserId,
        after: Option<ChannelId>,
        rows: usize,
    ) -> StoreResult<Vec<Membership>> {
        let after = after.map_or(0, |channel| int(channel.raw()));
        self.read(move |db| {
            readable_page(rows, |rows| {
                let mut statement = db.prepare_cached(
                    "SELECT user, channel, role, spans, as_of, in_inbox, has_accepted FROM memberships
                     WHERE user = ?1 AND channel > ?2 AND role IS NOT NULL ORDER BY channel LIMIT ?3",
                )?;
                let read = |row: &Row<'_>| readable(membership_at(row, 0));
                statement.query_map([int(user.raw()), after, limit(rows)], read)?.collect()
            })
        })
        .await
    }

    async fn channel_counts(&self, users: &[UserId], most: u32) -> StoreResult<Vec<u32>> {
        let users = users.to_vec();
        self.read(move |db| {
            let mut statement = db.prepare_cached(
                "SELECT count(*) FROM
                 (SELECT 1 FROM memberships WHERE user = ?1 AND role IS NOT NULL AND is_open = 1 LIMIT ?2)",
            )?;
            let count =
                |user: &UserId| statement.query_row([int(user.raw()), i64::from(most)], |row| row.get(0));
            users.iter().map(count).collect()
        })
        .await
    }

    async fn overview(&self, user: UserId, order: OverviewOrder, limit: usize) -> StoreResult<Vec<Overview>> {
        let unreadables = self.unreadables.clone();
        self.read(move |db| {
            let overviews = Overviews { db, user, unreadables: &unreadables };
            match order {
                OverviewOrder::Id(after) => overviews.by_id(after, limit),
                OverviewOrder::Activity(after) => overviews.by_activity(after, limit),
                OverviewOrder::Left(after) => overviews.left(after, limit),
            }
        })
        .await
    }

    async fn overview_of(&self, user: UserId, channel: ChannelId) -> StoreResult<Option<Overview>> {
        let unreadables = self.unreadables.clone();
        self.read(move |db| Overviews { db, user, unreadables: &unreadables }.of(channel)).await
    }

    async fn markers(&self, channel: ChannelId, users: &[UserId]) -> StoreResult<Vec<Marker>> {
        let users = users.to_vec();
        self.read(move |db| users.iter().map(|&user| marker(db, user, channel)).collect()).await
    }

    async fn advance_marker(&self, user: UserId, channel: ChannelId, marker: Marker) -> StoreResult<()> {
        self.write(move |transaction| raise_marker(transaction.db(), user, channel, marker)).await
    }
}

#[async_trait]
impl DirectoryStore for Embedded {
    async fn find_open(
        &self,
        query: &str,
        after: Option<ChannelId>,
        limit: usize,
        scan: usize,
    ) -> StoreResult<FoundPage> {
        let query = caseless(query);
        self.read(move |db| open_channels::find(db, &query, after, limit, scan)).await
    }
}

/// Moves a read marker forward, also of a user who is no member yet.
pub(in crate::embedded) fn raise_marker(
    db: &Connection,
    user: UserId,
    channel: ChannelId,
    marker: Marker,
) -> Result<()> {
    if marker.seq == Seq::ZERO {
        return Ok(());
    }
    let mut statement = db.prepare_cached(
        "INSERT INTO memberships (user, channel, marker_seq, marker_ordinal) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT DO UPDATE SET marker_seq = excluded.marker_seq, marker_ordinal = excluded.marker_ordinal
         WHERE excluded.marker_seq > marker_seq",
    )?;
    statement.execute([
        int(user.raw()),
        int(channel.raw()),
        bound(marker.seq.get()),
        bound(marker.ordinal.get()),
    ])?;
    Ok(())
}

fn insert_channel(db: &Connection, channel: &Channel) -> Result<()> {
    let mut statement = db.prepare_cached(
        "INSERT INTO channels (id, kind, name, between_one, between_other, created_by, created_at, capacity)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO NOTHING",
    )?;
    let id = channel.card.id;
    let is_new = statement.execute(params![
        int(id.raw()),
        kind_text(channel.card.kind),
        channel.card.name,
        channel.card.between.map(|[one, _]| int(one.raw())),
        channel.card.between.map(|[_, other]| int(other.raw())),
        int(channel.created_by.raw()),
        int(channel.created_at.get()),
        channel.capacity,
    ])?;
    if is_new == 1 { set_details(db, id, &channel.details()) } else { Ok(()) }
}

/// Writes the details of a channel, and for an open one the text in which it is searched.
pub(in crate::embedded) fn set_details(db: &Connection, channel: ChannelId, details: &Details) -> Result<()> {
    let mut statement = db.prepare_cached(
        "UPDATE channels SET name = ?2, topic = ?3, avatar = ?4, slow_mode_s = ?5, pins = ?6, state = ?8,
         searched = CASE WHEN kind = 'open' AND ?8 = 0 THEN ?7 END WHERE id = ?1",
    )?;
    statement.execute(params![
        int(channel.raw()),
        details.name,
        details.topic,
        details.avatar,
        details.slow_mode_seconds,
        json(&details.pins)?,
        searched(details.name.as_deref(), &details.topic),
        state_number(details.state),
    ])?;
    Ok(())
}

/// A channel in thirteen columns from `column` on: its card, and the rest.
pub(in crate::embedded) fn channel_at(row: &Row<'_>, column: usize) -> Result<Channel> {
    Ok(Channel {
        card: card_at(row, column)?,
        created_by: UserId::from_raw(number(row, column + 7)?),
        created_at: Millis::new(number(row, column + 8)?),
        capacity: small_number(row, column + 9)?,
        slow_mode_seconds: small_number(row, column + 10)?,
        pins: from_json(row, column + 11)?,
        state: state(row, column + 12)?,
    })
}

/// A card in seven columns: id, kind, name, the pair, topic, avatar.
pub(in crate::embedded) fn card_at(row: &Row<'_>, column: usize) -> Result<ChannelCard> {
    let one = optional_number(row, column + 3)?.map(UserId::from_raw);
    let other = optional_number(row, column + 4)?.map(UserId::from_raw);
    Ok(ChannelCard {
        id: ChannelId::from_raw(number(row, column)?),
        kind: kind(row, column + 1)?,
        name: row.get(column + 2)?,
        topic: row.get(column + 5)?,
        avatar: row.get(column + 6)?,
        between: one.zip(other).map(|(one, other)| [one, other]),
    })
}

fn marker(db: &Connection, user: UserId, channel: ChannelId) -> Result<Marker> {
    let mut statement = db.prepare_cached(
        "SELECT marker_seq, marker_ordinal FROM memberships WHERE user = ?1 AND channel = ?2",
    )?;
    let marker = statement
        .query_row([int(user.raw()), int(channel.raw())], |row| {
            Ok(Marker { seq: Seq::new(number(row, 0)?), ordinal: Ordinal::new(number(row, 1)?) })
        })
        .optional()?;
    Ok(marker.unwrap_or_default())
}

fn claim_direct(db: &Connection, (one, other): (i64, i64), candidate: ChannelId) -> Result<ChannelId> {
    let mut insert = db.prepare_cached(
        "INSERT INTO directs (one, other, channel) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
    )?;
    insert.execute([one, other, int(candidate.raw())])?;
    Ok(direct(db, (one, other))?.unwrap_or(candidate))
}

fn direct(db: &Connection, (one, other): (i64, i64)) -> Result<Option<ChannelId>> {
    let mut read = db.prepare_cached("SELECT channel FROM directs WHERE one = ?1 AND other = ?2")?;
    read.query_row([one, other], |row| Ok(ChannelId::from_raw(number(row, 0)?))).optional()
}

fn seats(db: &Connection, channel: ChannelId) -> Result<Seats> {
    let mut statement = db.prepare_cached("SELECT count, rev FROM seats WHERE channel = ?1")?;
    let seats = statement
        .query_row([int(channel.raw())], |row| {
            Ok(Seats { count: small_number(row, 0)?, rev: number(row, 1)? })
        })
        .optional()?;
    Ok(seats.unwrap_or_default())
}

fn change_seats(db: &Connection, change: &SeatChange) -> Result<SeatOutcome> {
    let now = seats(db, change.channel)?;
    if now.rev != change.if_rev {
        return Ok(SeatOutcome::Moved);
    }
    let after = Seats { count: change.count, rev: now.rev + 1 };
    let mut statement =
        db.prepare_cached("INSERT OR REPLACE INTO seats (channel, count, rev) VALUES (?1, ?2, ?3)")?;
    statement.execute([int(change.channel.raw()), i64::from(after.count), int(after.rev)])?;
    for member in &change.members {
        put_member(db, change.channel, member)?;
    }
    Ok(SeatOutcome::Changed(after))
}
