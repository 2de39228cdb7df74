//! Logs.
//!
//! A bucket of a log is one partition, and an append is one conditional batch in it: the head moves if it is the expected one, and
//! each retry key is inserted if it is not there. So the compare-and-set and the look-up of keys are one round. The first append
//! of a bucket moves nothing: it creates the head, if there is none, and only a writer who has seen the bucket before full does
//! that. It copies what the bucket before knows: the details, and the retry keys into `sends`.

use std::ops::RangeInclusive;

use async_trait::async_trait;
use futures_util::future::try_join;
use futures_util::stream::{StreamExt, TryStreamExt, iter};
use madang_engine::body;
use madang_ids::{ChannelId, ClientMsgId, LogId, MessageId, Millis, Ordinal, Seq, UserId};
use madang_proto::Reaction;
use scylla::DeserializeRow;

mod append;
mod consequences;
mod statements;

use statements::{
    FALLING, HEAD, KEY, LAST_ROWS, MENTIONS, OWN_REACTIONS, PLACE, REACTORS, RISING, SEND, SINGLE, TAIL, TIME,
};

use super::Scylla;
use super::codec::{StoredRow, bound, client_msg_bytes, client_msg_id, hash, int, log_key, number, send_key};
use crate::error::StoreResult;
use crate::log::{
    Append, AppendOutcome, Consequences, Head, LogStore, Mention, MentionPlace, OwnReactions, ReactionChange,
    ReactionPlace, Row, RowKey, SendRecord, SentRows, Tail,
};

/// Places of one bucket.
pub(super) const BUCKET: u64 = 4_096;
/// Rows that are read at once: with the largest texts 6 MB.
const PAGE_ROWS: i32 = 64;
/// Statements of one call that are under way at once.
const AT_ONCE: usize = 32;

/// The bucket of a place.
pub(super) const fn bucket_of(seq: Seq) -> i32 {
    (seq.get().saturating_sub(1) / BUCKET) as i32
}

/// The first place of a bucket.
pub(super) const fn first_of(bucket: i32) -> Seq {
    Seq::new(bucket.unsigned_abs() as u64 * BUCKET + 1)
}

/// The last place of a bucket.
pub(super) const fn last_of(bucket: i32) -> Seq {
    Seq::new((bucket.unsigned_abs() as u64 + 1) * BUCKET)
}

/// Does something with each item, [`AT_ONCE`] at a time; the answers come in the order of the items.
pub(super) async fn each<T, R, F>(items: Vec<T>, work: impl Fn(T) -> F) -> StoreResult<Vec<R>>
where
    F: Future<Output = StoreResult<R>>,
{
    iter(items).map(work).buffered(AT_ONCE).try_collect().await
}

/// The static columns of a bucket.
#[derive(Debug, DeserializeRow)]
pub(super) struct StoredHead {
    head_seq: Option<i64>,
    head_ordinal: Option<i64>,
    head_at: Option<i64>,
    pub(super) message_at: Option<i64>,
    pub(super) details: Option<String>,
}

impl StoredHead {
    pub(super) fn head(&self) -> Option<Head> {
        head(self.head_seq, self.head_ordinal, self.head_at)
    }
}

fn head(seq: Option<i64>, ordinal: Option<i64>, at: Option<i64>) -> Option<Head> {
    Some(Head {
        seq: Seq::new(number(seq?)),
        ordinal: Ordinal::new(number(ordinal?)),
        at: Millis::new(number(at?)),
    })
}

/// A row of a tail, which has the head too. A bucket without rows has none.
#[derive(Debug, DeserializeRow)]
struct TailRow {
    head_seq: Option<i64>,
    head_ordinal: Option<i64>,
    head_at: Option<i64>,
    seq: i64,
    at: i64,
    ordinal: i64,
    version: i32,
    sender: Option<i64>,
    client_msg_id: Option<Vec<u8>>,
    body_hash: Option<Vec<u8>>,
    content: Option<String>,
}

impl TailRow {
    fn row(self) -> Row {
        StoredRow {
            seq: self.seq,
            at: self.at,
            ordinal: self.ordinal,
            version: self.version,
            sender: self.sender,
            client_msg_id: self.client_msg_id,
            body_hash: self.body_hash,
            content: self.content,
            body: None,
            reactions: None,
        }
        .row()
    }
}

#[derive(Debug, DeserializeRow)]
struct StoredKey {
    key: Vec<u8>,
    body_hash: Option<Vec<u8>>,
    target: Option<i64>,
    message_id: Option<i64>,
    at: Option<i64>,
}

impl StoredKey {
    fn record(self) -> Option<SendRecord> {
        let (sender, id) = self.key.split_at_checked(8)?;
        let sender = UserId::from_raw(u64::from_be_bytes(sender.try_into().ok()?));
        let key = RowKey { sender, client_msg_id: client_msg_id(id)?, body_hash: hash(&self.body_hash?)? };
        Some(SendRecord {
            key,
            seq: Seq::new(number(self.target?)),
            message_id: MessageId::from_raw(number(self.message_id?)),
            at: Millis::new(number(self.at?)),
        })
    }
}

/// The last bucket of a log, with its static columns. A log without rows has none.
pub(super) struct Last {
    pub(super) bucket: i32,
    pub(super) stored: Option<StoredHead>,
}

impl Last {
    pub(super) fn head(&self) -> Head {
        self.stored.as_ref().and_then(StoredHead::head).unwrap_or_default()
    }
}

impl Scylla {
    /// The last bucket of a log. Most logs have one, so the first is read beside the hint.
    pub(super) async fn last_bucket(&self, log: LogId) -> StoreResult<Last> {
        let (kind, id) = log_key(log);
        let place = self.cql.read_one::<(i32,)>(&PLACE, (kind, id));
        let first = self.cql.read_one::<StoredHead>(&HEAD, (kind, id, 0_i32));
        let (place, stored) = try_join(place, first).await?;
        let mut bucket = place.map_or(0, |(bucket,)| bucket);
        // The hint is written before the first append of a bucket, which may never come.
        while bucket > 0 {
            let stored: Option<StoredHead> = self.cql.read_one(&HEAD, (kind, id, bucket)).await?;
            if stored.as_ref().is_some_and(|stored| stored.head().is_some()) {
                return Ok(Last { bucket, stored });
            }
            bucket -= 1;
        }
        Ok(Last { bucket: 0, stored })
    }

    /// Reads of several buckets: rows of a range, rising or falling, until `max_bytes` are reached.
    async fn range(
        &self,
        log: LogId,
        range: RangeInclusive<Seq>,
        max_bytes: usize,
        is_falling: bool,
    ) -> StoreResult<Vec<Row>> {
        let (kind, id) = log_key(log);
        let (mut from, mut to) = (*range.start().max(&Seq::new(1)), *range.end());
        let (mut rows, mut bytes) = (Vec::new(), 0_usize);
        if to.get() >= last_of(bucket_of(from)).get() {
            // The range may end far behind the log.
            to = to.min(self.last_bucket(log).await?.head().seq);
        }
        while from <= to {
            let bucket = bucket_of(if is_falling { to } else { from });
            let (low, high) = (from.max(first_of(bucket)), to.min(last_of(bucket)));
            let statement = if is_falling { &FALLING } else { &RISING };
            let values = (kind, id, bucket, bound(low), bound(high), PAGE_ROWS);
            let page: Vec<StoredRow> = self.cql.read(statement, values).await?;
            let is_end = page.len() < PAGE_ROWS as usize;
            let last = page.last().map(|row| Seq::new(number(row.seq)));
            for stored in page {
                let row = stored.row();
                bytes += body::entry_bytes(&row.entry.content);
                if bytes > max_bytes && !rows.is_empty() {
                    return Ok(rows);
                }
                rows.push(row);
            }
            match (is_falling, last.filter(|_| !is_end)) {
                (false, Some(last)) => from = last.next(),
                (false, None) => from = last_of(bucket).next(),
                (true, Some(last)) => to = Seq::new(last.get() - 1),
                (true, None) => to = Seq::new(first_of(bucket).get() - 1),
            }
        }
        Ok(rows)
    }

    /// The records of some keys: those of the present bucket, and those of closed ones.
    async fn records(
        &self,
        channel: ChannelId,
        bucket: i32,
        keys: &[(UserId, ClientMsgId)],
    ) -> StoreResult<Vec<Option<SendRecord>>> {
        let (kind, id) = log_key(LogId::Channel(channel));
        let find = |(sender, key)| async move {
            let here = self.cql.read_one::<StoredKey>(&KEY, (kind, id, bucket, send_key(sender, key)));
            let before =
                async { if bucket == 0 { Ok(None) } else { self.closed_send(channel, sender, key).await } };
            let (here, before) = try_join(here, before).await?;
            Ok(here.and_then(StoredKey::record).or(before))
        };
        each(keys.to_vec(), find).await
    }

    async fn closed_send(
        &self,
        channel: ChannelId,
        sender: UserId,
        client_msg_id: ClientMsgId,
    ) -> StoreResult<Option<SendRecord>> {
        let values = (int(channel.raw()), int(sender.raw()), client_msg_bytes(client_msg_id));
        let row: Option<(Vec<u8>, i64, i64, i64)> = self.cql.read_one(&SEND, values).await?;
        Ok(row.and_then(|(body_hash, seq, message_id, at)| {
            Some(SendRecord {
                key: RowKey { sender, client_msg_id, body_hash: hash(&body_hash)? },
                seq: Seq::new(number(seq)),
                message_id: MessageId::from_raw(number(message_id)),
                at: Millis::new(number(at)),
            })
        }))
    }
}

#[async_trait]
impl LogStore for Scylla {
    async fn append(&self, append: Append) -> StoreResult<AppendOutcome> {
        self.try_append(append).await
    }

    async fn apply_consequences(&self, channel: ChannelId, consequences: &Consequences) -> StoreResult<()> {
        self.apply(channel, consequences).await
    }

    fn shard(&self, log: LogId, seq: Seq) -> u64 {
        let (kind, id) = log_key(log);
        self.cql.shard("log", &(kind, id, bucket_of(seq))).unwrap_or(0)
    }

    async fn tail(&self, log: LogId, rows: usize) -> StoreResult<Tail> {
        let (kind, id) = log_key(log);
        let limit = i32::try_from(rows.max(1)).unwrap_or(i32::MAX);
        let read = |bucket: i32| self.cql.read::<TailRow>(&TAIL, (kind, id, bucket, limit));
        let place = self.cql.read_one::<(i32,)>(&PLACE, (kind, id));
        let (place, mut last) = try_join(place, read(0)).await?;
        let mut bucket = place.map_or(0, |(bucket,)| bucket);
        while bucket > 0 {
            let found = read(bucket).await?;
            if !found.is_empty() {
                last = found;
                break;
            }
            bucket -= 1;
        }
        let Some(first) = last.first() else { return Ok(Tail::default()) };
        let head = head(first.head_seq, first.head_ordinal, first.head_at).unwrap_or_default();
        if last.len() < rows && bucket > 0 {
            let more = limit - i32::try_from(last.len()).unwrap_or(0);
            let before = self.cql.read::<TailRow>(&LAST_ROWS, (kind, id, bucket - 1, more)).await?;
            last.extend(before);
        }
        let mut rows: Vec<Row> = last.into_iter().take(rows).map(TailRow::row).collect();
        rows.reverse();
        Ok(Tail { head, rows })
    }

    async fn heads(&self, logs: &[LogId]) -> StoreResult<Vec<Head>> {
        each(logs.to_vec(), |log| async move { Ok(self.last_bucket(log).await?.head()) }).await
    }

    async fn rows(&self, log: LogId, range: RangeInclusive<Seq>, max_bytes: usize) -> StoreResult<Vec<Row>> {
        self.range(log, range, max_bytes, false).await
    }

    async fn rows_back(
        &self,
        log: LogId,
        range: RangeInclusive<Seq>,
        max_bytes: usize,
    ) -> StoreResult<Vec<Row>> {
        self.range(log, range, max_bytes, true).await
    }

    async fn rows_by(
        &self,
        channel: ChannelId,
        sender: UserId,
        range: RangeInclusive<Seq>,
        max_bytes: usize,
    ) -> StoreResult<SentRows> {
        let (mut from, end) = (*range.start(), *range.end());
        let (mut sent, mut bytes) = (SentRows::default(), 0_usize);
        while from <= end {
            let page = self.range(LogId::Channel(channel), from..=end, 1024 * 1024, false).await?;
            let Some(last) = page.last().map(|row| row.entry.seq) else { break };
            for row in page {
                let seq = row.entry.seq;
                if row.key.is_some_and(|key| key.sender == sender) {
                    bytes += body::entry_bytes(&row.entry.content);
                    if bytes > max_bytes && !sent.rows.is_empty() {
                        return Ok(sent);
                    }
                    sent.rows.push(row);
                }
                sent.upto = seq;
            }
            from = last.next();
        }
        sent.upto = end;
        Ok(sent)
    }

    async fn rows_at(&self, log: LogId, seqs: &[Seq], max_bytes: usize) -> StoreResult<Vec<Option<Row>>> {
        let (kind, id) = log_key(log);
        let read =
            |seq: Seq| self.cql.read_one::<StoredRow>(&SINGLE, (kind, id, bucket_of(seq), int(seq.get())));
        let mut reads = iter(seqs.to_vec()).map(read).buffered(AT_ONCE);
        let (mut rows, mut bytes) = (Vec::new(), 0_usize);
        while let Some(stored) = reads.try_next().await? {
            let row = stored.map(StoredRow::row);
            let more = row.as_ref().map_or(0, |row| body::entry_bytes(&row.entry.content));
            bytes += more;
            if more > 0 && bytes > max_bytes && !rows.is_empty() {
                break;
            }
            rows.push(row);
        }
        Ok(rows)
    }

    async fn react(
        &self,
        channel: ChannelId,
        target: Seq,
        changes: &[ReactionChange],
        named: usize,
    ) -> StoreResult<Vec<Reaction>> {
        self.change_reactions(channel, target, changes, named).await
    }

    async fn reactors(
        &self,
        channel: ChannelId,
        target: Seq,
        emoji: &str,
        after: Option<UserId>,
        limit: usize,
    ) -> StoreResult<Vec<UserId>> {
        let after = after.map_or(-1, |after| int(after.raw()));
        let limit = i32::try_from(limit).unwrap_or(i32::MAX);
        let values = (int(channel.raw()), int(target.get()), emoji, after, limit);
        let users: Vec<(i64,)> = self.cql.read(&REACTORS, values).await?;
        Ok(users.into_iter().map(|(user,)| UserId::from_raw(number(user))).collect())
    }

    async fn reactions_by(
        &self,
        channel: ChannelId,
        user: UserId,
        after: Option<ReactionPlace>,
        scan: usize,
    ) -> StoreResult<OwnReactions> {
        let (target, emoji) =
            after.map_or((-1, String::new()), |(target, emoji, _)| (int(target.get()), emoji));
        let limit = i32::try_from(scan).unwrap_or(i32::MAX);
        let values = (int(channel.raw()), int(user.raw()), target, emoji, limit);
        let found: Vec<(i64, String)> = self.cql.read(&OWN_REACTIONS, values).await?;
        let found: Vec<(Seq, String)> =
            found.into_iter().map(|(target, emoji)| (Seq::new(number(target)), emoji)).collect();
        let next = found.last().filter(|_| found.len() == scan);
        let next = next.map(|(target, emoji)| (*target, emoji.clone(), user));
        Ok(OwnReactions { found, next })
    }

    async fn mentions_of(
        &self,
        user: UserId,
        before: Option<MentionPlace>,
        limit: usize,
    ) -> StoreResult<Vec<Mention>> {
        let most = (i64::MAX, i64::MAX, i64::MAX);
        let (at, channel, seq) =
            before.map_or(most, |(at, channel, seq)| (int(at.get()), int(channel.raw()), int(seq.get())));
        let limit = i32::try_from(limit).unwrap_or(i32::MAX);
        let values = (int(user.raw()), at, channel, seq, limit);
        let found: Vec<(i64, i64, i64, i64)> = self.cql.read(&MENTIONS, values).await?;
        let mention = |(at, channel, seq, sender): (i64, i64, i64, i64)| Mention {
            place: (Millis::new(number(at)), ChannelId::from_raw(number(channel)), Seq::new(number(seq))),
            sender: UserId::from_raw(number(sender)),
        };
        Ok(found.into_iter().map(mention).collect())
    }

    async fn seq_at(&self, log: LogId, at: Millis) -> StoreResult<Seq> {
        let (kind, id) = log_key(log);
        let head = self.last_bucket(log).await?.head();
        // Rows before `low` are earlier than `at`, those from `high` on are not.
        let (mut low, mut high) = (1, head.seq.get() + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            let values = (kind, id, bucket_of(Seq::new(middle)), int(middle));
            let found: Option<(i64,)> = self.cql.read_one(&TIME, values).await?;
            // A row that was trimmed is earlier than every row that is asked for.
            match found {
                Some((found,)) if number(found) >= at.get() => high = middle,
                _ => low = middle + 1,
            }
        }
        Ok(Seq::new(low))
    }

    async fn find_sends(
        &self,
        channel: ChannelId,
        keys: &[(UserId, ClientMsgId)],
    ) -> StoreResult<Vec<Option<SendRecord>>> {
        let bucket = self.last_bucket(LogId::Channel(channel)).await?.bucket;
        self.records(channel, bucket, keys).await
    }
}

impl Scylla {
    /// Changes the content of a row as a failing disk may do. For tests.
    ///
    /// # Errors
    /// Those of the cluster.
    #[cfg(feature = "conformance")]
    pub async fn spoil(&self, log: LogId, seq: Seq) -> StoreResult<()> {
        use super::session::{Class, Statement};
        const SPOIL: Statement = Statement {
            class: Class::Conditional,
            cql: "UPDATE log SET content = '{' WHERE kind = ? AND id = ? AND bucket = ? AND part = 0 AND seq = ? AND key = 0x IF EXISTS",
        };
        let (kind, id) = log_key(log);
        self.cql.conditional(&SPOIL, (kind, id, bucket_of(seq), int(seq.get()))).await.map(drop)
    }
}
