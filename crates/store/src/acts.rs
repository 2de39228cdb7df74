//! What operators did, and the configuration that followed from it.

use async_trait::async_trait;
use madang_ids::{ChannelId, Millis};

use crate::error::StoreResult;

/// An act of an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Act {
    /// Its place: 1, 2, 3 … without a hole.
    pub seq: u64,
    /// The time.
    pub at: Millis,
    /// The operator's name.
    pub by: String,
    /// The address of the operator's client; empty for a command beside the server.
    pub from: String,
    /// What was done, as a word.
    pub kind: String,
    /// The channel that it is about.
    pub channel: Option<ChannelId>,
    /// What changed, in words.
    pub change: String,
    /// Why, as the operator said.
    pub why: String,
    /// The configuration that follows, as JSON: that of the last act holds.
    pub document: String,
}

/// Acts of operators, in one order. They are appended, and never changed or removed.
///
/// # Guarantees
/// An append is durable when it returns. A read that begins after it has returned sees it, on any node.
#[async_trait]
pub trait ActStore: Send + Sync + 'static {
    /// Appends an act if its `seq` is one above that of the last one, by compare-and-set. `false`: another was first.
    async fn append_act(&self, act: &Act) -> StoreResult<bool>;

    /// The last act.
    async fn last_act(&self) -> StoreResult<Option<Act>>;

    /// Acts before a place, or from the last one on; the newest first.
    async fn acts(&self, before: Option<u64>, limit: usize) -> StoreResult<Vec<Act>>;
}
