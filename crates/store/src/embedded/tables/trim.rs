//! Removes old rows of own logs, and channels that were left long ago.

use async_trait::async_trait;
use madang_ids::UserId;
use rusqlite::{Connection, OptionalExtension, Result, Row, params};

use crate::Spans;
use crate::embedded::Embedded;
use crate::embedded::codec::{bound, from_json, int, limit, number};
use crate::embedded::readable::readable;
use crate::error::{StoreError, StoreResult};
use crate::trim::{TrimStep, TrimStore, Trimmed};

impl Embedded {
    /// See [`crate::Upkeep::trim`].
    pub(in crate::embedded) async fn trim_users(&self, step: TrimStep) -> StoreResult<Trimmed> {
        let (users, last) = self.read(move |db| candidates(db, step)).await?;
        let mut trimmed = Trimmed { after: step.after, more: true, ..Trimmed::default() };
        for user in users {
            let left = (step.forgets as u64).saturating_sub(trimmed.own_rows + trimmed.left_channels);
            let forgotten =
                self.write(move |transaction| trim_user(transaction.db(), user, step, left)).await;
            let (rows, channels) = match forgotten {
                // A damaged user must not stop the removal for the others.
                Err(error @ StoreError::Corrupt(_)) => {
                    tracing::error!(user.id = %user, %error, "deleting old rows of a user failed");
                    (0, 0)
                }
                forgotten => forgotten?,
            };
            trimmed.own_rows += rows;
            trimmed.left_channels += channels;
            if rows + channels >= left {
                return Ok(trimmed);
            }
            trimmed.after = Some(user);
        }
        Ok(Trimmed { after: last, more: last.is_some(), ..trimmed })
    }
}

#[async_trait]
impl TrimStore for Embedded {
    async fn forget_user(&self, user: UserId, forgets: usize) -> StoreResult<usize> {
        self.write(move |transaction| forget_user(transaction.db(), user, forgets)).await
    }
}

fn forget_user(db: &Connection, user: UserId, forgets: usize) -> Result<usize> {
    let rows = trim_own_log(db, user, 1, forgets as u64)?;
    let channels = trim_left(db, user, 0, forgets as u64 - rows)?;
    let mut gone = usize::try_from(rows + channels).unwrap_or(forgets);
    for sql in [
        "DELETE FROM channel_settings WHERE (user, channel) IN
         (SELECT user, channel FROM channel_settings WHERE user = ?1 LIMIT ?2)",
        "DELETE FROM hidden_messages WHERE (user, channel, seq) IN
         (SELECT user, channel, seq FROM hidden_messages WHERE user = ?1 LIMIT ?2)",
        "DELETE FROM push_subscriptions WHERE device IN
         (SELECT device FROM push_subscriptions WHERE user = ?1 LIMIT ?2)",
        "DELETE FROM alert_settings WHERE user IN (SELECT user FROM alert_settings WHERE user = ?1 LIMIT ?2)",
        "DELETE FROM alerts WHERE (user, channel) IN (SELECT user, channel FROM alerts WHERE user = ?1 LIMIT ?2)",
        "DELETE FROM alert_notes WHERE id IN (SELECT id FROM alert_notes WHERE user = ?1 LIMIT ?2)",
        "DELETE FROM blocks WHERE (user, other) IN (SELECT user, other FROM blocks b WHERE user = ?1 AND NOT EXISTS
         (SELECT 1 FROM directs d WHERE d.one = min(b.user, b.other) AND d.other = max(b.user, b.other)) LIMIT ?2)",
    ] {
        gone += db.prepare_cached(sql)?.execute(params![int(user.raw()), limit(forgets - gone)])?;
    }
    Ok(gone)
}

/// The users with something to remove among the next ones, and the last user that was looked at unless the users end there.
fn candidates(db: &Connection, step: TrimStep) -> Result<(Vec<UserId>, Option<UserId>)> {
    let mut statement = db.prepare_cached(
        "SELECT id, seq - trimmed > ?3 OR
             (SELECT count(*) FROM (SELECT 1 FROM memberships WHERE user = h.id AND left_at_pos IS NOT NULL LIMIT ?4)) = ?4
         FROM user_heads h WHERE id > ?1 ORDER BY id LIMIT ?2",
    )?;
    let after = step.after.map_or(0, |user| int(user.raw()));
    let too_many = limit(step.left_channels + 1);
    let mut found = statement.query(params![after, limit(step.users), bound(step.own_rows), too_many])?;
    let (mut users, mut looked_at, mut last) = (Vec::new(), 0, None);
    while let Some(row) = found.next()? {
        let user = UserId::from_raw(number(row, 0)?);
        (looked_at, last) = (looked_at + 1, Some(user));
        if row.get(1)? {
            users.push(user);
        }
    }
    Ok((users, last.filter(|_| looked_at == step.users)))
}

/// Removes rows and channels of a user, at most `left` of both together; returns the numbers.
fn trim_user(db: &Connection, user: UserId, step: TrimStep, left: u64) -> Result<(u64, u64)> {
    let rows = trim_own_log(db, user, step.own_rows, left)?;
    Ok((rows, trim_left(db, user, step.left_channels, left - rows)?))
}

fn trim_own_log(db: &Connection, user: UserId, keep: u64, at_most: u64) -> Result<u64> {
    let id = int(user.raw());
    let mut statement = db.prepare_cached("SELECT seq, trimmed FROM user_heads WHERE id = ?1")?;
    let head = statement.query_row([id], |row| Ok((number(row, 0)?, number(row, 1)?))).optional()?;
    let Some((seq, trimmed)) = head else { return Ok(0) };
    let upto = seq.saturating_sub(keep).min(trimmed + at_most);
    if upto <= trimmed {
        return Ok(0);
    }
    let mut statement = db.prepare_cached("DELETE FROM user_log WHERE id = ?1 AND seq <= ?2")?;
    statement.execute([id, int(upto)])?;
    let mut statement = db.prepare_cached("UPDATE user_heads SET trimmed = ?2 WHERE id = ?1")?;
    statement.execute([id, int(upto)])?;
    Ok(upto - trimmed)
}

fn trim_left(db: &Connection, user: UserId, keep: usize, at_most: u64) -> Result<u64> {
    // Channels to keep come first. Any user can add another one to groups and remove them; these stays never displace one that the
    // user accepted.
    let mut statement = db.prepare_cached(
        "SELECT channel FROM memberships s
         WHERE user = ?1 AND left_at_pos IS NOT NULL AND NOT EXISTS (
             SELECT 1 FROM members m WHERE m.channel = s.channel AND m.user = s.user
             AND (m.is_open = 1 OR m.pending IS NOT NULL OR m.banned_until IS NOT NULL))
         ORDER BY in_inbox DESC, has_accepted DESC, left_at_pos DESC LIMIT ?3 OFFSET ?2",
    )?;
    let found = statement
        .query_map(params![int(user.raw()), limit(keep), bound(at_most)], |row| row.get::<_, i64>(0))?
        .collect::<Result<Vec<_>>>()?;
    for &channel in &found {
        note_forgotten(db, user, channel)?;
        for table in ["members", "memberships", "channel_settings", "hidden_messages"] {
            let sql = format!("DELETE FROM {table} WHERE user = ?1 AND channel = ?2");
            db.prepare_cached(&sql)?.execute([int(user.raw()), channel])?;
        }
    }
    Ok(found.len() as u64)
}

/// Records that the inbox lacks the rows of a removed stay, up to the row that ended it.
fn note_forgotten(db: &Connection, user: UserId, channel: i64) -> Result<()> {
    let ids = [int(user.raw()), channel];
    let mut statement = db.prepare_cached(
        "SELECT spans, left_at_pos FROM memberships WHERE user = ?1 AND channel = ?2 AND in_inbox = 1",
    )?;
    let read = |row: &Row<'_>| Ok((readable(from_json::<Spans>(row, 0))?, number(row, 1)?));
    let Some((spans, left)) = statement.query_row(ids, read).optional()? else { return Ok(()) };
    let until = spans.and_then(|spans| spans.last()?.until);
    let mut ended = db.prepare_cached("SELECT pos FROM log WHERE id = ?1 AND seq = ?2")?;
    let until = until.map_or(0, |until| int(until.get()));
    let ended = ended.query_row([channel, until], |row| number(row, 0)).optional()?;
    let upto = left.max(ended.unwrap_or_default());
    let mut statement =
        db.prepare_cached("UPDATE user_heads SET forgotten_upto = max(forgotten_upto, ?2) WHERE id = ?1")?;
    statement.execute([int(user.raw()), int(upto)]).map(drop)
}
