//! Users, blocks and claims.

use async_trait::async_trait;
use madang_ids::{Millis, UserId};
use madang_proto::Audience;
use rusqlite::{Connection, OptionalExtension, Result, Row, params};

use super::contacts;
use crate::accounts::{AccountStore, Claim, Claimed, Created, Credentials, Profile, User, UserState};
use crate::embedded::Embedded;
use crate::embedded::codec::{audience, audience_text, int, limit, number};
use crate::error::StoreResult;

macro_rules! user_columns {
    () => {
        "SELECT id, handle, display_name, created_at, sends_receipts, avatar, rev, state, may_add, may_write FROM users "
    };
}

#[async_trait]
impl AccountStore for Embedded {
    async fn create_user(
        &self,
        user: &User,
        password_hash: &str,
        invitation: Option<&[u8; 32]>,
    ) -> StoreResult<Created> {
        let (user, password_hash, invitation) = (user.clone(), password_hash.to_owned(), invitation.copied());
        self.write(move |transaction| {
            create_user(transaction.db(), &user, &password_hash, invitation.as_ref())
        })
        .await
    }

    async fn users(&self, ids: &[UserId]) -> StoreResult<Vec<Option<User>>> {
        let ids = ids.to_vec();
        self.read(move |db| users(db, &ids)).await
    }

    async fn user_by_handle(&self, handle: &str) -> StoreResult<Option<User>> {
        let handle = handle.to_owned();
        self.read(move |db| {
            let mut statement = db.prepare_cached(concat!(user_columns!(), "WHERE handle = ?1"))?;
            statement.query_row([handle], user_of).optional()
        })
        .await
    }

    async fn users_by_handle(&self, prefix: &str, after: &str, rows: usize) -> StoreResult<Vec<User>> {
        let (prefix, after) = (prefix.to_owned(), after.to_owned());
        self.read(move |db| {
            // A deleted user's handle begins with a character above all characters of valid handles.
            let mut statement = db.prepare_cached(concat!(
                user_columns!(),
                "WHERE handle >= ?1 AND handle < ?1 || '~' AND handle > ?2 ORDER BY handle LIMIT ?3"
            ))?;
            statement.query_map(params![prefix, after, limit(rows)], user_of)?.collect()
        })
        .await
    }

    async fn set_profile(&self, user: UserId, profile: &Profile) -> StoreResult<()> {
        let profile = profile.clone();
        self.write(move |transaction| {
            let mut statement = transaction.db().prepare_cached(
                "UPDATE users SET display_name = coalesce(?2, display_name), avatar = coalesce(?3, avatar), rev = rev + 1
                 WHERE id = ?1 AND state <> 2
                 AND (display_name, avatar) <> (coalesce(?2, display_name), coalesce(?3, avatar))",
            )?;
            statement.execute(params![int(user.raw()), profile.display_name, profile.avatar])?;
            Ok(())
        })
        .await
    }

    async fn set_sends_receipts(&self, user: UserId, sends_receipts: bool) -> StoreResult<()> {
        self.write(move |transaction| {
            let mut statement =
                transaction.db().prepare_cached("UPDATE users SET sends_receipts = ?2 WHERE id = ?1")?;
            statement.execute(params![int(user.raw()), sends_receipts])?;
            Ok(())
        })
        .await
    }

    async fn set_audiences(
        &self,
        user: UserId,
        may_add: Option<Audience>,
        may_write: Option<Audience>,
    ) -> StoreResult<()> {
        let (may_add, may_write) = (may_add.map(audience_text), may_write.map(audience_text));
        self.write(move |transaction| {
            let mut statement = transaction.db().prepare_cached(
                "UPDATE users SET may_add = coalesce(?2, may_add), may_write = coalesce(?3, may_write)
                 WHERE id = ?1",
            )?;
            statement.execute(params![int(user.raw()), may_add, may_write]).map(drop)
        })
        .await
    }

    async fn credentials(&self, user: UserId) -> StoreResult<Option<Credentials>> {
        self.read(move |db| {
            let mut statement = db.prepare_cached("SELECT password_hash, state FROM users WHERE id = ?1")?;
            let credentials =
                |row: &Row<'_>| Ok(Credentials { password_hash: row.get(0)?, state: state_of(row.get(1)?) });
            statement.query_row([int(user.raw())], credentials).optional()
        })
        .await
    }

    async fn set_password_hash(&self, user: UserId, hash: &str, expected: Option<&str>) -> StoreResult<bool> {
        let (hash, expected) = (hash.to_owned(), expected.map(str::to_owned));
        self.write(move |transaction| {
            // A repeated call after an unknown outcome finds its own hash.
            let mut statement = transaction.db().prepare_cached(
                "UPDATE users SET password_hash = ?2
                 WHERE id = ?1 AND state <> 2 AND password_hash IN (coalesce(?3, password_hash), ?2)",
            )?;
            Ok(statement.execute(params![int(user.raw()), hash, expected])? == 1)
        })
        .await
    }

    async fn set_disabled(&self, user: UserId, is_disabled: bool) -> StoreResult<bool> {
        self.write(move |transaction| {
            let mut statement = transaction
                .db()
                .prepare_cached("UPDATE users SET state = ?2 WHERE id = ?1 AND state <> 2")?;
            Ok(statement.execute(params![int(user.raw()), i64::from(is_disabled)])? == 1)
        })
        .await
    }

    async fn delete_user(&self, user: UserId, handle_until: Millis) -> StoreResult<()> {
        self.write(move |transaction| {
            transaction.forget_soon();
            delete_user(transaction.db(), user, handle_until)
        })
        .await
    }

    async fn deletions(&self, rows: usize) -> StoreResult<Vec<UserId>> {
        self.read(move |db| {
            let mut statement = db.prepare_cached("SELECT user FROM deletions ORDER BY user LIMIT ?1")?;
            statement.query_map([limit(rows)], |row| Ok(UserId::from_raw(number(row, 0)?)))?.collect()
        })
        .await
    }

    async fn settle_deletion(&self, user: UserId) -> StoreResult<()> {
        self.write(move |transaction| {
            let mut statement = transaction.db().prepare_cached("DELETE FROM deletions WHERE user = ?1")?;
            statement.execute([int(user.raw())]).map(drop)
        })
        .await
    }

    async fn block(&self, user: UserId, other: UserId, at: Millis) -> StoreResult<bool> {
        self.write(move |transaction| {
            let mut statement = transaction.db().prepare_cached(
                "INSERT INTO blocks (user, other, at_ms) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
            )?;
            Ok(statement.execute([int(user.raw()), int(other.raw()), int(at.get())])? == 1)
        })
        .await
    }

    async fn unblock(&self, user: UserId, other: UserId) -> StoreResult<bool> {
        self.write(move |transaction| {
            let mut statement =
                transaction.db().prepare_cached("DELETE FROM blocks WHERE user = ?1 AND other = ?2")?;
            Ok(statement.execute([int(user.raw()), int(other.raw())])? == 1)
        })
        .await
    }

    async fn blocks(&self, user: UserId, after: Option<UserId>, rows: usize) -> StoreResult<Vec<UserId>> {
        let after = after.map_or(0, |other| int(other.raw()));
        self.read(move |db| {
            let mut statement = db.prepare_cached(
                "SELECT other FROM blocks WHERE user = ?1 AND other > ?2 ORDER BY other LIMIT ?3",
            )?;
            statement
                .query_map([int(user.raw()), after, limit(rows)], |row| {
                    Ok(UserId::from_raw(number(row, 0)?))
                })?
                .collect()
        })
        .await
    }

    async fn apart_from(&self, user: UserId, most: usize) -> StoreResult<Vec<UserId>> {
        self.read(move |db| contacts::apart_from(db, user, most)).await
    }

    async fn who_block(&self, user: UserId, others: &[UserId]) -> StoreResult<Vec<UserId>> {
        let others = others.to_vec();
        self.read(move |db| contacts::who_block(db, user, &others)).await
    }

    async fn is_blocked(&self, one: UserId, other: UserId) -> StoreResult<bool> {
        self.read(move |db| contacts::is_blocked(db, one, other)).await
    }

    async fn claim(&self, scope: &str, key: &str, claim: Claim) -> StoreResult<Claimed> {
        let (scope, key) = (scope.to_owned(), key.to_owned());
        self.write(move |transaction| insert_claim(transaction.db(), &scope, &key, claim)).await
    }
}

pub(super) fn users(db: &Connection, ids: &[UserId]) -> Result<Vec<Option<User>>> {
    let mut statement = db.prepare_cached(concat!(user_columns!(), "WHERE id = ?1"))?;
    ids.iter().map(|id| statement.query_row([int(id.raw())], user_of).optional()).collect()
}

fn create_user(
    db: &Connection,
    user: &User,
    password_hash: &str,
    invitation: Option<&[u8; 32]>,
) -> Result<Created> {
    let mut holder = db.prepare_cached("SELECT id FROM users WHERE handle = ?1")?;
    let id = int(user.id.raw());
    match holder.query_row([&user.handle], |row| row.get::<_, i64>(0)).optional()? {
        Some(found) if found == id => return Ok(Created::Created),
        Some(_) => return Ok(Created::Taken),
        None => {}
    }
    if is_kept(db, &user.handle, user.created_at)? {
        return Ok(Created::Taken);
    }
    if let Some(invitation) = invitation
        && !take_use(db, invitation, user.created_at)?
    {
        return Ok(Created::NotInvited);
    }
    let mut insert = db.prepare_cached(
        "INSERT INTO users (id, handle, display_name, created_at, password_hash, sends_receipts, avatar, rev)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?;
    let (created_at, rev) = (int(user.created_at.get()), int(user.rev));
    let User { handle, display_name, sends_receipts, avatar, .. } = user;
    insert.execute(params![
        id,
        handle,
        display_name,
        created_at,
        password_hash,
        sends_receipts,
        avatar,
        rev
    ])?;
    Ok(Created::Created)
}

/// Whether the handle is reserved for a deleted user. Removes a reservation whose time is over.
fn is_kept(db: &Connection, handle: &str, now: Millis) -> Result<bool> {
    let mut forget = db.prepare_cached("DELETE FROM kept_handles WHERE handle = ?1 AND until_ms <= ?2")?;
    forget.execute(params![handle, int(now.get())])?;
    db.prepare_cached("SELECT 1 FROM kept_handles WHERE handle = ?1")?.exists([handle])
}

fn take_use(db: &Connection, invitation: &[u8; 32], now: Millis) -> Result<bool> {
    let mut take = db.prepare_cached(
        "UPDATE invitations SET used = used + 1 WHERE hash = ?1 AND used < uses AND ends_at > ?2",
    )?;
    Ok(take.execute(params![invitation, int(now.get())])? == 1)
}

fn delete_user(db: &Connection, user: UserId, handle_until: Millis) -> Result<()> {
    let id = int(user.raw());
    let mut handle = db.prepare_cached("SELECT handle FROM users WHERE id = ?1 AND state <> 2")?;
    let Some(handle) = handle.query_row([id], |row| row.get::<_, String>(0)).optional()? else {
        return Ok(());
    };
    db.prepare_cached("INSERT OR REPLACE INTO kept_handles VALUES (?1, ?2)")?
        .execute(params![handle, int(handle_until.get())])?;
    db.prepare_cached(
        "UPDATE users SET handle = '~' || id, display_name = '', avatar = '', password_hash = '', state = 2,
         rev = rev + 1 WHERE id = ?1",
    )?
    .execute([id])?;
    db.prepare_cached("DELETE FROM presence WHERE user = ?1")?.execute([id])?;
    db.prepare_cached("INSERT OR IGNORE INTO deletions VALUES (?1)")?.execute([id]).map(drop)
}

const fn state_of(value: i64) -> UserState {
    match value {
        0 => UserState::Active,
        1 => UserState::Disabled,
        _ => UserState::Deleted,
    }
}

fn user_of(row: &Row<'_>) -> Result<User> {
    let state = state_of(row.get(7)?);
    Ok(User {
        id: UserId::from_raw(number(row, 0)?),
        handle: if state == UserState::Deleted { String::new() } else { row.get(1)? },
        display_name: row.get(2)?,
        created_at: Millis::new(number(row, 3)?),
        sends_receipts: row.get(4)?,
        avatar: row.get(5)?,
        rev: number(row, 6)?,
        state,
        may_add: audience(row, 8)?,
        may_write: audience(row, 9)?,
    })
}

fn insert_claim(db: &Connection, scope: &str, key: &str, claim: Claim) -> Result<Claimed> {
    let mut insert = db.prepare_cached(
        "INSERT INTO claims (scope, key, id, request_hash, at_ms) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT DO NOTHING",
    )?;
    let is_first =
        insert.execute(params![scope, key, int(claim.id), claim.request_hash, int(claim.at.get())])? == 1;
    if is_first {
        return Ok(Claimed::First);
    }
    let mut read =
        db.prepare_cached("SELECT id, request_hash, at_ms FROM claims WHERE scope = ?1 AND key = ?2")?;
    let before = read.query_row([scope, key], |row| {
        Ok(Claim { id: number(row, 0)?, request_hash: row.get(1)?, at: Millis::new(number(row, 2)?) })
    })?;
    Ok(Claimed::Before(before))
}
