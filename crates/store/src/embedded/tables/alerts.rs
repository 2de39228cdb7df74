//! The queue of alerts, and the logs whose rows are not in it yet.

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use madang_engine::alerts::{Fold, Held, Job, Outstanding, Shown};
use madang_engine::spans::Spans;
use madang_ids::{ChannelId, Cursor, Epoch, LogId, Millis, Position, Seq, UserId};
use madang_proto::{ChannelKind, Content};
use rusqlite::{Connection, OptionalExtension, Result, Row, params};
use tokio::sync::Notify;

use crate::alerts::{AlertEvent, AlertOutbox, AlertQueue, OutstandingChange, Unmade};
use crate::embedded::Embedded;
use crate::embedded::codec::{from_json, int, json, kind, limit, number, optional_json};
use crate::embedded::job::Transaction;
use crate::embedded::readable::readable;
use crate::error::StoreResult;

/// Rows of one log from which alerts are made at once.
const ROWS: u64 = 64;
const RECORD: &str = "SELECT user, channel, fresh, held FROM alerts WHERE user = ?1 AND channel = ?2";

/// Whether rows are noted for alerts.
#[derive(Debug, Default)]
pub(in crate::embedded) struct Alerts {
    is_on: AtomicBool,
    /// No alert is made for a user without a subscription, so rows are not noted before there is one.
    pub(in crate::embedded) has_subscriptions: AtomicBool,
    noted: Notify,
}

impl Alerts {
    /// Whether rows that are appended now are noted.
    pub(in crate::embedded) fn are_on(&self) -> bool {
        self.is_on.load(Ordering::SeqCst) && self.has_subscriptions.load(Ordering::SeqCst)
    }

    /// Rows were noted, and are durable.
    pub(in crate::embedded) fn wake(&self) {
        self.noted.notify_one();
    }
}

#[async_trait]
impl AlertQueue for Embedded {
    async fn take_due(&self, now: Millis, until: Millis, rows: usize) -> StoreResult<Vec<Outstanding>> {
        // Records are parsed by a reader: the writer only moves their times.
        let due = self.read(move |db| due(db, now, rows)).await?;
        if due.is_empty() {
            return Ok(due);
        }
        let keys: Vec<[i64; 2]> =
            due.iter().map(|record| [int(record.user.raw()), int(record.channel.raw())]).collect();
        let leased = self.write(move |transaction| lease(transaction.db(), &keys, now, until)).await?;
        // A record that has changed in between is noticed when its change is written.
        Ok(due
            .into_iter()
            .zip(leased)
            .filter(|(_, is_leased)| *is_leased)
            .map(|(record, _)| record)
            .collect())
    }

    async fn outstanding(&self, user: UserId, channel: ChannelId) -> StoreResult<Outstanding> {
        self.read(move |db| record(db, user, channel)).await
    }

    async fn shown_and_read(&self, user: UserId, rows: usize) -> StoreResult<Vec<(ChannelId, Shown)>> {
        self.read(move |db| {
            let mut statement = db.prepare_cached(
                "SELECT user, channel, NULL, held FROM alerts
                 WHERE user = ?1 AND instr(held, '\"is_read\":true') > 0 LIMIT ?2",
            )?;
            let found = statement.query_map([int(user.raw()), limit(rows)], record_of)?;
            let mut read = Vec::new();
            for record in found {
                let Outstanding { channel, held, .. } = record?;
                read.extend(held.shown.into_iter().filter(|shown| shown.is_read).map(|it| (channel, it)));
            }
            Ok(read)
        })
        .await
    }

    async fn change_outstanding(&self, change: &OutstandingChange) -> StoreResult<bool> {
        let change = change.clone();
        self.write(move |transaction| {
            let db = transaction.db();
            match change.apply(&record(db, change.user, change.channel)?) {
                Some(after) => put(db, &after).map(|()| true),
                None => Ok(false),
            }
        })
        .await
    }

    async fn fold_alerts(&self, folds: &[Fold]) -> StoreResult<()> {
        let folds = in_order(folds.to_vec());
        self.writer.write(bytes_of(&folds), move |transaction| fold_all(transaction.db(), &folds)).await
    }

    /// Positions have one order for ever; epochs tell starts of the process apart.
    fn comparable(&self, received: Cursor) -> Cursor {
        Cursor { epoch: Epoch::from_raw(0), ..received }
    }
}

#[async_trait]
impl AlertOutbox for Embedded {
    fn begin_alerts(&self) {
        self.alerts.is_on.store(true, Ordering::SeqCst);
    }

    async fn alerts_waiting(&self) {
        self.alerts.noted.notified().await;
    }

    async fn unmade(&self, after: Option<LogId>, logs: usize) -> StoreResult<Vec<Unmade>> {
        self.read(move |db| {
            let mut statement = db.prepare_cached(
                "SELECT is_user, log, from_seq, upto_seq FROM alert_outbox
                 WHERE (is_user, log) > (?1, ?2) ORDER BY is_user, log LIMIT ?3",
            )?;
            let after = after.map_or((false, 0), |log| (is_user(log), int(raw(log))));
            let noted: Vec<(LogId, u64, u64)> = statement
                .query_map(params![after.0, after.1, limit(logs)], |row| {
                    Ok((log_of(row)?, number(row, 2)?, number(row, 3)?))
                })?
                .collect::<Result<_>>()?;
            noted.into_iter().map(|(log, from, upto)| unmade(db, log, from, upto)).collect()
        })
        .await
    }

    async fn make(&self, log: LogId, upto: Seq, folds: Vec<Fold>) -> StoreResult<()> {
        let folds = in_order(folds);
        let bytes = bytes_of(&folds);
        let write = move |transaction: &mut Transaction<'_>| {
            let db = transaction.db();
            fold_all(db, &folds)?;
            let (is_user, id, upto) = (is_user(log), int(raw(log)), int(upto.get()));
            db.prepare_cached("DELETE FROM alert_outbox WHERE is_user = ?1 AND log = ?2 AND upto_seq <= ?3")?
                .execute(params![is_user, id, upto])?;
            db.prepare_cached(
                "UPDATE alert_outbox SET from_seq = ?3 + 1 WHERE is_user = ?1 AND log = ?2 AND from_seq <= ?3",
            )?
            .execute(params![is_user, id, upto])
            .map(drop)
        };
        self.writer.write(bytes, write).await
    }
}

/// Notes that a log has rows from which alerts may be made. Part of the transaction that appends them.
pub(in crate::embedded) fn note(db: &Connection, log: LogId, from: Seq, upto: Seq) -> Result<()> {
    let mut statement = db.prepare_cached(
        "INSERT INTO alert_outbox (is_user, log, from_seq, upto_seq) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT DO UPDATE SET upto_seq = excluded.upto_seq",
    )?;
    statement.execute(params![is_user(log), int(raw(log)), int(from.get()), int(upto.get())]).map(drop)
}

const fn is_user(log: LogId) -> bool {
    matches!(log, LogId::User(_))
}

const fn raw(log: LogId) -> u64 {
    match log {
        LogId::Channel(channel) => channel.raw(),
        LogId::User(user) => user.raw(),
    }
}

fn log_of(row: &Row<'_>) -> Result<LogId> {
    let id = number(row, 1)?;
    Ok(if row.get(0)? { LogId::User(UserId::from_raw(id)) } else { LogId::Channel(ChannelId::from_raw(id)) })
}

fn unmade(db: &Connection, log: LogId, from: u64, upto: u64) -> Result<Unmade> {
    let upto = upto.min(from + ROWS - 1);
    let keys = [int(raw(log)), int(from), int(upto)];
    let found = match log {
        LogId::Channel(channel) => messages(db, channel, keys),
        LogId::User(user) => {
            own_events(db, keys).map(|events| (events, vec![(user, Spans::since(Seq::ZERO))]))
        }
    };
    // A damaged row costs the alerts of its log, and holds up no other.
    let (events, users) = readable(found)?.unwrap_or_default();
    Ok(Unmade { log, upto: Seq::new(upto), events, users })
}

type Found = (Vec<AlertEvent>, Vec<(UserId, Spans)>);

/// Messages of a direct channel or a group. A message of an open channel concerns only the users that it names: it is in their own
/// logs.
fn messages(db: &Connection, channel: ChannelId, keys: [i64; 3]) -> Result<Found> {
    let mut statement = db.prepare_cached("SELECT kind FROM channels WHERE id = ?1")?;
    let found = statement.query_row([keys[0]], |row| kind(row, 0)).optional()?;
    if found.is_none_or(|kind| kind == ChannelKind::Open) {
        return Ok(Found::default());
    }
    let mut statement = db.prepare_cached(
        "SELECT seq, pos, at_ms, sender FROM log WHERE id = ?1 AND seq BETWEEN ?2 AND ?3 AND sender IS NOT NULL",
    )?;
    let message = |row: &Row<'_>| {
        let (seq, position) = (Seq::new(number(row, 0)?), Position::new(number(row, 1)?));
        let (at, sender) = (Millis::new(number(row, 2)?), UserId::from_raw(number(row, 3)?));
        Ok(AlertEvent::Message { seq, position, at, sender })
    };
    let events = statement.query_map(keys, message)?.collect::<Result<_>>()?;
    let mut statement = db.prepare_cached(
        // The members are walked, and not all subscriptions there are.
        "SELECT user, spans FROM members m
         WHERE channel = ?1 AND EXISTS (SELECT 1 FROM push_subscriptions p WHERE p.user = m.user)",
    )?;
    let mut users = Vec::new();
    let mut rows = statement.query([int(channel.raw())])?;
    while let Some(row) = rows.next()? {
        // A damaged row costs its user the alerts, and nobody else.
        let member = readable((|| Ok((UserId::from_raw(number(row, 0)?), from_json(row, 1)?)))())?;
        users.extend(member);
    }
    Ok((events, users))
}

fn own_events(db: &Connection, keys: [i64; 3]) -> Result<Vec<AlertEvent>> {
    let mut statement = db
        .prepare_cached("SELECT pos, at_ms, content FROM user_log WHERE id = ?1 AND seq BETWEEN ?2 AND ?3")?;
    let mut events = Vec::new();
    let mut rows = statement.query(keys)?;
    while let Some(row) = rows.next()? {
        let (position, at) = (Position::new(number(row, 0)?), Millis::new(number(row, 1)?));
        match readable(from_json(row, 2))? {
            Some(Content::Mentioned { channel_id: channel, seq, .. }) => {
                events.push(AlertEvent::Mentioned { channel, seq, position, at });
            }
            Some(Content::Read { channel_id: channel, seq, .. }) => {
                events.push(AlertEvent::Read { channel, seq, at });
            }
            _ => {}
        }
    }
    Ok(events)
}

/// Folds of one record side by side, otherwise in their order.
fn in_order(mut folds: Vec<Fold>) -> Vec<Fold> {
    folds.sort_by_key(|fold| (fold.user, fold.channel));
    folds
}

fn fold_all(db: &Connection, folds: &[Fold]) -> Result<()> {
    for folds in folds.chunk_by(|one, other| (one.user, one.channel) == (other.user, other.channel)) {
        let [first, ..] = folds else { continue };
        let mut found = record(db, first.user, first.channel)?;
        let before = found.clone();
        folds.iter().for_each(|fold| found.fold(fold.what));
        if found != before {
            put(db, &found)?;
        }
    }
    Ok(())
}

/// Moves the times of records that are still due. Says of each whether it was.
fn lease(db: &Connection, keys: &[[i64; 2]], now: Millis, until: Millis) -> Result<Vec<bool>> {
    let mut lease =
        db.prepare_cached("UPDATE alerts SET due_at = ?3 WHERE user = ?1 AND channel = ?2 AND due_at <= ?4")?;
    let times = (int(until.get()), int(now.get()));
    keys.iter().map(|[user, channel]| Ok(lease.execute([*user, *channel, times.0, times.1])? == 1)).collect()
}

/// About the size of folds in the queue of the writer.
fn bytes_of(folds: &[Fold]) -> usize {
    folds.len() * 512
}

fn due(db: &Connection, now: Millis, rows: usize) -> Result<Vec<Outstanding>> {
    let mut statement = db.prepare_cached(
        "SELECT user, channel, fresh, held FROM alerts WHERE due_at <= ?1 ORDER BY due_at LIMIT ?2",
    )?;
    statement.query_map([int(now.get()), limit(rows)], record_of)?.collect()
}

fn record(db: &Connection, user: UserId, channel: ChannelId) -> Result<Outstanding> {
    let mut statement = db.prepare_cached(RECORD)?;
    let found = statement.query_row([int(user.raw()), int(channel.raw())], record_of).optional()?;
    Ok(found.unwrap_or_else(|| Outstanding::new(user, channel)))
}

/// A record that cannot be read is empty: it costs alerts, and the next change writes it anew.
fn record_of(row: &Row<'_>) -> Result<Outstanding> {
    let (user, channel) = (UserId::from_raw(number(row, 0)?), ChannelId::from_raw(number(row, 1)?));
    let fresh = readable(optional_json::<Job>(row, 2))?.flatten();
    let held = readable(from_json::<Held>(row, 3))?.unwrap_or_default();
    Ok(Outstanding { user, channel, fresh, held })
}

fn put(db: &Connection, record: &Outstanding) -> Result<()> {
    let (user, channel) = (int(record.user.raw()), int(record.channel.raw()));
    if record.is_empty() {
        let mut statement = db.prepare_cached("DELETE FROM alerts WHERE user = ?1 AND channel = ?2")?;
        return statement.execute([user, channel]).map(drop);
    }
    let mut statement = db.prepare_cached(
        "INSERT OR REPLACE INTO alerts (user, channel, due_at, fresh, held) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    let due_at = record.due_at().map(|at| int(at.get()));
    let fresh = record.fresh.as_ref().map(json).transpose()?;
    statement.execute(params![user, channel, due_at, fresh, json(&record.held)?]).map(drop)
}
