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
use scylla::value::{CqlValue, MaybeUnset};

use super::Scylla;
use super::codec::{
    StoredRow, Written, big, bound, client_msg_bytes, client_msg_id, hash, int, log_key, number, send_key,
    set, text_or_unset,
};
use super::session::{Class, Statement, Values};
use crate::error::{StoreError, StoreResult};
use crate::log::{
    Append, AppendOutcome, Consequences, Head, LogStore, MAX_APPEND_ROWS, Marker, Mention, MentionPlace,
    OwnReactions, ReactionChange, ReactionPlace, Row, RowChange, RowKey, SendRecord, SentRows, Tail,
};

/// Places of one bucket.
const BUCKET: u64 = 4_096;
/// Rows that are read at once: with the largest texts 6 MB.
const PAGE_ROWS: i32 = 64;
/// Statements of one call that are under way at once.
const AT_ONCE: usize = 32;

const PLACE: Statement =
    Statement { class: Class::Read, cql: "SELECT bucket FROM log_place WHERE kind = ? AND id = ?" };
const SET_PLACE: Statement = Statement {
    class: Class::Write,
    cql: "INSERT INTO log_place (kind, id, bucket) VALUES (?, ?, ?) USING TIMESTAMP ?",
};
const HEAD: Statement = Statement {
    class: Class::Read,
    cql: "SELECT head_seq, head_ordinal, head_at, message_at, details FROM log
          WHERE kind = ? AND id = ? AND bucket = ? LIMIT 1",
};
const SERIAL_HEAD: Statement = Statement {
    class: Class::SerialRead,
    cql: "SELECT head_seq, head_ordinal, head_at, message_at, details FROM log
          WHERE kind = ? AND id = ? AND bucket = ? LIMIT 1",
};
/// The head and the last rows in one serial read. Bodies are not read.
const TAIL: Statement = Statement {
    class: Class::SerialRead,
    cql: "SELECT head_seq, head_ordinal, head_at, seq, at, ordinal, version, sender, client_msg_id, body_hash, content FROM log
          WHERE kind = ? AND id = ? AND bucket = ? AND part = 0 ORDER BY part ASC, seq DESC, key ASC LIMIT ?",
};
const LAST_ROWS: Statement = Statement {
    class: Class::Read,
    cql: "SELECT head_seq, head_ordinal, head_at, seq, at, ordinal, version, sender, client_msg_id, body_hash, content FROM log
          WHERE kind = ? AND id = ? AND bucket = ? AND part = 0 ORDER BY part ASC, seq DESC, key ASC LIMIT ?",
};
const RISING: Statement = Statement {
    class: Class::Read,
    cql:
        "SELECT seq, at, ordinal, version, sender, client_msg_id, body_hash, content, body, reactions FROM log
          WHERE kind = ? AND id = ? AND bucket = ? AND part = 0 AND seq >= ? AND seq <= ?
          ORDER BY part DESC, seq ASC, key DESC LIMIT ?",
};
const FALLING: Statement = Statement {
    class: Class::Read,
    cql:
        "SELECT seq, at, ordinal, version, sender, client_msg_id, body_hash, content, body, reactions FROM log
          WHERE kind = ? AND id = ? AND bucket = ? AND part = 0 AND seq >= ? AND seq <= ?
          ORDER BY part ASC, seq DESC, key ASC LIMIT ?",
};
const SINGLE: Statement = Statement {
    class: Class::Read,
    cql:
        "SELECT seq, at, ordinal, version, sender, client_msg_id, body_hash, content, body, reactions FROM log
          WHERE kind = ? AND id = ? AND bucket = ? AND part = 0 AND seq = ? AND key = 0x",
};
const TIME: Statement = Statement {
    class: Class::Read,
    cql: "SELECT at FROM log WHERE kind = ? AND id = ? AND bucket = ? AND part = 0 AND seq = ? AND key = 0x",
};
const ALL_KEYS: Statement = Statement {
    class: Class::Read,
    cql: "SELECT key, body_hash, target, message_id, at FROM log
          WHERE kind = ? AND id = ? AND bucket = ? AND part = 1 AND seq = 0 AND key > ? LIMIT ?",
};
const KEY: Statement = Statement {
    class: Class::SerialRead,
    cql: "SELECT key, body_hash, target, message_id, at FROM log
          WHERE kind = ? AND id = ? AND bucket = ? AND part = 1 AND seq = 0 AND key = ?",
};
const MOVE_HEAD: Statement = Statement {
    class: Class::Conditional,
    cql: "UPDATE log SET head_seq = ?, head_ordinal = ?, head_at = ?, message_at = ?, details = ?
          WHERE kind = ? AND id = ? AND bucket = ? IF head_seq = ? AND head_ordinal = ? AND head_at = ?",
};
const FIRST_HEAD: Statement = Statement {
    class: Class::Conditional,
    cql: "UPDATE log SET head_seq = ?, head_ordinal = ?, head_at = ?, message_at = ?, details = ?
          WHERE kind = ? AND id = ? AND bucket = ? IF head_seq = null",
};
const INSERT_ROW: Statement = Statement {
    class: Class::Conditional,
    cql: "INSERT INTO log (kind, id, bucket, part, seq, key, at, ordinal, version, sender, client_msg_id, body_hash, content,
          body, reactions) VALUES (?, ?, ?, 0, ?, 0x, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
};
const INSERT_KEY: Statement = Statement {
    class: Class::Conditional,
    cql: "INSERT INTO log (kind, id, bucket, part, seq, key, body_hash, target, message_id, at)
          VALUES (?, ?, ?, 1, 0, ?, ?, ?, ?, ?) IF NOT EXISTS",
};
const CHANGE_ROW: Statement = Statement {
    class: Class::Conditional,
    cql: "UPDATE log SET version = ?, content = ?, body = ?, reactions = ?
          WHERE kind = ? AND id = ? AND bucket = ? AND part = 0 AND seq = ? AND key = 0x IF version = ?",
};
const SEND: Statement = Statement {
    class: Class::Read,
    cql: "SELECT body_hash, seq, message_id, at FROM sends WHERE channel = ? AND sender = ? AND client_msg_id = ?",
};
const PUT_SEND: Statement = Statement {
    class: Class::Write,
    cql: "INSERT INTO sends (channel, sender, client_msg_id, body_hash, seq, message_id, at) VALUES (?, ?, ?, ?, ?, ?, ?)",
};
const PUT_REACTION: Statement = Statement {
    class: Class::Write,
    cql: "INSERT INTO reactions (channel, target, emoji, user) VALUES (?, ?, ?, ?)",
};
const REMOVE_REACTION: Statement = Statement {
    class: Class::Write,
    cql: "DELETE FROM reactions WHERE channel = ? AND target = ? AND emoji = ? AND user = ?",
};
const REACTIONS: Statement = Statement {
    class: Class::Read,
    cql: "SELECT emoji, user FROM reactions WHERE channel = ? AND target = ?",
};
const FORGET_REACTIONS: Statement =
    Statement { class: Class::Write, cql: "DELETE FROM reactions WHERE channel = ? AND target = ?" };
const REACTORS: Statement = Statement {
    class: Class::Read,
    cql: "SELECT user FROM reactions WHERE channel = ? AND target = ? AND emoji = ? AND user > ? LIMIT ?",
};
const PUT_OWN_REACTION: Statement = Statement {
    class: Class::Write,
    cql: "INSERT INTO reactions_by_user (channel, user, target, emoji) VALUES (?, ?, ?, ?)",
};
const REMOVE_OWN_REACTION: Statement = Statement {
    class: Class::Write,
    cql: "DELETE FROM reactions_by_user WHERE channel = ? AND user = ? AND target = ? AND emoji = ?",
};
const OWN_REACTIONS: Statement = Statement {
    class: Class::Read,
    cql: "SELECT target, emoji FROM reactions_by_user WHERE channel = ? AND user = ? AND (target, emoji) > (?, ?) LIMIT ?",
};
const PUT_MENTION: Statement = Statement {
    class: Class::Write,
    cql: "INSERT INTO mentions (user, at, channel, seq, sender) VALUES (?, ?, ?, ?, ?)",
};
const PUT_MENTION_BY_CHANNEL: Statement = Statement {
    class: Class::Write,
    cql: "INSERT INTO mentions_by_channel (user, channel, seq, at, sender) VALUES (?, ?, ?, ?, ?)",
};
const MENTION_AT: Statement = Statement {
    class: Class::Read,
    cql: "SELECT at FROM mentions_by_channel WHERE user = ? AND channel = ? AND seq = ?",
};
const REMOVE_MENTION: Statement = Statement {
    class: Class::Write,
    cql: "DELETE FROM mentions WHERE user = ? AND at = ? AND channel = ? AND seq = ?",
};
const REMOVE_MENTION_BY_CHANNEL: Statement = Statement {
    class: Class::Write,
    cql: "DELETE FROM mentions_by_channel WHERE user = ? AND channel = ? AND seq = ?",
};
const MENTIONS: Statement = Statement {
    class: Class::Read,
    cql: "SELECT at, channel, seq, sender FROM mentions WHERE user = ? AND (at, channel, seq) < (?, ?, ?) LIMIT ?",
};
const PUT_MARKER: Statement = Statement {
    class: Class::Write,
    cql: "INSERT INTO markers (user, channel, seq, ordinal) VALUES (?, ?, ?, ?) USING TIMESTAMP ?",
};

/// Everybody, among the mentioned users.
const EVERYBODY: i64 = 0;

/// The bucket of a place.
pub(super) const fn bucket_of(seq: Seq) -> i32 {
    (seq.get().saturating_sub(1) / BUCKET) as i32
}

/// The first place of a bucket.
pub(super) const fn first_of(bucket: i32) -> Seq {
    Seq::new(bucket.unsigned_abs() as u64 * BUCKET + 1)
}

/// The last place of a bucket.
const fn last_of(bucket: i32) -> Seq {
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

    /// Before the first append of a bucket: the retry keys of the bucket before go to `sends`, and the hint is set.
    async fn close_bucket(&self, log: LogId, bucket: i32) -> StoreResult<()> {
        let (kind, id) = log_key(log);
        if let LogId::Channel(channel) = log {
            let mut after = Vec::new();
            loop {
                let page: Vec<StoredKey> =
                    self.cql.read(&ALL_KEYS, (kind, id, bucket, after.clone(), PAGE_ROWS * 8)).await?;
                let Some(last) = page.last() else { break };
                after.clone_from(&last.key);
                let records: Vec<SendRecord> = page.into_iter().filter_map(StoredKey::record).collect();
                let put = |record: SendRecord| {
                    let SendRecord { key: RowKey { sender, client_msg_id, body_hash }, seq, message_id, at } =
                        record;
                    let values = (
                        int(channel.raw()),
                        int(sender.raw()),
                        client_msg_bytes(client_msg_id),
                        body_hash.0.to_vec(),
                        int(seq.get()),
                        int(message_id.raw()),
                        int(at.get()),
                    );
                    async move { self.cql.write(&PUT_SEND, values).await }
                };
                each(records, put).await?;
            }
        }
        let next = bucket + 1;
        self.cql.write(&SET_PLACE, (kind, id, next, i64::from(next))).await
    }

    /// Makes the changes of earlier rows, each by its version. `false` if one has another version.
    pub(super) async fn change_rows(&self, log: LogId, changes: &[RowChange]) -> StoreResult<bool> {
        let (kind, id) = log_key(log);
        for change in changes {
            let Written { content, body, reactions, version } = Written::of(&change.content)?;
            let values = (
                (version, content, body, reactions),
                (kind, id, bucket_of(change.target), int(change.target.get())),
                i32::try_from(change.if_version).unwrap_or(i32::MAX),
            );
            let ((version, content, body, reactions), (kind, id, bucket, seq), if_version) = values;
            let values = (version, content, body, reactions, kind, id, bucket, seq, if_version);
            if !self.cql.conditional(&CHANGE_ROW, values).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The directory lists what the log says. It may be late; the next change of the details repeats the write.
    async fn follow_details(&self, append: &Append) {
        let (LogId::Channel(channel), Some(details)) = (append.log, &append.details) else { return };
        if let Err(error) = self.list_if_open(channel, details, append.head().seq).await {
            tracing::warn!(channel.id = %channel, %error, "the directory does not have the channel's new details");
        }
    }

    /// The statements of an append.
    fn append_parts(
        append: &Append,
        bucket: i32,
        before: Option<&StoredHead>,
    ) -> StoreResult<Vec<(&'static Statement, Values)>> {
        let (kind, id) = log_key(append.log);
        let place = || [set(CqlValue::TinyInt(kind)), set(CqlValue::BigInt(id)), set(CqlValue::Int(bucket))];
        let head = append.head();
        let last_message = append.rows.iter().rfind(|row| row.entry.content.message().is_some());
        let message_at =
            last_message.map(|row| int(row.entry.at.get())).or(before.and_then(|it| it.message_at));
        let details = match &append.details {
            Some(details) => Some(super::details::to_json(details)?),
            None => before.and_then(|before| before.details.clone()),
        };
        let mut values = vec![big(head.seq.get()), big(head.ordinal.get()), big(head.at.get())];
        values.push(message_at.map_or(MaybeUnset::Unset, |at| set(CqlValue::BigInt(at))));
        values.push(text_or_unset(details));
        values.extend(place());
        let is_first = append.expected.seq.get() == first_of(bucket).get() - 1;
        if !is_first {
            let Head { seq, ordinal, at } = append.expected;
            values.extend([big(seq.get()), big(ordinal.get()), big(at.get())]);
        }
        let mut parts = vec![(if is_first { &FIRST_HEAD } else { &MOVE_HEAD }, values)];
        for row in append.rows.iter() {
            let seq = row.entry.seq.get();
            let Written { content, body, reactions, version } = Written::of(&row.entry.content)?;
            let mut values: Values = place().into();
            values.extend([
                big(seq),
                big(row.entry.at.get()),
                big(row.ordinal.get()),
                set(CqlValue::Int(version)),
            ]);
            match row.key {
                Some(RowKey { sender, client_msg_id, body_hash }) => values.extend([
                    big(sender.raw()),
                    set(CqlValue::Blob(client_msg_bytes(client_msg_id))),
                    set(CqlValue::Blob(body_hash.0.to_vec())),
                ]),
                None => values.extend([MaybeUnset::Unset, MaybeUnset::Unset, MaybeUnset::Unset]),
            }
            values.push(set(CqlValue::Text(content)));
            values.extend([text_or_unset(body), text_or_unset(reactions)]);
            parts.push((&INSERT_ROW, values));
            if let (Some(key), Some(message)) = (row.key, row.entry.content.message()) {
                let mut values: Values = place().into();
                values.push(set(CqlValue::Blob(send_key(key.sender, key.client_msg_id))));
                values.push(set(CqlValue::Blob(key.body_hash.0.to_vec())));
                values.extend([big(seq), big(message.message_id.raw()), big(row.entry.at.get())]);
                parts.push((&INSERT_KEY, values));
            }
        }
        Ok(parts)
    }
}

#[async_trait]
impl LogStore for Scylla {
    async fn append(&self, append: Append) -> StoreResult<AppendOutcome> {
        check(&append)?;
        let (kind, id) = log_key(append.log);
        let bucket = bucket_of(append.expected.seq.next());
        let is_first = append.expected.seq.get() + 1 == first_of(bucket).get();
        let keys: Vec<_> = append.keys().collect();
        if let (LogId::Channel(channel), true, true) = (append.log, append.looks_up_keys, bucket > 0) {
            let closed = each(keys.clone(), |(sender, key)| self.closed_send(channel, sender, key));
            let sent = closed.await?;
            let sent: Vec<SendRecord> = sent.into_iter().flatten().collect();
            if !sent.is_empty() {
                return Ok(AppendOutcome::SentBefore(sent));
            }
        }
        if !self.change_rows(append.log, &append.changes).await? {
            return Ok(AppendOutcome::Stale);
        }
        let mut before = None;
        if is_first && bucket > 0 {
            before = self.cql.read_one::<StoredHead>(&SERIAL_HEAD, (kind, id, bucket - 1)).await?;
            if before.as_ref().and_then(StoredHead::head) != Some(append.expected) {
                return Ok(AppendOutcome::Moved);
            }
            self.close_bucket(append.log, bucket - 1).await?;
        } else if is_first && append.expected != Head::default() {
            return Ok(AppendOutcome::Moved);
        }
        let parts = Self::append_parts(&append, bucket, before.as_ref())?;
        if self.cql.conditional_batch(parts).await? {
            self.follow_details(&append).await;
            return Ok(AppendOutcome::Appended);
        }
        // Not applied: a key was there, or the head is another. Keys come first, since they are valid for any head.
        if let LogId::Channel(channel) = append.log {
            let sent: Vec<SendRecord> =
                self.records(channel, bucket, &keys).await?.into_iter().flatten().collect();
            if !sent.is_empty() {
                return Ok(AppendOutcome::SentBefore(sent));
            }
        }
        Ok(AppendOutcome::Moved)
    }

    async fn apply_consequences(&self, channel: ChannelId, consequences: &Consequences) -> StoreResult<()> {
        let Consequences { markers, mentions, deleted } = consequences;
        let channel = int(channel.raw());
        each(markers.clone(), |(user, marker)| self.put_marker(user, channel, marker)).await?;
        let notes: Vec<_> = mentions
            .iter()
            .flat_map(|of| {
                let place = (int(of.at.get()), int(of.seq.get()), int(of.sender.raw()));
                of.users.iter().map(move |user| (place, *user))
            })
            .collect();
        let note = |((at, seq, sender), user): ((i64, i64, i64), Option<UserId>)| async move {
            let id = user.map_or(EVERYBODY, |user| int(user.raw()));
            self.cql.write(&PUT_MENTION_BY_CHANNEL, (id, channel, seq, at, sender)).await?;
            match user {
                Some(_) => self.cql.write(&PUT_MENTION, (id, at, channel, seq, sender)).await,
                None => Ok(()),
            }
        };
        each(notes, note).await?;
        for of in deleted {
            let target = int(of.target.get());
            for user in &of.mentioned {
                let user = user.map_or(EVERYBODY, |user| int(user.raw()));
                let at: Option<(i64,)> = self.cql.read_one(&MENTION_AT, (user, channel, target)).await?;
                if let Some((at,)) = at.filter(|_| user != EVERYBODY) {
                    self.cql.write(&REMOVE_MENTION, (user, at, channel, target)).await?;
                }
                self.cql.write(&REMOVE_MENTION_BY_CHANNEL, (user, channel, target)).await?;
            }
            let all: Vec<(String, i64)> = self.cql.read(&REACTIONS, (channel, target)).await?;
            let forget = |(emoji, user): (String, i64)| async move {
                self.cql.write(&REMOVE_OWN_REACTION, (channel, user, target, emoji)).await
            };
            each(all, forget).await?;
            self.cql.write(&FORGET_REACTIONS, (channel, target)).await?;
        }
        Ok(())
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
        let (channel, target) = (int(channel.raw()), int(target.get()));
        for ReactionChange { user_id, emoji, on } in changes {
            let user = int(user_id.raw());
            let (here, own) = if *on {
                (&PUT_REACTION, &PUT_OWN_REACTION)
            } else {
                (&REMOVE_REACTION, &REMOVE_OWN_REACTION)
            };
            let here = self.cql.write(here, (channel, target, emoji, user));
            let own = self.cql.write(own, (channel, user, target, emoji));
            try_join(here, own).await?;
        }
        let all: Vec<(String, i64)> = self.cql.read(&REACTIONS, (channel, target)).await?;
        let mut reactions: Vec<Reaction> = Vec::new();
        for (emoji, user) in all {
            let user = UserId::from_raw(number(user));
            match reactions.last_mut().filter(|last| last.emoji == emoji) {
                Some(last) => {
                    last.count += 1;
                    if last.users.len() < named {
                        last.users.push(user);
                    }
                }
                None => reactions.push(Reaction { emoji, count: 1, users: vec![user] }),
            }
        }
        Ok(reactions)
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
        const SPOIL: Statement = Statement {
            class: Class::Conditional,
            cql: "UPDATE log SET content = '{' WHERE kind = ? AND id = ? AND bucket = ? AND part = 0 AND seq = ? AND key = 0x IF EXISTS",
        };
        let (kind, id) = log_key(log);
        self.cql.conditional(&SPOIL, (kind, id, bucket_of(seq), int(seq.get()))).await.map(drop)
    }

    pub(super) async fn put_marker(&self, user: UserId, channel: i64, marker: Marker) -> StoreResult<()> {
        let (seq, ordinal) = (int(marker.seq.get()), int(marker.ordinal.get()));
        self.cql.write(&PUT_MARKER, (int(user.raw()), channel, seq, ordinal, seq)).await
    }
}

fn check(append: &Append) -> StoreResult<()> {
    let is_dense =
        append.rows.iter().zip(append.expected.seq.get() + 1..).all(|(row, seq)| row.entry.seq.get() == seq);
    let is_in_one = bucket_of(append.expected.seq.next()) == bucket_of(append.head().seq);
    if is_dense && is_in_one && (1..=MAX_APPEND_ROWS).contains(&append.rows.len()) {
        return Ok(());
    }
    Err(StoreError::Corrupt(format!("an append to {} has a hole, or crosses a bucket", append.log)))
}
