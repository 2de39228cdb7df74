//! The devices of a user: listed, added, revoked.

use std::collections::HashMap;

use madang_ids::{DeviceId, UserId};
use madang_proto::rest::{DeviceCard, List, NewDevice, SignedIn};
use madang_proto::{Content, ErrorBody, ErrorCode};
use madang_store::Device;
use parking_lot::Mutex;

use super::accounts::check_device_name;
use super::{Caller, Operations};
use crate::refusal::refusal;

/// Revocations that began and are not known to be done. Whoever asked may go away, or may not ask again because her
/// token is not valid any more: the sockets of the device must close all the same (G5). One a device.
#[derive(Debug, Default)]
pub struct Revocations(Mutex<HashMap<DeviceId, UserId>>);

const NOT_DURABLE: &str = "the store is unavailable: this server refuses the device from now on and closes its sockets, and \
                           writes that down once the store takes writes; repeat the call to know that it is written";

impl Revocations {
    /// Those that are not known to be durable: they hold in this process all the same.
    #[must_use]
    pub fn pending(&self) -> Vec<(DeviceId, UserId)> {
        self.0.lock().iter().map(|(&device, &user)| (device, user)).collect()
    }

    fn is_pending(&self, device: DeviceId) -> bool {
        self.0.lock().contains_key(&device)
    }
}

impl Operations {
    /// The caller's devices.
    ///
    /// # Errors
    /// The store's.
    pub async fn devices(&self, caller: Caller) -> Result<List<DeviceCard>, ErrorBody> {
        let devices = self.store.devices(caller.user_id).await.map_err(|error| refusal(&error))?;
        let card = |device: Device| {
            let received = device.received.map(|cursor| self.seal(caller.user_id, cursor)).transpose()?;
            let (id, name, created_at) = (device.id, device.name, device.created_at);
            Ok(DeviceCard { id, name, created_at, received, is_this: id == caller.device_id })
        };
        Ok(List { items: devices.into_iter().map(card).collect::<Result<_, ErrorBody>>()? })
    }

    /// A further device of the caller.
    ///
    /// # Errors
    /// A name beyond its limit; `full` above 50 devices.
    pub async fn add_device(&self, caller: Caller, request: NewDevice) -> Result<SignedIn, ErrorBody> {
        let name = check_device_name(&request.device_name)?;
        let device = self.new_device(caller.user_id, name);
        self.sign_in(caller.user_id, device).await
    }

    /// Revokes a device of the caller; its sockets close. Repeating it is harmless. Once begun it is finished, also if
    /// this is refused as `unavailable` or its future is dropped.
    ///
    /// # Errors
    /// `not_found` for a device that is not hers.
    pub async fn revoke_device(&self, caller: Caller, device_id: DeviceId) -> Result<(), ErrorBody> {
        let device = self.store.device(device_id).await.map_err(|error| refusal(&error))?;
        if device.is_none_or(|device| device.user_id != caller.user_id) {
            return Err(ErrorBody::not_found("device"));
        }
        self.revocations.0.lock().insert(device_id, caller.user_id);
        self.revoke(caller.user_id, device_id).await.map_err(|error| match error.code {
            ErrorCode::Unavailable => ErrorBody { message: NOT_DURABLE.to_owned(), ..error },
            _ => error,
        })
    }

    /// Tries again what was not done. What was done in the meantime is told once more, which is harmless.
    pub(super) async fn finish_revocations(&self) {
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
        self.known.devices.insert(device_id, false).await;
        self.homes.note(user, Content::DeviceRevoked { device_id }).await?;
        self.revocations.0.lock().remove(&device_id);
        Ok(())
    }

    /// Looks at a device in the store itself. A connection asks this once it is registered, so that a revocation
    /// is either seen here or delivered there.
    ///
    /// # Errors
    /// `unauthorized`.
    pub async fn check_device(&self, user: UserId, id: DeviceId) -> Result<(), ErrorBody> {
        if self.look_at_device(user, id).await? {
            return Ok(());
        }
        Err(ErrorBody::field(ErrorCode::Unauthorized, "token", "the token's device was revoked"))
    }

    pub(super) async fn is_device_valid(&self, user: UserId, id: DeviceId) -> Result<bool, ErrorBody> {
        if let Some(known) = self.known.devices.get(&id).await {
            return Ok(known && !self.revocations.is_pending(id));
        }
        self.look_at_device(user, id).await
    }

    async fn look_at_device(&self, user: UserId, id: DeviceId) -> Result<bool, ErrorBody> {
        let is_valid = self.valid_device(user, id).await?.is_some();
        self.known.devices.insert(id, is_valid).await;
        Ok(is_valid)
    }

    pub(super) async fn own_device(&self, user: UserId, id: DeviceId) -> Result<Device, ErrorBody> {
        self.valid_device(user, id).await?.ok_or_else(|| ErrorBody::not_found("device_id"))
    }

    async fn valid_device(&self, user: UserId, id: DeviceId) -> Result<Option<Device>, ErrorBody> {
        if self.revocations.is_pending(id) {
            return Ok(None);
        }
        let device = self.store.device(id).await.map_err(|error| refusal(&error))?;
        Ok(device.filter(|device| device.user_id == user && device.revoked_at.is_none()))
    }
}
