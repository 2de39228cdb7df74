//! Logs: appended by compare-and-set on the head, read by place.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use async_trait::async_trait;
use madang_engine::body;
use madang_ids::{ChannelId, ClientMsgId, LogId, Millis, Seq, UserId};
use madang_proto::{Content, Reaction};

pub use madang_engine::consequences::{Consequences, Deleted, Marker, Mentions};
pub use madang_engine::log::{
    Append, AppendOutcome, BodyHash, ChannelState, Details, Head, MAX_APPEND_BYTES, MAX_APPEND_ROWS,
    ReactionChange, Row, RowChange, RowKey, SendRecord, Tail,
};

use crate::error::StoreResult;

/// Collects lists of rows up to a bound of bytes.
pub(crate) struct Lists {
    pub(crate) done: Vec<Vec<Row>>,
    room: usize,
}

impl Lists {
    pub(crate) const fn new(max_bytes: usize) -> Self {
        Self { done: Vec::new(), room: max_bytes }
    }

    /// Bytes that the next list may have; `None` once there is no room.
    pub(crate) fn room(&self) -> Option<usize> {
        (self.room > 0 || self.done.is_empty()).then_some(self.room)
    }

    /// Takes a list. A list without its end is the last one, so that no later run of its log comes before the rest.
    pub(crate) fn push(&mut self, rows: Vec<Row>, end: Seq) {
        let bytes: usize = rows.iter().map(|row| body::entry_bytes(&row.entry.content)).sum();
        let is_whole = rows.last().is_some_and(|row| row.entry.seq == end);
        self.room = if is_whole { self.room.saturating_sub(bytes) } else { 0 };
        self.done.push(rows);
    }
}

/// The messages of one user within a range of a log.
#[derive(Debug, Clone, Default)]
pub struct SentRows {
    /// In the order of the log.
    pub rows: Vec<Row>,
    /// The last place that was looked at.
    pub upto: Seq,
}

/// The place of a reaction among those of a channel: its message, the emoji, its user.
pub type ReactionPlace = (Seq, String, UserId);

/// Reactions of one user in a channel.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OwnReactions {
    /// The messages and the emoji, rising.
    pub found: Vec<(Seq, String)>,
    /// The reaction after which the search continues; `None` at its end.
    pub next: Option<ReactionPlace>,
}

/// The place of a mention among those of a user: the time of the message, its channel, and its place there.
pub type MentionPlace = (Millis, ChannelId, Seq);

/// A message that mentions somebody by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mention {
    /// The time and the place of the message.
    pub place: MentionPlace,
    /// The sender.
    pub sender: UserId,
}

/// The stored part of a row's content: a change without the message that it carries.
pub(crate) fn kept(content: &Content) -> Cow<'_, Content> {
    let mut kept = Cow::Borrowed(content);
    if content.is_carrying() {
        kept.to_mut().carry(None);
    }
    kept
}

/// Logs of channels and users.
///
/// # Partitions
/// A log's rows, head and details are one partition; so are the recorded sends of a channel, the reactions to one message,
/// the markers of one user and the mentions of one user. Nothing is atomic across two of them.
///
/// # Visibility
/// A read that begins after a write has returned sees it, on any node, unless the method says otherwise (in CQL:
/// LOCAL_QUORUM for both). Where two reads follow each other, the second one may see more.
#[async_trait]
pub trait LogStore: Send + Sync + 'static {
    /// Appends by compare-and-set on the head.
    ///
    /// # The store owes
    /// - Of two appends with one expected head at most one is [`AppendOutcome::Appended`]. Once it is, the rows survive
    ///   `kill -9` and power loss (G1).
    /// - The rows become visible together, and with the head and the details. Where a store must part the rows of one append, an
    ///   append of which only the first rows happened is [`StoreError::Unknown`](crate::StoreError::Unknown). A caller that reads a head reads, then or
    ///   later, rows and details of at least that head.
    /// - In this order: the records are written, the keys are looked up, the changes of earlier rows are made, each by
    ///   compare-and-set on its version, and the head is compared. These may be four writes. A failure before the last one is
    ///   [`StoreError::Unavailable`](crate::StoreError::Unavailable) as far as the rows go, and leaves what was done: records
    ///   are true whatever becomes of the rows, and a change without its entry is found when the command is repeated.
    /// - A record that was durable before `expected` was read is found.
    /// - A store that finds the keys of its rows without records may ignore `records`, and may look up keys that were not asked for.
    /// - What a change carries of its message ([`Content::carry`](madang_proto::Content::carry)) goes to the feed of commits and
    ///   is not kept: reads bring the change without it, and the target as it is.
    ///
    /// # The caller owes
    /// - After [`StoreError::Unknown`](crate::StoreError::Unknown), which also stands for a future that was dropped: the rows may
    ///   be there, may come later, or never. Read the [`tail`](LogStore::tail), and append again with its head as `expected`.
    ///   That append is refused if the unknown one came first, and prevents it if not; without it, a message may be there twice.
    /// - Call [`apply_consequences`](LogStore::apply_consequences) for rows that were appended. It may be late or repeated.
    async fn append(&self, append: Append) -> StoreResult<AppendOutcome>;

    /// Applies the consequences of appended rows in other partitions: markers rise, mentions are recorded, the reactions to
    /// deleted messages and the notes of their mentions are removed. Idempotent, in any order, of any age. A store whose `append`
    /// has done this in the same commit returns at once.
    ///
    /// Until it has returned, counts of unread messages and mentions may be behind. Nothing else depends on it.
    async fn apply_consequences(&self, channel: ChannelId, consequences: &Consequences) -> StoreResult<()>;

    /// Whether [`apply_consequences`](LogStore::apply_consequences) has nothing to do, so that a home need not read the rows
    /// of a dead one to repeat it.
    fn applies_consequences_with_rows(&self) -> bool {
        false
    }

    /// The part of the store that holds this place of a log: what is slow or dead there is so for all places with the same number. A
    /// store that is one whole has one part.
    fn shard(&self, _log: LogId, _seq: Seq) -> u64 {
        0
    }

    /// The head and the last `rows` rows, each [`Row::without_body`].
    ///
    /// A serial read: it sees every append that has returned anywhere, also as `Unknown` if that one has happened. It does not
    /// prevent one that has not happened yet. An implementation holds one whole row at a time at most.
    async fn tail(&self, log: LogId, rows: usize) -> StoreResult<Tail>;

    /// The heads of several logs, in the order of `logs`. A log without rows has the default head. Not serial: an append of
    /// unknown outcome may show later.
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

    /// The messages of `sender` within a range of a channel's log, rising; ends after `max_bytes` of entries (at least one
    /// row). It looks at every row of the range, so the caller bounds that.
    async fn rows_by(
        &self,
        channel: ChannelId,
        sender: UserId,
        range: RangeInclusive<Seq>,
        max_bytes: usize,
    ) -> StoreResult<SentRows>;

    /// Single rows, in the order asked for; ends after `max_bytes` of entries (at least one row), so the answer may be
    /// shorter than `seqs`. A place without a row is `None`.
    async fn rows_at(&self, log: LogId, seqs: &[Seq], max_bytes: usize) -> StoreResult<Vec<Option<Row>>>;

    /// Changes reactions to the message at `target`, and answers with all of them: by emoji, at most `named` users of each,
    /// by id. Repeating it is harmless. The message's row is not changed. Of two
    /// changes of one reaction the later one by [`ReactionChange::at_us`] stays, in whichever order they come; a store of one process,
    /// where they come in their order, need not look at it.
    async fn react(
        &self,
        channel: ChannelId,
        target: Seq,
        changes: &[ReactionChange],
        named: usize,
    ) -> StoreResult<Vec<Reaction>>;

    /// The users who reacted to a message with one emoji, by id, after `after`.
    async fn reactors(
        &self,
        channel: ChannelId,
        target: Seq,
        emoji: &str,
        after: Option<UserId>,
        limit: usize,
    ) -> StoreResult<Vec<UserId>>;

    /// The reactions of one user in a channel, after `after`: those among the next `scan` reactions of anybody.
    async fn reactions_by(
        &self,
        channel: ChannelId,
        user: UserId,
        after: Option<ReactionPlace>,
        scan: usize,
    ) -> StoreResult<OwnReactions>;

    /// Messages that mention a user by name, the latest first, before `before`; those that were deleted are left out.
    async fn mentions_of(
        &self,
        user: UserId,
        before: Option<MentionPlace>,
        limit: usize,
    ) -> StoreResult<Vec<Mention>>;

    /// The rows of several ranges in one read: a list for each range in the order asked for, up to where `max_bytes`
    /// of entries are reached (at least one row); the last list may lack its end, and lists may be missing behind it.
    async fn rows_of(
        &self,
        ranges: &[(LogId, RangeInclusive<Seq>)],
        max_bytes: usize,
    ) -> StoreResult<Vec<Vec<Row>>> {
        let mut lists = Lists::new(max_bytes);
        for (log, range) in ranges {
            let Some(room) = lists.room() else { break };
            let rows = self.rows(*log, range.clone(), room).await?;
            lists.push(rows, *range.end());
        }
        Ok(lists.done)
    }

    /// The first row at or after `at`, or the place after the head. By bisection: `at` rises with `seq`.
    async fn seq_at(&self, log: LogId, at: Millis) -> StoreResult<Seq>;

    /// Finds recorded sends, in the order asked for.
    async fn find_sends(
        &self,
        channel: ChannelId,
        keys: &[(UserId, ClientMsgId)],
    ) -> StoreResult<Vec<Option<SendRecord>>>;
}
