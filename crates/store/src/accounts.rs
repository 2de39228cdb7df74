//! Users, what they prove themselves with, and their devices.

use async_trait::async_trait;
use madang_ids::{Cursor, DeviceId, Millis, UserId};

use crate::error::StoreResult;

/// A person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Who.
    pub id: UserId,
    /// Unique name, folded to lower case.
    pub handle: String,
    /// Name for people.
    pub display_name: String,
    /// Since when.
    pub created_at: Millis,
    /// Whether others are told how far she has read.
    pub sends_receipts: bool,
}

/// What became of a user to be created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// She is there; also when the same id had created her before.
    Created,
    /// The handle is somebody else's.
    Taken,
}

/// An installed client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Which.
    pub id: DeviceId,
    /// Whose.
    pub user_id: UserId,
    /// What it is called.
    pub name: String,
    /// Since when.
    pub created_at: Millis,
    /// Since when it may no longer connect.
    pub revoked_at: Option<Millis>,
    /// How far it has received.
    pub received: Option<Cursor>,
}

/// A refresh token, by the hash of its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refresh {
    /// SHA-256 of the token.
    pub hash: [u8; 32],
    /// Whose.
    pub user_id: UserId,
    /// Of which device. A device has one at a time; a new one replaces it.
    pub device_id: DeviceId,
    /// When it ends.
    pub expires_at: Millis,
    /// The token in whose place it was put by a rotation.
    pub replaced: Option<Replaced>,
}

/// A refresh token that was rotated, for who did not hear of the one in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replaced {
    /// SHA-256 of the token.
    pub hash: [u8; 32],
    /// Until when it may be presented again.
    pub until: Millis,
}

/// What became of a refresh token that was presented.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rotated {
    /// The new one stands in its place; also when it did so before.
    Rotated,
    /// It is not the device's present one.
    Unknown,
}

/// The first claim of an idempotency key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The id that the first caller chose for what she makes.
    pub id: u64,
    /// Hash of her request.
    pub request_hash: [u8; 16],
    /// When.
    pub at: Millis,
}

/// What became of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claimed {
    /// The key was free, and is the caller's now.
    First,
    /// Somebody was first, with this claim.
    Before(Claim),
}

/// Accounts.
///
/// # Guarantees
/// Every write is durable when it returns, and repeating it is harmless. `create_user`, `claim` and
/// `rotate_refresh` are compare-and-sets: of callers at once one wins. `put_device` counts exactly (G10).
#[async_trait]
pub trait AccountStore: Send + Sync + 'static {
    /// Takes the handle, then writes the user and her credential. Who finds a handle taken by `user.id` goes on.
    async fn create_user(&self, user: &User, password_hash: &str) -> StoreResult<Created>;
    /// Users by id, in the order asked for.
    async fn users(&self, ids: &[UserId]) -> StoreResult<Vec<Option<User>>>;
    /// The user with a handle (in lower case).
    async fn user_by_handle(&self, handle: &str) -> StoreResult<Option<User>>;
    /// Changes the name for people.
    async fn set_display_name(&self, user: UserId, display_name: &str) -> StoreResult<()>;
    /// Changes whether others are told how far she has read.
    async fn set_sends_receipts(&self, user: UserId, sends_receipts: bool) -> StoreResult<()>;
    /// The password's hash in PHC form.
    async fn password_hash(&self, user: UserId) -> StoreResult<Option<String>>;
    /// Replaces the password's hash.
    async fn set_password_hash(&self, user: UserId, password_hash: &str) -> StoreResult<()>;

    /// Writes a device, unless its user has `at_most` others that are not revoked: then `false`, and nothing is
    /// written. An existing one keeps `received` and, once revoked, stays revoked.
    async fn put_device(&self, device: &Device, at_most: usize) -> StoreResult<bool>;
    /// A device.
    async fn device(&self, id: DeviceId) -> StoreResult<Option<Device>>;
    /// The devices of a user that are not revoked, by id.
    async fn devices(&self, user: UserId) -> StoreResult<Vec<Device>>;
    /// Revokes a device of `user` and forgets its refresh token. `false` if she has no such device. The time of the
    /// first revocation stays.
    async fn revoke_device(&self, user: UserId, device: DeviceId, at: Millis) -> StoreResult<bool>;
    /// Notes how far devices have received: the greater position stays within one epoch, another epoch replaces.
    /// Without marks it writes all the same, which tells whether the store takes writes.
    async fn set_received(&self, marks: &[(DeviceId, Cursor)]) -> StoreResult<()>;

    /// Gives a device its refresh token, whatever it had before.
    async fn put_refresh(&self, refresh: &Refresh) -> StoreResult<()>;
    /// The refresh token of a device of which this is the hash, or the hash of the one that it replaced; whether it
    /// has ended or not.
    async fn refresh(&self, hash: &[u8; 32]) -> StoreResult<Option<Refresh>>;
    /// Puts `new` in the place of the token that it says it replaced, if that is still the device's.
    async fn rotate_refresh(&self, new: &Refresh) -> StoreResult<Rotated>;

    /// `user` blocks `other`. `false` if she did already.
    async fn block(&self, user: UserId, other: UserId, at: Millis) -> StoreResult<bool>;
    /// `user` blocks `other` no longer. `false` if she did not.
    async fn unblock(&self, user: UserId, other: UserId) -> StoreResult<bool>;
    /// Whom a user blocks, by id, after `after`.
    async fn blocks(&self, user: UserId, after: Option<UserId>, limit: usize) -> StoreResult<Vec<UserId>>;
    /// Whether either of two users blocks the other.
    async fn is_blocked(&self, one: UserId, other: UserId) -> StoreResult<bool>;

    /// Claims an idempotency key in a scope.
    async fn claim(&self, scope: &str, key: &str, claim: Claim) -> StoreResult<Claimed>;
    /// Forgets up to `limit` claims from before `before`; says how many.
    async fn forget_claims(&self, before: Millis, limit: usize) -> StoreResult<usize>;
}
