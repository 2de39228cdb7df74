//! Logs: one row for each entry and one head for each log, both changed in one transaction.

mod rows;
mod statements;

use std::ops::RangeInclusive;

use async_trait::async_trait;
use madang_ids::{ChannelId, ClientMsgId, LogId, Millis, Ordinal, Seq, UserId};
use madang_proto::{Content, Reaction};
use rusqlite::{Connection, OptionalExtension, Result, params};

use super::alerts;
use super::channels::{raise_marker, set_details};
use super::reactions;
use super::sends;
use crate::embedded::Embedded;
use crate::embedded::codec::{bound, int, json as to_json, limit, number, small_number, store_error};
use crate::embedded::job::Transaction;
use crate::embedded::unreadable::Unreadables;
use crate::error::{StoreError, StoreResult};
use crate::log::{
    Append, AppendOutcome, Consequences, Head, Lists, LogStore, MAX_APPEND_ROWS, Mention, MentionPlace,
    Mentions, OwnReactions, ReactionChange, ReactionPlace, Row, RowChange, SendRecord, SentRows, Tail, kept,
};

use rows::Rows;
pub(in crate::embedded) use statements::place;

#[async_trait]
impl LogStore for Embedded {
    async fn append(&self, append: Append) -> StoreResult<AppendOutcome> {
        check(&append)?;
        let encoded = Encoded::new(append, self.alerts.are_on()).map_err(|error| store_error(&error))?;
        let makes_alerts = encoded.alerting.is_some();
        let done = self.writer.write(encoded.bytes(), move |transaction| encoded.apply(transaction)).await;
        if makes_alerts {
            self.alerts.wake();
        }
        done
    }

    /// [`append`](LogStore::append) has applied them in its transaction.
    async fn apply_consequences(&self, _: ChannelId, _: &Consequences) -> StoreResult<()> {
        Ok(())
    }

    fn applies_consequences_with_rows(&self) -> bool {
        true
    }

    async fn tail(&self, log: LogId, rows: usize) -> StoreResult<Tail> {
        self.writer.settle().await?;
        let unreadables = self.unreadables.clone();
        self.read(move |db| {
            let head = head(db, log)?;
            let from = Seq::new(head.seq.get().saturating_sub(rows as u64) + 1);
            let rows = Rows { db, log, unreadables: &unreadables }.tail(from..=head.seq)?;
            Ok(Tail { head, rows })
        })
        .await
    }

    async fn heads(&self, logs: &[LogId]) -> StoreResult<Vec<Head>> {
        let logs = logs.to_vec();
        self.read(move |db| logs.iter().map(|&log| head(db, log)).collect()).await
    }

    async fn rows(&self, log: LogId, range: RangeInclusive<Seq>, max_bytes: usize) -> StoreResult<Vec<Row>> {
        let unreadables = self.unreadables.clone();
        self.read(move |db| Rows { db, log, unreadables: &unreadables }.read(range, max_bytes, false)).await
    }

    async fn rows_by(
        &self,
        channel: ChannelId,
        sender: UserId,
        range: RangeInclusive<Seq>,
        max_bytes: usize,
    ) -> StoreResult<SentRows> {
        let unreadables = self.unreadables.clone();
        self.read(move |db| {
            let rows = Rows { db, log: LogId::Channel(channel), unreadables: &unreadables };
            rows.sent_by(sender, range, max_bytes)
        })
        .await
    }

    async fn rows_at(&self, log: LogId, seqs: &[Seq], max_bytes: usize) -> StoreResult<Vec<Option<Row>>> {
        let seqs = seqs.to_vec();
        let unreadables = self.unreadables.clone();
        self.read(move |db| Rows { db, log, unreadables: &unreadables }.at(&seqs, max_bytes)).await
    }

    async fn react(
        &self,
        channel: ChannelId,
        target: Seq,
        changes: &[ReactionChange],
        named: usize,
    ) -> StoreResult<Vec<Reaction>> {
        let changes = changes.to_vec();
        self.write(move |transaction| {
            reactions::change(transaction.db(), channel, target, &changes)?;
            reactions::all(transaction.db(), channel, target, named)
        })
        .await
    }

    async fn reactors(
        &self,
        channel: ChannelId,
        target: Seq,
        emoji: &str,
        after: Option<UserId>,
        limit: usize,
    ) -> StoreResult<Vec<UserId>> {
        let emoji = emoji.to_owned();
        self.read(move |db| reactions::users(db, channel, target, &emoji, after, limit)).await
    }

    async fn reactions_by(
        &self,
        channel: ChannelId,
        user: UserId,
        after: Option<ReactionPlace>,
        scan: usize,
    ) -> StoreResult<OwnReactions> {
        self.read(move |db| reactions::by(db, channel, user, after, scan)).await
    }

    async fn mentions_of(
        &self,
        user: UserId,
        before: Option<MentionPlace>,
        rows: usize,
    ) -> StoreResult<Vec<Mention>> {
        self.read(move |db| mentions_of(db, user, before, rows)).await
    }

    async fn rows_of(
        &self,
        ranges: &[(LogId, RangeInclusive<Seq>)],
        max_bytes: usize,
    ) -> StoreResult<Vec<Vec<Row>>> {
        let ranges = ranges.to_vec();
        let unreadables = self.unreadables.clone();
        self.read(move |db| {
            let mut lists = Lists::new(max_bytes);
            for (log, range) in ranges {
                let Some(room) = lists.room() else { break };
                let end = *range.end();
                let rows = Rows { db, log, unreadables: &unreadables };
                lists.push(rows.read(range, room, false)?, end);
            }
            Ok(lists.done)
        })
        .await
    }

    async fn rows_back(
        &self,
        log: LogId,
        range: RangeInclusive<Seq>,
        max_bytes: usize,
    ) -> StoreResult<Vec<Row>> {
        let unreadables = self.unreadables.clone();
        self.read(move |db| Rows { db, log, unreadables: &unreadables }.read(range, max_bytes, true)).await
    }

    async fn seq_at(&self, log: LogId, at: Millis) -> StoreResult<Seq> {
        self.read(move |db| {
            let (mut low, mut high) = (first_seq(db, log)?, head(db, log)?.seq.get() + 1);
            while low < high {
                let middle = low + (high - low) / 2;
                if time_of(db, log, middle)? < at.get() { low = middle + 1 } else { high = middle }
            }
            Ok(Seq::new(low))
        })
        .await
    }

    async fn find_sends(
        &self,
        channel: ChannelId,
        keys: &[(UserId, ClientMsgId)],
    ) -> StoreResult<Vec<Option<SendRecord>>> {
        let keys = keys.to_vec();
        self.read(move |db| keys.iter().map(|&key| sends::find(db, channel, key)).collect()).await
    }
}

/// See [`LogStore::rows_at`].
pub(super) fn rows_at(
    db: &Connection,
    log: LogId,
    unreadables: &Unreadables,
    seqs: &[Seq],
    max_bytes: usize,
) -> Result<Vec<Option<Row>>> {
    Rows { db, log, unreadables }.at(seqs, max_bytes)
}

/// Refuses an append that would make a hole. That is a fault of the program, never of user data.
fn check(append: &Append) -> StoreResult<()> {
    let is_dense = append
        .rows
        .iter()
        .zip(append.expected.seq.get() + 1..)
        .all(|(row, expected)| row.entry.seq.get() == expected);
    let fits = (1..=MAX_APPEND_ROWS).contains(&append.rows.len());
    if is_dense && fits {
        return Ok(());
    }
    Err(StoreError::Corrupt(format!(
        "an append to {} has {} rows with a hole",
        append.log,
        append.rows.len()
    )))
}

/// The first and the last row that may be worth an alert, or ends one.
fn alerting(rows: &[Row]) -> Option<(Seq, Seq)> {
    let is_alerting = |row: &&Row| {
        matches!(row.entry.content, Content::Message(_) | Content::Mentioned { .. } | Content::Read { .. })
    };
    let (first, last) = (rows.iter().find(is_alerting)?, rows.iter().rfind(is_alerting)?);
    Some((first.entry.seq, last.entry.seq))
}

/// An append with its rows encoded as JSON, so that the writer's thread need not do it.
struct Encoded {
    append: Append,
    rows: Vec<String>,
    changes: Vec<String>,
    consequences: Consequences,
    /// The rows from which alerts may be made, if alerts are on.
    alerting: Option<(Seq, Seq)>,
}

impl Encoded {
    fn new(append: Append, makes_alerts: bool) -> Result<Self> {
        let rows = append.rows.iter().map(|row| to_json(&kept(&row.entry.content))).collect::<Result<_>>()?;
        let changes = append.changes.iter().map(|change| to_json(&change.content)).collect::<Result<_>>()?;
        let consequences = Consequences::of(&append.rows);
        let alerting = makes_alerts.then(|| alerting(&append.rows)).flatten();
        Ok(Self { append, rows, changes, consequences, alerting })
    }

    fn bytes(&self) -> usize {
        let rows = self.rows.iter().chain(&self.changes).map(|content| 2 * content.len() + 256);
        rows.sum::<usize>() + self.append.records.len() * size_of::<SendRecord>()
    }

    fn apply(&self, transaction: &mut Transaction<'_>) -> Result<AppendOutcome> {
        let sent = self.record_and_look_up(transaction.db())?;
        if !sent.is_empty() {
            return Ok(AppendOutcome::SentBefore(sent));
        }
        if let Some(refusal) = self.check_changes(transaction.db())? {
            return Ok(refusal);
        }
        let log = self.append.log;
        let last = transaction.position().get() + self.append.rows.len() as u64;
        if !self.move_head(transaction.db(), last)? {
            return Ok(AppendOutcome::Moved);
        }
        self.apply_changes(transaction)?;
        let first = transaction.publish(log, &self.append.rows).get();
        self.insert_rows(transaction.db(), first)?;
        if let Some((from, upto)) = self.alerting {
            alerts::note(transaction.db(), log, from, upto)?;
        }
        if let LogId::Channel(channel) = log {
            for &(sender, marker) in &self.consequences.markers {
                raise_marker(transaction.db(), sender, channel, marker)?;
            }
            self.note_mentions(transaction.db(), channel)?;
            self.note_last_message(transaction.db(), channel)?;
            if let Some(details) = &self.append.details {
                set_details(transaction.db(), channel, details)?;
            }
        }
        Ok(AppendOutcome::Appended)
    }

    /// Writes the records of sends that leave the window, and looks up the keys of the rows.
    fn record_and_look_up(&self, db: &Connection) -> Result<Vec<SendRecord>> {
        let LogId::Channel(channel) = self.append.log else { return Ok(Vec::new()) };
        for record in &self.append.records {
            sends::insert(db, channel, record)?;
        }
        if !self.append.looks_up_keys {
            return Ok(Vec::new());
        }
        let found = self.append.keys().map(|key| sends::find(db, channel, key));
        found.filter_map(Result::transpose).collect()
    }

    /// All versions are checked before anything is written: when one change is refused, no row may have been changed.
    fn check_changes(&self, db: &Connection) -> Result<Option<AppendOutcome>> {
        if self.append.changes.is_empty() {
            return Ok(None);
        }
        let now = head(db, self.append.log)?;
        if now != self.append.expected {
            return Ok(Some(AppendOutcome::Moved));
        }
        let (statements, id) = place(self.append.log);
        let mut statement = db.prepare_cached(statements.version)?;
        let mut changed: Vec<(Seq, u32)> = Vec::new();
        for change in &self.append.changes {
            let before = changed.iter().rev().find(|(target, _)| *target == change.target);
            let version = match before {
                Some((_, version)) => *version,
                None => statement
                    .query_row([id, bound(change.target.get())], |row| small_number(row, 0))
                    .optional()?
                    .unwrap_or(0),
            };
            if version != change.if_version {
                return Ok(Some(AppendOutcome::Stale));
            }
            changed.push((change.target, version + 1));
        }
        Ok(None)
    }

    fn move_head(&self, db: &Connection, position: u64) -> Result<bool> {
        let (statements, id) = place(self.append.log);
        let (old, new) = (self.append.expected, self.append.head());
        let (seq, ordinal, at) = (int(new.seq.get()), int(new.ordinal.get()), int(new.at.get()));
        let moved = if old == Head::default() {
            let mut statement = db.prepare_cached(statements.begin_head)?;
            statement.execute([id, seq, ordinal, at, int(position)])?
        } else {
            let mut statement = db.prepare_cached(statements.move_head)?;
            let (old_seq, old_ordinal, old_at) =
                (int(old.seq.get()), int(old.ordinal.get()), int(old.at.get()));
            statement.execute([id, seq, ordinal, at, int(position), old_seq, old_ordinal, old_at])?
        };
        Ok(moved == 1)
    }

    fn apply_changes(&self, transaction: &mut Transaction<'_>) -> Result<()> {
        let changes = self.append.changes.iter().zip(&self.changes);
        changes
            .into_iter()
            .try_for_each(|(change, content)| change_row(transaction, self.append.log, change, content))
    }

    fn insert_rows(&self, db: &Connection, first: u64) -> Result<()> {
        let (statements, id) = place(self.append.log);
        let mut statement = db.prepare_cached(statements.insert)?;
        for ((row, content), position) in self.append.rows.iter().zip(&self.rows).zip(first..) {
            let version = row.entry.content.message().map_or(1, |message| message.version);
            let key = row.key.as_ref();
            statement.execute(params![
                id,
                int(row.entry.seq.get()),
                int(position),
                int(row.entry.at.get()),
                int(row.ordinal.get()),
                version,
                key.map(|key| int(key.sender.raw())),
                key.map(|key| key.client_msg_id.value().to_be_bytes()),
                key.map(|key| key.body_hash.0),
                content,
            ])?;
        }
        Ok(())
    }
}

/// Replaces the content of a row, after its version was compared.
pub(in crate::embedded) fn change_row(
    transaction: &mut Transaction<'_>,
    log: LogId,
    change: &RowChange,
    content: &str,
) -> Result<()> {
    let (statements, id) = place(log);
    transaction.forget_soon();
    let mut statement = transaction.db().prepare_cached(statements.change)?;
    statement.execute(params![id, int(change.target.get()), change.if_version + 1, content])?;
    if let LogId::Channel(channel) = log
        && change.deletes()
    {
        reactions::forget(transaction.db(), channel, change.target)?;
        forget_mentions(transaction.db(), channel, change.target)?;
    }
    Ok(())
}

impl Encoded {
    fn note_mentions(&self, db: &Connection, channel: ChannelId) -> Result<()> {
        for Mentions { seq, at, sender, users } in &self.consequences.mentions {
            for user in users {
                let mut statement = db.prepare_cached(
                    "INSERT INTO mentions (channel, user, seq, sender, at_ms) VALUES (?1, ?2, ?3, ?4, ?5)
                     ON CONFLICT DO NOTHING",
                )?;
                let user = user.map_or(0, |user| int(user.raw()));
                let (sender, at) = (int(sender.raw()), int(at.get()));
                statement.execute([int(channel.raw()), user, int(seq.get()), sender, at])?;
            }
        }
        Ok(())
    }

    /// Sets the time of the last message in the row of the head, which was written just before.
    fn note_last_message(&self, db: &Connection, channel: ChannelId) -> Result<()> {
        let Some(last) = self.append.rows.iter().rfind(|row| row.key.is_some()) else { return Ok(()) };
        let mut statement = db.prepare_cached("UPDATE heads SET message_at = ?2 WHERE id = ?1")?;
        statement.execute([int(channel.raw()), int(last.entry.at.get())]).map(drop)
    }
}

fn mentions_of(
    db: &Connection,
    user: UserId,
    before: Option<MentionPlace>,
    rows: usize,
) -> Result<Vec<Mention>> {
    let mut statement = db.prepare_cached(
        "SELECT at_ms, channel, seq, sender FROM mentions
         WHERE user = ?1 AND user > 0 AND (at_ms, channel, seq) < (?2, ?3, ?4)
         ORDER BY at_ms DESC, channel DESC, seq DESC LIMIT ?5",
    )?;
    let (at, channel, seq) = before.map_or((i64::MAX, i64::MAX, i64::MAX), |(at, channel, seq)| {
        (bound(at.get()), int(channel.raw()), bound(seq.get()))
    });
    let found = statement.query_map([int(user.raw()), at, channel, seq, limit(rows)], |row| {
        let (at, seq) = (Millis::new(number(row, 0)?), Seq::new(number(row, 2)?));
        let place = (at, ChannelId::from_raw(number(row, 1)?), seq);
        Ok(Mention { place, sender: UserId::from_raw(number(row, 3)?) })
    });
    found?.collect()
}

fn forget_mentions(db: &Connection, channel: ChannelId, seq: Seq) -> Result<()> {
    let mut statement = db.prepare_cached("DELETE FROM mentions WHERE channel = ?1 AND seq = ?2")?;
    statement.execute([int(channel.raw()), int(seq.get())]).map(drop)
}

pub(in crate::embedded) fn head(db: &Connection, log: LogId) -> Result<Head> {
    let (statements, id) = place(log);
    let mut statement = db.prepare_cached(statements.head)?;
    let head = statement.query_row([id], |row| head_at(row, 0)).optional()?;
    Ok(head.unwrap_or_default())
}

/// A head in three columns from `column` on.
pub(in crate::embedded) fn head_at(row: &rusqlite::Row<'_>, column: usize) -> Result<Head> {
    Ok(Head {
        seq: Seq::new(number(row, column)?),
        ordinal: Ordinal::new(number(row, column + 1)?),
        at: Millis::new(number(row, column + 2)?),
    })
}

/// The first row that is left: old rows of a user's own log are removed.
fn first_seq(db: &Connection, log: LogId) -> Result<u64> {
    let (statements, id) = place(log);
    db.prepare_cached(statements.first)?.query_row([id], |row| number(row, 0))
}

fn time_of(db: &Connection, log: LogId, seq: u64) -> Result<u64> {
    let (statements, id) = place(log);
    db.prepare_cached(statements.at)?.query_row([id, int(seq)], |row| number(row, 0))
}
