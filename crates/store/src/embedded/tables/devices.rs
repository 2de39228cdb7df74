//! Devices and refresh tokens.

use async_trait::async_trait;
use madang_ids::{Cursor, DeviceId, Epoch, Millis, Position, UserId};
use rusqlite::{Connection, OptionalExtension, Result, Row, params};

use super::push;
use crate::devices::{Device, DeviceStore, PutDevice, REVOKED_KEPT, Refresh, Replaced, Rotated};
use crate::embedded::Embedded;
use crate::embedded::codec::{int, limit, number, optional_number};
use crate::error::StoreResult;

#[async_trait]
impl DeviceStore for Embedded {
    async fn sign_in_rev(&self, user: UserId) -> StoreResult<u64> {
        self.read(move |db| sign_in_rev(db, user)).await
    }

    async fn put_device(&self, device: &Device, at_most: usize, sign_in_rev: u64) -> StoreResult<PutDevice> {
        let device = device.clone();
        self.write(move |transaction| put_device(transaction.db(), &device, at_most, sign_in_rev)).await
    }

    async fn device(&self, user: UserId, id: DeviceId) -> StoreResult<Option<Device>> {
        self.read(move |db| {
            let mut statement = db.prepare_cached(
                "SELECT id, devices.user, name, created_at, revoked_at, received_epoch, received_pos, expires_at
                 FROM devices LEFT JOIN refresh_tokens ON device = id WHERE id = ?1 AND devices.user = ?2",
            )?;
            statement.query_row([int(id.raw()), int(user.raw())], device_of).optional()
        })
        .await
    }

    async fn devices(&self, user: UserId) -> StoreResult<Vec<Device>> {
        self.read(move |db| {
            let mut statement = db.prepare_cached(
                "SELECT id, devices.user, name, created_at, revoked_at, received_epoch, received_pos, expires_at
                 FROM devices INDEXED BY devices_live LEFT JOIN refresh_tokens ON device = id
                 WHERE devices.user = ?1 AND revoked_at IS NULL ORDER BY id",
            )?;
            statement.query_map([int(user.raw())], device_of)?.collect()
        })
        .await
    }

    async fn rename_device(&self, user: UserId, device: DeviceId, name: &str) -> StoreResult<bool> {
        let name = name.to_owned();
        self.write(move |transaction| {
            let mut statement = transaction.db().prepare_cached(
                "UPDATE devices SET name = ?3 WHERE id = ?1 AND user = ?2 AND revoked_at IS NULL",
            )?;
            Ok(statement.execute(params![int(device.raw()), int(user.raw()), name])? == 1)
        })
        .await
    }

    async fn revoke_device(&self, user: UserId, device: DeviceId, at: Millis) -> StoreResult<bool> {
        self.write(move |transaction| {
            let is_there = revoke_device(transaction.db(), user, device, at)?;
            forget_oldest(transaction.db(), user)?;
            Ok(is_there)
        })
        .await
    }

    async fn revoke_devices(
        &self,
        user: UserId,
        except: Option<DeviceId>,
        at: Millis,
    ) -> StoreResult<Vec<DeviceId>> {
        self.write(move |transaction| revoke_devices(transaction.db(), user, except, at)).await
    }

    async fn set_received(&self, marks: &[(UserId, DeviceId, Cursor)]) -> StoreResult<()> {
        let marks = marks.to_vec();
        self.write(move |transaction| {
            let mut statement = transaction.db().prepare_cached(
                "UPDATE devices SET received_epoch = ?2, received_pos = ?3
                 WHERE id = ?1 AND user = ?4 AND (received_epoch IS NOT ?2 OR received_pos < ?3)",
            )?;
            for (user, device, cursor) in &marks {
                let (epoch, position) = (int(cursor.epoch.raw()), int(cursor.position.get()));
                statement.execute([int(device.raw()), epoch, position, int(user.raw())])?;
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
}

/// Positions that the devices of a user have received.
pub(super) fn received(db: &Connection, user: UserId) -> Result<Vec<Cursor>> {
    let mut statement = db.prepare_cached(
        "SELECT received_epoch, received_pos FROM devices INDEXED BY devices_live
         WHERE user = ?1 AND revoked_at IS NULL AND received_pos IS NOT NULL",
    )?;
    let cursor = |row: &Row<'_>| {
        let (epoch, position) = (Epoch::from_raw(number(row, 0)?), Position::new(number(row, 1)?));
        Ok(Cursor { epoch, position })
    };
    statement.query_map([int(user.raw())], cursor)?.collect()
}

fn sign_in_rev(db: &Connection, user: UserId) -> Result<u64> {
    let mut statement = db.prepare_cached("SELECT sign_in_rev FROM users WHERE id = ?1")?;
    Ok(statement.query_row([int(user.raw())], |row| number(row, 0)).optional()?.unwrap_or_default())
}

fn put_device(db: &Connection, device: &Device, at_most: usize, rev: u64) -> Result<PutDevice> {
    if sign_in_rev(db, device.user_id)? != rev {
        return Ok(PutDevice::Overtaken);
    }
    let mut revoked = db.prepare_cached("SELECT 1 FROM devices WHERE id = ?1 AND revoked_at IS NOT NULL")?;
    if revoked.exists([int(device.id.raw())])? {
        return Ok(PutDevice::Revoked);
    }
    if count_others(db, device)? >= limit(at_most) {
        return Ok(PutDevice::Full);
    }
    let mut statement = db.prepare_cached(
        "INSERT INTO devices (id, user, name, created_at, received_epoch, received_pos)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT DO UPDATE SET user = excluded.user, name = excluded.name, created_at = excluded.created_at",
    )?;
    statement.execute(params![
        int(device.id.raw()),
        int(device.user_id.raw()),
        device.name,
        int(device.created_at.get()),
        device.received.map(|cursor| int(cursor.epoch.raw())),
        device.received.map(|cursor| int(cursor.position.get())),
    ])?;
    Ok(PutDevice::Written)
}

/// Reads only the live devices: a user may have revoked any number.
const COUNT_OTHERS: &str = "SELECT count(*) FROM devices INDEXED BY devices_live
     WHERE user = ?1 AND id <> ?2 AND revoked_at IS NULL";

fn count_others(db: &Connection, device: &Device) -> Result<i64> {
    let mut others = db.prepare_cached(COUNT_OTHERS)?;
    others.query_row([int(device.user_id.raw()), int(device.id.raw())], |row| row.get(0))
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
        signed_in_until: optional_number(row, 7)?.map(Millis::new),
    })
}

fn revoke_device(db: &Connection, user: UserId, device: DeviceId, at: Millis) -> Result<bool> {
    let mut revoke = db.prepare_cached(
        "UPDATE devices SET revoked_at = coalesce(revoked_at, ?3) WHERE id = ?1 AND user = ?2",
    )?;
    if revoke.execute([int(device.raw()), int(user.raw()), int(at.get())])? == 0 {
        return Ok(false);
    }
    let mut end = db.prepare_cached("UPDATE refresh_tokens SET is_revoked = 1 WHERE device = ?1")?;
    end.execute([int(device.raw())])?;
    push::forget(db, device)?;
    Ok(true)
}

fn revoke_devices(
    db: &Connection,
    user: UserId,
    except: Option<DeviceId>,
    at: Millis,
) -> Result<Vec<DeviceId>> {
    db.prepare_cached("UPDATE users SET sign_in_rev = sign_in_rev + 1 WHERE id = ?1")?
        .execute([int(user.raw())])?;
    let mut live = db.prepare_cached(
        "SELECT id FROM devices INDEXED BY devices_live
         WHERE user = ?1 AND id <> ?2 AND revoked_at IS NULL ORDER BY id",
    )?;
    let except = except.map_or(0, |device| int(device.raw()));
    let devices: Vec<DeviceId> = live
        .query_map([int(user.raw()), except], |row| Ok(DeviceId::from_raw(number(row, 0)?)))?
        .collect::<Result<_>>()?;
    for device in &devices {
        revoke_device(db, user, *device, at)?;
    }
    forget_oldest(db, user)?;
    Ok(devices)
}

/// Removes at most a bounded number, so that a user with many devices does not delay the writer.
const FORGOTTEN_AT_ONCE: usize = 60;

fn forget_oldest(db: &Connection, user: UserId) -> Result<usize> {
    let mut count = db.prepare_cached(
        "SELECT count(*) FROM (SELECT 1 FROM devices INDEXED BY devices_revoked
         WHERE user = ?1 AND revoked_at IS NOT NULL LIMIT ?2)",
    )?;
    let most = REVOKED_KEPT + FORGOTTEN_AT_ONCE;
    let found: i64 = count.query_row([int(user.raw()), limit(most)], |row| row.get(0))?;
    let excess = found - limit(REVOKED_KEPT);
    if excess <= 0 {
        return Ok(0);
    }
    forget(
        db,
        "SELECT id FROM devices INDEXED BY devices_revoked
         WHERE user = ?1 AND revoked_at IS NOT NULL ORDER BY revoked_at LIMIT ?2",
        [int(user.raw()), excess],
    )
}

/// Removes the devices that `which` selects, with their refresh tokens.
pub(in crate::embedded) fn forget(db: &Connection, which: &str, bounds: [i64; 2]) -> Result<usize> {
    let devices: Vec<i64> =
        db.prepare_cached(which)?.query_map(bounds, |row| row.get(0))?.collect::<Result<_>>()?;
    for device in &devices {
        db.prepare_cached("DELETE FROM refresh_tokens WHERE device = ?1")?.execute([device])?;
        db.prepare_cached("DELETE FROM devices WHERE id = ?1")?.execute([device])?;
    }
    Ok(devices.len())
}

fn put_refresh(db: &Connection, refresh: &Refresh) -> Result<()> {
    let mut statement = db.prepare_cached(
        "INSERT OR REPLACE INTO refresh_tokens
             (device, hash, user, expires_at, replaced_hash, replaced_until, is_revoked)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6,
                 EXISTS (SELECT 1 FROM devices WHERE id = ?1 AND revoked_at IS NOT NULL))",
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
    let mut revoked =
        db.prepare_cached("SELECT 1 FROM refresh_tokens WHERE device = ?1 AND is_revoked = 1")?;
    if revoked.exists([int(new.device_id.raw())])? {
        return Ok(Rotated::Unknown);
    }
    match refresh(db, &old.hash)? {
        Some(found) if (found.user_id, found.device_id) != (new.user_id, new.device_id) => {
            Ok(Rotated::Unknown)
        }
        Some(found) if found.hash == old.hash => put_refresh(db, new).map(|()| Rotated::Rotated),
        Some(found) if found.hash == new.hash => Ok(Rotated::Rotated),
        _ => Ok(Rotated::Unknown),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::embedded::schema::MIGRATIONS;

    /// Steps of SQLite's virtual machine, in tens.
    fn steps(db: &mut Connection, work: impl FnOnce(&Connection)) -> u64 {
        let count = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&count);
        let tick = move || {
            counter.fetch_add(10, Ordering::Relaxed);
            false
        };
        db.progress_handler(10, Some(tick)).unwrap();
        work(db);
        db.progress_handler(0, None::<fn() -> bool>).unwrap();
        count.load(Ordering::Relaxed)
    }

    /// The work of the writer's transaction for a login does not grow with the number of revoked devices: each statement uses an
    /// index of live devices only.
    #[test]
    fn three_hundred_thousand_revoked_devices_are_not_looked_at() {
        const REVOKED: i64 = 300_000;
        let mut db = Connection::open_in_memory().unwrap();
        MIGRATIONS.iter().for_each(|step| db.execute_batch(step).unwrap());
        db.execute_batch("INSERT INTO users (id, handle, display_name, created_at, password_hash) VALUES (1, 'a', 'A', 1, 'x')")
            .unwrap();
        db.execute(
            "WITH RECURSIVE n(i) AS (SELECT 10 UNION ALL SELECT i + 1 FROM n WHERE i < 9 + ?1)
             INSERT INTO devices (id, user, name, created_at, revoked_at) SELECT i, 1, '', 1, i FROM n",
            [REVOKED],
        )
        .unwrap();
        let device = Device {
            id: DeviceId::from_raw(1),
            user_id: UserId::from_raw(1),
            name: "phone".into(),
            created_at: Millis::new(1),
            revoked_at: None,
            received: None,
            signed_in_until: None,
        };
        let put = steps(&mut db, |db| {
            assert_eq!(put_device(db, &device, 50, 0).unwrap(), PutDevice::Written);
        });
        let revoke = steps(&mut db, |db| {
            revoke_device(db, device.user_id, device.id, Millis::new(2)).unwrap();
            forget_oldest(db, device.user_id).unwrap();
        });
        assert!(put < 1_000, "{put} steps for a login");
        assert!(revoke < 20_000, "{revoke} steps for a revocation");
        let left: i64 = db.query_row("SELECT count(*) FROM devices", [], |row| row.get(0)).unwrap();
        assert_eq!(left, REVOKED + 1 - FORGOTTEN_AT_ONCE as i64);
    }
}
