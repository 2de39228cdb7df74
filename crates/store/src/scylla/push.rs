//! Subscriptions, settings and notes of alerts.
//!
//! Every write of a subscription is conditional on its text, so that an answer of a provider about an earlier one removes nothing.
//! A token leads to its last device by a row of its own: the subscription of another device ends before that row is written.

use async_trait::async_trait;
use madang_ids::{ChannelId, DeviceId, Millis, Seq, UserId};
use madang_proto::{AlertNote, AlertOutcome, AlertSettings};
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::Scylla;
use super::codec::{bound, int, json, number};
use super::log::each;
use super::session::{Class, Statement};
use crate::channels::{ChannelStore, OverviewOrder};
use crate::devices::DeviceStore;
use crate::error::{StoreError, StoreResult};
use crate::push::{BADGE_CHANNELS, DeadLetter, NoteOf, PushStore, Subscription, unread_of};

const OF_USER: Statement = Statement {
    class: Class::Read,
    cql: "SELECT device, subscription FROM push_subscriptions WHERE user = ?",
};
const ONE: Statement = Statement {
    class: Class::SerialRead,
    cql: "SELECT subscription FROM push_subscriptions WHERE user = ? AND device = ?",
};
const FIRST: Statement = Statement {
    class: Class::Conditional,
    cql: "INSERT INTO push_subscriptions (user, device, subscription) VALUES (?, ?, ?) IF NOT EXISTS",
};
const NEXT: Statement = Statement {
    class: Class::Conditional,
    cql: "UPDATE push_subscriptions SET subscription = ? WHERE user = ? AND device = ? IF subscription = ?",
};
const REMOVE: Statement = Statement {
    class: Class::Conditional,
    cql: "DELETE FROM push_subscriptions WHERE user = ? AND device = ? IF subscription = ?",
};
const HOLDER: Statement =
    Statement { class: Class::Read, cql: "SELECT user, device FROM push_tokens WHERE hash = ?" };
const HOLD: Statement =
    Statement { class: Class::Write, cql: "INSERT INTO push_tokens (hash, user, device) VALUES (?, ?, ?)" };
const SETTINGS: Statement =
    Statement { class: Class::Read, cql: "SELECT settings FROM alert_settings WHERE user = ?" };
const PUT_SETTINGS: Statement =
    Statement { class: Class::Write, cql: "INSERT INTO alert_settings (user, settings) VALUES (?, ?)" };
const PUT_NOTE: Statement = Statement {
    class: Class::Write,
    cql: "INSERT INTO alert_notes (user, channel, last_seq, at, device, outcome, note) VALUES (?, ?, ?, ?, ?, ?, ?)",
};
const NOTES: Statement = Statement {
    class: Class::Read,
    cql: "SELECT note FROM alert_notes WHERE user = ? AND channel = ? AND last_seq >= ? LIMIT ?",
};
const PUT_DEAD: Statement =
    Statement { class: Class::Write, cql: "INSERT INTO dead_letters (shard, id, letter) VALUES (0, ?, ?)" };
const DEAD: Statement = Statement {
    class: Class::Read,
    cql: "SELECT letter FROM dead_letters WHERE shard = 0 AND id > ? LIMIT ?",
};
const REMOVE_DEAD: Statement = Statement {
    class: Class::Conditional,
    cql: "DELETE FROM dead_letters WHERE shard = 0 AND id = ? IF EXISTS",
};

/// Attempts of a compare-and-set whose value another call changes meanwhile.
const TRIES: u32 = 16;

fn parsed<T: DeserializeOwned>(text: &str) -> StoreResult<T> {
    serde_json::from_str(text).map_err(|error| StoreError::Corrupt(format!("a row of push: {error}")))
}

impl Scylla {
    async fn subscription(
        &self,
        user: UserId,
        device: DeviceId,
    ) -> StoreResult<Option<(String, Subscription)>> {
        let found: Option<(String,)> = self.cql.read_one(&ONE, (int(user.raw()), int(device.raw()))).await?;
        found.map(|(text,)| Ok((text.clone(), parsed(&text)?))).transpose()
    }

    /// Replaces the subscription of a device by what `change` makes of it: `None` removes it. Returns whether `change` wanted it.
    async fn change_subscription(
        &self,
        user: UserId,
        device: DeviceId,
        change: impl Fn(Option<Subscription>) -> Option<Option<Subscription>>,
    ) -> StoreResult<bool> {
        let (user_key, device_key) = (int(user.raw()), int(device.raw()));
        for _ in 0..TRIES {
            let found = self.subscription(user, device).await?;
            let (before, found) = found.unzip();
            let Some(after) = change(found) else { return Ok(false) };
            let is_done = match (before, after) {
                (None, None) => true,
                (None, Some(after)) => {
                    self.cql.conditional(&FIRST, (user_key, device_key, json(&after)?)).await?
                }
                (Some(before), Some(after)) => {
                    self.cql.conditional(&NEXT, (json(&after)?, user_key, device_key, before)).await?
                }
                (Some(before), None) => self.cql.conditional(&REMOVE, (user_key, device_key, before)).await?,
            };
            if is_done {
                return Ok(true);
            }
        }
        Err(StoreError::Unavailable("too many changes of one subscription at once".into()))
    }

    /// Removes the subscriptions of devices that were revoked.
    pub(super) async fn forget_subscriptions(&self, user: UserId, devices: &[DeviceId]) -> StoreResult<()> {
        let forget = |device| async move { self.remove_subscription(user, device, None).await };
        each(devices.to_vec(), forget).await.map(drop)
    }
}

#[async_trait]
impl PushStore for Scylla {
    async fn put_subscription(&self, new: &Subscription) -> StoreResult<Subscription> {
        let Subscription { user_id, device_id, .. } = *new;
        let hash = Sha256::digest(new.token_key().as_bytes()).to_vec();
        let holder: Option<(i64, i64)> = self.cql.read_one(&HOLDER, (hash.clone(),)).await?;
        let here = (int(user_id.raw()), int(device_id.raw()));
        if let Some((user, device)) = holder.filter(|holder| *holder != here) {
            let (user, device) = (UserId::from_raw(number(user)), DeviceId::from_raw(number(device)));
            let has_token = |found: &Subscription| found.token_key() == new.token_key();
            self.change_subscription(user, device, |found| found.filter(has_token).map(|_| None)).await?;
        }
        self.cql.write(&HOLD, (hash, here.0, here.1)).await?;
        let with_time = |found: Option<Subscription>| {
            let same = found.filter(|found| found.target == new.target);
            let registered_at = same.map_or(new.registered_at, |found| found.registered_at);
            Subscription { registered_at, ..new.clone() }
        };
        self.change_subscription(user_id, device_id, |found| Some(Some(with_time(found)))).await?;
        let put = self.subscription(user_id, device_id).await?;
        Ok(put.map_or_else(|| new.clone(), |(_, put)| put))
    }

    async fn subscriptions(&self, user: UserId) -> StoreResult<Vec<Subscription>> {
        let rows: Vec<(i64, String)> = self.cql.read(&OF_USER, (int(user.raw()),)).await?;
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let live = self.devices(user).await?;
        let is_live = |device: i64| live.iter().any(|live| int(live.id.raw()) == device);
        rows.into_iter().filter(|(device, _)| is_live(*device)).map(|(_, text)| parsed(&text)).collect()
    }

    async fn remove_subscription(
        &self,
        user: UserId,
        device: DeviceId,
        seen_at: Option<Millis>,
    ) -> StoreResult<bool> {
        let is_that = |found: &Subscription| seen_at.is_none_or(|at| at == found.seen_at);
        self.change_subscription(user, device, |found| found.filter(is_that).map(|_| None)).await
    }

    async fn halt_subscription(
        &self,
        user: UserId,
        device: DeviceId,
        seen_at: Millis,
        why: AlertOutcome,
    ) -> StoreResult<()> {
        let halt = |found: Option<Subscription>| {
            let found = found.filter(|found| found.seen_at == seen_at)?;
            Some(Some(Subscription { halted: Some(why), ..found }))
        };
        self.change_subscription(user, device, halt).await.map(drop)
    }

    async fn unread(&self, user: UserId, now: Millis) -> StoreResult<u64> {
        let channels = self.overview(user, OverviewOrder::Activity(None), BADGE_CHANNELS).await?;
        Ok(unread_of(&channels, now))
    }

    async fn alert_settings(&self, user: UserId) -> StoreResult<AlertSettings> {
        let found: Option<(String,)> = self.cql.read_one(&SETTINGS, (int(user.raw()),)).await?;
        found.map_or_else(|| Ok(AlertSettings::default()), |(text,)| parsed(&text))
    }

    async fn put_alert_settings(&self, user: UserId, settings: &AlertSettings) -> StoreResult<()> {
        self.cql.write(&PUT_SETTINGS, (int(user.raw()), json(settings)?)).await
    }

    async fn put_notes(&self, notes: Vec<NoteOf>) -> StoreResult<()> {
        let put = |NoteOf { user, channel, note }: NoteOf| async move {
            let (user, channel, last) = (int(user.raw()), int(channel.raw()), bound(note.last_seq));
            let device = note.device_id.map_or(0, |device| int(device.raw()));
            let (at, outcome, text) = (int(note.at.get()), format!("{:?}", note.outcome), json(&note)?);
            self.cql.write(&PUT_NOTE, (user, channel, last, at, device, outcome, text)).await
        };
        each(notes, put).await.map(drop)
    }

    async fn notes(
        &self,
        user: UserId,
        channel: ChannelId,
        seq: Seq,
        limit: usize,
    ) -> StoreResult<Vec<AlertNote>> {
        /// Notes about later messages that are looked at: an alert is about a run of messages, and is found by its last one.
        const SCANNED: i32 = 1_000;
        let keys = (int(user.raw()), int(channel.raw()), bound(seq), SCANNED);
        let rows: Vec<(String,)> = self.cql.read(&NOTES, keys).await?;
        let notes = rows.iter().map(|(text,)| parsed(text)).collect::<StoreResult<Vec<AlertNote>>>()?;
        let mut notes: Vec<AlertNote> = notes.into_iter().filter(|note| note.first_seq <= seq).collect();
        notes.sort_by_key(|note| note.at);
        notes.truncate(limit);
        Ok(notes)
    }

    async fn put_dead_letter(&self, letter: &DeadLetter) -> StoreResult<()> {
        self.cql.write(&PUT_DEAD, (int(letter.id), json(letter)?)).await
    }

    async fn dead_letters(&self, after: u64, limit: usize) -> StoreResult<Vec<DeadLetter>> {
        let limit = i32::try_from(limit).unwrap_or(i32::MAX);
        let rows: Vec<(String,)> = self.cql.read(&DEAD, (int(after), limit)).await?;
        rows.iter().map(|(text,)| parsed(text)).collect()
    }

    async fn remove_dead_letter(&self, id: u64) -> StoreResult<bool> {
        self.cql.conditional(&REMOVE_DEAD, (int(id),)).await
    }
}
