//! The devices of a user: listed, added, renamed, revoked.

use std::collections::HashMap;

use futures_util::future::join_all;
use madang_ids::{DeviceId, UserId};
use madang_proto::rest::{DeviceCard, DeviceChange, List, NewDevice, SignedIn};
use madang_proto::{Content, ErrorBody, ErrorCode};
use madang_store::Device;
use parking_lot::Mutex;

use super::sign_in::{Room, check_device_name, revoked};
use super::{Caller, Operations};
use crate::refusal::refusal;

/// Revocations that began and are not known to be done. The caller may go away, or cannot ask again because the token is
/// not valid any more: the sockets of the device must close all the same (G5). One entry per device.
#[derive(Debug, Default)]
pub struct Revocations {
    devices: Mutex<HashMap<DeviceId, UserId>>,
    /// Users all of whose devices are revoked, but one.
    users: Mutex<HashMap<UserId, Option<DeviceId>>>,
}

/// What a device is to somebody who presents a token of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DeviceState {
    /// It may sign in.
    Valid,
    /// It was revoked or logged out.
    Revoked,
    /// There is none: it was revoked long ago, or is one that a restored backup does not know.
    Unknown,
}

const NOT_DURABLE: &str = "the store is unavailable: this server refuses the device from now on and closes its sockets, and \
                           writes that down once the store takes writes; repeat the call to know that it is written";

impl Revocations {
    /// Those that are not known to be durable: they hold in this process all the same.
    #[must_use]
    pub fn pending(&self) -> Vec<(DeviceId, UserId)> {
        self.devices.lock().iter().map(|(&device, &user)| (device, user)).collect()
    }

    fn is_pending(&self, device: DeviceId) -> bool {
        self.devices.lock().contains_key(&device)
    }
}

impl DeviceState {
    /// How a token of the device is refused.
    pub(super) fn refusal(self) -> ErrorBody {
        match self {
            Self::Revoked => revoked("token"),
            _ => ErrorBody::field(ErrorCode::Unauthorized, "token", "the device of this token is not known"),
        }
    }
}

impl Operations {
    /// The caller's devices.
    ///
    /// # Errors
    /// The store's.
    pub async fn devices(&self, caller: Caller) -> Result<List<DeviceCard>, ErrorBody> {
        self.devices_of(caller.user_id, Some(caller.device_id)).await
    }

    /// The devices of a user, of which one may be the caller's.
    pub(super) async fn devices_of(
        &self,
        user: UserId,
        own: Option<DeviceId>,
    ) -> Result<List<DeviceCard>, ErrorBody> {
        let devices = self.store.devices(user).await.map_err(|error| refusal(&error))?;
        let card = |device: Device| {
            let received = device.received.map(|cursor| self.seal(user, cursor)).transpose()?;
            let Device { id, name, created_at, signed_in_until, .. } = device;
            Ok(DeviceCard { id, name, created_at, received, signed_in_until, is_this: Some(id) == own })
        };
        Ok(List { items: devices.into_iter().map(card).collect::<Result<_, ErrorBody>>()? })
    }

    /// A further device of the caller. With an idempotency key it may be repeated: the same device comes back.
    ///
    /// # Errors
    /// A name beyond its limit; `full` above 50 devices whose tokens have not ended.
    pub async fn add_device(
        &self,
        caller: Caller,
        request: NewDevice,
        key: Option<&str>,
    ) -> Result<SignedIn, ErrorBody> {
        let name = check_device_name("device_name", &request.device_name)?;
        let rev = self.sign_in_rev_of(caller).await?;
        let device = self.claim_device("device", caller.user_id, name, key).await?;
        self.sign_in(device, rev, Room::MakeOfEnded).await
    }

    /// Changes what a device of the caller is called.
    ///
    /// # Errors
    /// A name beyond its limit; `not_found` for a device that is not the caller's.
    pub async fn rename_device(
        &self,
        caller: Caller,
        device: DeviceId,
        change: DeviceChange,
    ) -> Result<(), ErrorBody> {
        let name = check_device_name("name", &change.name)?;
        let renamed = self.store.rename_device(caller.user_id, device, &name).await;
        if renamed.map_err(|error| refusal(&error))? { Ok(()) } else { Err(ErrorBody::not_found("device")) }
    }

    /// Revokes a device of the caller; its sockets close. Repeating it is harmless. Once begun it is finished, also if
    /// this is refused as `unavailable` or its future is dropped.
    ///
    /// # Errors
    /// `not_found` for a device that is not the caller's.
    pub async fn revoke_device(&self, caller: Caller, device_id: DeviceId) -> Result<(), ErrorBody> {
        self.revoke_of(caller.user_id, device_id).await
    }

    /// Revokes a device of a user.
    pub(super) async fn revoke_of(&self, user: UserId, device_id: DeviceId) -> Result<(), ErrorBody> {
        let device = self.store.device(device_id).await.map_err(|error| refusal(&error))?;
        if device.is_none_or(|device| device.user_id != user) {
            return Err(ErrorBody::not_found("device"));
        }
        self.begin_revocation(user, device_id).await.map_err(not_durable)
    }

    /// Revokes all devices of the caller, or all others. Sign-ins that are under way have to begin again.
    ///
    /// # Errors
    /// The store's; what was begun is finished.
    pub async fn log_out_everywhere(&self, caller: Caller, keeps_this: bool) -> Result<(), ErrorBody> {
        self.revoke_all(caller.user_id, keeps_this.then_some(caller.device_id)).await.map(drop)
    }

    pub(super) async fn begin_revocation(&self, user: UserId, device: DeviceId) -> Result<(), ErrorBody> {
        self.revocations.devices.lock().insert(device, user);
        self.revoke(user, device).await
    }

    /// Revokes all devices of a user but one, and ends the sign-ins that are under way; says how many. Once begun it is
    /// finished, also if this is refused.
    pub(super) async fn revoke_all(
        &self,
        user: UserId,
        except: Option<DeviceId>,
    ) -> Result<usize, ErrorBody> {
        self.revocations.users.lock().insert(user, except);
        self.revoke_user(user, except).await.map_err(not_durable)
    }

    async fn revoke_user(&self, user: UserId, except: Option<DeviceId>) -> Result<usize, ErrorBody> {
        // Noted first: if the outcome of the store is not known, each of them is revoked again, and closed.
        let live = self.store.devices(user).await.map_err(|error| refusal(&error))?;
        let live = live.into_iter().map(|device| device.id).filter(|device| Some(*device) != except);
        self.revocations.devices.lock().extend(live.map(|device| (device, user)));
        let revoked = self.store.revoke_devices(user, except, self.clock.now_ms()).await;
        let revoked = revoked.map_err(|error| refusal(&error))?;
        self.revocations.devices.lock().extend(revoked.iter().map(|device| (*device, user)));
        self.revocations.users.lock().remove(&user);
        let mine: Vec<DeviceId> = {
            let begun = self.revocations.devices.lock();
            begun.iter().filter(|(_, of)| **of == user).map(|(device, _)| *device).collect()
        };
        let done = join_all(mine.into_iter().map(|device| self.revoke(user, device))).await;
        done.into_iter().collect::<Result<Vec<()>, _>>()?;
        Ok(revoked.len())
    }

    /// Tries again what was not done. What was done in the meantime is told once more, which is harmless.
    pub(super) async fn finish_revocations(&self) {
        let users: Vec<_> = self.revocations.users.lock().iter().map(|(&user, &but)| (user, but)).collect();
        for (user, except) in users {
            if let Err(error) = self.revoke_user(user, except).await {
                tracing::warn!(user.id = %user, %error, "the devices of a user are not revoked yet");
            }
        }
        for (device, user) in self.revocations.pending() {
            if let Err(error) = self.revoke(user, device).await {
                tracing::warn!(user.id = %user, device.id = %device, %error, "a device is not revoked yet");
            }
        }
    }

    /// First the store, so that nobody comes back; then the note, which closes the sockets wherever they are.
    async fn revoke(&self, user: UserId, device_id: DeviceId) -> Result<(), ErrorBody> {
        let now = self.clock.now_ms();
        self.store.revoke_device(user, device_id, now).await.map_err(|error| refusal(&error))?;
        self.known.devices.insert(device_id, DeviceState::Revoked).await;
        self.homes.note(user, Content::DeviceRevoked { device_id }).await?;
        self.revocations.devices.lock().remove(&device_id);
        Ok(())
    }

    /// Looks at a device in the store itself. A connection asks this once it is registered, so that a revocation
    /// is either seen here or delivered there.
    ///
    /// # Errors
    /// `revoked`; `unauthorized` for a device that is not known.
    pub async fn check_device(&self, user: UserId, id: DeviceId) -> Result<(), ErrorBody> {
        match self.look_at_device(user, id).await? {
            DeviceState::Valid => Ok(()),
            state => Err(state.refusal()),
        }
    }

    pub(super) async fn device_state(&self, user: UserId, id: DeviceId) -> Result<DeviceState, ErrorBody> {
        if self.revocations.is_pending(id) {
            return Ok(DeviceState::Revoked);
        }
        if let Some(known) = self.known.devices.get(&id).await {
            return Ok(known);
        }
        self.look_at_device(user, id).await
    }

    /// Whether a device is still signed in, as far as is known without looking again for some seconds.
    ///
    /// # Errors
    /// `revoked`; `unauthorized` for a device that is not known.
    pub(super) async fn check_signed_in(&self, user: UserId, id: DeviceId) -> Result<(), ErrorBody> {
        match self.device_state(user, id).await? {
            DeviceState::Valid => Ok(()),
            state => Err(state.refusal()),
        }
    }

    async fn look_at_device(&self, user: UserId, id: DeviceId) -> Result<DeviceState, ErrorBody> {
        let device = self.store.device(id).await.map_err(|error| refusal(&error))?;
        let state = match device.filter(|device| device.user_id == user) {
            Some(_) if self.revocations.is_pending(id) => DeviceState::Revoked,
            Some(device) if device.revoked_at.is_none() => DeviceState::Valid,
            Some(_) => DeviceState::Revoked,
            None => DeviceState::Unknown,
        };
        self.known.devices.insert(id, state).await;
        Ok(state)
    }

    /// A device of a user that may sign in.
    pub(super) async fn own_device(&self, user: UserId, id: DeviceId) -> Result<Device, ErrorBody> {
        let device = self.store.device(id).await.map_err(|error| refusal(&error))?;
        let is_valid = |device: &Device| {
            device.user_id == user && device.revoked_at.is_none() && !self.revocations.is_pending(id)
        };
        device.filter(is_valid).ok_or_else(|| ErrorBody::not_found("device_id"))
    }
}

fn not_durable(error: ErrorBody) -> ErrorBody {
    match error.code {
        ErrorCode::Unavailable => ErrorBody { message: NOT_DURABLE.to_owned(), ..error },
        _ => error,
    }
}
