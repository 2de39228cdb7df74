//! Accounts in memory.

use async_trait::async_trait;
use madang_ids::{Cursor, DeviceId, Millis, UserId};

use super::{Model, Mutant};
use crate::accounts::{AccountStore, Claim, Claimed, Created, Device, Refresh, Rotated, User};
use crate::error::StoreResult;

#[async_trait]
impl AccountStore for Model {
    async fn create_user(&self, user: &User, password_hash: &str) -> StoreResult<Created> {
        let is_blind = self.is_mutant(Mutant::HandleTakenTwice);
        let holder = self.write(|state| *state.handles.entry(user.handle.clone()).or_insert(user.id)).await?;
        if holder != user.id && !is_blind {
            return Ok(Created::Taken);
        }
        // Another partition: the handle may be taken while the user is not there yet.
        self.write(|state| {
            state.users.entry(user.id).or_insert_with(|| (user.clone(), password_hash.to_owned()));
        })
        .await?;
        Ok(Created::Created)
    }

    async fn users(&self, ids: &[UserId]) -> StoreResult<Vec<Option<User>>> {
        self.read(|state| ids.iter().map(|id| state.users.get(id).map(|(user, _)| user.clone())).collect())
            .await
    }

    async fn user_by_handle(&self, handle: &str) -> StoreResult<Option<User>> {
        self.read(|state| state.users.get(state.handles.get(handle)?).map(|(user, _)| user.clone())).await
    }

    async fn set_display_name(&self, user: UserId, display_name: &str) -> StoreResult<()> {
        self.write(|state| {
            if let Some((user, _)) = state.users.get_mut(&user) {
                display_name.clone_into(&mut user.display_name);
            }
        })
        .await
    }

    async fn set_sends_receipts(&self, user: UserId, sends_receipts: bool) -> StoreResult<()> {
        self.write(|state| {
            if let Some((user, _)) = state.users.get_mut(&user) {
                user.sends_receipts = sends_receipts;
            }
        })
        .await
    }

    async fn password_hash(&self, user: UserId) -> StoreResult<Option<String>> {
        self.read(|state| state.users.get(&user).map(|(_, hash)| hash.clone())).await
    }

    async fn set_password_hash(&self, user: UserId, password_hash: &str) -> StoreResult<()> {
        self.write(|state| {
            if let Some((_, hash)) = state.users.get_mut(&user) {
                password_hash.clone_into(hash);
            }
        })
        .await
    }

    async fn put_device(&self, device: &Device, at_most: usize) -> StoreResult<bool> {
        let is_blind = self.is_mutant(Mutant::DevicesWithoutLimit);
        self.write(|state| {
            let is_other = |other: &&Device| {
                other.user_id == device.user_id && other.id != device.id && other.revoked_at.is_none()
            };
            if state.devices.values().filter(is_other).count() >= at_most && !is_blind {
                return false;
            }
            let mut device = device.clone();
            if let Some(before) = state.devices.get(&device.id) {
                device.received = before.received;
                device.revoked_at = before.revoked_at.or(device.revoked_at);
            }
            state.devices.insert(device.id, device);
            true
        })
        .await
    }

    async fn device(&self, id: DeviceId) -> StoreResult<Option<Device>> {
        self.read(|state| state.devices.get(&id).cloned()).await
    }

    async fn devices(&self, user: UserId) -> StoreResult<Vec<Device>> {
        self.read(|state| {
            let is_hers = |device: &&Device| device.user_id == user && device.revoked_at.is_none();
            state.devices.values().filter(is_hers).cloned().collect()
        })
        .await
    }

    async fn revoke_device(&self, user: UserId, device: DeviceId, at: Millis) -> StoreResult<bool> {
        let replaces = self.is_mutant(Mutant::RevokeReplacesTime);
        self.write(|state| {
            let Some(found) = state.devices.get_mut(&device).filter(|found| found.user_id == user) else {
                return false;
            };
            found.revoked_at = found.revoked_at.filter(|_| !replaces).or(Some(at));
            state.refresh.remove(&device);
            true
        })
        .await
    }

    async fn set_received(&self, marks: &[(DeviceId, Cursor)]) -> StoreResult<()> {
        let goes_back = self.is_mutant(Mutant::ReceivedGoesBack);
        self.write_each(marks, |state, (device, cursor)| {
            if let Some(device) = state.devices.get_mut(device) {
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
        self.write(|state| {
            state.refresh.insert(refresh.device_id, refresh.clone());
        })
        .await
    }

    async fn refresh(&self, hash: &[u8; 32]) -> StoreResult<Option<Refresh>> {
        let is_it = |refresh: &&Refresh| {
            refresh.hash == *hash || refresh.replaced.is_some_and(|replaced| replaced.hash == *hash)
        };
        self.read(|state| state.refresh.values().find(is_it).cloned()).await
    }

    async fn rotate_refresh(&self, new: &Refresh) -> StoreResult<Rotated> {
        let is_blind = self.is_mutant(Mutant::RotateIgnoresOld);
        let forgets = self.is_mutant(Mutant::RotateForgetsOld);
        self.write(|state| {
            let Some(found) = state.refresh.get_mut(&new.device_id) else { return Rotated::Unknown };
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

    async fn block(&self, user: UserId, other: UserId, _at: Millis) -> StoreResult<bool> {
        self.write(|state| state.blocks.insert((user, other))).await
    }

    async fn unblock(&self, user: UserId, other: UserId) -> StoreResult<bool> {
        self.write(|state| state.blocks.remove(&(user, other))).await
    }

    async fn blocks(&self, user: UserId, after: Option<UserId>, limit: usize) -> StoreResult<Vec<UserId>> {
        self.read(|state| {
            let hers = state.blocks.iter().filter(|(who, other)| *who == user && Some(*other) > after);
            hers.map(|(_, other)| *other).take(limit).collect()
        })
        .await
    }

    async fn is_blocked(&self, one: UserId, other: UserId) -> StoreResult<bool> {
        self.read(|state| state.blocks.contains(&(one, other)) || state.blocks.contains(&(other, one))).await
    }

    async fn claim(&self, scope: &str, key: &str, claim: Claim) -> StoreResult<Claimed> {
        let is_blind = self.is_mutant(Mutant::ClaimAlwaysFirst);
        self.write(|state| {
            let key = (scope.to_owned(), key.to_owned());
            match state.claims.get(&key) {
                Some(before) if !is_blind => Claimed::Before(*before),
                _ => {
                    state.claims.insert(key, claim);
                    Claimed::First
                }
            }
        })
        .await
    }

    async fn forget_claims(&self, before: Millis, limit: usize) -> StoreResult<usize> {
        let is_blind = self.is_mutant(Mutant::ForgetsYoungClaims);
        self.write(|state| {
            let old = state.claims.extract_if(.., |_, claim| claim.at < before || is_blind);
            old.take(limit).count()
        })
        .await
    }
}
