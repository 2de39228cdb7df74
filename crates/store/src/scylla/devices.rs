//! Devices and refresh tokens: one partition for each user, every write of it conditional.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::try_join;
use madang_ids::{Cursor, DeviceId, Epoch, Millis, Position, UserId};
use scylla::DeserializeRow;
use scylla::value::{CqlTimestamp, CqlValue};

use super::Scylla;
use super::codec::{int, number, set};
use super::log::each;
use super::session::{Class, Statement, Values};
use crate::devices::{Device, DeviceStore, PutDevice, REVOKED_KEPT, Refresh, Replaced, Rotated};
use crate::error::{StoreError, StoreResult};

const ALL: Statement = Statement {
    class: Class::SerialRead,
    cql: "SELECT live, sign_in_rev, id, name, created_at, revoked_at, refresh_hash, refresh_ends_at, replaced_hash,
          replaced_until FROM devices WHERE user = ?",
};
const ONE: Statement = Statement {
    class: Class::Read,
    cql: "SELECT live, sign_in_rev, id, name, created_at, revoked_at, refresh_hash, refresh_ends_at, replaced_hash,
          replaced_until FROM devices WHERE user = ? AND id = ?",
};
const REV: Statement =
    Statement { class: Class::Read, cql: "SELECT sign_in_rev FROM devices WHERE user = ? LIMIT 1" };
const FIRST: Statement = Statement {
    class: Class::Conditional,
    cql: "UPDATE devices SET live = ?, sign_in_rev = ? WHERE user = ? IF live = null",
};
const COUNT: Statement = Statement {
    class: Class::Conditional,
    cql: "UPDATE devices SET live = ?, sign_in_rev = ? WHERE user = ? IF live = ? AND sign_in_rev = ?",
};
const PUT: Statement = Statement {
    class: Class::Conditional,
    cql: "UPDATE devices SET name = ?, created_at = ? WHERE user = ? AND id = ? IF revoked_at = null",
};
const RENAME: Statement = Statement {
    class: Class::Conditional,
    cql: "UPDATE devices SET name = ? WHERE user = ? AND id = ? IF revoked_at = null AND created_at >= 0",
};
const REVOKE: Statement = Statement {
    class: Class::Conditional,
    cql: "UPDATE devices SET revoked_at = ? WHERE user = ? AND id = ? IF revoked_at = null",
};
const FORGET: Statement = Statement {
    class: Class::Conditional,
    cql: "DELETE FROM devices WHERE user = ? AND id = ? IF revoked_at = ?",
};
const PUT_REFRESH: Statement = Statement {
    class: Class::Conditional,
    cql: "UPDATE devices SET refresh_hash = ?, refresh_ends_at = ?, replaced_hash = ?, replaced_until = ?
          WHERE user = ? AND id = ? IF refresh_hash = ?",
};
const ROTATE: Statement = Statement {
    class: Class::Conditional,
    cql: "UPDATE devices SET refresh_hash = ?, refresh_ends_at = ?, replaced_hash = ?, replaced_until = ?
          WHERE user = ? AND id = ? IF refresh_hash = ? AND revoked_at = null",
};
const INDEX: Statement =
    Statement { class: Class::Write, cql: "INSERT INTO refresh_index (hash, user, device) VALUES (?, ?, ?)" };
const INDEXED: Statement =
    Statement { class: Class::Read, cql: "SELECT user, device FROM refresh_index WHERE hash = ?" };
const SET_RECEIVED: Statement = Statement {
    class: Class::Write,
    cql: "INSERT INTO received (user, device, epoch, position) VALUES (?, ?, ?, ?) USING TIMESTAMP ?",
};
const MARK_EPOCH: Statement = Statement {
    class: Class::Write,
    cql: "INSERT INTO received (user, device, epoch, written_at) VALUES (?, ?, ?, toTimestamp(now()))",
};
const RECEIVED: Statement = Statement {
    class: Class::Read,
    cql: "SELECT device, epoch, position, written_at FROM received WHERE user = ?",
};

/// Attempts of a compare-and-set whose value another call changes meanwhile.
const TRIES: u32 = 64;

#[derive(Debug, DeserializeRow)]
struct StoredDevice {
    live: Option<i32>,
    sign_in_rev: Option<i64>,
    /// `None`: the partition has static columns alone.
    id: Option<i64>,
    name: Option<String>,
    created_at: Option<i64>,
    revoked_at: Option<i64>,
    refresh_hash: Option<Vec<u8>>,
    refresh_ends_at: Option<i64>,
    replaced_hash: Option<Vec<u8>>,
    replaced_until: Option<i64>,
}

impl StoredDevice {
    fn is_live(&self) -> bool {
        self.created_at.is_some() && self.revoked_at.is_none()
    }

    fn device(&self, user_id: UserId, received: &HashMap<i64, Cursor>) -> Option<Device> {
        let id = self.id?;
        Some(Device {
            id: DeviceId::from_raw(number(id)),
            user_id,
            name: self.name.clone().unwrap_or_default(),
            created_at: Millis::new(number(self.created_at?)),
            revoked_at: self.revoked_at.map(|at| Millis::new(number(at))),
            received: received.get(&id).copied(),
            signed_in_until: self.refresh_ends_at.map(|at| Millis::new(number(at))),
        })
    }

    fn refresh(&self, user_id: UserId) -> Option<Refresh> {
        let replaced = self.replaced_hash.as_ref().zip(self.replaced_until);
        Some(Refresh {
            hash: self.refresh_hash.as_deref()?.try_into().ok()?,
            user_id,
            device_id: DeviceId::from_raw(number(self.id?)),
            expires_at: Millis::new(number(self.refresh_ends_at?)),
            replaced: replaced.and_then(|(hash, until)| {
                Some(Replaced { hash: hash.as_slice().try_into().ok()?, until: Millis::new(number(until)) })
            }),
        })
    }
}

/// The partition of a user.
struct Partition {
    rows: Vec<StoredDevice>,
}

impl Partition {
    fn live(&self) -> Option<i32> {
        self.rows.first().and_then(|row| row.live)
    }

    fn rev(&self) -> i64 {
        self.rows.first().and_then(|row| row.sign_in_rev).unwrap_or(0)
    }

    fn device(&self, id: DeviceId) -> Option<&StoredDevice> {
        self.rows.iter().find(|row| row.id == Some(int(id.raw())) && row.created_at.is_some())
    }

    /// The statement that moves count and revision from what was read.
    fn count(&self, user: i64, live: i32, rev: i64) -> (&'static Statement, Values) {
        let mut values =
            vec![set(CqlValue::Int(live)), set(CqlValue::BigInt(rev)), set(CqlValue::BigInt(user))];
        match self.live() {
            None => (&FIRST, values),
            Some(before) => {
                values.extend([set(CqlValue::Int(before)), set(CqlValue::BigInt(self.rev()))]);
                (&COUNT, values)
            }
        }
    }
}

fn too_many() -> StoreError {
    StoreError::Unavailable("too many changes of one user's devices at once".into())
}

impl Scylla {
    async fn partition(&self, user: UserId) -> StoreResult<Partition> {
        Ok(Partition { rows: self.cql.read(&ALL, (int(user.raw()),)).await? })
    }

    async fn received(&self, user: UserId) -> StoreResult<HashMap<i64, Cursor>> {
        let rows: Vec<(i64, i64, Option<i64>, Option<CqlTimestamp>)> =
            self.cql.read(&RECEIVED, (int(user.raw()),)).await?;
        let mut latest: HashMap<i64, (Option<i64>, Cursor)> = HashMap::new();
        for (device, epoch, position, written_at) in rows {
            let Some(position) = position else { continue };
            let cursor =
                Cursor { epoch: Epoch::from_raw(number(epoch)), position: Position::new(number(position)) };
            let written_at = written_at.map(|at| at.0);
            let found = latest.entry(device).or_insert((written_at, cursor));
            if written_at >= found.0 {
                *found = (written_at, cursor);
            }
        }
        Ok(latest.into_iter().map(|(device, (_, cursor))| (device, cursor)).collect())
    }

    /// Removes the oldest revoked devices above the number that is kept.
    async fn forget_oldest(&self, user: UserId) -> StoreResult<()> {
        let partition = self.partition(user).await?;
        let mut revoked: Vec<(i64, i64)> =
            partition.rows.iter().filter_map(|row| Some((row.revoked_at?, row.id?))).collect();
        revoked.sort_unstable();
        let excess = revoked.len().saturating_sub(REVOKED_KEPT);
        for (at, id) in &revoked[..excess] {
            self.cql.conditional(&FORGET, (int(user.raw()), *id, *at)).await?;
        }
        Ok(())
    }

    async fn index(&self, refresh: &Refresh) -> StoreResult<()> {
        let values = (refresh.hash.to_vec(), int(refresh.user_id.raw()), int(refresh.device_id.raw()));
        let indexed = self.cql.write(&INDEX, values).await;
        // Whatever the outcome, the token itself was not stored.
        indexed.map_err(|error| StoreError::Unavailable(error.to_string()))
    }
}

/// The columns of a refresh token.
fn token(refresh: &Refresh) -> (Vec<u8>, i64, Option<Vec<u8>>, Option<i64>) {
    let replaced = refresh.replaced;
    (
        refresh.hash.to_vec(),
        int(refresh.expires_at.get()),
        replaced.map(|replaced| replaced.hash.to_vec()),
        replaced.map(|replaced| int(replaced.until.get())),
    )
}

#[async_trait]
impl DeviceStore for Scylla {
    async fn sign_in_rev(&self, user: UserId) -> StoreResult<u64> {
        let row: Option<(Option<i64>,)> = self.cql.read_one(&REV, (int(user.raw()),)).await?;
        Ok(row.and_then(|(rev,)| rev).map_or(0, number))
    }

    async fn put_device(&self, device: &Device, at_most: usize, sign_in_rev: u64) -> StoreResult<PutDevice> {
        let (user, id) = (int(device.user_id.raw()), int(device.id.raw()));
        for _ in 0..TRIES {
            let partition = self.partition(device.user_id).await?;
            if number(partition.rev()) != sign_in_rev {
                return Ok(PutDevice::Overtaken);
            }
            let before = partition.device(device.id);
            if before.is_some_and(|before| before.revoked_at.is_some()) {
                return Ok(PutDevice::Revoked);
            }
            let others = partition.rows.iter().filter(|row| row.is_live() && row.id != Some(id)).count();
            if others >= at_most {
                return Ok(PutDevice::Full);
            }
            let live = i32::try_from(others).unwrap_or(i32::MAX - 1) + 1;
            let put = vec![
                set(CqlValue::Text(device.name.clone())),
                set(CqlValue::BigInt(int(device.created_at.get()))),
                set(CqlValue::BigInt(user)),
                set(CqlValue::BigInt(id)),
            ];
            let parts = vec![partition.count(user, live, partition.rev()), (&PUT, put)];
            if self.cql.conditional_batch(parts).await? {
                if let Some(cursor) = device.received.filter(|_| before.is_none()) {
                    self.set_received(&[(device.user_id, device.id, cursor)]).await?;
                }
                return Ok(PutDevice::Written);
            }
        }
        Err(too_many())
    }

    async fn device(&self, user: UserId, id: DeviceId) -> StoreResult<Option<Device>> {
        let row = self.cql.read_one::<StoredDevice>(&ONE, (int(user.raw()), int(id.raw())));
        let (row, received) = try_join(row, self.received(user)).await?;
        Ok(row.and_then(|row| row.device(user, &received)))
    }

    async fn devices(&self, user: UserId) -> StoreResult<Vec<Device>> {
        let (partition, received) = try_join(self.partition(user), self.received(user)).await?;
        let live = partition.rows.iter().filter(|row| row.is_live());
        Ok(live.filter_map(|row| row.device(user, &received)).collect())
    }

    async fn rename_device(&self, user: UserId, device: DeviceId, name: &str) -> StoreResult<bool> {
        self.cql.conditional(&RENAME, (name, int(user.raw()), int(device.raw()))).await
    }

    async fn revoke_device(&self, user: UserId, device: DeviceId, at: Millis) -> StoreResult<bool> {
        for _ in 0..TRIES {
            let partition = self.partition(user).await?;
            let Some(found) = partition.device(device) else { return Ok(false) };
            if found.revoked_at.is_some() {
                // An earlier call may have ended before it wrote this.
                self.put_revocations(user, &[device]).await?;
                self.forget_subscriptions(user, &[device]).await?;
                return Ok(true);
            }
            let live = partition.live().unwrap_or(1) - 1;
            let revoke = vec![
                set(CqlValue::BigInt(int(at.get()))),
                set(CqlValue::BigInt(int(user.raw()))),
                set(CqlValue::BigInt(int(device.raw()))),
            ];
            let parts = vec![partition.count(int(user.raw()), live, partition.rev()), (&REVOKE, revoke)];
            if self.cql.conditional_batch(parts).await? {
                self.put_revocations(user, &[device]).await?;
                self.forget_subscriptions(user, &[device]).await?;
                self.forget_oldest(user).await?;
                return Ok(true);
            }
        }
        Err(too_many())
    }

    async fn revoke_devices(
        &self,
        user: UserId,
        except: Option<DeviceId>,
        at: Millis,
    ) -> StoreResult<Vec<DeviceId>> {
        for _ in 0..TRIES {
            let partition = self.partition(user).await?;
            let is_kept = |row: &StoredDevice| row.id == except.map(|except| int(except.raw()));
            let live = partition.rows.iter().filter(|row| row.is_live());
            let (kept, revoked): (Vec<&StoredDevice>, Vec<_>) = live.partition(|row| is_kept(row));
            let count = i32::try_from(kept.len()).unwrap_or(i32::MAX);
            let mut parts = vec![partition.count(int(user.raw()), count, partition.rev() + 1)];
            let ids: Vec<i64> = revoked.iter().filter_map(|row| row.id).collect();
            parts.extend(ids.iter().map(|&id| {
                let values = vec![
                    set(CqlValue::BigInt(int(at.get()))),
                    set(CqlValue::BigInt(int(user.raw()))),
                    set(CqlValue::BigInt(id)),
                ];
                (&REVOKE, values)
            }));
            if self.cql.conditional_batch(parts).await? {
                let revoked: Vec<_> = ids.into_iter().map(|id| DeviceId::from_raw(number(id))).collect();
                self.put_revocations(user, &revoked).await?;
                self.forget_oldest(user).await?;
                return Ok(revoked);
            }
        }
        Err(too_many())
    }

    async fn revoked_within(&self, span: Duration) -> StoreResult<Vec<(UserId, DeviceId)>> {
        self.revocations(span).await
    }

    async fn set_received(&self, marks: &[(UserId, DeviceId, Cursor)]) -> StoreResult<()> {
        let put = |(user, device, cursor): (UserId, DeviceId, Cursor)| async move {
            let place = (int(user.raw()), int(device.raw()), int(cursor.epoch.raw()));
            let position = int(cursor.position.get());
            let mark = self.cql.write(&SET_RECEIVED, (place.0, place.1, place.2, position, position));
            try_join(mark, self.cql.write(&MARK_EPOCH, place)).await.map(drop)
        };
        each(marks.to_vec(), put).await.map(drop)
    }

    async fn put_refresh(&self, refresh: &Refresh) -> StoreResult<()> {
        self.index(refresh).await?;
        let (user, id) = (int(refresh.user_id.raw()), int(refresh.device_id.raw()));
        let (hash, ends_at, replaced_hash, replaced_until) = token(refresh);
        for _ in 0..TRIES {
            let found: Option<StoredDevice> = self.cql.read_one(&ONE, (user, id)).await?;
            let present = found.and_then(|found| found.refresh_hash);
            let values =
                (hash.as_slice(), ends_at, replaced_hash.as_deref(), replaced_until, user, id, present);
            if self.cql.conditional(&PUT_REFRESH, values).await? {
                return Ok(());
            }
        }
        Err(too_many())
    }

    async fn refresh(&self, hash: &[u8; 32]) -> StoreResult<Option<Refresh>> {
        let place: Option<(i64, i64)> = self.cql.read_one(&INDEXED, (hash.to_vec(),)).await?;
        let Some((user, id)) = place else { return Ok(None) };
        let row: Option<StoredDevice> = self.cql.read_one(&ONE, (user, id)).await?;
        // The index may contain tokens that were never stored, or that no longer belong to the device.
        let is_it = |refresh: &Refresh| {
            refresh.hash == *hash || refresh.replaced.is_some_and(|replaced| replaced.hash == *hash)
        };
        Ok(row.and_then(|row| row.refresh(UserId::from_raw(number(user)))).filter(is_it))
    }

    async fn rotate_refresh(&self, new: &Refresh) -> StoreResult<Rotated> {
        let Some(replaced) = new.replaced else { return Ok(Rotated::Unknown) };
        let (user, id) = (int(new.user_id.raw()), int(new.device_id.raw()));
        let present: Option<StoredDevice> = self.cql.read_one(&ONE, (user, id)).await?;
        let present = present.and_then(|row| row.refresh(new.user_id));
        // An index of a token that does not follow the present one would hide the owner of that token.
        if present.is_some_and(|present| present.hash == replaced.hash) {
            self.index(new).await?;
        }
        let (hash, ends_at, replaced_hash, replaced_until) = token(new);
        let values = (hash, ends_at, replaced_hash, replaced_until, user, id, replaced.hash.to_vec());
        if self.cql.conditional(&ROTATE, values).await? {
            return Ok(Rotated::Rotated);
        }
        let rows = self.partition(new.user_id).await?.rows;
        let found = rows.iter().find(|row| row.id == Some(id) && row.revoked_at.is_none());
        let found = found.and_then(|row| row.refresh(new.user_id));
        // The answer to an earlier call may have been lost.
        let is_done = |found: &Refresh| {
            found.hash == new.hash && found.replaced.map(|before| before.hash) == Some(replaced.hash)
        };
        Ok(if found.as_ref().is_some_and(is_done) { Rotated::Rotated } else { Rotated::Unknown })
    }
}
