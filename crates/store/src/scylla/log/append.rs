//! Appends, and changes of earlier rows.

use std::sync::Arc;

use scylla::value::{CqlValue, MaybeUnset};

use madang_ids::LogId;

use super::statements::{
    ALL_KEYS, CHANGE_ROW, FIRST_HEAD, INSERT_KEY, INSERT_ROW, MOVE_HEAD, PUT_SEND, SERIAL_HEAD, SET_PLACE,
};
use super::{PAGE_ROWS, StoredHead, StoredKey, bucket_of, each, first_of, last_of};
use crate::error::{StoreError, StoreResult};
use crate::log::{Append, AppendOutcome, Head, MAX_APPEND_ROWS, Row, RowChange, RowKey, SendRecord};
use crate::scylla::codec::{Written, big, client_msg_bytes, int, log_key, send_key, set, text_or_unset};
use crate::scylla::session::{Statement, Values};
use crate::scylla::{Scylla, details};

impl Scylla {
    /// See [`crate::LogStore::append`].
    ///
    /// Rows on both sides of the end of a bucket are two appends. If the first one has happened and the second one has not, the
    /// outcome is unknown: the caller reads the tail and finds the first rows.
    pub(super) async fn try_append(&self, append: Append) -> StoreResult<AppendOutcome> {
        check(&append)?;
        let room = last_of(bucket_of(append.expected.seq.next())).get() - append.expected.seq.get();
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        if append.rows.len() <= room {
            return self.append_to_bucket(append).await;
        }
        let (first, rest) = append.rows.split_at(room);
        let rest: Arc<[Row]> = rest.into();
        let first = Append { rows: first.into(), details: None, ..append.clone() };
        let expected = first.head();
        let outcome = self.append_to_bucket(first).await?;
        if outcome != AppendOutcome::Appended {
            return Ok(outcome);
        }
        let rest = Append { expected, rows: rest, changes: Vec::new(), records: Vec::new(), ..append };
        match self.append_to_bucket(rest).await {
            Ok(AppendOutcome::Appended) => Ok(AppendOutcome::Appended),
            Ok(other) => {
                Err(StoreError::Unknown(format!("only the rows of one bucket are there: {other:?}")))
            }
            Err(error) => Err(StoreError::Unknown(error.to_string())),
        }
    }

    async fn append_to_bucket(&self, append: Append) -> StoreResult<AppendOutcome> {
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
            if let (LogId::User(user), true) = (append.log, is_first) {
                self.empty_old_buckets(user, bucket).await;
            }
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
        self.cql.metrics.append_conflicts.inc();
        Ok(AppendOutcome::Moved)
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
    pub(in crate::scylla) async fn change_rows(
        &self,
        log: LogId,
        changes: &[RowChange],
    ) -> StoreResult<bool> {
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
            Some(details) => Some(details::to_json(details)?),
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

fn check(append: &Append) -> StoreResult<()> {
    let is_dense =
        append.rows.iter().zip(append.expected.seq.get() + 1..).all(|(row, seq)| row.entry.seq.get() == seq);
    if is_dense && (1..=MAX_APPEND_ROWS).contains(&append.rows.len()) {
        return Ok(());
    }
    Err(StoreError::Corrupt(format!("an append to {} has a hole", append.log)))
}
