//! Takes what is due and decides it.

use std::sync::Arc;
use std::time::Duration;

use madang_engine::alerts::{Job, Outstanding, Taking, Target};
use madang_ids::{ChannelId, DeviceId, Millis, Seq, UserId};
use madang_proto::{AlertNote, AlertOutcome};
use madang_service::spread;
use madang_store::{NoteOf, OutstandingChange, StoreResult, Subscription};
use tokio::task::JoinSet;

use super::Inner;
use super::facts::Facts;
use crate::core::{Alert, Decision, Reason};
use crate::lanes::Place;
use crate::metrics::{PushMetrics, ReasonLabel, Word};

/// Records that are worked on at once. Each may hold [`READ_BYTES`](super::facts) of messages: 64 MiB in all.
pub(super) const AT_ONCE: usize = 256;
/// The pause between two looks at the queue.
const LOOK: Duration = Duration::from_millis(500);
/// A worker that has taken a record decides and calls within this time, or is dead. A call takes 20 s at most.
pub(super) const LEASE_MS: u64 = 60_000;
/// Attempts on a record that changes meanwhile. Afterwards it is due again when its lease ends.
const TRIES: usize = 8;
/// A device whose provider has no place is tried again after this time, and after up to twice of it.
const POSTPONED_MS: u64 = 5_000;

impl Inner {
    pub(super) async fn work(self: &Arc<Self>, draining: impl Future<Output = ()> + Send) {
        tokio::pin!(draining);
        let mut at_work = JoinSet::new();
        loop {
            let room = AT_ONCE - at_work.len();
            let due = if room > 0 { self.take_due(room).await } else { Vec::new() };
            let is_busy = !due.is_empty();
            for record in due {
                let inner = Arc::clone(self);
                self.metrics.working.inc();
                at_work.spawn(async move {
                    inner.attend(record).await;
                    inner.metrics.working.dec();
                });
            }
            let has_room = at_work.len() < AT_ONCE;
            tokio::select! {
                biased;
                () = &mut draining => break,
                Some(_) = at_work.join_next(), if !has_room => {}
                () = std::future::ready(()), if is_busy && has_room => {}
                () = self.made.notified(), if has_room => {}
                () = self.clock.sleep(LOOK), if has_room => {}
            }
            while at_work.try_join_next().is_some() {}
        }
        // Each ends by itself: a call takes 20 s at most.
        while at_work.join_next().await.is_some() {}
    }

    async fn take_due(&self, room: usize) -> Vec<Outstanding> {
        let now = self.clock.now_ms();
        match self.queue.take_due(now, now.plus(LEASE_MS), room).await {
            Ok(due) => due,
            Err(error) => {
                self.metrics.store_failures.inc();
                tracing::warn!(%error, "reading the queue of alerts failed; it is repeated");
                Vec::new()
            }
        }
    }

    /// Does what is to be done about a record that this worker has taken.
    async fn attend(&self, record: Outstanding) {
        if let Err(error) = self.attend_to(record).await {
            self.metrics.store_failures.inc();
            tracing::warn!(%error, "deciding an alert failed; it is repeated when its lease ends");
        }
    }

    async fn attend_to(&self, mut record: Outstanding) -> StoreResult<()> {
        for _ in 0..TRIES {
            let now = self.clock.now_ms();
            if record.due_at().is_none_or(|at| at > now) {
                return self.release(&record).await;
            }
            let is_done = if record.held.calls.is_some() {
                self.abandon(&record).await?
            } else if let Some((taking, job)) = record.due(now) {
                let late = now.get().saturating_sub(job.due_at.get());
                self.metrics.late_seconds.observe(Duration::from_millis(late).as_secs_f64());
                self.decide(&record, taking, job).await?
            } else {
                self.withdraw(&record).await?
            };
            if is_done {
                return Ok(());
            }
            record = self.queue.outstanding(record.user, record.channel).await?;
        }
        Ok(())
    }

    /// Ends the lease of a record that is due later than it seemed.
    async fn release(&self, record: &Outstanding) -> StoreResult<()> {
        if record.is_empty() {
            return Ok(());
        }
        self.change(record, record).await.map(drop)
    }

    /// Writes a change of a record. `false` if it has changed since it was read.
    pub(super) async fn change(&self, before: &Outstanding, after: &Outstanding) -> StoreResult<bool> {
        self.queue.change_outstanding(&OutstandingChange::between(before, after)).await
    }

    /// The worker that had begun these calls is dead.
    async fn abandon(&self, record: &Outstanding) -> StoreResult<bool> {
        let Some(calls) = &record.held.calls else { return Ok(false) };
        if !self.change(record, &record.finish(&[])).await? {
            return Ok(false);
        }
        self.metrics.abandoned.inc_by(calls.devices.len() as u64);
        let why = "the process ended before the answer; it is not repeated";
        let note =
            |device: &DeviceId| self.note(record, &calls.job, Some(*device), AlertOutcome::Unknown, why);
        self.put_notes(calls.devices.iter().map(note).collect()).await;
        Ok(false)
    }

    async fn decide(&self, record: &Outstanding, taking: Taking, job: &Job) -> StoreResult<bool> {
        let facts = self.facts(record, job).await?;
        let now = self.clock.now_ms();
        match facts.decide(record.user, now) {
            Decision::Drop(reason) => self.drop_job(record, taking, job, reason).await,
            Decision::Alert(_) if job.expires_at <= now => self.drop_expired(record, taking, job).await,
            Decision::Alert(alert) => self.alert(record, taking, job, &facts, alert).await,
        }
    }

    async fn drop_job(
        &self,
        record: &Outstanding,
        taking: Taking,
        job: &Job,
        reason: Reason,
    ) -> StoreResult<bool> {
        let after = record.without(taking);
        if !self.change(record, &after).await? {
            return Ok(false);
        }
        self.metrics.dropped.get_or_create(&ReasonLabel { reason: Word(reason.as_str()) }).inc();
        let device = device_of(job);
        self.put_notes(vec![self.note(record, job, device, AlertOutcome::Dropped, reason.as_str())]).await;
        Ok(after.due_at().is_none_or(|at| at > self.clock.now_ms()))
    }

    async fn drop_expired(&self, record: &Outstanding, taking: Taking, job: &Job) -> StoreResult<bool> {
        if !self.change(record, &record.without(taking)).await? {
            return Ok(false);
        }
        let why = "it was not decided before it was worthless";
        self.put_notes(vec![self.note(record, job, device_of(job), AlertOutcome::Expired, why)]).await;
        Ok(false)
    }

    /// Takes places at the providers, writes down the calls, and makes them.
    async fn alert(
        &self,
        record: &Outstanding,
        taking: Taking,
        job: &Job,
        facts: &Facts,
        alert: Alert,
    ) -> StoreResult<bool> {
        let message = self.message(record, facts, alert).await?;
        let now = self.clock.now_ms();
        let (mut places, mut later) = (Vec::<(Subscription, Place)>::new(), Vec::<(DeviceId, Millis)>::new());
        for subscription in self.subscriptions_for(record, taking, facts, &mut later, now) {
            match self.lanes.enter(&subscription.target).await {
                Some(place) => places.push((subscription, place)),
                None => {
                    let provider = subscription.target.provider();
                    self.metrics.postponed.get_or_create(&PushMetrics::of(provider)).inc();
                    later.push((
                        subscription.device_id,
                        now.plus(postponed_ms(&subscription, record.channel)),
                    ));
                }
            }
        }
        let devices: Vec<DeviceId> = places.iter().map(|(subscription, _)| subscription.device_id).collect();
        if devices.is_empty() && later.is_empty() {
            return self.drop_job(record, taking, job, Reason::NoSubscription).await;
        }
        let now = self.clock.now_ms();
        let begun = record.begin(taking, &devices, &later, (now, now.plus(LEASE_MS)));
        if !self.change(record, &begun).await? {
            return Ok(false);
        }
        if !devices.is_empty() {
            self.call_all(&begun, places, &message).await;
        }
        Ok(true)
    }

    /// The subscriptions to call. Devices that wait for a retry get the messages with it.
    fn subscriptions_for(
        &self,
        record: &Outstanding,
        taking: Taking,
        facts: &Facts,
        later: &mut Vec<(DeviceId, Millis)>,
        now: Millis,
    ) -> Vec<Subscription> {
        let waits = |device| record.held.retries.iter().any(|retry| retry.target == Target::Device(device));
        let mut called = Vec::new();
        for subscription in &facts.subscriptions {
            let device = subscription.device_id;
            match taking {
                Taking::Fresh if waits(device) => later.push((device, now)),
                Taking::Retry(target) if target != device => {}
                Taking::Fresh | Taking::Retry(_) => called.push(subscription.clone()),
            }
        }
        called
    }

    pub(super) fn note(
        &self,
        record: &Outstanding,
        job: &Job,
        device_id: Option<DeviceId>,
        outcome: AlertOutcome,
        detail: &str,
    ) -> NoteOf {
        let (first_seq, last_seq) = job.range();
        self.note_about((record.user, record.channel), (first_seq, last_seq), device_id, outcome, detail)
    }

    pub(super) fn note_about(
        &self,
        (user, channel): (UserId, ChannelId),
        (first_seq, last_seq): (Seq, Seq),
        device_id: Option<DeviceId>,
        outcome: AlertOutcome,
        detail: &str,
    ) -> NoteOf {
        let (at, detail) = (self.clock.now_ms(), detail.to_owned());
        NoteOf { user, channel, note: AlertNote { at, first_seq, last_seq, device_id, outcome, detail } }
    }

    /// Notes are for operators. A failure costs the note.
    pub(super) async fn put_notes(&self, notes: Vec<NoteOf>) {
        if notes.is_empty() {
            return;
        }
        if let Err(error) = self.store.put_notes(notes).await {
            self.metrics.store_failures.inc();
            tracing::warn!(%error, "noting what became of an alert failed");
        }
    }
}

const fn device_of(job: &Job) -> Option<DeviceId> {
    match job.target {
        Target::Device(device) => Some(device),
        Target::User => None,
    }
}

fn postponed_ms(subscription: &Subscription, channel: ChannelId) -> u64 {
    let spread = spread(Duration::from_millis(POSTPONED_MS), subscription.device_id.raw() ^ channel.raw());
    POSTPONED_MS + u64::try_from(spread.as_millis()).unwrap_or_default()
}
