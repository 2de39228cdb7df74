//! Invitations to groups.

use async_trait::async_trait;
use madang_ids::{ChannelId, Millis, UserId};
use rusqlite::{Connection, OptionalExtension, Result, Row, ToSql, params};

use super::contacts::is_blocked;
use crate::embedded::Embedded;
use crate::embedded::codec::{int, limit, number, small_number, unknown_word};
use crate::error::StoreResult;
use crate::group_invitations::{
    Ending, GroupInvitation, GroupInvitationLimits, GroupInvitationState, GroupInvitationStore,
    OpenInvitation, renewed,
};

macro_rules! select {
    ($where:literal) => {
        concat!("SELECT user, channel, inviter, at_ms, state, rev, is_told FROM group_invitations ", $where)
    };
}

#[async_trait]
impl GroupInvitationStore for Embedded {
    async fn invite(
        &self,
        channel: ChannelId,
        by: UserId,
        users: &[UserId],
        at: Millis,
        limits: GroupInvitationLimits,
    ) -> StoreResult<Vec<GroupInvitation>> {
        let users = users.to_vec();
        self.write(move |transaction| {
            let mut untold = Vec::new();
            for &user_id in &users {
                let state = GroupInvitationState::Waiting;
                let new = GroupInvitation {
                    user_id,
                    channel_id: channel,
                    by,
                    at,
                    state,
                    rev: 1,
                    is_recorded: false,
                };
                invite(transaction.db(), new, limits, &mut untold)?;
            }
            Ok(untold)
        })
        .await
    }

    async fn group_invitation(
        &self,
        user: UserId,
        channel: ChannelId,
    ) -> StoreResult<Option<GroupInvitation>> {
        self.read(move |db| find(db, user, channel)).await
    }

    async fn open_invitations(
        &self,
        user: UserId,
        after: Option<ChannelId>,
        rows: usize,
    ) -> StoreResult<Vec<OpenInvitation>> {
        let after = after.map_or(0, |channel| int(channel.raw()));
        self.read(move |db| {
            let mut statement = db.prepare_cached(
                "SELECT i.user, i.channel, i.inviter, i.at_ms, i.state, i.rev, i.is_told, c.name, s.count
                 FROM group_invitations i CROSS JOIN channels c ON c.id = i.channel AND c.state = 0
                 CROSS JOIN seats s ON s.channel = i.channel
                 CROSS JOIN members a ON a.channel = i.channel AND a.user = i.inviter AND a.is_open = 1
                    AND a.role <> 'member'
                 WHERE i.user = ?1 AND i.channel > ?2 AND i.state = 'waiting' AND NOT EXISTS
                    (SELECT 1 FROM members m WHERE m.channel = i.channel AND m.user = i.user AND m.is_open = 1)
                 ORDER BY i.channel LIMIT ?3",
            )?;
            let found = statement.query_map([int(user.raw()), after, limit(rows)], |row| {
                let name: Option<String> = row.get(7)?;
                let (invitation, members) = (invitation_of(row)?, small_number(row, 8)?);
                Ok(OpenInvitation { invitation, name: name.unwrap_or_default(), members })
            })?;
            found.collect()
        })
        .await
    }

    async fn decline_invitation(
        &self,
        user: UserId,
        channel: ChannelId,
        declined: u32,
    ) -> StoreResult<Option<GroupInvitation>> {
        self.write(move |transaction| {
            let db = transaction.db();
            match find(db, user, channel)? {
                Some(found) if found.state == GroupInvitationState::Waiting => {
                    let changed = changed(db, found, GroupInvitationState::Declined)?;
                    forget_declined(db, user, declined)?;
                    Ok(Some(changed))
                }
                found => Ok(found.filter(|found| !found.is_recorded)),
            }
        })
        .await
    }

    async fn end_invitations(&self, which: Ending, rows: usize) -> StoreResult<Vec<GroupInvitation>> {
        self.write(move |transaction| {
            let db = transaction.db();
            let waiting = waiting(db, which, rows)?;
            waiting.into_iter().map(|found| changed(db, found, GroupInvitationState::Ended)).collect()
        })
        .await
    }

    async fn forget_group_invitations(&self, user: UserId) -> StoreResult<()> {
        self.write(move |transaction| {
            let mut statement =
                transaction.db().prepare_cached("DELETE FROM group_invitations WHERE user = ?1")?;
            statement.execute([int(user.raw())]).map(drop)
        })
        .await
    }

    async fn settle_invitation(&self, user: UserId, channel: ChannelId, rev: u64) -> StoreResult<bool> {
        self.write(move |transaction| {
            let db = transaction.db();
            let Some(found) = find(db, user, channel)?.filter(|found| found.rev == rev) else {
                return Ok(false);
            };
            if found.state == GroupInvitationState::Ended {
                forget(db, user, channel)?;
            } else {
                put(db, GroupInvitation { is_recorded: true, ..found })?;
            }
            Ok(true)
        })
        .await
    }

    async fn due_invitations(&self, rows: usize) -> StoreResult<Vec<GroupInvitation>> {
        self.read(move |db| {
            // A damaged state is reported by `check`, and must not hold up the other invitations.
            let sql = select!(
                "WHERE is_told = 0 AND state IN ('waiting', 'declined', 'ended') ORDER BY user, channel LIMIT ?1"
            );
            db.prepare_cached(sql)?.query_map([limit(rows)], invitation_of)?.collect()
        })
        .await
    }
}

/// Invites one user; adds to `untold` the invitations whose notes are to be appended.
fn invite(
    db: &Connection,
    new: GroupInvitation,
    limits: GroupInvitationLimits,
    untold: &mut Vec<GroupInvitation>,
) -> Result<()> {
    let found = find(db, new.user_id, new.channel_id)?;
    let Some(renewed) = renewed(found, new, is_blocked(db, new.user_id, new.by)?) else {
        untold.extend(found.filter(|found| !found.is_recorded));
        return Ok(());
    };
    if renewed.state == GroupInvitationState::Waiting {
        untold.extend(make_room(db, new.user_id, new.by, limits)?);
    }
    put(db, renewed)?;
    if renewed.state == GroupInvitationState::Declined {
        forget_declined(db, new.user_id, limits.declined)?;
    }
    untold.extend(Some(renewed).filter(|renewed| !renewed.is_recorded));
    Ok(())
}

/// Ends the oldest waiting invitation if one more would be above a limit: of the same inviter first, whose limit is lower.
fn make_room(
    db: &Connection,
    user: UserId,
    by: UserId,
    limits: GroupInvitationLimits,
) -> Result<Option<GroupInvitation>> {
    let mut counts = db.prepare_cached(
        "SELECT count(*), count(*) FILTER (WHERE inviter = ?2) FROM group_invitations
         WHERE user = ?1 AND state = 'waiting'",
    )?;
    let ids = [int(user.raw()), int(by.raw())];
    let (all, by_one) = counts.query_row(ids, |row| Ok((small_number(row, 0)?, small_number(row, 1)?)))?;
    let oldest = if by_one >= limits.by_one {
        let sql =
            select!("WHERE user = ?1 AND state = 'waiting' AND inviter = ?2 ORDER BY at_ms, channel LIMIT 1");
        db.prepare_cached(sql)?.query_row(ids, invitation_of).optional()?
    } else if all >= limits.waiting {
        let sql = select!("WHERE user = ?1 AND state = 'waiting' ORDER BY at_ms, channel LIMIT 1");
        db.prepare_cached(sql)?.query_row([ids[0]], invitation_of).optional()?
    } else {
        None
    };
    oldest.map(|found| changed(db, found, GroupInvitationState::Ended)).transpose()
}

fn waiting(db: &Connection, which: Ending, rows: usize) -> Result<Vec<GroupInvitation>> {
    let rows = limit(rows);
    let (sql, ids) = match which {
        Ending::One(user, channel) => (
            select!("WHERE user = ?1 AND channel = ?2 AND state = 'waiting' LIMIT ?3"),
            vec![user.raw(), channel.raw()],
        ),
        Ending::Between { user, by } => (
            select!("WHERE user = ?1 AND inviter = ?2 AND state = 'waiting' LIMIT ?3"),
            vec![user.raw(), by.raw()],
        ),
        Ending::By(by) => (select!("WHERE inviter = ?1 AND state = 'waiting' LIMIT ?2"), vec![by.raw()]),
        Ending::To(channel) => {
            (select!("WHERE channel = ?1 AND state = 'waiting' LIMIT ?2"), vec![channel.raw()])
        }
    };
    let numbers: Vec<i64> = ids.into_iter().map(int).chain([rows]).collect();
    let numbers: Vec<&dyn ToSql> = numbers.iter().map(|number| number as &dyn ToSql).collect();
    db.prepare_cached(sql)?.query_map(&numbers[..], invitation_of)?.collect()
}

fn changed(db: &Connection, found: GroupInvitation, state: GroupInvitationState) -> Result<GroupInvitation> {
    let changed = GroupInvitation { state, rev: found.rev + 1, is_recorded: false, ..found };
    put(db, changed)?;
    Ok(changed)
}

/// Keeps the latest declined invitation of each inviter, then the second latest of each, and so on.
fn forget_declined(db: &Connection, user: UserId, most: u32) -> Result<()> {
    db.prepare_cached(
        "DELETE FROM group_invitations WHERE user = ?1 AND channel IN
         (SELECT channel FROM
            (SELECT channel, at_ms, row_number() OVER (PARTITION BY inviter ORDER BY at_ms DESC, channel DESC) AS rank
             FROM group_invitations WHERE user = ?1 AND state = 'declined')
          ORDER BY rank, at_ms DESC, channel DESC LIMIT -1 OFFSET ?2)",
    )?
    .execute([int(user.raw()), i64::from(most)])
    .map(drop)
}

/// Removes an invitation: the user has joined, or the note of its end is appended.
pub(in crate::embedded) fn forget(db: &Connection, user: UserId, channel: ChannelId) -> Result<()> {
    db.prepare_cached("DELETE FROM group_invitations WHERE user = ?1 AND channel = ?2")?
        .execute([int(user.raw()), int(channel.raw())])
        .map(drop)
}

fn put(db: &Connection, invitation: GroupInvitation) -> Result<()> {
    let GroupInvitation { user_id, channel_id, by, at, state, rev, is_recorded } = invitation;
    let mut statement = db.prepare_cached(
        "INSERT OR REPLACE INTO group_invitations (user, channel, inviter, at_ms, state, rev, is_told)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    let ids = (int(user_id.raw()), int(channel_id.raw()), int(by.raw()));
    statement
        .execute(params![ids.0, ids.1, ids.2, int(at.get()), state_text(state), int(rev), is_recorded])
        .map(drop)
}

fn find(db: &Connection, user: UserId, channel: ChannelId) -> Result<Option<GroupInvitation>> {
    let mut statement = db.prepare_cached(select!("WHERE user = ?1 AND channel = ?2"))?;
    statement.query_row([int(user.raw()), int(channel.raw())], invitation_of).optional()
}

fn invitation_of(row: &Row<'_>) -> Result<GroupInvitation> {
    Ok(GroupInvitation {
        user_id: UserId::from_raw(number(row, 0)?),
        channel_id: ChannelId::from_raw(number(row, 1)?),
        by: UserId::from_raw(number(row, 2)?),
        at: Millis::new(number(row, 3)?),
        state: state_at(row, 4)?,
        rev: number(row, 5)?,
        is_recorded: row.get(6)?,
    })
}

const fn state_text(state: GroupInvitationState) -> &'static str {
    match state {
        GroupInvitationState::Waiting => "waiting",
        GroupInvitationState::Declined => "declined",
        GroupInvitationState::Ended => "ended",
    }
}

fn state_at(row: &Row<'_>, column: usize) -> Result<GroupInvitationState> {
    match row.get_ref(column)?.as_str()? {
        "waiting" => Ok(GroupInvitationState::Waiting),
        "declined" => Ok(GroupInvitationState::Declined),
        "ended" => Ok(GroupInvitationState::Ended),
        other => Err(unknown_word(column, other)),
    }
}
