//! Users, devices, refresh tokens, blocks and claims.

use async_trait::async_trait;
use madang_ids::{Cursor, DeviceId, Epoch, Millis, Position, UserId};
use rusqlite::{Connection, OptionalExtension, Result, Row, params};

use super::codec::{bound, int, limit, number, optional_number};
use super::{Embedded, contacts};
use crate::accounts::{AccountStore, Claim, Claimed, Created, Device, Refresh, Replaced, Rotated, User};
use crate::error::StoreResult;

#[async_trait]
impl AccountStore for Embedded {
    async fn create_user(&self, user: &User, password_hash: &str) -> StoreResult<Created> {
        let (user, password_hash) = (user.clone(), password_hash.to_owned());
        self.write(move |transaction| create_user(transaction.db(), &user, &password_hash)).await
    }

    async fn users(&self, ids: &[UserId]) -> StoreResult<Vec<Option<User>>> {
        let ids = ids.to_vec();
        self.read(move |db| {
            let mut statement = db.prepare_cached(
                "SELECT id, handle, display_name, created_at, sends_receipts FROM users WHERE id = ?1",
            )?;
            ids.iter().map(|id| statement.query_row([int(id.raw())], user_of).optional()).collect()
        })
        .await
    }

    async fn user_by_handle(&self, handle: &str) -> StoreResult<Option<User>> {
        let handle = handle.to_owned();
        self.read(move |db| {
            let mut statement = db.prepare_cached(
                "SELECT id, handle, display_name, created_at, sends_receipts FROM users WHERE handle = ?1",
            )?;
            statement.query_row([handle], user_of).optional()
        })
        .await
    }

    async fn set_display_name(&self, user: UserId, display_name: &str) -> StoreResult<()> {
        let display_name = display_name.to_owned();
        self.write(move |transaction| {
            let mut statement =
                transaction.db().prepare_cached("UPDATE users SET display_name = ?2 WHERE id = ?1")?;
            statement.execute(params![int(user.raw()), display_name])?;
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

    async fn password_hash(&self, user: UserId) -> StoreResult<Option<String>> {
        self.read(move |db| {
            let mut statement = db.prepare_cached("SELECT password_hash FROM users WHERE id = ?1")?;
            statement.query_row([int(user.raw())], |row| row.get(0)).optional()
        })
        .await
    }

    async fn set_password_hash(&self, user: UserId, password_hash: &str) -> StoreResult<()> {
        let password_hash = password_hash.to_owned();
        self.write(move |transaction| {
            let mut statement =
                transaction.db().prepare_cached("UPDATE users SET password_hash = ?2 WHERE id = ?1")?;
            statement.execute(params![int(user.raw()), password_hash])?;
            Ok(())
        })
        .await
    }

    async fn put_device(&self, device: &Device, at_most: usize) -> StoreResult<bool> {
        let device = device.clone();
        self.write(move |transaction| put_device(transaction.db(), &device, at_most)).await
    }

    async fn device(&self, id: DeviceId) -> StoreResult<Option<Device>> {
        self.read(move |db| {
            let mut statement = db.prepare_cached(
                "SELECT id, user, name, created_at, revoked_at, received_epoch, received_pos
                 FROM devices WHERE id = ?1",
            )?;
            statement.query_row([int(id.raw())], device_of).optional()
        })
        .await
    }

    async fn devices(&self, user: UserId) -> StoreResult<Vec<Device>> {
        self.read(move |db| {
            let mut statement = db.prepare_cached(
                "SELECT id, user, name, created_at, revoked_at, received_epoch, received_pos
                 FROM devices WHERE user = ?1 AND revoked_at IS NULL ORDER BY id",
            )?;
            statement.query_map([int(user.raw())], device_of)?.collect()
        })
        .await
    }

    async fn revoke_device(&self, user: UserId, device: DeviceId, at: Millis) -> StoreResult<bool> {
        self.write(move |transaction| revoke_device(transaction.db(), user, device, at)).await
    }

    async fn set_received(&self, marks: &[(DeviceId, Cursor)]) -> StoreResult<()> {
        let marks = marks.to_vec();
        self.write(move |transaction| {
            if marks.is_empty() {
                // There and back: what is not changed is not written.
                for step in [1, -1] {
                    let mut statement =
                        transaction.db().prepare_cached("UPDATE position SET value = value + ?1")?;
                    statement.execute([step])?;
                }
            }
            let mut statement = transaction.db().prepare_cached(
                "UPDATE devices SET received_epoch = ?2, received_pos = ?3
                 WHERE id = ?1 AND (received_epoch IS NOT ?2 OR received_pos < ?3)",
            )?;
            for (device, cursor) in &marks {
                let (epoch, position) = (int(cursor.epoch.raw()), int(cursor.position.get()));
                statement.execute([int(device.raw()), epoch, position])?;
            }
            Ok(())
        })
        .await
    }

    async fn put_refresh(&self, refresh: &Refresh) -> StoreResult<()> {
        let refresh = refresh.clone();
        self.write(move |transaction| put_refresh(transaction.db(), &refresh)).await
    }

    async fn refresh(&self, hash: &[u8; 32]) -> StoreResult<Option<Refresh>> {
        let hash = *hash;
        self.read(move |db| refresh(db, &hash)).await
    }

    async fn rotate_refresh(&self, new: &Refresh) -> StoreResult<Rotated> {
        let new = new.clone();
        self.write(move |transaction| rotate_refresh(transaction.db(), &new)).await
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

    async fn is_blocked(&self, one: UserId, other: UserId) -> StoreResult<bool> {
        self.read(move |db| contacts::is_blocked(db, one, other)).await
    }

    async fn claim(&self, scope: &str, key: &str, claim: Claim) -> StoreResult<Claimed> {
        let (scope, key) = (scope.to_owned(), key.to_owned());
        self.write(move |transaction| insert_claim(transaction.db(), &scope, &key, claim)).await
    }

    async fn forget_claims(&self, before: Millis, limit_rows: usize) -> StoreResult<usize> {
        self.write(move |transaction| {
            let mut statement = transaction.db().prepare_cached(
                "DELETE FROM claims WHERE (scope, key) IN
                 (SELECT scope, key FROM claims WHERE at_ms < ?1 ORDER BY at_ms LIMIT ?2)",
            )?;
            statement.execute([bound(before.get()), limit(limit_rows)])
        })
        .await
    }
}

fn create_user(db: &Connection, user: &User, password_hash: &str) -> Result<Created> {
    let mut insert = db.prepare_cached(
        "INSERT INTO users (id, handle, display_name, created_at, password_hash, sends_receipts)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT DO NOTHING",
    )?;
    let id = int(user.id.raw());
    let created_at = int(user.created_at.get());
    insert.execute(params![
        id,
        user.handle,
        user.display_name,
        created_at,
        password_hash,
        user.sends_receipts
    ])?;
    let mut holder = db.prepare_cached("SELECT 1 FROM users WHERE handle = ?1 AND id = ?2")?;
    let is_hers = holder.exists(params![user.handle, id])?;
    Ok(if is_hers { Created::Created } else { Created::Taken })
}

fn user_of(row: &Row<'_>) -> Result<User> {
    Ok(User {
        id: UserId::from_raw(number(row, 0)?),
        handle: row.get(1)?,
        display_name: row.get(2)?,
        created_at: Millis::new(number(row, 3)?),
        sends_receipts: row.get(4)?,
    })
}

fn put_device(db: &Connection, device: &Device, at_most: usize) -> Result<bool> {
    let mut others = db
        .prepare_cached("SELECT count(*) FROM devices WHERE user = ?1 AND id <> ?2 AND revoked_at IS NULL")?;
    let owner = [int(device.user_id.raw()), int(device.id.raw())];
    if others.query_row(owner, |row| row.get::<_, i64>(0))? >= limit(at_most) {
        return Ok(false);
    }
    let mut statement = db.prepare_cached(
        "INSERT INTO devices (id, user, name, created_at, revoked_at, received_epoch, received_pos)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT DO UPDATE SET user = excluded.user, name = excluded.name, created_at = excluded.created_at,
         revoked_at = coalesce(revoked_at, excluded.revoked_at)",
    )?;
    statement.execute(params![
        int(device.id.raw()),
        int(device.user_id.raw()),
        device.name,
        int(device.created_at.get()),
        device.revoked_at.map(|at| int(at.get())),
        device.received.map(|cursor| int(cursor.epoch.raw())),
        device.received.map(|cursor| int(cursor.position.get())),
    ])?;
    Ok(true)
}

fn device_of(row: &Row<'_>) -> Result<Device> {
    let epoch = optional_number(row, 5)?.map(Epoch::from_raw);
    let position = optional_number(row, 6)?.map(Position::new);
    Ok(Device {
        id: DeviceId::from_raw(number(row, 0)?),
        user_id: UserId::from_raw(number(row, 1)?),
        name: row.get(2)?,
        created_at: Millis::new(number(row, 3)?),
        revoked_at: optional_number(row, 4)?.map(Millis::new),
        received: epoch.zip(position).map(|(epoch, position)| Cursor { epoch, position }),
    })
}

fn revoke_device(db: &Connection, user: UserId, device: DeviceId, at: Millis) -> Result<bool> {
    let mut revoke = db.prepare_cached(
        "UPDATE devices SET revoked_at = coalesce(revoked_at, ?3) WHERE id = ?1 AND user = ?2",
    )?;
    if revoke.execute([int(device.raw()), int(user.raw()), int(at.get())])? == 0 {
        return Ok(false);
    }
    db.prepare_cached("DELETE FROM refresh_tokens WHERE device = ?1")?.execute([int(device.raw())])?;
    Ok(true)
}

fn put_refresh(db: &Connection, refresh: &Refresh) -> Result<()> {
    let mut statement = db.prepare_cached(
        "INSERT OR REPLACE INTO refresh_tokens (device, hash, user, expires_at, replaced_hash, replaced_until)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    statement.execute(params![
        int(refresh.device_id.raw()),
        refresh.hash,
        int(refresh.user_id.raw()),
        int(refresh.expires_at.get()),
        refresh.replaced.map(|replaced| replaced.hash),
        refresh.replaced.map(|replaced| int(replaced.until.get())),
    ])?;
    Ok(())
}

fn refresh(db: &Connection, hash: &[u8; 32]) -> Result<Option<Refresh>> {
    let mut statement = db.prepare_cached(
        "SELECT device, hash, user, expires_at, replaced_hash, replaced_until FROM refresh_tokens
         WHERE hash = ?1 OR replaced_hash = ?1",
    )?;
    statement
        .query_row([hash], |row| {
            let replaced = row.get::<_, Option<[u8; 32]>>(4)?.zip(optional_number(row, 5)?);
            Ok(Refresh {
                device_id: DeviceId::from_raw(number(row, 0)?),
                hash: row.get(1)?,
                user_id: UserId::from_raw(number(row, 2)?),
                expires_at: Millis::new(number(row, 3)?),
                replaced: replaced.map(|(hash, until)| Replaced { hash, until: Millis::new(until) }),
            })
        })
        .optional()
}

fn rotate_refresh(db: &Connection, new: &Refresh) -> Result<Rotated> {
    let Some(old) = new.replaced else { return Ok(Rotated::Unknown) };
    match refresh(db, &old.hash)? {
        Some(found) if (found.user_id, found.device_id) != (new.user_id, new.device_id) => {
            Ok(Rotated::Unknown)
        }
        Some(found) if found.hash == old.hash => put_refresh(db, new).map(|()| Rotated::Rotated),
        Some(found) if found.hash == new.hash => Ok(Rotated::Rotated),
        _ => Ok(Rotated::Unknown),
    }
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
