//! The inbox: everything that concerns a user, in one order.

use std::ops::RangeInclusive;
use std::sync::Arc;

use async_trait::async_trait;
use madang_engine::log::Row;
use madang_ids::{Cursor, LogId, Position, Seq, UserId};
use madang_proto::SnapshotReason;
use madang_store::StoreResult;

/// A run of rows of one log that concerns a user. The rows themselves are in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InboxItem {
    /// The log of the rows.
    pub log: LogId,
    /// The first row.
    pub from: Seq,
    /// The last row.
    pub to: Seq,
    /// The position of the last row. A device that has all items up to this one has everything up to this position.
    pub position: Position,
}

/// Items after a cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboxPage {
    /// The items, in the order of the inbox.
    pub items: Vec<InboxItem>,
    /// The items contain everything up to this cursor.
    pub upto: Cursor,
    /// Whether more items follow.
    pub more: bool,
}

/// The outcome of a read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InboxRead {
    /// A page.
    Page(InboxPage),
    /// The cursor is not accepted; the device must take a snapshot.
    SnapshotRequired(SnapshotReason),
    /// The inbox does not answer, although the store may. Try again.
    Unavailable,
}

/// The inboxes of all users.
///
/// Positions count the rows that concern a user, so a page may end inside a run of rows of one append.
#[async_trait]
pub trait Inbox: Send + Sync + 'static {
    /// Brings rows to the inboxes of the users whom they concern, after they were appended.
    ///
    /// The caller passes the rows of one log in their order. A home that was paused may pass rows that another one has
    /// already brought: a repeated or outdated call has no effect. The rows contain data that the store does not keep,
    /// such as the message of a change, so that live delivery needs no read.
    ///
    /// # Errors
    /// Some inboxes may lack the rows, and sessions may miss them until [`moved_again`](Inbox::moved_again) or the next
    /// `moved` of the log succeeds. Acknowledged rows are in the log in any case.
    async fn moved(&self, log: LogId, rows: &Arc<[Row]>) -> StoreResult<()>;

    /// Brings the rows of a range of a log that are not in the inboxes yet. The caller does not have the rows. Earlier rows
    /// that an inbox lacks are brought as well, as far as its user is still in the same stay.
    ///
    /// # Errors
    /// See [`moved`](Inbox::moved).
    async fn moved_again(&self, log: LogId, range: RangeInclusive<Seq>) -> StoreResult<()>;

    /// This node is about to append to a log. If it dies before [`moved`](Inbox::moved) has returned for what it appends, another
    /// node finds the log by this ([`Peers::left_logs`](crate::Peers::left_logs)). Called before the first acknowledgement of a
    /// busy period. In one process there is nothing to do.
    ///
    /// # Errors
    /// The log is not announced. If this node dies, rows that it has not moved reach the inboxes with the next rows of the log.
    async fn announce(&self, _log: LogId) -> StoreResult<()> {
        Ok(())
    }

    /// Everything that this node appended to these logs was moved.
    ///
    /// # Errors
    /// The logs stay announced. Then their last rows are moved once more when this node has ended, which changes nothing.
    async fn retire(&self, _logs: &[LogId]) -> StoreResult<()> {
        Ok(())
    }

    /// Whether [`know`](Inbox::know) has an effect.
    fn wants_to_know(&self) -> bool {
        false
    }

    /// A device is about to be shown the state of these logs, each as of this place or a later one; `is_last` if the user has no
    /// others that it is shown. Rows up to there need not be brought to it. Those after it are, whatever becomes of their
    /// [`moved`](Inbox::moved), and so are all rows of logs that become the user's later. Call it after the heads were read and before
    /// the state is. `true` if the inbox learnt something, so that what was read before is of no use.
    ///
    /// # Errors
    /// The inbox does not answer.
    async fn know(&self, _user: UserId, _heads: &[(LogId, Seq)], _is_last: bool) -> StoreResult<bool> {
        Ok(false)
    }

    /// The end of a user's inbox: a read after it contains everything that concerns the user from now on.
    ///
    /// The epoch of the cursor is durable before it is returned, so no later start can mistake it for one of its own.
    async fn end(&self, user: UserId) -> StoreResult<Cursor>;

    /// The rows that concern `user` after `after`, at most `max_rows`.
    ///
    /// Consecutive pages from a cursor contain every row after it whose `moved` has returned: rows of the user's direct
    /// channels and groups within the user's stays, and rows of the user's own log, in an order that preserves the
    /// order of each log (G4). If that is not possible, the verdict gives the reason; a page is never incomplete
    /// instead. Rows of open channels are in no inbox.
    async fn read(&self, user: UserId, after: Cursor, max_rows: usize) -> StoreResult<InboxRead>;
}
