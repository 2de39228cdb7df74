//! Users and their credentials.

use async_trait::async_trait;
use madang_ids::{Millis, UserId};
use madang_proto::Audience;

use crate::error::StoreResult;

/// A person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The id, which no other user ever gets.
    pub id: UserId,
    /// Unique name, folded to lower case.
    pub handle: String,
    /// The name that other users see.
    pub display_name: String,
    /// The time at which the account was made.
    pub created_at: Millis,
    /// Whether others receive the user's read receipts.
    pub sends_receipts: bool,
    /// The users who may add this user to a group at once; `None`: the default of the configuration.
    pub may_add: Option<Audience>,
    /// The users who may write to this user; `None`: the default of the configuration.
    pub may_write: Option<Audience>,
    /// The address of a picture; empty if there is none.
    pub avatar: String,
    /// Rises with each change of name and picture.
    pub rev: u64,
    /// Whether the user may sign in.
    pub state: UserState,
}

impl User {
    /// An active user with the settings of a new one.
    #[must_use]
    pub fn new(id: UserId, handle: String, display_name: String, created_at: Millis) -> Self {
        let (avatar, state) = (String::new(), UserState::Active);
        let (may_add, may_write) = (None, None);
        Self {
            id,
            handle,
            display_name,
            created_at,
            sends_receipts: true,
            may_add,
            may_write,
            avatar,
            rev: 1,
            state,
        }
    }
}

/// Whether a user may sign in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserState {
    /// The user may sign in.
    Active,
    /// An operator has closed the account; it can be opened again.
    Disabled,
    /// The account was deleted: only the id is left, for what the user wrote.
    Deleted,
}

/// The means by which a user proves an identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The password's hash in PHC form; empty for a deleted user.
    pub password_hash: String,
    /// Whether the user may sign in.
    pub state: UserState,
}

/// A change of a profile; absent fields stay as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Profile {
    /// The name that other users see.
    pub display_name: Option<String>,
    /// The address of a picture, or empty.
    pub avatar: Option<String>,
}

/// The result of creating a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// The user exists; also if a call with the same id created the user before.
    Created,
    /// Another user has the handle, or it is reserved for a deleted user.
    Taken,
    /// There is no such invitation, or it has ended, or all its uses are taken.
    NotInvited,
}

/// The first claim of an idempotency key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The id that the first caller chose for the new object.
    pub id: u64,
    /// Hash of the first caller's request.
    pub request_hash: [u8; 16],
    /// The time of the claim.
    pub at: Millis,
}

/// The result of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claimed {
    /// The key was free, and is the caller's now.
    First,
    /// An earlier call has claimed the key, with this claim.
    Before(Claim),
}

/// Accounts.
///
/// # Guarantees
/// Every write is durable when it returns, and repeating it is harmless. `create_user` and `claim`
/// are compare-and-sets: of concurrent callers one wins. Uses of an invitation are counted exactly (G10).
#[async_trait]
pub trait AccountStore: Send + Sync + 'static {
    /// Takes the handle and one use of the invitation, then writes the user and the credential. A caller who finds the
    /// handle taken by `user.id` goes on, and one user never takes two uses of an invitation. `user.created_at` is now.
    async fn create_user(
        &self,
        user: &User,
        password_hash: &str,
        invitation: Option<&[u8; 32]>,
    ) -> StoreResult<Created>;
    /// Users by id, in the order asked for; also deleted ones.
    async fn users(&self, ids: &[UserId]) -> StoreResult<Vec<Option<User>>>;
    /// The user with a handle (in lower case).
    async fn user_by_handle(&self, handle: &str) -> StoreResult<Option<User>>;
    /// Users that are not deleted, by handle, after `after`, whose handle begins with `prefix`.
    async fn users_by_handle(&self, prefix: &str, after: &str, limit: usize) -> StoreResult<Vec<User>>;
    /// Changes name or picture, and raises the profile's revision if that changes anything.
    async fn set_profile(&self, user: UserId, profile: &Profile) -> StoreResult<()>;
    /// Changes whether others receive the user's read receipts.
    async fn set_sends_receipts(&self, user: UserId, sends_receipts: bool) -> StoreResult<()>;
    /// Changes who may add the user to groups, and who may write to the user. `None` leaves a setting as it is.
    async fn set_audiences(
        &self,
        user: UserId,
        may_add: Option<Audience>,
        may_write: Option<Audience>,
    ) -> StoreResult<()>;
    /// The credentials of a user.
    async fn credentials(&self, user: UserId) -> StoreResult<Option<Credentials>>;
    /// Replaces the password's hash, if it still is `expected` or `expected` is `None`. `false` if it is another one, or the
    /// user is deleted.
    async fn set_password_hash(&self, user: UserId, hash: &str, expected: Option<&str>) -> StoreResult<bool>;
    /// Disables a user or opens the account again. `false` if the user is deleted or not there.
    async fn set_disabled(&self, user: UserId, is_disabled: bool) -> StoreResult<bool>;

    /// Removes everything of a user but the id: name, picture, credential and handle. No other user gets the handle before
    /// `handle_until`. The user is among [`AccountStore::deletions`] until [`AccountStore::settle_deletion`].
    async fn delete_user(&self, user: UserId, handle_until: Millis) -> StoreResult<()>;
    /// Up to `limit` deleted users whose memberships and contacts may not have been ended yet, by id.
    async fn deletions(&self, limit: usize) -> StoreResult<Vec<UserId>>;
    /// Records that memberships and contacts of a deleted user are ended.
    async fn settle_deletion(&self, user: UserId) -> StoreResult<()>;

    /// `user` blocks `other`. `false` if the block existed.
    async fn block(&self, user: UserId, other: UserId, at: Millis) -> StoreResult<bool>;
    /// Ends the block of `other` by `user`. `false` if there was none.
    async fn unblock(&self, user: UserId, other: UserId) -> StoreResult<bool>;
    /// The users whom a user blocks, by id, after `after`.
    async fn blocks(&self, user: UserId, after: Option<UserId>, limit: usize) -> StoreResult<Vec<UserId>>;
    /// The users with whom `user` has a block, in either direction, by id; the first `limit` of them.
    async fn apart_from(&self, user: UserId, limit: usize) -> StoreResult<Vec<UserId>>;
    /// Those of `others` who block `user`, in the order asked for.
    async fn who_block(&self, user: UserId, others: &[UserId]) -> StoreResult<Vec<UserId>>;
    /// Whether either of two users blocks the other.
    async fn is_blocked(&self, one: UserId, other: UserId) -> StoreResult<bool>;

    /// Claims an idempotency key in a scope.
    async fn claim(&self, scope: &str, key: &str, claim: Claim) -> StoreResult<Claimed>;
}
