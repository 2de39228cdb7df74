//! Seats and members of a channel: one partition, every write of it conditional.
//!
//! A member's row is repeated in a part of its own while the member is present, has a pending change, or is banned, so that none of
//! these is a filter over all former members. The columns `pending` and `accepted` are beside the member's JSON, because they
//! are compared, or written by callers who do not know the rest.

use madang_engine::spans::Spans;
use madang_ids::{ChannelId, Seq, UserId};
use scylla::DeserializeRow;
use scylla::value::{CqlValue, MaybeUnset};

use super::Scylla;
use super::codec::{int, json, number, set};
use super::log::each;
use super::session::{Class, Statement, Values};
use crate::channels::{Member, Pending, PendingChange, SeatChange, SeatOutcome, Seating, Seats};
use crate::error::StoreResult;

const ALL: i8 = 0;
const PRESENT: i8 = 1;
const PENDING: i8 = 2;
const BANNED: i8 = 3;

/// Members that are looked at, at once, for the next owner of a large channel.
const SUCCESSORS: i32 = 500;

const SEATS: Statement = Statement {
    class: Class::Read,
    cql: "SELECT seat_count, seat_rev FROM members WHERE channel = ? LIMIT 1",
};
const MEMBER: Statement = Statement {
    class: Class::Read,
    cql: "SELECT member, pending, accepted FROM members WHERE channel = ? AND part = 0 AND user = ?",
};
const PAGE: Statement = Statement {
    class: Class::Read,
    cql: "SELECT member, pending, accepted FROM members WHERE channel = ? AND part = ? AND user > ? LIMIT ?",
};
const CHANGE_SEATS: Statement = Statement {
    class: Class::Conditional,
    cql: "UPDATE members SET seat_count = ?, seat_rev = ? WHERE channel = ? IF seat_rev = ?",
};
const FIRST_SEATS: Statement = Statement {
    class: Class::Conditional,
    cql: "UPDATE members SET seat_count = ?, seat_rev = ? WHERE channel = ? IF seat_rev = null",
};
const PUT: Statement = Statement {
    class: Class::Conditional,
    cql: "UPDATE members SET member = ?, pending = ?, accepted = ? WHERE channel = ? AND part = ? AND user = ?",
};
const PUT_IF: Statement = Statement {
    class: Class::Conditional,
    cql: "UPDATE members SET member = ?, pending = ?, accepted = ? WHERE channel = ? AND part = ? AND user = ? IF pending = ?",
};
const REMOVE: Statement = Statement {
    class: Class::Conditional,
    cql: "DELETE FROM members WHERE channel = ? AND part = ? AND user = ?",
};
const ACCEPT: Statement = Statement {
    class: Class::Conditional,
    cql: "UPDATE members SET accepted = ? WHERE channel = ? AND part = ? AND user = ? IF EXISTS",
};
/// The spans of a member never become what they were, so the same row is a row that nobody has written since.
const FORGET: Statement = Statement {
    class: Class::Conditional,
    cql: "DELETE FROM members WHERE channel = ? AND part = 0 AND user = ? IF member = ? AND pending = null",
};

#[derive(Debug, DeserializeRow)]
pub(super) struct StoredMember {
    member: Option<String>,
    pending: Option<String>,
    accepted: Option<i64>,
}

impl StoredMember {
    /// The member; `None` if the row cannot be read.
    fn member(&self) -> Option<Member> {
        let mut member: Member = serde_json::from_str(self.member.as_deref()?).ok()?;
        member.pending = self.pending.as_deref().and_then(|pending| serde_json::from_str(pending).ok());
        member.has_accepted |= accepts(self.accepted, &member.spans);
        Some(member)
    }
}

/// Whether the stay that was accepted is the last one. Its beginning may have moved to a later place since.
pub(super) fn accepts(accepted: Option<i64>, spans: &Spans) -> bool {
    let (Some(accepted), Some(last)) = (accepted, spans.last()) else { return false };
    let accepted = Seq::new(number(accepted));
    let before = spans.iter().rev().nth(1).and_then(|span| span.until);
    before.is_none_or(|before| accepted > before) && accepted <= last.from
}

impl Scylla {
    pub(super) async fn seats_of(&self, channel: ChannelId) -> StoreResult<Seats> {
        let row: Option<(Option<i32>, Option<i64>)> =
            self.cql.read_one(&SEATS, (int(channel.raw()),)).await?;
        let (count, rev) = row.unwrap_or_default();
        Ok(Seats { count: count.map_or(0, i32::cast_unsigned), rev: rev.map_or(0, number) })
    }

    pub(super) async fn member(&self, channel: ChannelId, user: UserId) -> StoreResult<Option<Member>> {
        let row: Option<StoredMember> =
            self.cql.read_one(&MEMBER, (int(channel.raw()), int(user.raw()))).await?;
        Ok(row.and_then(|row| row.member()))
    }

    /// Removes the row of a former member, unless the member is present, banned, or has a pending change. `false` if it stays,
    /// also because it has changed since it was read.
    pub(super) async fn forget_member(&self, channel: ChannelId, user: UserId) -> StoreResult<bool> {
        let place = (int(channel.raw()), int(user.raw()));
        let Some(row) = self.cql.read_one::<StoredMember>(&MEMBER, place).await? else { return Ok(true) };
        let is_former =
            |member: &Member| !member.spans.is_open() && member.pending.is_none() && member.banned.is_none();
        match row.member().filter(is_former) {
            Some(_) => self.cql.conditional(&FORGET, (place.0, place.1, row.member)).await,
            None => Ok(false),
        }
    }

    async fn page(
        &self,
        channel: ChannelId,
        part: i8,
        after: Option<UserId>,
        limit: usize,
    ) -> StoreResult<Vec<Member>> {
        let after = after.map_or(-1, |after| int(after.raw()));
        let limit = i32::try_from(limit).unwrap_or(i32::MAX);
        let rows: Vec<StoredMember> = self.cql.read(&PAGE, (int(channel.raw()), part, after, limit)).await?;
        Ok(rows.iter().filter_map(StoredMember::member).collect())
    }

    pub(super) async fn present(
        &self,
        channel: ChannelId,
        after: Option<UserId>,
        limit: usize,
    ) -> StoreResult<Vec<Member>> {
        self.page(channel, PRESENT, after, limit).await
    }

    pub(super) async fn all_members(
        &self,
        channel: ChannelId,
        after: Option<UserId>,
        limit: usize,
    ) -> StoreResult<Vec<Member>> {
        self.page(channel, ALL, after, limit).await
    }

    pub(super) async fn banned_members(
        &self,
        channel: ChannelId,
        after: Option<UserId>,
        limit: usize,
    ) -> StoreResult<Vec<Member>> {
        self.page(channel, BANNED, after, limit).await
    }

    pub(super) async fn seating_of(&self, channel: ChannelId, users: &[UserId]) -> StoreResult<Seating> {
        let members = each(users.to_vec(), |user| self.member(channel, user));
        let pending = self.page(channel, PENDING, None, usize::MAX);
        let (seats, pending, members) =
            futures_util::future::try_join3(self.seats_of(channel), pending, members).await?;
        Ok(Seating { seats, pending, members })
    }

    /// The next owner of a channel: an admin before a member, then the one who joined first.
    pub(super) async fn next_owner(&self, channel: ChannelId, owner: UserId) -> StoreResult<Option<UserId>> {
        let (mut best, mut after) = (None, None);
        loop {
            let page = self.present(channel, after, SUCCESSORS as usize).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.user_id);
            let others = page.iter().filter(|member| member.user_id != owner);
            let ranked = others.map(|member| (!member.role.is_admin(), member.joined_at, member.user_id));
            best = best.into_iter().chain(ranked).min();
        }
        Ok(best.map(|(_, _, user)| user))
    }

    /// Changes seats and members; the memberships are the caller's.
    pub(super) async fn put_seats(&self, change: &SeatChange) -> StoreResult<SeatOutcome> {
        let channel = int(change.channel.raw());
        let seats = Seats { count: change.count, rev: change.if_rev + 1 };
        let mut values: Values = vec![
            set(CqlValue::Int(seats.count.cast_signed())),
            set(CqlValue::BigInt(int(seats.rev))),
            set(CqlValue::BigInt(channel)),
        ];
        let statement = if change.if_rev == 0 { &FIRST_SEATS } else { &CHANGE_SEATS };
        if change.if_rev > 0 {
            values.push(set(CqlValue::BigInt(int(change.if_rev))));
        }
        let mut parts = vec![(statement, values)];
        for member in &change.members {
            for part in [ALL, PRESENT, PENDING, BANNED] {
                let is_in = match part {
                    PRESENT => member.spans.is_open(),
                    PENDING => member.pending.is_some(),
                    BANNED => member.banned.is_some(),
                    _ => true,
                };
                // Only these changes end a ban.
                let is_unbanned = member.pending.is_some_and(|pending| {
                    matches!(pending.change, PendingChange::Ban | PendingChange::Seat)
                });
                if is_in {
                    parts.push((&PUT, put(channel, part, member)?));
                } else if part != BANNED || is_unbanned {
                    parts.push((&REMOVE, place(channel, part, member.user_id)));
                }
            }
        }
        Ok(match self.cql.conditional_batch(parts).await? {
            true => SeatOutcome::Changed(seats),
            false => SeatOutcome::Moved,
        })
    }

    /// Writes spans, and clears or marks `pending`, of members whose pending change is still this one.
    pub(super) async fn settle(&self, channel: ChannelId, settled: &[Member]) -> StoreResult<()> {
        for settled in settled {
            // A change of seats in between makes the condition fail; the member is read again then.
            for _ in 0..8 {
                let values = (int(channel.raw()), int(settled.user_id.raw()));
                let stored: Option<StoredMember> = self.cql.read_one(&MEMBER, values).await?;
                let Some(stored) = stored else { break };
                let Some(found) = stored.member().filter(|found| found.is_settled_by(settled)) else { break };
                let pending = settled.pending.filter(|pending| pending.is_recorded);
                let member = Member { spans: settled.spans.clone(), pending, ..found };
                if self.settle_one(channel, &member, stored.pending.as_deref()).await? {
                    break;
                }
            }
        }
        Ok(())
    }

    async fn settle_one(
        &self,
        channel: ChannelId,
        member: &Member,
        pending: Option<&str>,
    ) -> StoreResult<bool> {
        let channel = int(channel.raw());
        let mut values = put(channel, ALL, member)?;
        values.push(pending.map_or(MaybeUnset::Set(None), |text| set(CqlValue::Text(text.to_owned()))));
        let mut parts = vec![(&PUT_IF, values)];
        if member.spans.is_open() {
            parts.push((&PUT, put(channel, PRESENT, member)?));
        }
        if member.banned.is_some() {
            parts.push((&PUT, put(channel, BANNED, member)?));
        }
        match member.pending {
            Some(_) => parts.push((&PUT, put(channel, PENDING, member)?)),
            None => parts.push((&REMOVE, place(channel, PENDING, member.user_id))),
        }
        self.cql.conditional_batch(parts).await
    }

    /// Records the acceptance of the present stay in each part that has the member.
    pub(super) async fn accept_member(&self, channel: ChannelId, user: UserId) -> StoreResult<()> {
        let Some(member) = self.member(channel, user).await? else { return Ok(()) };
        let Some(span) = member.spans.last().filter(|span| span.until.is_none()) else { return Ok(()) };
        for part in [ALL, PRESENT, PENDING] {
            let values = (int(span.from.get()), int(channel.raw()), part, int(user.raw()));
            self.cql.conditional(&ACCEPT, values).await?;
        }
        Ok(())
    }
}

fn place(channel: i64, part: i8, user: UserId) -> Values {
    vec![set(CqlValue::BigInt(channel)), set(CqlValue::TinyInt(part)), set(CqlValue::BigInt(int(user.raw())))]
}

/// The values of [`PUT`]. What was accepted stays as it is unless the writer knows of an acceptance.
fn put(channel: i64, part: i8, member: &Member) -> StoreResult<Values> {
    let pending: Option<Pending> = member.pending;
    let text = json(&Member { pending: None, ..member.clone() })?;
    let accepted = member.spans.last().filter(|_| member.has_accepted).map(|span| int(span.from.get()));
    let mut values = vec![
        set(CqlValue::Text(text)),
        match pending {
            Some(pending) => set(CqlValue::Text(json(&pending)?)),
            None => MaybeUnset::Set(None),
        },
        accepted.map_or(MaybeUnset::Unset, |accepted| set(CqlValue::BigInt(accepted))),
    ];
    values.extend(place(channel, part, member.user_id));
    Ok(values)
}
