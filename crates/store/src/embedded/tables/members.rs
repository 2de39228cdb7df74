//! Members by channel and memberships by user. They hold the same data, so an unreadable row is replaced by the other one, and a row
//! that is lost in both affects only itself.

use madang_ids::{ChannelId, Millis, Seq, UserId};
use madang_proto::rest::Restriction;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Result, Row, params};

use super::group_invitations;
use crate::channels::{Member, Membership};
use crate::embedded::codec::{bound, from_json, int, json, limit, number, optional_number, role, role_text};
use crate::embedded::readable::{readable, readable_page};
use crate::embedded::unreadable::Unreadables;

const MEMBER: &str = "SELECT user, role, joined_at, spans, pending, muted_until, banned_until, has_accepted
                      FROM members
                      WHERE channel = ?1 AND user = ?2";
const MEMBERSHIP: &str = "SELECT user, channel, role, spans, as_of, in_inbox, has_accepted FROM memberships
                          WHERE user = ?1 AND channel = ?2 AND role IS NOT NULL";

pub(in crate::embedded) fn put_member(db: &Connection, channel: ChannelId, member: &Member) -> Result<()> {
    let mut statement = db.prepare_cached(
        "INSERT OR REPLACE INTO members
         (channel, user, role, joined_at, is_open, pending, spans, muted_until, banned_until, has_accepted)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, max(?10, coalesce(
            (SELECT has_accepted FROM members WHERE channel = ?1 AND user = ?2 AND is_open = 1 AND ?5), 0)))",
    )?;
    statement.execute(params![
        int(channel.raw()),
        int(member.user_id.raw()),
        role_text(member.role),
        int(member.joined_at.get()),
        member.spans.is_open(),
        member.pending.as_ref().map(json).transpose()?,
        json(&member.spans)?,
        member.muted.map(until),
        member.banned.map(until),
        member.has_accepted,
    ])?;
    Ok(())
}

pub(in crate::embedded) fn settle_member(
    db: &Connection,
    channel: ChannelId,
    settled: &Member,
    unreadables: &Unreadables,
) -> Result<()> {
    match member(db, channel, settled.user_id, unreadables)? {
        Some(mut found) if found.is_settled_by(settled) => {
            found.spans = settled.spans.clone();
            found.pending = settled.pending.filter(|pending| pending.is_recorded);
            put_member(db, channel, &found)
        }
        _ => Ok(()),
    }
}

/// A member. An unreadable one is taken from the membership.
pub(in crate::embedded) fn member(
    db: &Connection,
    channel: ChannelId,
    user: UserId,
    unreadables: &Unreadables,
) -> Result<Option<Member>> {
    let mut statement = db.prepare_cached(MEMBER)?;
    let mut found = statement.query([int(channel.raw()), int(user.raw())])?;
    let Some(row) = found.next()? else { return Ok(None) };
    let read = member_of(row);
    if let Some(member) = readable(read)? {
        return Ok(Some(member));
    }
    unreadables.note_other("a member", channel);
    // Not `None`, since the caller would take that for a user who is not in the channel.
    member_elsewhere(db, channel, user, row)?
        .map_or_else(|| member_of(row).map(Some), |member| Ok(Some(member)))
}

/// A member whose row is damaged, from the membership and the readable columns of the row.
fn member_elsewhere(
    db: &Connection,
    channel: ChannelId,
    user_id: UserId,
    row: &Row<'_>,
) -> Result<Option<Member>> {
    let mut statement = db.prepare_cached(MEMBERSHIP)?;
    let read = statement.query_row([int(user_id.raw()), int(channel.raw())], |row| membership_at(row, 0));
    let Some(membership) = readable(read.optional())?.flatten() else { return Ok(None) };
    let until = |column| optional_number(row, column).ok().flatten().map(restriction);
    Ok(Some(Member {
        user_id,
        role: membership.role,
        joined_at: Millis::new(number(row, 2).unwrap_or_default()),
        spans: membership.spans,
        has_accepted: membership.has_accepted,
        pending: None,
        muted: until(5),
        banned: until(6),
    }))
}

pub(in crate::embedded) fn member_of(row: &Row<'_>) -> Result<Member> {
    Ok(Member {
        user_id: UserId::from_raw(number(row, 0)?),
        role: role(row, 1)?,
        joined_at: Millis::new(number(row, 2)?),
        spans: from_json(row, 3)?,
        pending: if row.get_ref(4)? == ValueRef::Null { None } else { Some(from_json(row, 4)?) },
        muted: optional_number(row, 5)?.map(restriction),
        banned: optional_number(row, 6)?.map(restriction),
        has_accepted: row.get(7)?,
    })
}

const FOR_EVER: i64 = i64::MAX;

fn until(restriction: Restriction) -> i64 {
    restriction.until.map_or(FOR_EVER, |until| bound(until.get()))
}

fn restriction(until: u64) -> Restriction {
    Restriction { until: (int(until) != FOR_EVER).then_some(Millis::new(until)) }
}

pub(in crate::embedded) fn member_page(
    db: &Connection,
    sql: &str,
    (channel, after): (ChannelId, Option<UserId>),
    rows: usize,
    unreadables: &Unreadables,
) -> Result<Vec<Member>> {
    let after = after.map_or(0, |user| int(user.raw()));
    readable_page(rows, |rows| {
        let mut statement = db.prepare_cached(sql)?;
        let mut found = statement.query(params![int(channel.raw()), after, limit(rows)])?;
        let mut members = Vec::new();
        while let Some(row) = found.next()? {
            members.push(match readable(member_of(row))? {
                Some(member) => Some(member),
                None => {
                    unreadables.note_other("a member", channel);
                    member_elsewhere(db, channel, UserId::from_raw(number(row, 0)?), row)?
                }
            });
        }
        Ok(members)
    })
}

/// A membership. An unreadable one is taken from the member's row.
pub(in crate::embedded) fn membership(
    db: &Connection,
    user: UserId,
    channel: ChannelId,
    unreadables: &Unreadables,
) -> Result<Option<Membership>> {
    let mut statement = db.prepare_cached(MEMBERSHIP)?;
    let mut found = statement.query([int(user.raw()), int(channel.raw())])?;
    let Some(row) = found.next()? else { return Ok(None) };
    if let Some(membership) = readable(membership_at(row, 0))? {
        return Ok(Some(membership));
    }
    unreadables.note_other("a membership", channel);
    let elsewhere = membership_elsewhere(db, user, channel, row)?;
    elsewhere.map_or_else(|| membership_at(row, 0).map(Some), |membership| Ok(Some(membership)))
}

/// A membership whose row is damaged, from the member's row and the readable columns of the row.
fn membership_elsewhere(
    db: &Connection,
    user_id: UserId,
    channel_id: ChannelId,
    row: &Row<'_>,
) -> Result<Option<Membership>> {
    let mut statement = db.prepare_cached(MEMBER)?;
    let read = statement.query_row([int(channel_id.raw()), int(user_id.raw())], member_of).optional();
    let Some(Member { role, spans, has_accepted, .. }) = readable(read)?.flatten() else { return Ok(None) };
    let version = Seq::new(number(row, 4).unwrap_or_default());
    let in_inbox = row.get(5).unwrap_or(true);
    Ok(Some(Membership { user_id, channel_id, role, spans, version, in_inbox, has_accepted }))
}

pub(in crate::embedded) fn put_memberships(
    db: &Connection,
    memberships: &[Membership],
    unreadables: &Unreadables,
) -> Result<()> {
    memberships.iter().try_for_each(|membership| put_membership(db, membership, unreadables))
}

fn put_membership(db: &Connection, new: &Membership, unreadables: &Unreadables) -> Result<()> {
    // A damaged membership is replaced.
    let old = readable(membership(db, new.user_id, new.channel_id, unreadables))?.flatten();
    if old.is_some_and(|old| !new.may_replace(&old)) {
        return Ok(());
    }
    let mut statement = db.prepare_cached(
        "INSERT INTO memberships (user, channel, is_open, role, spans, as_of, in_inbox, has_accepted, left_at_pos)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, iif(?3, NULL, (SELECT value FROM position)))
         ON CONFLICT DO UPDATE SET is_open = excluded.is_open, role = excluded.role, spans = excluded.spans,
         as_of = excluded.as_of, in_inbox = excluded.in_inbox,
         has_accepted = max(excluded.has_accepted, has_accepted AND (is_open OR NOT excluded.is_open)),
         left_at_pos = iif(excluded.is_open, NULL, coalesce(left_at_pos, excluded.left_at_pos))",
    )?;
    statement.execute(params![
        int(new.user_id.raw()),
        int(new.channel_id.raw()),
        new.spans.is_open(),
        role_text(new.role),
        json(&new.spans)?,
        int(new.version.get()),
        new.in_inbox,
        new.has_accepted,
    ])?;
    if new.spans.is_open() {
        group_invitations::forget(db, new.user_id, new.channel_id)?;
    }
    Ok(())
}

pub(in crate::embedded) fn membership_at(row: &Row<'_>, column: usize) -> Result<Membership> {
    let spans: crate::Spans = from_json(row, column + 3)?;
    // Rows of older releases have the planned place alone.
    let version = spans.edge().max(Some(Seq::new(number(row, column + 4)?))).unwrap_or_default();
    Ok(Membership {
        user_id: UserId::from_raw(number(row, column)?),
        channel_id: ChannelId::from_raw(number(row, column + 1)?),
        role: role(row, column + 2)?,
        spans,
        version,
        in_inbox: row.get(column + 5)?,
        has_accepted: row.get(column + 6)?,
    })
}
