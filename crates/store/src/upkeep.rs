//! Removal by age, for a store without times to live.

use async_trait::async_trait;
use madang_ids::{DeviceId, Millis, UserId};

use crate::error::StoreResult;
use crate::trim::{TrimStep, Trimmed};

/// Removes old rows. Each method scans all rows by time, so only the embedded store has it: a CQL store writes these rows
/// with a time to live, or removes them when it writes the next ones, and a fleet has no upkeep of this kind.
///
/// Every removal is durable when it returns, and repeating it is harmless. A caller repeats a call while it removes `limit`.
#[async_trait]
pub trait Upkeep: Send + Sync + 'static {
    /// Removes up to `limit` recorded sends older than `before`; returns how many. Some may stay for an hour longer.
    async fn forget_sends(&self, before: Millis, limit: usize) -> StoreResult<usize>;

    /// Removes up to `limit` claims from before `before`; returns how many.
    async fn forget_claims(&self, before: Millis, limit: usize) -> StoreResult<usize>;

    /// Removes up to `limit` devices that were revoked before `before`, with their refresh tokens; returns how many.
    async fn forget_devices(&self, before: Millis, limit: usize) -> StoreResult<usize>;

    /// Removes up to `limit` invitations that ended before `before`; returns how many.
    async fn forget_invitations(&self, before: Millis, limit: usize) -> StoreResult<usize>;

    /// Removes up to `limit` notes about alerts, and all dead letters, from before `before`; also the oldest notes beyond
    /// [`NOTES_KEPT`](crate::NOTES_KEPT). Returns the number of notes.
    async fn forget_alert_notes(&self, before: Millis, limit: usize) -> StoreResult<usize>;

    /// Up to `limit` devices that are not revoked although their refresh token ended before `before`, the earliest end first.
    async fn ended_devices(&self, before: Millis, limit: usize) -> StoreResult<Vec<(UserId, DeviceId)>>;

    /// One step over the users who have an own log, by id.
    ///
    /// Of an own log the first rows are removed; its head stays, and a [`scan`](crate::CommitOrder::scan) from before the
    /// remaining rows gives up. Of left channels the membership and the member's row are removed, with the read marker, the settings
    /// and the hidden messages: first open channels, of which a former member reads nothing, then stays that were not accepted,
    /// which any user could have caused, and of the rest those that were left longest ago. A scan from before the end of a removed
    /// stay in a group gives up. A ban or a pending change keeps the row.
    ///
    /// A user whose rows are damaged is left out. Each user is one write where the store can. Repeating a step is harmless.
    async fn trim(&self, step: TrimStep) -> StoreResult<Trimmed>;

    /// Commits a write that changes nothing: shows whether the store takes writes.
    async fn probe(&self) -> StoreResult<()>;
}
