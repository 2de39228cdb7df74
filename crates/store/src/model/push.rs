//! Subscriptions, settings and notes of alerts, and the queue of alerts, in memory.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use madang_engine::alerts::{Fold, Outstanding, Shown};
use madang_engine::spans::Spans;
use madang_ids::{ChannelId, Cursor, DeviceId, Epoch, LogId, Millis, Position, Seq, UserId};
use madang_proto::{AlertNote, AlertOutcome, AlertSettings, ChannelKind, Content};
use tokio::sync::Notify;

use super::{Model, Mutant, State, Stored};
use crate::alerts::{AlertEvent, AlertOutbox, AlertQueue, OutstandingChange, Unmade};
use crate::channels::{ChannelStore, OverviewOrder};
use crate::error::StoreResult;
use crate::push::{BADGE_CHANNELS, DeadLetter, NoteOf, PushStore, Subscription, unread_of};

/// Rows of one log from which alerts are made at once.
const ROWS: u64 = 64;

/// What the model keeps of push.
#[derive(Debug, Default)]
pub(super) struct Pushed {
    subscriptions: BTreeMap<DeviceId, Subscription>,
    settings: BTreeMap<UserId, AlertSettings>,
    pub(super) notes: Vec<NoteOf>,
    pub(super) dead: BTreeMap<u64, DeadLetter>,
    queue: BTreeMap<(UserId, ChannelId), (Outstanding, Option<Millis>)>,
    /// First and last row of each log of which no alerts were made.
    outbox: BTreeMap<LogId, (Seq, Seq)>,
}

/// Whether appends note their rows, and who waits for them.
#[derive(Debug, Default)]
pub(super) struct AlertSwitch {
    is_on: AtomicBool,
    noted: Notify,
}

#[async_trait]
impl PushStore for Model {
    async fn put_subscription(&self, subscription: &Subscription) -> StoreResult<Subscription> {
        let _call = self.journal.begin("put_subscription");
        let (moves, renews) =
            (self.is_mutant(Mutant::TokenStaysWithBoth), self.is_mutant(Mutant::SubscriptionForgetsFirst));
        self.write(|state| {
            let subscriptions = &mut state.push.subscriptions;
            let same = subscriptions.get(&subscription.device_id);
            let same = same.filter(|found| found.target == subscription.target && !renews);
            let registered_at = same.map_or(subscription.registered_at, |same| same.registered_at);
            let put = Subscription { registered_at, ..subscription.clone() };
            subscriptions.retain(|_, other| other.token_key() != put.token_key() || moves);
            let device = state.devices.get(&put.device_id);
            if device.is_some_and(|device| device.revoked_at.is_none()) {
                state.push.subscriptions.insert(put.device_id, put.clone());
            }
            put
        })
        .await
    }

    async fn subscriptions(&self, user: UserId) -> StoreResult<Vec<Subscription>> {
        let _call = self.journal.begin("subscriptions");
        let is_blind = self.is_mutant(Mutant::RevokedDeviceIsAlerted);
        self.read(|state| {
            let is_live = |device| state.devices.get(device).is_some_and(|it| it.revoked_at.is_none());
            let of_user = state.push.subscriptions.values().filter(|found| found.user_id == user);
            of_user.filter(|found| is_live(&found.device_id) || is_blind).cloned().collect()
        })
        .await
    }

    async fn remove_subscription(
        &self,
        user: UserId,
        device: DeviceId,
        seen_at: Option<Millis>,
    ) -> StoreResult<bool> {
        let _call = self.journal.begin("remove_subscription");
        let is_blind = self.is_mutant(Mutant::RemovesLaterSubscription);
        self.write(|state| {
            let found = state.push.subscriptions.get(&device).filter(|found| found.user_id == user);
            let is_that = found.is_some_and(|it| seen_at.is_none_or(|at| at == it.seen_at) || is_blind);
            if is_that {
                state.push.subscriptions.remove(&device);
            }
            is_that
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
        let _call = self.journal.begin("halt_subscription");
        self.write(|state| {
            let found = state.push.subscriptions.get_mut(&device).filter(|found| found.user_id == user);
            if let Some(found) = found.filter(|found| found.seen_at == seen_at) {
                found.halted = Some(why);
            }
        })
        .await
    }

    async fn unread(&self, user: UserId, now: Millis) -> StoreResult<u64> {
        let channels = self.overview(user, OverviewOrder::Activity(None), BADGE_CHANNELS).await?;
        Ok(unread_of(&channels, now))
    }

    async fn alert_settings(&self, user: UserId) -> StoreResult<AlertSettings> {
        let _call = self.journal.begin("alert_settings");
        self.read(|state| state.push.settings.get(&user).cloned().unwrap_or_default()).await
    }

    async fn put_alert_settings(&self, user: UserId, settings: &AlertSettings) -> StoreResult<()> {
        let _call = self.journal.begin("put_alert_settings");
        self.write(|state| drop(state.push.settings.insert(user, settings.clone()))).await
    }

    async fn put_notes(&self, notes: Vec<NoteOf>) -> StoreResult<()> {
        let _call = self.journal.begin("put_notes");
        self.write(|state| state.push.notes.extend(notes)).await
    }

    async fn notes(
        &self,
        user: UserId,
        channel: ChannelId,
        seq: Seq,
        limit: usize,
    ) -> StoreResult<Vec<AlertNote>> {
        let _call = self.journal.begin("notes");
        let by_last = self.is_mutant(Mutant::NotesByLastMessage);
        self.read(|state| {
            let is_about = |note: &AlertNote| match by_last {
                true => note.last_seq == seq,
                false => note.first_seq <= seq && seq <= note.last_seq,
            };
            let of_channel = state.push.notes.iter().filter(|it| (it.user, it.channel) == (user, channel));
            let about = of_channel.map(|it| &it.note).filter(|note| is_about(note));
            about.take(limit).cloned().collect()
        })
        .await
    }

    async fn put_dead_letter(&self, letter: &DeadLetter) -> StoreResult<()> {
        let _call = self.journal.begin("put_dead_letter");
        self.write(|state| drop(state.push.dead.insert(letter.id, letter.clone()))).await
    }

    async fn dead_letters(&self, after: u64, limit: usize) -> StoreResult<Vec<DeadLetter>> {
        let _call = self.journal.begin("dead_letters");
        self.read(|state| state.push.dead.range(after + 1..).map(|(_, it)| it).take(limit).cloned().collect())
            .await
    }

    async fn remove_dead_letter(&self, id: u64) -> StoreResult<bool> {
        let _call = self.journal.begin("remove_dead_letter");
        self.write(|state| state.push.dead.remove(&id).is_some()).await
    }
}

#[async_trait]
impl AlertQueue for Model {
    async fn take_due(&self, now: Millis, until: Millis, limit: usize) -> StoreResult<Vec<Outstanding>> {
        let _call = self.journal.begin("take_due");
        let keeps = self.is_mutant(Mutant::DueIsNotLeased);
        self.write(|state| {
            let is_due = |due: &Option<Millis>| due.is_some_and(|at| at <= now);
            let mut due: Vec<_> = state.push.queue.values_mut().filter(|(_, due)| is_due(due)).collect();
            due.sort_by_key(|(_, due)| *due);
            due.truncate(limit);
            let taken = due.iter().map(|(record, _)| record.clone()).collect();
            if !keeps {
                due.into_iter().for_each(|(_, due)| *due = Some(until));
            }
            taken
        })
        .await
    }

    async fn outstanding(&self, user: UserId, channel: ChannelId) -> StoreResult<Outstanding> {
        let _call = self.journal.begin("outstanding");
        self.read(|state| state.push.record(user, channel)).await
    }

    async fn shown_and_read(&self, user: UserId, limit: usize) -> StoreResult<Vec<(ChannelId, Shown)>> {
        let _call = self.journal.begin("shown_and_read");
        self.read(|state| {
            let records = state.push.queue.values().map(|(record, _)| record).filter(|it| it.user == user);
            let read = records.flat_map(|record| record.held.shown.iter().map(|it| (record.channel, *it)));
            read.filter(|(_, shown)| shown.is_read).take(limit).collect()
        })
        .await
    }

    async fn change_outstanding(&self, change: &OutstandingChange) -> StoreResult<bool> {
        let _call = self.journal.begin("change_outstanding");
        let is_blind = self.is_mutant(Mutant::OutstandingIsNotCompared);
        self.write(|state| {
            let found = state.push.record(change.user, change.channel);
            let change = match is_blind {
                true => OutstandingChange {
                    before: found.held.clone(),
                    takes: change.takes.as_ref().and(found.fresh.clone()),
                    ..change.clone()
                },
                false => change.clone(),
            };
            let after = change.apply(&found);
            let is_done = after.is_some();
            after.into_iter().for_each(|after| state.push.put(after));
            is_done
        })
        .await
    }

    async fn fold_alerts(&self, folds: &[Fold]) -> StoreResult<()> {
        let _call = self.journal.begin("fold_alerts");
        self.write(|state| state.push.fold_all(folds)).await
    }

    fn comparable(&self, received: Cursor) -> Cursor {
        Cursor { epoch: Epoch::from_raw(0), ..received }
    }
}

#[async_trait]
impl AlertOutbox for Model {
    fn begin_alerts(&self) {
        self.alerts.is_on.store(true, Ordering::SeqCst);
    }

    async fn alerts_waiting(&self) {
        self.alerts.noted.notified().await;
    }

    async fn unmade(&self, after: Option<LogId>, limit: usize) -> StoreResult<Vec<Unmade>> {
        let _call = self.journal.begin("unmade");
        self.read(|state| {
            let noted = state.push.outbox.iter().filter(|(log, _)| after.is_none_or(|after| **log > after));
            let noted = noted.take(limit);
            noted.map(|(log, (from, upto))| state.unmade(*log, *from, *upto)).collect()
        })
        .await
    }

    async fn make(&self, log: LogId, upto: Seq, folds: Vec<Fold>) -> StoreResult<()> {
        let _call = self.journal.begin("make");
        let forgets_all = self.is_mutant(Mutant::OutboxForgetsLaterRows);
        self.write(|state| {
            state.push.fold_all(&folds);
            let Some((from, last)) = state.push.outbox.get_mut(&log) else { return };
            if *last <= upto || forgets_all {
                state.push.outbox.remove(&log);
            } else {
                *from = (*from).max(upto.next());
            }
        })
        .await
    }
}

impl Model {
    /// Notes rows that were just appended, if alerts are on.
    pub(super) fn note_alerts(&self, state: &mut State, log: LogId, rows: &[crate::log::Row]) {
        let is_alerting = |content: &Content| {
            matches!(content, Content::Message(_) | Content::Mentioned { .. } | Content::Read { .. })
        };
        if !self.alerts.is_on.load(Ordering::SeqCst) || state.push.subscriptions.is_empty() {
            return;
        }
        let alerting = || rows.iter().filter(|row| is_alerting(&row.entry.content)).map(|row| row.entry.seq);
        let (Some(first), Some(last)) = (alerting().next(), alerting().next_back()) else { return };
        state.push.outbox.entry(log).or_insert((first, last)).1 = last;
        self.alerts.noted.notify_one();
    }
}

impl Pushed {
    fn record(&self, user: UserId, channel: ChannelId) -> Outstanding {
        let found = self.queue.get(&(user, channel)).map(|(record, _)| record.clone());
        found.unwrap_or_else(|| Outstanding::new(user, channel))
    }

    fn put(&mut self, record: Outstanding) {
        let key = (record.user, record.channel);
        match record.is_empty() {
            true => drop(self.queue.remove(&key)),
            false => {
                let due = record.due_at();
                self.queue.insert(key, (record, due));
            }
        }
    }

    fn fold_all(&mut self, folds: &[Fold]) {
        for fold in folds {
            let mut record = self.record(fold.user, fold.channel);
            let before = record.clone();
            record.fold(fold.what);
            if record != before {
                self.put(record);
            }
        }
    }
}

impl State {
    fn unmade(&self, log: LogId, from: Seq, upto: Seq) -> Unmade {
        let upto = upto.min(Seq::new(from.get() + ROWS - 1));
        let range = from..=upto;
        let rows = self.stored(log, &range);
        let (events, users) = match log {
            LogId::Channel(channel) => {
                let kind = self.channels.get(&channel).map(|found| found.card.kind);
                if kind.is_none_or(|kind| kind == ChannelKind::Open) {
                    return Unmade { log, upto, events: Vec::new(), users: Vec::new() };
                }
                let subscribed =
                    |user: &UserId| self.push.subscriptions.values().any(|it| it.user_id == *user);
                let members =
                    self.members.iter().filter(|((at, user), _)| *at == channel && subscribed(user));
                let users = members.map(|((_, user), member)| (*user, member.spans.clone())).collect();
                (rows.filter_map(message_of).collect(), users)
            }
            LogId::User(user) => {
                (rows.filter_map(own_event_of).collect(), vec![(user, Spans::since(Seq::ZERO))])
            }
        };
        Unmade { log, upto, events, users }
    }
}

fn message_of(stored: &Stored) -> Option<AlertEvent> {
    let (seq, position) = (stored.row.entry.seq, Position::new(stored.position));
    let (sender, at) = (stored.row.key.as_ref()?.sender, stored.row.entry.at);
    Some(AlertEvent::Message { seq, position, at, sender })
}

fn own_event_of(stored: &Stored) -> Option<AlertEvent> {
    let position = Position::new(stored.position);
    match stored.row.entry.content {
        Content::Mentioned { channel_id: channel, seq, .. } => {
            Some(AlertEvent::Mentioned { channel, seq, position, at: stored.row.entry.at })
        }
        Content::Read { channel_id: channel, seq, .. } => {
            Some(AlertEvent::Read { channel, seq, at: stored.row.entry.at })
        }
        _ => None,
    }
}
