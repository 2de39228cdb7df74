//! Subscriptions of devices to alerts, settings of alerts, and what became of each alert.

use std::collections::BTreeSet;

use async_trait::async_trait;
use madang_ids::{ChannelId, Cursor, DeviceId, LogId, Millis, Seq, UserId};
use madang_proto::{AlertNote, AlertOutcome, AlertSettings, PushTarget};
use serde::{Deserialize, Serialize};

use crate::accounts::{AccountStore, User, UserState};
use crate::channels::{ChannelStore, Overview};
use crate::devices::DeviceStore;
use crate::error::StoreResult;
use crate::log::{LogStore, Row};
use crate::settings::SettingStore;

/// How long notes about alerts, and dead letters, are kept.
pub const NOTES_KEPT_DAYS: u64 = 7;
/// Notes of one process that are kept at most: about 400 MB.
pub const NOTES_KEPT: u64 = 2_000_000;

/// Channels that count for a badge.
pub const BADGE_CHANNELS: usize = 200;

/// Where the alerts of a device go. A device has at most one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscription {
    /// The user of the device.
    pub user_id: UserId,
    /// The device.
    pub device_id: DeviceId,
    /// The provider, and the address there.
    pub target: PushTarget,
    /// The secret that signs requests to a webhook.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_secret: Option<String>,
    /// When the app registered this target first.
    pub registered_at: Millis,
    /// When the app registered it last.
    pub seen_at: Millis,
    /// The version of the app.
    pub app_version: String,
    /// The language of the user.
    pub locale: String,
    /// Why nothing is sent to it until the app registers it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub halted: Option<AlertOutcome>,
}

impl Subscription {
    /// Names the app on its device. A webhook may serve several devices, also of different users.
    #[must_use]
    pub fn token_key(&self) -> String {
        let token = self.target.token();
        match self.target {
            PushTarget::Webhook { .. } => format!("{} {token}", self.device_id),
            _ => token.to_owned(),
        }
    }
}

/// What happened about messages of a channel for a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteOf {
    /// The user.
    pub user: UserId,
    /// The channel.
    pub channel: ChannelId,
    /// What happened.
    pub note: AlertNote,
}

/// An alert that was given up. An operator may send it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Its id. Rising with time.
    pub id: u64,
    /// The user.
    pub user_id: UserId,
    /// The channel.
    pub channel_id: ChannelId,
    /// The device.
    pub device_id: DeviceId,
    /// Its messages.
    pub job: madang_engine::alerts::Job,
    /// What happened.
    pub note: AlertNote,
}

/// What is true of a user and a channel, for the decision about an alert.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AlertFacts {
    /// The subscriptions of the user's devices. If there is none, nothing else is read.
    pub subscriptions: Vec<Subscription>,
    /// Positions that the user's devices have received.
    pub received: Vec<Cursor>,
    /// The channel as the user has it; `None` if the user was never in it.
    pub overview: Option<Overview>,
    /// Whether the user may sign in.
    pub is_active: bool,
    /// The user's settings.
    pub settings: AlertSettings,
    /// As [`PushStore::unread`].
    pub unread: u64,
}

/// The messages of an alert.
#[derive(Debug, Clone, Default)]
pub struct AlertMessages {
    /// The rows, the last one first; as many as fit.
    pub rows: Vec<Row>,
    /// Messages that the user has deleted for themselves.
    pub hidden: Vec<Seq>,
    /// Senders that the user blocks.
    pub blocked: Vec<UserId>,
    /// The senders.
    pub senders: Vec<User>,
}

/// Subscriptions, settings and notes of alerts.
///
/// # Guarantees
/// Every write is durable when it returns, and repeating it is harmless. A subscription ends with its device: it is not among
/// [`PushStore::subscriptions`] once the device is revoked. A token belongs to one device at a time.
#[async_trait]
pub trait PushStore: AccountStore + ChannelStore + DeviceStore + LogStore + SettingStore {
    /// Writes the subscription of a device, in place of an earlier one, and ends that of any other device with the same token: the
    /// app has changed its user. One with the same target keeps its `registered_at`; the subscription as it is now is returned. That of a
    /// device that is revoked is not kept.
    async fn put_subscription(&self, subscription: &Subscription) -> StoreResult<Subscription>;
    /// The subscriptions of a user's devices, by device.
    async fn subscriptions(&self, user: UserId) -> StoreResult<Vec<Subscription>>;
    /// Removes the subscription of a device; with `seen_at` only if it was not registered again since. `false` if there is none.
    async fn remove_subscription(
        &self,
        user: UserId,
        device: DeviceId,
        seen_at: Option<Millis>,
    ) -> StoreResult<bool>;
    /// Notes that nothing is sent to a subscription until it is registered again, if it was not since `seen_at`.
    async fn halt_subscription(
        &self,
        user: UserId,
        device: DeviceId,
        seen_at: Millis,
        why: AlertOutcome,
    ) -> StoreResult<()>;

    /// The unread messages of a user in direct channels and groups that are not muted at `now`; in a store that reads channel by channel
    /// only of the [`BADGE_CHANNELS`] most recently active ones.
    async fn unread(&self, user: UserId, now: Millis) -> StoreResult<u64>;

    /// The settings of a user.
    async fn alert_settings(&self, user: UserId) -> StoreResult<AlertSettings>;
    /// Writes the settings of a user; the last write stays.
    async fn put_alert_settings(&self, user: UserId, settings: &AlertSettings) -> StoreResult<()>;

    /// What is true of a user and a channel. One read where the store can: it is made for each alert.
    async fn alert_facts(&self, user: UserId, channel: ChannelId, now: Millis) -> StoreResult<AlertFacts> {
        let subscriptions = self.subscriptions(user).await?;
        if subscriptions.is_empty() {
            return Ok(AlertFacts::default());
        }
        let users = self.users(&[user]).await?;
        Ok(AlertFacts {
            subscriptions,
            received: self.devices(user).await?.into_iter().filter_map(|device| device.received).collect(),
            overview: self.overview_of(user, channel).await?,
            is_active: users.into_iter().flatten().any(|user| user.state == UserState::Active),
            settings: self.alert_settings(user).await?,
            unread: self.unread(user, now).await?,
        })
    }

    /// Messages of a channel for an alert of a user, the last ones first, up to `max_bytes` and at least one. One read where the store
    /// can.
    async fn alert_messages(
        &self,
        user: UserId,
        channel: ChannelId,
        seqs: &[Seq],
        max_bytes: usize,
    ) -> StoreResult<AlertMessages> {
        let newest: Vec<Seq> = seqs.iter().rev().copied().collect();
        let rows = self.rows_at(LogId::Channel(channel), &newest, max_bytes).await?;
        let rows: Vec<Row> = rows.into_iter().flatten().collect();
        let ranges: Vec<_> = seqs.iter().map(|seq| (channel, *seq..=*seq)).collect();
        let hidden = self.hidden_messages(user, &ranges).await?.into_iter().map(|(_, seq)| seq).collect();
        let senders = senders_of(&rows);
        let mut blocked = Vec::new();
        for sender in &senders {
            if !self.who_block(*sender, &[user]).await?.is_empty() {
                blocked.push(*sender);
            }
        }
        let senders = self.users(&senders).await?.into_iter().flatten().collect();
        Ok(AlertMessages { rows, hidden, blocked, senders })
    }

    /// Writes notes. They are removed after [`NOTES_KEPT_DAYS`], and in one process the oldest beyond [`NOTES_KEPT`].
    async fn put_notes(&self, notes: Vec<NoteOf>) -> StoreResult<()>;
    /// The notes of a user about a message, in the order of their times; at most `limit`, the first ones.
    async fn notes(
        &self,
        user: UserId,
        channel: ChannelId,
        seq: Seq,
        limit: usize,
    ) -> StoreResult<Vec<AlertNote>>;

    /// Writes a dead letter, which is removed after [`NOTES_KEPT_DAYS`].
    async fn put_dead_letter(&self, letter: &DeadLetter) -> StoreResult<()>;
    /// Dead letters by id, after `after`.
    async fn dead_letters(&self, after: u64, limit: usize) -> StoreResult<Vec<DeadLetter>>;
    /// Removes a dead letter. `false` if there is none: of several callers at once one gets `true`.
    async fn remove_dead_letter(&self, id: u64) -> StoreResult<bool>;
}

/// The senders of rows, each once.
pub(crate) fn senders_of(rows: &[Row]) -> Vec<UserId> {
    let senders = rows.iter().filter_map(|row| Some(row.entry.content.message()?.sender_id));
    senders.collect::<BTreeSet<_>>().into_iter().collect()
}

/// The unread messages of channels, for a badge.
#[cfg(any(feature = "model", feature = "scylla"))]
pub(crate) fn unread_of(channels: &[Overview], now: Millis) -> u64 {
    let counts = |channel: &&Overview| {
        channel.membership.in_inbox
            && channel.membership.spans.is_open()
            && channel.settings.muted_until.is_none_or(|until| until <= now)
    };
    let unread = |it: &Overview| it.head.ordinal.get().saturating_sub(it.marker.ordinal.get());
    channels.iter().filter(counts).map(unread).sum()
}
