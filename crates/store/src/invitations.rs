//! Invitations: codes that let people sign up where sign-up is not open to everybody.

use async_trait::async_trait;
use madang_ids::Millis;

use crate::error::StoreResult;

/// An invitation, by the hash of its code, so that a copy of a backup does not let anybody sign up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invitation {
    /// SHA-256 of the code.
    pub hash: [u8; 32],
    /// The operator's name for it.
    pub label: String,
    /// The time at which it was made.
    pub created_at: Millis,
    /// The end of its validity.
    pub ends_at: Millis,
    /// The number of users who may sign up with it.
    pub uses: u32,
    /// The number of users who have signed up with it. Read only: a write of the invitation ignores it.
    pub used: u32,
}

/// Invitations. [`crate::AccountStore::create_user`] uses them.
///
/// # Guarantees
/// Every write is durable when it returns, and repeating it is harmless.
#[async_trait]
pub trait InvitationStore: Send + Sync + 'static {
    /// Writes an invitation that is new; an existing one stays as it is.
    async fn put_invitation(&self, invitation: &Invitation) -> StoreResult<()>;
    /// Invitations by hash, after `after`.
    async fn invitations(&self, after: Option<&[u8; 32]>, limit: usize) -> StoreResult<Vec<Invitation>>;
    /// Removes an invitation. `false` if there is none.
    async fn revoke_invitation(&self, hash: &[u8; 32]) -> StoreResult<bool>;
}
