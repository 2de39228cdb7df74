//! The devices of a user: listed, added, renamed, revoked.

use std::collections::HashMap;

use futures_util::future::join_all;
use madang_ids::{DeviceId, UserId};
use madang_proto::rest::{DeviceCard, DeviceChange, List, NewDevice, SignedIn};
use madang_proto::{Content, ErrorBody, ErrorCode};
use madang_store::Device;
use parking_lot::Mutex;

use crate::operations::accounts::sign_in::{Room, check_device_name, revoked};
use crate::operations::{Caller, Operations};
use crate::refusal::{OperationError, Result};

/// Revocations that have begun and are not known to be complete. Their caller may be gone, or cannot repeat the call because the
/// token is not valid any more; the sockets of the device must be closed all the same (G5). Each device has at most one entry.
#[derive(Debug, Default)]
pub struct Revocations {
    devices: Mutex<HashMap<DeviceId, UserId>>,
    /// Users whose devices are all revoked, except one if it is named.
    users: Mutex<HashMap<UserId, Option<DeviceId>>>,
}

/// The state of a device whose token is presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::operations) enum DeviceState {
    /// It may connect.
    Valid,
    /// It was revoked or logged out.
    Revoked,
    /// No such device: it was revoked long ago, or a restored backup does not contain it.
    Unknown,
}

const NOT_DURABLE: &str = "the store is unavailable: this server refuses the device from now on and closes its \
     sockets, and stores the revocation when the store accepts writes again; repeat the call to confirm it";

impl Revocations {
    /// Revocations that are not known to be durable. They hold in this process all the same.
    #[must_use]
    pub fn pending(&self) -> Vec<(DeviceId, UserId)> {
        self.devices.lock().iter().map(|(&device, &user)| (device, user)).collect()
    }

    fn is_pending(&self, device: DeviceId) -> bool {
        self.devices.lock().contains_key(&device)
    }
}

impl DeviceState {
    /// The refusal of a token of the device.
    pub(in crate::operations) fn refusal(self) -> ErrorBody {
        match self {
            Self::Revoked => revoked("token"),
            _ => ErrorBody::field(ErrorCode::Unauthorized, "token", "the device of this token is unknown"),
        }
    }
}

impl Operations {
    /// The caller's devices.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn devices(&self, caller: Caller) -> Result<List<DeviceCard>> {
        self.devices_of(caller.user_id, Some(caller.device_id)).await
    }

    /// The devices of a user. `own` is the caller's device, if it is one of them.
    pub(in crate::operations) async fn devices_of(
        &self,
        user: UserId,
        own: Option<DeviceId>,
    ) -> Result<List<DeviceCard>> {
        let devices = self.store.devices(user).await?;
        let card = |device: Device| {
            let received = device.received.map(|cursor| self.seal(user, cursor)).transpose()?;
            let Device { id, name, created_at, signed_in_until, .. } = device;
            Ok(DeviceCard { id, name, created_at, received, signed_in_until, is_this: Some(id) == own })
        };
        Ok(List { items: devices.into_iter().map(card).collect::<Result<_, ErrorBody>>()? })
    }

    /// Adds a device of the caller. With an idempotency key the call may be repeated: it returns the same device.
    ///
    /// # Errors
    /// A name is beyond its limit; `full` above 50 devices whose tokens have not expired.
    pub async fn add_device(
        &self,
        caller: Caller,
        request: NewDevice,
        key: Option<&str>,
    ) -> Result<SignedIn> {
        let name = check_device_name("device_name", &request.device_name)?;
        let rev = self.sign_in_rev_of(caller).await?;
        let device = self.claim_device("device", caller.user_id, name, key).await?;
        self.sign_in(device, rev, Room::MakeOfEnded).await
    }

    /// Changes the name of a device of the caller.
    ///
    /// # Errors
    /// A name is beyond its limit; `not_found` for a device that is not the caller's.
    pub async fn rename_device(&self, caller: Caller, device: DeviceId, change: DeviceChange) -> Result<()> {
        let name = check_device_name("name", &change.name)?;
        if self.store.rename_device(caller.user_id, device, &name).await? {
            Ok(())
        } else {
            Err(ErrorBody::not_found("device").into())
        }
    }

    /// Revokes a device of the caller and closes its sockets. Repeating it is harmless. A revocation that has begun is finished
    /// even if the call fails as `unavailable` or its future is dropped.
    ///
    /// # Errors
    /// `not_found` for a device that is not the caller's.
    pub async fn revoke_device(&self, caller: Caller, device_id: DeviceId) -> Result<()> {
        self.revoke_of(caller.user_id, device_id).await
    }

    /// Revokes a device of a user.
    pub(in crate::operations) async fn revoke_of(&self, user: UserId, device_id: DeviceId) -> Result<()> {
        let device = self.store.device(user, device_id).await?;
        if device.is_none() {
            return Err(ErrorBody::not_found("device").into());
        }
        self.begin_revocation(user, device_id).await.map_err(not_durable)
    }

    /// Revokes all devices of the caller, or all other ones. Sign-ins in progress must begin again.
    ///
    /// # Errors
    /// Those of the store. What has begun is finished by upkeep.
    pub async fn log_out_everywhere(&self, caller: Caller, keeps_this: bool) -> Result<()> {
        self.revoke_all(caller.user_id, keeps_this.then_some(caller.device_id)).await.map(drop)
    }

    /// Marks the revocation as begun, then carries it out. From the mark on the device is refused.
    pub(in crate::operations) async fn begin_revocation(&self, user: UserId, device: DeviceId) -> Result<()> {
        self.revocations.devices.lock().insert(device, user);
        self.revoke(user, device).await
    }

    /// Revokes all devices of a user, except one if it is named, and ends sign-ins in progress. Returns how many devices were
    /// revoked. Once begun it is finished, even if this call fails.
    pub(in crate::operations) async fn revoke_all(
        &self,
        user: UserId,
        except: Option<DeviceId>,
    ) -> Result<usize> {
        self.revocations.users.lock().insert(user, except);
        self.revoke_user(user, except).await.map_err(not_durable)
    }

    async fn revoke_user(&self, user: UserId, except: Option<DeviceId>) -> Result<usize> {
        // Marked before the write: if its outcome is unknown, upkeep revokes each of these devices again and closes its sockets.
        let live = self.store.devices(user).await?;
        let live = live.into_iter().map(|device| device.id).filter(|device| Some(*device) != except);
        self.revocations.devices.lock().extend(live.map(|device| (device, user)));
        let revoked = self.store.revoke_devices(user, except, self.clock.now_ms()).await?;
        self.revocations.devices.lock().extend(revoked.iter().map(|device| (*device, user)));
        // The devices are marked one by one now, so the user's own mark is not needed any more.
        self.revocations.users.lock().remove(&user);
        let mine: Vec<DeviceId> = {
            let begun = self.revocations.devices.lock();
            begun.iter().filter(|(_, of)| **of == user).map(|(device, _)| *device).collect()
        };
        let done = join_all(mine.into_iter().map(|device| self.revoke(user, device))).await;
        done.into_iter().collect::<Result<Vec<()>, _>>()?;
        Ok(revoked.len())
    }

    /// Repeats revocations that are not complete. One that was completed meanwhile is noted again, which is harmless.
    pub(in crate::operations) async fn finish_revocations(&self) {
        let users: Vec<_> = self.revocations.users.lock().iter().map(|(&user, &but)| (user, but)).collect();
        for (user, except) in users {
            if let Err(error) = self.revoke_user(user, except).await {
                tracing::warn!(user.id = %user, %error, "revoking the devices of a user failed; retrying");
            }
        }
        for (device, user) in self.revocations.pending() {
            if let Err(error) = self.revoke(user, device).await {
                tracing::warn!(user.id = %user, device.id = %device, %error, "revoking a device failed; retrying");
            }
        }
    }

    /// Writes the revocation first, so that the device cannot connect again. Then notes it in the user's log, which closes the
    /// sockets on every node.
    async fn revoke(&self, user: UserId, device_id: DeviceId) -> Result<()> {
        let now = self.clock.now_ms();
        self.store.revoke_device(user, device_id, now).await?;
        self.known.devices.insert(device_id, DeviceState::Revoked).await;
        self.homes.note(user, Content::DeviceRevoked { device_id }).await?;
        self.revocations.devices.lock().remove(&device_id);
        Ok(())
    }

    /// Reads a device from the store, past the cache. A connection calls this after its registration: a revocation is then either
    /// visible to this read, or its note closes the registered connection.
    ///
    /// # Errors
    /// `revoked`; `unauthorized` for an unknown device.
    pub async fn check_device(&self, user: UserId, id: DeviceId) -> Result<()> {
        match self.look_at_device(user, id).await? {
            DeviceState::Valid => Ok(()),
            state => Err(state.refusal().into()),
        }
    }

    pub(in crate::operations) async fn device_state(
        &self,
        user: UserId,
        id: DeviceId,
    ) -> Result<DeviceState> {
        match self.known_state(id).await {
            Some(known) => Ok(known),
            None => self.look_at_device(user, id).await,
        }
    }

    /// What is known of a device without a read.
    async fn known_state(&self, id: DeviceId) -> Option<DeviceState> {
        match self.revocations.is_pending(id) {
            true => Some(DeviceState::Revoked),
            false => self.known.devices.get(&id).await,
        }
    }

    /// Refuses a device that is known not to be signed in. Reads nothing: of most devices nothing is known.
    ///
    /// # Errors
    /// `revoked`; `unauthorized` for an unknown device.
    pub async fn check_known(&self, id: DeviceId) -> Result<()> {
        self.known_state(id).await.map_or(Ok(()), |state| self.admit_device(state))
    }

    fn admit_device(&self, state: DeviceState) -> Result<()> {
        if state == DeviceState::Valid {
            return Ok(());
        }
        self.metrics.unauthorized.inc();
        Err(state.refusal().into())
    }

    /// Checks that a device is signed in. The answer may come from the cache and be a few seconds old.
    ///
    /// # Errors
    /// `revoked`; `unauthorized` for an unknown device.
    pub async fn check_signed_in(&self, user: UserId, id: DeviceId) -> Result<()> {
        self.admit_device(self.device_state(user, id).await?)
    }

    async fn look_at_device(&self, user: UserId, id: DeviceId) -> Result<DeviceState> {
        let device = self.store.device(user, id).await?;
        let state = match device {
            Some(_) if self.revocations.is_pending(id) => DeviceState::Revoked,
            Some(device) if device.revoked_at.is_none() => DeviceState::Valid,
            Some(_) => DeviceState::Revoked,
            None => DeviceState::Unknown,
        };
        // A revocation that was completed between the read and this line leaves a stale `Valid` here, for `DEVICE_KNOWN` at most:
        // less than the five seconds of G5. One that is in progress is found by `is_pending`, which is asked before the cache.
        self.known.devices.insert(id, state).await;
        Ok(state)
    }

    /// A device of a user that may sign in.
    pub(in crate::operations) async fn own_device(&self, user: UserId, id: DeviceId) -> Result<Device> {
        let device = self.store.device(user, id).await?;
        let is_valid = |device: &Device| device.revoked_at.is_none() && !self.revocations.is_pending(id);
        Ok(device.filter(is_valid).ok_or_else(|| ErrorBody::not_found("device_id"))?)
    }
}

fn not_durable(error: OperationError) -> OperationError {
    match error.code() {
        ErrorCode::Unavailable => ErrorBody { message: NOT_DURABLE.to_owned(), ..error.into() }.into(),
        _ => error,
    }
}
