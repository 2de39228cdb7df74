//! The devices of users, and the refresh tokens that keep them signed in.

use std::time::Duration;

use async_trait::async_trait;
use madang_ids::{Cursor, DeviceId, Millis, UserId};

use crate::error::StoreResult;

/// Revoked devices of one user that are kept, so that a device that was offline learns that it was revoked. A user who
/// adds and revokes devices without end would otherwise fill the store.
pub const REVOKED_KEPT: usize = 100;

/// An installed client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// The id, unique among all users.
    pub id: DeviceId,
    /// The user who signed in on it.
    pub user_id: UserId,
    /// The name that the user sees in the list of devices.
    pub name: String,
    /// The time of the first sign-in.
    pub created_at: Millis,
    /// The time from which it may not connect any more.
    pub revoked_at: Option<Millis>,
    /// The last position of the inbox that it has received.
    pub received: Option<Cursor>,
    /// The end of its refresh token. Read only: a write of the device ignores it.
    pub signed_in_until: Option<Millis>,
}

/// The result of writing a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutDevice {
    /// The device is written.
    Written,
    /// The user has the most devices allowed.
    Full,
    /// The user's sign-ins were ended since the revision was read: check the proof of the sign-in again.
    Overtaken,
    /// The device was revoked before, and stays so.
    Revoked,
}

/// A refresh token, by the hash of its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refresh {
    /// SHA-256 of the token.
    pub hash: [u8; 32],
    /// The user of the device.
    pub user_id: UserId,
    /// The device that presents it. A device has one token at a time; a new one replaces it.
    pub device_id: DeviceId,
    /// The end of the token.
    pub expires_at: Millis,
    /// The token that it replaced by a rotation.
    pub replaced: Option<Replaced>,
}

/// A refresh token that was rotated, for a client that did not receive the one in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replaced {
    /// SHA-256 of the token.
    pub hash: [u8; 32],
    /// The end of the time in which it may be presented again.
    pub until: Millis,
}

/// The result of a rotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rotated {
    /// The new token has replaced it; also if an earlier call did that.
    Rotated,
    /// It is not the device's present one, or the device is revoked.
    Unknown,
}

/// Devices and refresh tokens.
///
/// # Guarantees
/// Every write is durable when it returns, and repeating it is harmless. `put_device` counts exactly (G10) and costs the
/// same however many devices were revoked. `put_device` and `revoke_devices` of one user are serialised: a
/// device that was written with a revision from before `revoke_devices` is among those that it revokes, or is refused as
/// [`PutDevice::Overtaken`].
#[async_trait]
pub trait DeviceStore: Send + Sync + 'static {
    /// The revision of a user's sign-ins; [`DeviceStore::revoke_devices`] raises it. Read it before what proves the
    /// sign-in (the password's hash, the caller's own device).
    async fn sign_in_rev(&self, user: UserId) -> StoreResult<u64>;
    /// Writes a device of a user who has fewer than `at_most` others that are not revoked and whose revision of sign-ins
    /// is still `sign_in_rev`. An existing device keeps `received`.
    async fn put_device(&self, device: &Device, at_most: usize, sign_in_rev: u64) -> StoreResult<PutDevice>;
    /// A device of `user`; `None` also for one of somebody else.
    async fn device(&self, user: UserId, id: DeviceId) -> StoreResult<Option<Device>>;
    /// The devices of a user that are not revoked, by id.
    async fn devices(&self, user: UserId) -> StoreResult<Vec<Device>>;
    /// Renames a device of `user`. `false` if there is no such device, or it is revoked.
    async fn rename_device(&self, user: UserId, device: DeviceId, name: &str) -> StoreResult<bool>;
    /// Revokes a device of `user`; its refresh token can still be read, but not rotated. `false` if there is no such device. The
    /// time of the first revocation stays. The oldest revoked devices above [`REVOKED_KEPT`] are removed.
    async fn revoke_device(&self, user: UserId, device: DeviceId, at: Millis) -> StoreResult<bool>;
    /// Revokes all devices of `user` but one, as [`DeviceStore::revoke_device`] does, and raises the revision of the
    /// sign-ins. Returns those that were not revoked before.
    async fn revoke_devices(
        &self,
        user: UserId,
        except: Option<DeviceId>,
        at: Millis,
    ) -> StoreResult<Vec<DeviceId>>;
    /// Devices that were revoked within this time (at most an hour), by the clock of the store; also some that were revoked
    /// shortly before. A process to which no notice of a revocation came finds it here. A store of one process has none to tell.
    async fn revoked_within(&self, _span: Duration) -> StoreResult<Vec<(UserId, DeviceId)>> {
        Ok(Vec::new())
    }
    /// Records the positions that devices have received: within one epoch the greater position stays; another epoch replaces it.
    async fn set_received(&self, marks: &[(UserId, DeviceId, Cursor)]) -> StoreResult<()>;

    /// Writes the refresh token of a device, and replaces any other.
    async fn put_refresh(&self, refresh: &Refresh) -> StoreResult<()>;
    /// The refresh token of a device of which this is the hash, or the hash of the one that it replaced; whether it
    /// has ended or not, and also of a device that is revoked.
    async fn refresh(&self, hash: &[u8; 32]) -> StoreResult<Option<Refresh>>;
    /// Replaces the token named by `new.replaced` with `new`, if it is still the device's token.
    async fn rotate_refresh(&self, new: &Refresh) -> StoreResult<Rotated>;
}
