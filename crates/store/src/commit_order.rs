//! The order in which one process commits, from which the local inbox reads. Only stores with a single writer have one; a fleet
//! has another inbox.

use async_trait::async_trait;
use madang_ids::{Epoch, LogId, Position, Seq, UserId};
use tokio::sync::mpsc;

use crate::error::StoreResult;
use crate::shared_rows::SharedRows;

/// Rows that became durable together, with the positions that they took.
#[derive(Debug, Clone)]
pub struct Commit {
    /// The log of the rows.
    pub log: LogId,
    /// The rows, rising.
    pub rows: SharedRows,
    /// The position of the first; the others follow without a hole.
    pub first: Position,
}

impl Commit {
    /// The position of the last row.
    #[must_use]
    pub fn last(&self) -> Position {
        Position::new(self.first.get() + (self.rows.len() as u64).saturating_sub(1))
    }
}

/// Commits in their order. Bounded in commits, and by a store on a disk in bytes as well: a reader that falls behind slows
/// the writer, but never delays the answer to a durable write.
pub type CommitFeed = mpsc::Receiver<Commit>;

/// One process start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochRow {
    /// The epoch drawn at that start.
    pub epoch: Epoch,
    /// The last position committed before it.
    pub start: Position,
}

/// A run of rows of one log that concerns a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScanItem {
    /// The log of the rows.
    pub log: LogId,
    /// The first row.
    pub from: Seq,
    /// The last row.
    pub to: Seq,
    /// The last row's position.
    pub position: Position,
}

/// Items of a user after a position.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scan {
    /// Rising by position; rows of one log without a row of another log between them are one item.
    pub items: Vec<ScanItem>,
    /// All rows that concern the user up to here are in `items`.
    pub upto: Position,
    /// Whether there is more after `upto`.
    pub more: bool,
}

/// The order of one process's commits.
///
/// # Guarantees
/// Positions rise without a hole, in each log with `seq`. A commit enters the feed once it is durable, in order of
/// position, each exactly once.
#[async_trait]
pub trait CommitOrder: Send + Sync + 'static {
    /// The feed of commits from now on. There is one; `None` the second time.
    fn take_feed(&self) -> Option<CommitFeed>;
    /// The last committed position.
    fn position(&self) -> Position;
    /// Records a process start under `epoch`, durably, and returns its row.
    async fn begin_epoch(&self, epoch: Epoch) -> StoreResult<EpochRow>;
    /// All process starts, in order.
    async fn epochs(&self) -> StoreResult<Vec<EpochRow>>;
    /// The rows that concern `user` after `after`: rows of the user's channels within the spans, and of the own log, merged by
    /// position; at most `max_rows` rows. One consistent read. Returns `None` if there are more than `give_up` rows, or if some of
    /// them may have been removed.
    async fn scan(
        &self,
        user: UserId,
        after: Position,
        max_rows: usize,
        give_up: usize,
    ) -> StoreResult<Option<Scan>>;
}
