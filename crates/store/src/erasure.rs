//! The erasure of deleted channels: a note for each one, so that upkeep finishes it also after a crash.

use async_trait::async_trait;
use madang_ids::{ChannelId, Millis, Seq};

use crate::error::StoreResult;
use crate::log::RowChange;

/// A channel whose messages are to be erased once its log says that it is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Erasure {
    /// The channel to erase.
    pub channel_id: ChannelId,
    /// The time at which the owner requested it.
    pub at: Millis,
    /// The last row that is erased already.
    pub upto: Seq,
}

/// Erasures of channels.
///
/// # Guarantees
/// Every write is durable when it returns, and repeating it is harmless.
#[async_trait]
pub trait ErasureStore: Send + Sync + 'static {
    /// Writes an erasure. Called before the entry that deletes the channel is appended, so that a crash between the two
    /// leaves a note without a deletion, and never a deletion without a note. An earlier note keeps the greater `upto`.
    async fn put_erasure(&self, erasure: Erasure) -> StoreResult<()>;
    /// Up to `limit` erasures that are not finished, by channel.
    async fn erasures(&self, limit: usize) -> StoreResult<Vec<Erasure>>;
    /// Removes an erasure: it is finished, or the channel was not deleted after all.
    async fn end_erasure(&self, channel: ChannelId) -> StoreResult<()>;
    /// Changes rows of a channel's log without entries: nobody reads a deleted channel. A change with another version than the row
    /// is left out. Reactions to and mentions of a message that a change deletes are removed with it.
    async fn replace_rows(&self, channel: ChannelId, changes: &[RowChange]) -> StoreResult<()>;
}
