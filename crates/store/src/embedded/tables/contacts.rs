//! Contacts, circles, presence settings.

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use madang_ids::{Millis, UserId};
use madang_proto::ContactState;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Result, Row, params};

use crate::contacts::{
    Contact, ContactLimits, ContactOutcome, ContactStore, Meeting, PresenceChange, PresenceRow, PutContact,
    Relation, Relations, may_become, meet,
};
use crate::embedded::Embedded;
use crate::embedded::codec::{bound, int, limit, number, optional_number, small_number, unknown_word};
use crate::error::StoreResult;

/// The most co-members that are looked at for a circle; a user in several groups counts for each.
const CIRCLE_ROWS: i64 = 20_000;
const CONTACT: &str = "SELECT other, state, at_ms, rev, is_told FROM contacts WHERE user = ?1 AND other = ?2";
/// Whether either of two users, `?1` and `?2`, blocks the other.
const BLOCKED: &str = "SELECT 1 FROM blocks WHERE user = ?1 AND other = ?2
    UNION ALL SELECT 1 FROM blocks WHERE user = ?2 AND other = ?1";

#[async_trait]
impl ContactStore for Embedded {
    async fn put_contact(
        &self,
        user: UserId,
        other: UserId,
        at: Millis,
        limits: ContactLimits,
    ) -> StoreResult<PutContact> {
        self.write(move |transaction| put_contact(transaction.db(), (user, other), at, limits)).await
    }

    async fn remove_contact(&self, user: UserId, other: UserId, at: Millis) -> StoreResult<Option<Contact>> {
        self.write(move |transaction| {
            let db = transaction.db();
            match contact(db, user, other)? {
                Some(found) if found.state.is_some() => {
                    put_pair(db, (user, other), None, at, found.rev + 1).map(Some)
                }
                found => Ok(found),
            }
        })
        .await
    }

    async fn contact(&self, user: UserId, other: UserId) -> StoreResult<Option<Contact>> {
        self.read(move |db| contact(db, user, other)).await
    }

    async fn settle_contact(&self, user: UserId, other: UserId, rev: u64) -> StoreResult<bool> {
        self.write(move |transaction| settle_contact(transaction.db(), user, other, rev)).await
    }

    async fn contacts(&self, user: UserId, after: Option<UserId>, rows: usize) -> StoreResult<Vec<Contact>> {
        let after = after.map_or(0, |user| int(user.raw()));
        self.read(move |db| {
            let mut statement = db.prepare_cached(
                "SELECT other, state, at_ms, rev, is_told FROM contacts
                 WHERE user = ?1 AND other > ?2 AND state IS NOT NULL ORDER BY other LIMIT ?3",
            )?;
            statement.query_map([int(user.raw()), after, limit(rows)], contact_of)?.collect()
        })
        .await
    }

    async fn relations(&self, user: UserId, others: &[UserId], scan: usize) -> StoreResult<Relations> {
        let others = others.to_vec();
        self.read(move |db| relations(db, user, &others, scan)).await
    }

    async fn circle(&self, user: UserId, group_members: u32, most: usize) -> StoreResult<Vec<UserId>> {
        self.read(move |db| circle(db, user, group_members, most)).await
    }

    async fn acquainted(&self, user: UserId, others: &[UserId]) -> StoreResult<Vec<UserId>> {
        let others = others.to_vec();
        self.read(move |db| {
            let mut found = Vec::new();
            for other in others {
                if is_acquainted(db, user, other)? && !is_blocked(db, user, other)? {
                    found.push(other);
                }
            }
            Ok(found)
        })
        .await
    }

    async fn change_presence(&self, user: UserId, change: &PresenceChange) -> StoreResult<()> {
        let change = change.clone();
        self.write(move |transaction| {
            let db = transaction.db();
            db.prepare_cached("INSERT INTO presence (user) VALUES (?1) ON CONFLICT DO NOTHING")?
                .execute([int(user.raw())])?;
            if let Some(invisible) = change.invisible {
                db.prepare_cached("UPDATE presence SET invisible = ?2 WHERE user = ?1")?
                    .execute(params![int(user.raw()), invisible])?;
            }
            if let Some(status) = &change.status {
                db.prepare_cached("UPDATE presence SET status = ?2 WHERE user = ?1")?
                    .execute(params![int(user.raw()), status])?;
            }
            Ok(())
        })
        .await
    }

    async fn presence(&self, users: &[UserId]) -> StoreResult<Vec<PresenceRow>> {
        let users = users.to_vec();
        self.read(move |db| {
            let mut statement =
                db.prepare_cached("SELECT invisible, status, last_active_at FROM presence WHERE user = ?1")?;
            let mut row = |user: &UserId| {
                let found = statement.query_row([int(user.raw())], presence_of).optional()?;
                Ok(found.unwrap_or_default())
            };
            users.iter().map(&mut row).collect()
        })
        .await
    }

    async fn set_last_active(&self, marks: &[(UserId, Millis)]) -> StoreResult<()> {
        let marks = marks.to_vec();
        self.write(move |transaction| {
            let mut statement = transaction.db().prepare_cached(
                "INSERT INTO presence (user, last_active_at) VALUES (?1, ?2) ON CONFLICT DO UPDATE
                 SET last_active_at = max(coalesce(last_active_at, 0), excluded.last_active_at)",
            )?;
            marks
                .iter()
                .try_for_each(|(user, at)| statement.execute([int(user.raw()), bound(at.get())]).map(drop))
        })
        .await
    }
}

fn put_contact(
    db: &Connection,
    (user, other): (UserId, UserId),
    at: Millis,
    limits: ContactLimits,
) -> Result<PutContact> {
    if is_blocked(db, user, other)? {
        return Ok(ContactOutcome::Blocked.into());
    }
    let (state, rev) = match meet(contact(db, user, other)?) {
        Meeting::Stands(contact) => return Ok(ContactOutcome::Is(contact).into()),
        Meeting::Becomes { state, rev } => (state, rev),
    };
    if let Some(refused) = may_become(state, counts(db, user)?, limits) {
        return Ok(refused.into());
    }
    let displaced = match state {
        ContactState::Requested if counts(db, other)?.asked >= limits.asked => displace(db, other, at)?,
        _ => None,
    };
    let outcome = put_pair(db, (user, other), Some(state), at, rev).map(ContactOutcome::Is)?;
    Ok(PutContact { outcome, displaced })
}

/// Ends the oldest request that waits for `user`.
fn displace(db: &Connection, user: UserId, at: Millis) -> Result<Option<Contact>> {
    let mut statement = db.prepare_cached(
        "SELECT other, state, at_ms, rev, is_told FROM contacts WHERE user = ?1 AND state = 'asked'
         ORDER BY at_ms, other LIMIT 1",
    )?;
    let oldest = statement.query_row([int(user.raw())], contact_of).optional()?;
    oldest.map(|found| put_pair(db, (user, found.other), None, at, found.rev + 1)).transpose()
}

fn counts(db: &Connection, user: UserId) -> Result<ContactLimits> {
    let mut statement = db.prepare_cached(
        "SELECT count(*) FILTER (WHERE state <> 'asked'), count(*) FILTER (WHERE state = 'requested'),
         count(*) FILTER (WHERE state = 'asked') FROM contacts WHERE user = ?1 AND state IS NOT NULL",
    )?;
    statement.query_row([int(user.raw())], |row| {
        let (contacts, requests) = (small_number(row, 0)?, small_number(row, 1)?);
        Ok(ContactLimits { contacts, requests, asked: small_number(row, 2)? })
    })
}

/// Writes both sides. `state` is the state as the first user sees it; returns the first user's side.
fn put_pair(
    db: &Connection,
    (user, other): (UserId, UserId),
    state: Option<ContactState>,
    at: Millis,
    rev: u64,
) -> Result<Contact> {
    let mut statement = db.prepare_cached(
        "INSERT OR REPLACE INTO contacts (user, other, state, at_ms, rev, is_told) VALUES (?1, ?2, ?3, ?4, ?5, 0)",
    )?;
    let sides = [(user, other, state), (other, user, state.map(ContactState::mirrored))];
    for (user, other, state) in sides {
        let state = state.map(state_text);
        statement.execute(params![int(user.raw()), int(other.raw()), state, int(at.get()), int(rev)])?;
    }
    Ok(Contact { other, state, since: at, rev, is_recorded: false })
}

fn settle_contact(db: &Connection, user: UserId, other: UserId, rev: u64) -> Result<bool> {
    let Some(found) = contact(db, user, other)? else { return Ok(true) };
    if found.rev != rev {
        return Ok(false);
    }
    let pair = [int(user.raw()), int(other.raw())];
    // An ended contact keeps its `rev`, so that a late writer of notes sees that there was another change.
    db.prepare_cached(
        "UPDATE contacts SET is_told = 1 WHERE (user = ?1 AND other = ?2) OR (user = ?2 AND other = ?1)",
    )?
    .execute(pair)?;
    Ok(true)
}

fn contact(db: &Connection, user: UserId, other: UserId) -> Result<Option<Contact>> {
    db.prepare_cached(CONTACT)?.query_row([int(user.raw()), int(other.raw())], contact_of).optional()
}

fn contact_of(row: &Row<'_>) -> Result<Contact> {
    Ok(Contact {
        other: UserId::from_raw(number(row, 0)?),
        state: state_at(row, 1)?,
        since: Millis::new(number(row, 2)?),
        rev: number(row, 3)?,
        is_recorded: row.get(4)?,
    })
}

pub(in crate::embedded) fn is_blocked(db: &Connection, one: UserId, other: UserId) -> Result<bool> {
    db.prepare_cached(BLOCKED)?.exists([int(one.raw()), int(other.raw())])
}

/// The users with whom there is a block, in either direction.
pub(in crate::embedded) fn apart_from(db: &Connection, user: UserId, most: usize) -> Result<Vec<UserId>> {
    let mut statement = db.prepare_cached(
        "SELECT other FROM blocks WHERE user = ?1 UNION SELECT user FROM blocks WHERE other = ?1 ORDER BY 1 LIMIT ?2",
    )?;
    let id = |row: &Row<'_>| Ok(UserId::from_raw(number(row, 0)?));
    statement.query_map([int(user.raw()), limit(most)], id)?.collect()
}

/// Those of `others` who block `user`.
pub(in crate::embedded) fn who_block(
    db: &Connection,
    user: UserId,
    others: &[UserId],
) -> Result<Vec<UserId>> {
    let mut statement = db.prepare_cached("SELECT 1 FROM blocks WHERE user = ?1 AND other = ?2")?;
    let mut found = Vec::new();
    for &other in others {
        if statement.exists([int(other.raw()), int(user.raw())])? {
            found.push(other);
        }
    }
    Ok(found)
}

fn relations(db: &Connection, user: UserId, others: &[UserId], scan: usize) -> Result<Relations> {
    let mut blocks = db.prepare_cached("SELECT 1 FROM blocks WHERE user = ?1 AND other = ?2")?;
    let mut of = Vec::with_capacity(others.len());
    for &other in others {
        of.push(Relation {
            is_contact: are_contacts(db, user, other)?,
            shares_group: false,
            is_blocked: blocks.exists([int(user.raw()), int(other.raw())])?,
            blocks: blocks.exists([int(other.raw()), int(user.raw())])?,
        });
    }
    // A contact needs no group.
    let mut wanted: HashMap<UserId, usize> =
        (0..of.len()).filter(|index| !of[*index].is_contact).map(|index| (others[index], index)).collect();
    let mut members = db.prepare_cached(
        "SELECT others.user, others.has_accepted FROM memberships mine CROSS JOIN channels c ON c.id = mine.channel
         CROSS JOIN members others ON others.channel = mine.channel AND others.is_open = 1
         WHERE mine.user = ?1 AND mine.is_open = 1 AND mine.has_accepted = 1 AND c.kind = 'group'
         ORDER BY mine.channel DESC LIMIT ?2",
    )?;
    let mut rows = members.query([int(user.raw()), limit(scan)])?;
    let mut looked_at = 0;
    while !wanted.is_empty()
        && let Some(row) = rows.next()?
    {
        looked_at += 1;
        if row.get(1)?
            && let Some(index) = wanted.remove(&UserId::from_raw(number(row, 0)?))
        {
            of[index].shares_group = true;
        }
    }
    Ok(Relations { of, looked_at })
}

fn are_contacts(db: &Connection, user: UserId, other: UserId) -> Result<bool> {
    let mut contacts =
        db.prepare_cached("SELECT 1 FROM contacts WHERE user = ?1 AND other = ?2 AND state = 'mutual'")?;
    contacts.exists([int(user.raw()), int(other.raw())])
}

fn is_acquainted(db: &Connection, user: UserId, other: UserId) -> Result<bool> {
    if are_contacts(db, user, other)? {
        return Ok(true);
    }
    let mut shared = db.prepare_cached(
        "SELECT 1 FROM memberships mine JOIN memberships theirs ON theirs.user = ?2 AND theirs.channel = mine.channel
         JOIN channels c ON c.id = mine.channel AND c.kind <> 'direct'
         WHERE mine.user = ?1 AND mine.is_open = 1 AND theirs.is_open = 1
         AND mine.has_accepted = 1 AND theirs.has_accepted = 1 LIMIT 1",
    )?;
    shared.exists([int(user.raw()), int(other.raw())])
}

fn circle(db: &Connection, user: UserId, group_members: u32, most: usize) -> Result<Vec<UserId>> {
    let mut seen = HashSet::from([user]);
    let mut found = Vec::new();
    let mut take = |other: UserId| -> Result<bool> {
        if seen.insert(other) && !is_blocked(db, user, other)? {
            found.push(other);
        }
        Ok(found.len() < most)
    };
    let id = |row: &Row<'_>| Ok(UserId::from_raw(number(row, 0)?));
    let mut contacts =
        db.prepare_cached("SELECT other FROM contacts WHERE user = ?1 AND state = 'mutual' ORDER BY other")?;
    let mut members = db.prepare_cached(
        "SELECT others.user, others.has_accepted FROM memberships mine CROSS JOIN channels c ON c.id = mine.channel
         CROSS JOIN seats s ON s.channel = mine.channel
         CROSS JOIN members others ON others.channel = mine.channel AND others.is_open = 1
         WHERE mine.user = ?1 AND mine.is_open = 1 AND mine.has_accepted = 1 AND c.kind = 'group' AND s.count <= ?2
         LIMIT ?3",
    )?;
    for other in contacts.query_map([int(user.raw())], id)? {
        if !take(other?)? {
            return Ok(found);
        }
    }
    let mut rows = members.query([int(user.raw()), i64::from(group_members), CIRCLE_ROWS])?;
    while let Some(row) = rows.next()? {
        if row.get(1)? && !take(id(row)?)? {
            break;
        }
    }
    Ok(found)
}

fn presence_of(row: &Row<'_>) -> Result<PresenceRow> {
    Ok(PresenceRow {
        invisible: row.get(0)?,
        status: row.get(1)?,
        last_active_at: optional_number(row, 2)?.map(Millis::new),
    })
}

const fn state_text(state: ContactState) -> &'static str {
    match state {
        ContactState::Requested => "requested",
        ContactState::Asked => "asked",
        ContactState::Mutual => "mutual",
    }
}

fn state_at(row: &Row<'_>, column: usize) -> Result<Option<ContactState>> {
    match row.get_ref(column)? {
        ValueRef::Null => Ok(None),
        word => match word.as_str()? {
            "requested" => Ok(Some(ContactState::Requested)),
            "asked" => Ok(Some(ContactState::Asked)),
            "mutual" => Ok(Some(ContactState::Mutual)),
            other => Err(unknown_word(column, other)),
        },
    }
}
