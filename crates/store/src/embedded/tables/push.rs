//! Subscriptions, settings and notes of alerts.

use std::sync::atomic::Ordering;

use async_trait::async_trait;
use madang_ids::{ChannelId, DeviceId, LogId, Millis, Seq, UserId};
use madang_proto::{AlertNote, AlertOutcome, AlertSettings};
use rusqlite::{Connection, OptionalExtension, Result, params};

use super::overviews::Overviews;
use super::{accounts, contacts, devices, log, settings};
use crate::accounts::UserState;
use crate::embedded::Embedded;
use crate::embedded::codec::{bound, from_json, int, json, limit, number};
use crate::embedded::readable::readable;
use crate::error::StoreResult;
use crate::log::Row;
use crate::push::{
    AlertFacts, AlertMessages, DeadLetter, NOTES_KEPT, NoteOf, PushStore, Subscription, senders_of,
};

#[async_trait]
impl PushStore for Embedded {
    async fn put_subscription(&self, subscription: &Subscription) -> StoreResult<Subscription> {
        let subscription = subscription.clone();
        let put = self.write(move |transaction| put(transaction.db(), &subscription)).await?;
        self.alerts.has_subscriptions.store(true, Ordering::SeqCst);
        Ok(put)
    }

    async fn subscriptions(&self, user: UserId) -> StoreResult<Vec<Subscription>> {
        self.read(move |db| subscriptions(db, user)).await
    }

    async fn remove_subscription(
        &self,
        user: UserId,
        device: DeviceId,
        seen_at: Option<Millis>,
    ) -> StoreResult<bool> {
        self.write(move |transaction| {
            let db = transaction.db();
            let found = of_device(db, user, device)?;
            let is_that = |found: &Subscription| seen_at.is_none_or(|at| at == found.seen_at);
            if !found.is_some_and(|found| is_that(&found)) {
                return Ok(false);
            }
            forget(db, device).map(|()| true)
        })
        .await
    }

    async fn halt_subscription(
        &self,
        user: UserId,
        device: DeviceId,
        seen_at: Millis,
        why: AlertOutcome,
    ) -> StoreResult<()> {
        self.write(move |transaction| {
            let found = of_device(transaction.db(), user, device)?;
            match found.filter(|found| found.seen_at == seen_at) {
                Some(found) => write(transaction.db(), &Subscription { halted: Some(why), ..found }),
                None => Ok(()),
            }
        })
        .await
    }

    async fn unread(&self, user: UserId, now: Millis) -> StoreResult<u64> {
        self.read(move |db| unread(db, user, now)).await
    }

    async fn alert_facts(&self, user: UserId, channel: ChannelId, now: Millis) -> StoreResult<AlertFacts> {
        let unreadables = self.unreadables.clone();
        self.read(move |db| {
            let subscriptions = subscriptions(db, user)?;
            if subscriptions.is_empty() {
                return Ok(AlertFacts::default());
            }
            let found = accounts::users(db, &[user])?;
            Ok(AlertFacts {
                subscriptions,
                received: devices::received(db, user)?,
                overview: Overviews { db, user, unreadables: &unreadables }.of(channel)?,
                is_active: found.into_iter().flatten().any(|found| found.state == UserState::Active),
                settings: alert_settings(db, user)?,
                unread: unread(db, user, now)?,
            })
        })
        .await
    }

    async fn alert_messages(
        &self,
        user: UserId,
        channel: ChannelId,
        seqs: &[Seq],
        max_bytes: usize,
    ) -> StoreResult<AlertMessages> {
        let (newest, unreadables) =
            (seqs.iter().rev().copied().collect::<Vec<Seq>>(), self.unreadables.clone());
        self.read(move |db| {
            let rows = log::rows_at(db, LogId::Channel(channel), &unreadables, &newest, max_bytes)?;
            let rows: Vec<Row> = rows.into_iter().flatten().collect();
            let ranges: Vec<_> = newest.iter().map(|seq| (channel, *seq..=*seq)).collect();
            let hidden = settings::hidden(db, user, &ranges)?.into_iter().map(|(_, seq)| seq).collect();
            let (senders, mut blocked) = (senders_of(&rows), Vec::new());
            for sender in &senders {
                if !contacts::who_block(db, *sender, &[user])?.is_empty() {
                    blocked.push(*sender);
                }
            }
            let senders = accounts::users(db, &senders)?.into_iter().flatten().collect();
            Ok(AlertMessages { rows, hidden, blocked, senders })
        })
        .await
    }

    async fn alert_settings(&self, user: UserId) -> StoreResult<AlertSettings> {
        self.read(move |db| alert_settings(db, user)).await
    }

    async fn put_alert_settings(&self, user: UserId, settings: &AlertSettings) -> StoreResult<()> {
        let settings = settings.clone();
        self.write(move |transaction| {
            let mut statement = transaction
                .db()
                .prepare_cached("INSERT OR REPLACE INTO alert_settings (user, settings) VALUES (?1, ?2)")?;
            statement.execute(params![int(user.raw()), json(&settings)?]).map(drop)
        })
        .await
    }

    async fn put_notes(&self, notes: Vec<NoteOf>) -> StoreResult<()> {
        self.write(move |transaction| notes.iter().try_for_each(|note| put_note(transaction.db(), note)))
            .await
    }

    async fn notes(
        &self,
        user: UserId,
        channel: ChannelId,
        seq: Seq,
        rows: usize,
    ) -> StoreResult<Vec<AlertNote>> {
        self.read(move |db| {
            let mut statement = db.prepare_cached(
                "SELECT note FROM alert_notes
                 WHERE user = ?1 AND channel = ?2 AND last_seq >= ?3 AND first_seq <= ?3 ORDER BY id LIMIT ?4",
            )?;
            let keys = [int(user.raw()), int(channel.raw()), int(seq.get()), limit(rows)];
            statement.query_map(keys, |row| from_json(row, 0))?.collect()
        })
        .await
    }

    async fn put_dead_letter(&self, letter: &DeadLetter) -> StoreResult<()> {
        let letter = letter.clone();
        self.write(move |transaction| {
            let mut statement = transaction.db().prepare_cached(
                "INSERT OR REPLACE INTO dead_letters (id, at_ms, letter) VALUES (?1, ?2, ?3)",
            )?;
            let at = int(letter.note.at.get());
            statement.execute(params![int(letter.id), at, json(&letter)?]).map(drop)
        })
        .await
    }

    async fn dead_letters(&self, after: u64, rows: usize) -> StoreResult<Vec<DeadLetter>> {
        self.read(move |db| {
            let mut statement =
                db.prepare_cached("SELECT letter FROM dead_letters WHERE id > ?1 ORDER BY id LIMIT ?2")?;
            statement.query_map([int(after), limit(rows)], |row| from_json(row, 0))?.collect()
        })
        .await
    }

    async fn remove_dead_letter(&self, id: u64) -> StoreResult<bool> {
        self.write(move |transaction| {
            let mut statement = transaction.db().prepare_cached("DELETE FROM dead_letters WHERE id = ?1")?;
            Ok(statement.execute([int(id)])? == 1)
        })
        .await
    }
}

fn subscriptions(db: &Connection, user: UserId) -> Result<Vec<Subscription>> {
    let mut statement = db.prepare_cached(
        "SELECT subscription FROM push_subscriptions
         JOIN devices ON devices.id = device AND devices.user = push_subscriptions.user
         WHERE push_subscriptions.user = ?1 AND revoked_at IS NULL ORDER BY device",
    )?;
    let found = statement.query_map([int(user.raw())], |row| readable(from_json(row, 0)))?;
    found.filter_map(Result::transpose).collect()
}

fn unread(db: &Connection, user: UserId, now: Millis) -> Result<u64> {
    let mut statement = db.prepare_cached(
        "SELECT coalesce(sum(max(h.ordinal - m.marker_ordinal, 0)), 0) FROM memberships m
         JOIN heads h ON h.id = m.channel
         LEFT JOIN channel_settings t ON t.user = m.user AND t.channel = m.channel
         WHERE m.user = ?1 AND m.is_open = 1 AND m.in_inbox = 1 AND m.role IS NOT NULL
         AND coalesce(t.muted_until, 0) <= ?2",
    )?;
    statement.query_row([int(user.raw()), bound(now.get())], |row| number(row, 0))
}

fn alert_settings(db: &Connection, user: UserId) -> Result<AlertSettings> {
    let mut statement = db.prepare_cached("SELECT settings FROM alert_settings WHERE user = ?1")?;
    let found = statement.query_row([int(user.raw())], |row| from_json(row, 0)).optional();
    // Settings that cannot be read are those of a new user: no alert must wait for them.
    Ok(readable(found)?.flatten().unwrap_or_default())
}

fn put(db: &Connection, new: &Subscription) -> Result<Subscription> {
    let before = of_device(db, new.user_id, new.device_id)?;
    let registered_at =
        before.filter(|before| before.target == new.target).map(|before| before.registered_at);
    let put = Subscription { registered_at: registered_at.unwrap_or(new.registered_at), ..new.clone() };
    // Of another device: the same app, whose user has changed.
    db.prepare_cached("DELETE FROM push_subscriptions WHERE token = ?1")?.execute([put.token_key()])?;
    // The device may have been revoked meanwhile.
    let mut live =
        db.prepare_cached("SELECT 1 FROM devices WHERE id = ?1 AND user = ?2 AND revoked_at IS NULL")?;
    if live.exists([int(put.device_id.raw()), int(put.user_id.raw())])? {
        write(db, &put)?;
    }
    Ok(put)
}

fn write(db: &Connection, subscription: &Subscription) -> Result<()> {
    let mut statement = db.prepare_cached(
        "INSERT OR REPLACE INTO push_subscriptions (device, user, token, subscription) VALUES (?1, ?2, ?3, ?4)",
    )?;
    let (device, user) = (int(subscription.device_id.raw()), int(subscription.user_id.raw()));
    statement.execute(params![device, user, subscription.token_key(), json(subscription)?]).map(drop)
}

fn of_device(db: &Connection, user: UserId, device: DeviceId) -> Result<Option<Subscription>> {
    let mut statement =
        db.prepare_cached("SELECT subscription FROM push_subscriptions WHERE device = ?1 AND user = ?2")?;
    // One that cannot be read is replaced by the next registration.
    let found = statement.query_row([int(device.raw()), int(user.raw())], |row| from_json(row, 0));
    Ok(readable(found.optional())?.flatten())
}

/// Removes the subscription of a device.
pub(in crate::embedded) fn forget(db: &Connection, device: DeviceId) -> Result<()> {
    let mut statement = db.prepare_cached("DELETE FROM push_subscriptions WHERE device = ?1")?;
    statement.execute([int(device.raw())]).map(drop)
}

fn put_note(db: &Connection, NoteOf { user, channel, note }: &NoteOf) -> Result<()> {
    let mut statement = db.prepare_cached(
        "INSERT INTO alert_notes (user, channel, first_seq, last_seq, at_ms, note) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    let (first, last) = (int(note.first_seq.get()), int(note.last_seq.get()));
    let (user, channel, at) = (int(user.raw()), int(channel.raw()), int(note.at.get()));
    statement.execute(params![user, channel, first, last, at, json(note)?]).map(drop)
}

/// Removes up to `rows` notes and dead letters from before `before`, and the oldest notes beyond [`NOTES_KEPT`]. Returns how many
/// notes.
pub(in crate::embedded) fn forget_notes(db: &Connection, before: Millis, rows: usize) -> Result<usize> {
    let before = int(before.get());
    let mut letters = db.prepare_cached(
        "DELETE FROM dead_letters WHERE id IN
             (SELECT id FROM (SELECT id, at_ms FROM dead_letters ORDER BY id LIMIT ?2) WHERE at_ms < ?1)",
    )?;
    letters.execute([before, limit(rows)])?;
    // The ids rise with time, so only the first rows are looked at.
    let mut statement = db.prepare_cached(
        "DELETE FROM alert_notes WHERE id IN
             (SELECT id FROM (SELECT id, at_ms FROM alert_notes ORDER BY id LIMIT ?2)
              WHERE at_ms < ?1 OR id <= (SELECT max(id) FROM alert_notes) - ?3)",
    )?;
    statement.execute([before, limit(rows), int(NOTES_KEPT)])
}

pub(in crate::embedded) fn has_subscriptions(db: &Connection) -> Result<bool> {
    db.query_row("SELECT EXISTS (SELECT 1 FROM push_subscriptions)", [], |row| row.get(0))
}
