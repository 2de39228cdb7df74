//! The store of devices and refresh tokens, in memory.

use async_trait::async_trait;
use madang_ids::{Cursor, DeviceId, Millis, UserId};

use super::{Model, Mutant, State};
use crate::devices::{Device, DeviceStore, PutDevice, REVOKED_KEPT, Refresh, Rotated};
use crate::error::StoreResult;
use crate::model::unavailable;

#[async_trait]
impl DeviceStore for Model {
    async fn sign_in_rev(&self, user: UserId) -> StoreResult<u64> {
        let _call = self.journal.begin("sign_in_rev");
        self.read(|state| state.sign_in_revs.get(&user).copied().unwrap_or_default()).await
    }

    async fn put_device(&self, device: &Device, at_most: usize, sign_in_rev: u64) -> StoreResult<PutDevice> {
        let _call = self.journal.begin("put_device");
        let is_blind = self.is_mutant(Mutant::DevicesWithoutLimit);
        let ignores_rev = self.is_mutant(Mutant::DevicesIgnoreRevision);
        self.write(|state| {
            let rev = state.sign_in_revs.get(&device.user_id).copied().unwrap_or_default();
            if rev != sign_in_rev && !ignores_rev {
                return PutDevice::Overtaken;
            }
            let before = state.devices.get(&device.id);
            if before.is_some_and(|before| before.revoked_at.is_some()) {
                return PutDevice::Revoked;
            }
            let received = before.map_or(device.received, |before| before.received);
            let is_other = |other: &&Device| {
                other.user_id == device.user_id && other.id != device.id && other.revoked_at.is_none()
            };
            if state.devices.values().filter(is_other).count() >= at_most && !is_blind {
                return PutDevice::Full;
            }
            let device = Device { received, revoked_at: None, signed_in_until: None, ..device.clone() };
            state.devices.insert(device.id, device);
            PutDevice::Written
        })
        .await
    }

    async fn device(&self, user: UserId, id: DeviceId) -> StoreResult<Option<Device>> {
        let _call = self.journal.begin("device");
        self.read(|state| {
            let device = state.devices.get(&id).filter(|device| device.user_id == user);
            device.map(|device| state.with_end(device))
        })
        .await
    }

    async fn devices(&self, user: UserId) -> StoreResult<Vec<Device>> {
        let _call = self.journal.begin("devices");
        self.read(|state| {
            let is_theirs = |device: &&Device| device.user_id == user && device.revoked_at.is_none();
            state.devices.values().filter(is_theirs).map(|device| state.with_end(device)).collect()
        })
        .await
    }

    async fn rename_device(&self, user: UserId, device: DeviceId, name: &str) -> StoreResult<bool> {
        let _call = self.journal.begin("rename_device");
        self.write(|state| {
            let found = state.devices.get_mut(&device);
            match found.filter(|found| found.user_id == user && found.revoked_at.is_none()) {
                Some(found) => {
                    name.clone_into(&mut found.name);
                    true
                }
                None => false,
            }
        })
        .await
    }

    async fn revoke_device(&self, user: UserId, device: DeviceId, at: Millis) -> StoreResult<bool> {
        let _call = self.journal.begin("revoke_device");
        let replaces = self.is_mutant(Mutant::RevokeReplacesTime);
        self.write(|state| {
            let Some(found) = state.devices.get_mut(&device).filter(|found| found.user_id == user) else {
                return false;
            };
            found.revoked_at = found.revoked_at.filter(|_| !replaces).or(Some(at));
            state.forget_oldest(user);
            true
        })
        .await
    }

    async fn revoke_devices(
        &self,
        user: UserId,
        except: Option<DeviceId>,
        at: Millis,
    ) -> StoreResult<Vec<DeviceId>> {
        let _call = self.journal.begin("revoke_devices");
        let takes_all = self.is_mutant(Mutant::RevokeAllTakesAll);
        self.write(|state| {
            *state.sign_in_revs.entry(user).or_default() += 1;
            let is_live = |device: &&mut Device| {
                device.user_id == user
                    && device.revoked_at.is_none()
                    && (Some(device.id) != except || takes_all)
            };
            let live = state.devices.values_mut().filter(is_live);
            let revoked = live.map(|device| {
                device.revoked_at = Some(at);
                device.id
            });
            let revoked = revoked.collect();
            state.forget_oldest(user);
            revoked
        })
        .await
    }

    async fn set_received(&self, marks: &[(UserId, DeviceId, Cursor)]) -> StoreResult<()> {
        let _call = self.journal.begin("set_received");
        let goes_back = self.is_mutant(Mutant::ReceivedGoesBack);
        self.write_each(marks, |state, (user, device, cursor)| {
            let device = state.devices.get_mut(device).filter(|device| device.user_id == *user);
            if let Some(device) = device {
                let is_behind = device
                    .received
                    .is_none_or(|old| old.epoch != cursor.epoch || old.position < cursor.position);
                if is_behind || goes_back {
                    device.received = Some(*cursor);
                }
            }
        })
        .await
    }

    async fn put_refresh(&self, refresh: &Refresh) -> StoreResult<()> {
        let _call = self.journal.begin("put_refresh");
        self.index_refresh(refresh).await?;
        self.write(|state| {
            state.refresh.insert(refresh.device_id, refresh.clone());
        })
        .await
    }

    async fn refresh(&self, hash: &[u8; 32]) -> StoreResult<Option<Refresh>> {
        let _call = self.journal.begin("refresh");
        let Some(device) = self.read(|state| state.refresh_index.get(hash).copied()).await? else {
            return Ok(None);
        };
        // The index may contain tokens that were never stored, or that no longer belong to the device.
        let is_it = |refresh: &&Refresh| {
            refresh.hash == *hash || refresh.replaced.is_some_and(|replaced| replaced.hash == *hash)
        };
        self.read(|state| state.refresh.get(&device).filter(is_it).cloned()).await
    }

    async fn rotate_refresh(&self, new: &Refresh) -> StoreResult<Rotated> {
        let _call = self.journal.begin("rotate_refresh");
        let is_blind = self.is_mutant(Mutant::RotateIgnoresOld);
        let forgets = self.is_mutant(Mutant::RotateForgetsOld);
        self.index_refresh(new).await?;
        self.write(|state| {
            let Some(found) = state.refresh.get_mut(&new.device_id) else { return Rotated::Unknown };
            if state.devices.get(&new.device_id).is_some_and(|device| device.revoked_at.is_some()) {
                return Rotated::Unknown;
            }
            let is_present = found.user_id == new.user_id
                && new.replaced.is_some_and(|replaced| replaced.hash == found.hash);
            if is_present || is_blind {
                *found = Refresh { replaced: new.replaced.filter(|_| !forgets), ..new.clone() };
                return Rotated::Rotated;
            }
            let replaced = |refresh: &Refresh| refresh.replaced.map(|replaced| replaced.hash);
            let is_repeated =
                found.hash == new.hash && found.user_id == new.user_id && replaced(found) == replaced(new);
            if is_repeated { Rotated::Rotated } else { Rotated::Unknown }
        })
        .await
    }
}

impl Model {
    /// Devices and their tokens are in the partition of their user. A row of its own, which is written first, finds a
    /// token.
    async fn index_refresh(&self, refresh: &Refresh) -> StoreResult<()> {
        if self.is_mutant(Mutant::RefreshIsNotIndexed) {
            return Ok(());
        }
        let index = self.write(|state| _ = state.refresh_index.insert(refresh.hash, refresh.device_id));
        // Whatever the outcome, the token itself was not stored.
        index.await.map_err(|_| unavailable())
    }
}

impl State {
    fn with_end(&self, device: &Device) -> Device {
        let signed_in_until = self.refresh.get(&device.id).map(|refresh| refresh.expires_at);
        Device { signed_in_until, ..device.clone() }
    }

    fn forget_oldest(&mut self, user: UserId) {
        let revoked = self.devices.values().filter(|device| device.user_id == user);
        let mut revoked: Vec<(Millis, DeviceId)> =
            revoked.filter_map(|device| Some((device.revoked_at?, device.id))).collect();
        revoked.sort_unstable();
        let excess = revoked.len().saturating_sub(REVOKED_KEPT);
        revoked[..excess].iter().for_each(|(_, device)| self.forget_device(*device));
    }

    pub(super) fn forget_device(&mut self, device: DeviceId) {
        self.devices.remove(&device);
        self.refresh.remove(&device);
    }
}
