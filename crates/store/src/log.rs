//! Logs: appended by compare-and-set on the head, read by place.

use std::ops::RangeInclusive;

use async_trait::async_trait;
use madang_ids::{ChannelId, ClientMsgId, LogId, Millis, Seq, UserId};

pub use madang_engine::log::{
    Append, AppendOutcome, BodyHash, Head, MAX_APPEND_BYTES, MAX_APPEND_ROWS, Row, RowChange, RowKey,
    SendRecord, Tail,
};

use crate::error::StoreResult;

/// Logs of channels and users.
///
/// # Guarantees
/// - [`append`](LogStore::append) is linearizable per log: of two appends with one expected head at most one is
///   [`AppendOutcome::Appended`]. When it returns so, the rows survive `kill -9` and power loss (G1).
/// - The rows of one append become visible together, and with the head.
/// - After [`StoreError::Unknown`](crate::StoreError::Unknown) a [`tail`](LogStore::tail) settles the outcome: what
///   it does not show will never appear.
/// - When `append` returns `Appended`, the markers of the senders of its messages have been moved to their messages,
///   or will be when the channel's next home drives its tail again.
#[async_trait]
pub trait LogStore: Send + Sync + 'static {
    /// Appends by compare-and-set on the head. Dropping the future does not undo it: the outcome is then unknown.
    async fn append(&self, append: Append) -> StoreResult<AppendOutcome>;

    /// The head and the last `rows` rows: a serial read, which settles appends of unknown outcome.
    async fn tail(&self, log: LogId, rows: usize) -> StoreResult<Tail>;

    /// The heads of several logs, in the order asked for. A log without rows has the default head.
    async fn heads(&self, logs: &[LogId]) -> StoreResult<Vec<Head>>;

    /// The rows of a range, rising, from its start; ends after `max_bytes` of entries (at least one row).
    async fn rows(&self, log: LogId, range: RangeInclusive<Seq>, max_bytes: usize) -> StoreResult<Vec<Row>>;

    /// The rows of a range, falling from its end; ends after `max_bytes` of entries (at least one row).
    async fn rows_back(
        &self,
        log: LogId,
        range: RangeInclusive<Seq>,
        max_bytes: usize,
    ) -> StoreResult<Vec<Row>>;

    /// The first row at or after `at`, or the place after the head. By bisection: `at` rises with `seq`.
    async fn seq_at(&self, log: LogId, at: Millis) -> StoreResult<Seq>;

    /// Writes the records of messages that are about to leave a home's window. Repeating it is harmless.
    async fn record_sends(&self, channel: ChannelId, records: &[SendRecord]) -> StoreResult<()>;

    /// Finds recorded sends, in the order asked for.
    async fn find_sends(
        &self,
        channel: ChannelId,
        keys: &[(UserId, ClientMsgId)],
    ) -> StoreResult<Vec<Option<SendRecord>>>;

    /// Forgets up to `limit` records older than `before`; says how many went.
    async fn forget_sends(&self, before: Millis, limit: usize) -> StoreResult<usize>;
}
