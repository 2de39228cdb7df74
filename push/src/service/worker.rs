//! Takes what is due and decides it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use madang_engine::alerts::{Job, Outstanding, Taking, Target};
use madang_ids::{ChannelId, DeviceId, Millis, Seq, UserId};
use madang_proto::{AlertNote, AlertOutcome};
use madang_service::{Drain, Phase, spread};
use madang_store::{NoteOf, OutstandingChange, StoreResult, Subscription};
use tokio::task::JoinSet;

use super::facts::Facts;
use super::{Inner, Nearby};
use crate::core::{Decision, Reason};
use crate::lanes::{Full, Place};
use crate::metrics::{PushMetrics, ReasonLabel, Word};

/// Records that are worked on at once. Each may hold 256 KiB of messages, and one of 400 KB: about 100 MiB in all.
pub(super) const AT_ONCE: usize = 256;
/// The pause between two looks at the queue of one process, whose maker wakes the worker; and of one that others fill.
const LOOK: Duration = Duration::from_millis(500);
const LOOK_SHARED: Duration = Duration::from_millis(100);
/// Notes about one message that are looked at.
const NOTES: usize = 200;
/// The least pause between two of them.
const PAUSE: Duration = Duration::from_millis(5);
/// A worker that has taken a record decides and calls within this time, or is dead. A call takes 20 s at most.
pub(super) const LEASE_MS: u64 = 60_000;
/// Steps on one record: messages, retries of single devices, and attempts on a record that changes meanwhile.
const STEPS: usize = 64;
/// What was read longer ago is read again before a call.
const FRESH: Duration = Duration::from_millis(200);
/// Alerts that wait for the same provider come back within this time after it.
const MOST_SPREAD: Duration = Duration::from_secs(300);

/// What a worker needs of its process.
pub(super) struct Worker {
    nearby: Arc<dyn Nearby>,
    drain: Drain,
}

impl Inner {
    pub(super) async fn work(self: &Arc<Self>, nearby: Arc<dyn Nearby>, drain: Drain) {
        let worker = Arc::new(Worker { nearby, drain: drain.clone() });
        // In a fleet the devices are connected to other nodes.
        if self.outbox.is_some() {
            self.wait_for_devices().await;
        }
        let look = if self.outbox.is_some() { LOOK } else { LOOK_SHARED };
        let mut at_work = JoinSet::new();
        loop {
            // What comes at the same moment is taken together.
            tokio::time::sleep(PAUSE).await;
            let looked = self.clock.elapsed();
            let room = AT_ONCE - at_work.len();
            let due = if room > 0 { self.take_due(room).await } else { Vec::new() };
            let is_busy = !due.is_empty();
            for record in due {
                let (inner, worker) = (Arc::clone(self), Arc::clone(&worker));
                self.metrics.working.inc();
                at_work.spawn(async move {
                    inner.attend(record, &worker).await;
                    inner.metrics.working.dec();
                });
            }
            self.lanes.note_halted();
            let has_room = at_work.len() < AT_ONCE;
            tokio::select! {
                biased;
                () = drain.draining() => break,
                Some(_) = at_work.join_next(), if !has_room => {}
                () = std::future::ready(()), if is_busy && has_room => {}
                () = self.made.notified(), if has_room => {}
                () = self.clock.sleep_until(looked + look), if has_room => {}
            }
            while at_work.try_join_next().is_some() {}
        }
        // Each ends by itself: a call takes 20 s at most.
        while at_work.join_next().await.is_some() {}
    }

    /// What was due when the process before this one ended waits once more: the devices have to connect again, and may say that they
    /// have received it.
    async fn wait_for_devices(&self) {
        let now = self.clock.now_ms();
        let until = now.plus(self.config.delay_ms);
        if let Err(error) = self.queue.take_due(now, until, usize::MAX >> 1).await {
            tracing::warn!(%error, "reading the queue of alerts failed");
        }
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
    async fn attend(&self, record: Outstanding, worker: &Worker) {
        if let Err(error) = self.attend_to(record, worker).await {
            self.metrics.store_failures.inc();
            tracing::warn!(%error, "deciding an alert failed; it is repeated when its lease ends");
        }
    }

    async fn attend_to(&self, mut record: Outstanding, worker: &Worker) -> StoreResult<()> {
        let began = self.clock.now_ms();
        for _ in 0..STEPS {
            let now = self.clock.now_ms();
            if record.due_at().is_none_or(|at| at > now) {
                return self.release(&record).await;
            }
            // What is left is due again when the lease ends.
            if worker.drain.phase() != Phase::Running || now > began.plus(LEASE_MS / 2) {
                return Ok(());
            }
            if record.held.calls.is_some() {
                self.abandon(&record).await?;
            } else if let Some((taking, job)) = record.due(now) {
                let late = now.get().saturating_sub(job.due_at.get());
                self.metrics.late_seconds.observe(Duration::from_millis(late).as_secs_f64());
                let after = self.decide(&record, taking, job, worker).await?;
                if after.is_some_and(|after| after.due_at().is_none_or(|at| at > now)) {
                    // If a message has come meanwhile, its maker has woken the worker.
                    return Ok(());
                }
            } else {
                self.withdraw(&record).await?;
            }
            record = self.queue.outstanding(record.user, record.channel).await?;
        }
        Ok(())
    }

    /// Ends the lease of a record that is due later than it seemed.
    async fn release(&self, record: &Outstanding) -> StoreResult<()> {
        self.change(record, record).await.map(drop)
    }

    /// Writes a change of a record. `false` if it has changed since it was read.
    pub(super) async fn change(&self, before: &Outstanding, after: &Outstanding) -> StoreResult<bool> {
        self.queue.change_outstanding(&OutstandingChange::between(before, after)).await
    }

    /// The worker that had begun these calls is dead.
    async fn abandon(&self, record: &Outstanding) -> StoreResult<()> {
        let Some(calls) = &record.held.calls else { return Ok(()) };
        if !self.change(record, &record.finish(&[])).await? {
            return Ok(());
        }
        self.metrics.abandoned.inc_by(calls.devices.len() as u64);
        let why = "the process ended before the answer; it is not repeated";
        let note =
            |device: &DeviceId| self.note(record, &calls.job, Some(*device), AlertOutcome::Unknown, why);
        self.put_notes(calls.devices.iter().map(note).collect()).await;
        Ok(())
    }

    /// Decides messages, and carries the decision out. The record as it was written last; `None` if it has changed meanwhile.
    async fn decide(
        &self,
        record: &Outstanding,
        taking: Taking,
        job: &Job,
        worker: &Worker,
    ) -> StoreResult<Option<Outstanding>> {
        // Before anything is read: what cannot be read must not be tried for ever.
        if job.expires_at <= self.clock.now_ms() {
            return self.expire(record, taking, job).await;
        }
        let facts = self.facts(record, job, worker.nearby.as_ref()).await?;
        match facts.decide(record.user, self.clock.now_ms()) {
            Decision::Drop(reason) => self.drop_job(record, taking, job, reason).await,
            Decision::Alert(_) => self.alert(record, taking, job, facts, worker).await,
        }
    }

    async fn drop_job(
        &self,
        record: &Outstanding,
        taking: Taking,
        job: &Job,
        reason: Reason,
    ) -> StoreResult<Option<Outstanding>> {
        let after = record.without(taking);
        if !self.change(record, &after).await? {
            return Ok(None);
        }
        self.metrics.dropped.get_or_create(&ReasonLabel { reason: Word(reason.as_str()) }).inc();
        if reason == Reason::NoSubscription
            && let Err(error) = self.queue.unsubscribed(record.user).await
        {
            tracing::debug!(%error, "messages for a user without a subscription are still decided");
        }
        let note = self.note(record, job, device_of(job), AlertOutcome::Dropped, reason.as_str());
        self.put_notes(vec![note]).await;
        Ok(Some(after))
    }

    async fn expire(
        &self,
        record: &Outstanding,
        taking: Taking,
        job: &Job,
    ) -> StoreResult<Option<Outstanding>> {
        let after = record.without(taking);
        if !self.change(record, &after).await? {
            return Ok(None);
        }
        let why = "it was not decided before it was worthless";
        self.put_notes(vec![self.note(record, job, device_of(job), AlertOutcome::Expired, why)]).await;
        Ok(Some(after))
    }

    /// Takes places at the providers, writes down the calls, and makes them.
    async fn alert(
        &self,
        record: &Outstanding,
        taking: Taking,
        job: &Job,
        mut facts: Facts,
        worker: &Worker,
    ) -> StoreResult<Option<Outstanding>> {
        let began = self.clock.elapsed();
        let (called, waiting) = subscriptions_for(record, taking, &facts);
        let now = self.clock.now_ms();
        let mut later: Vec<(DeviceId, Millis)> = waiting.into_iter().map(|device| (device, now)).collect();
        let entered = called.into_iter().map(|subscription| async move {
            let entered = self.lanes.enter(&subscription.target).await;
            (subscription, entered)
        });
        let mut places: Vec<(Subscription, Place)> = Vec::new();
        for (subscription, entered) in join_all(entered).await {
            match entered {
                Ok(place) => places.push((subscription, place)),
                Err(full) => later.push(self.postponed(&subscription, record.channel, full)),
            }
        }
        if self.clock.elapsed().saturating_sub(began) > FRESH {
            // The user may have read or received it while it waited for a place.
            facts = self.facts(record, job, worker.nearby.as_ref()).await?;
            places.retain(|(place, _)| facts.found.subscriptions.contains(place));
        }
        let alert = match facts.decide(record.user, self.clock.now_ms()) {
            Decision::Drop(reason) => return self.drop_job(record, taking, job, reason).await,
            Decision::Alert(alert) => alert,
        };
        if self.queue.may_lack_writes().await? && self.was_alerted(record, job).await? {
            return self.drop_job(record, taking, job, Reason::Repeated).await;
        }
        let devices: Vec<DeviceId> = places.iter().map(|(subscription, _)| subscription.device_id).collect();
        if devices.is_empty() && later.is_empty() {
            return self.drop_job(record, taking, job, Reason::NoSubscription).await;
        }
        let message = self.message(record, &facts, alert).await?;
        let now = self.clock.now_ms();
        let begun = record.begin(taking, &devices, &later, (now, now.plus(LEASE_MS)));
        if !self.change(record, &begun).await? {
            return Ok(None);
        }
        Ok(Some(match devices.is_empty() {
            true => begun,
            false => self.call_all(&begun, places, &message).await,
        }))
    }

    /// Whether a device was alerted of the last message, or may have been.
    async fn was_alerted(&self, record: &Outstanding, job: &Job) -> StoreResult<bool> {
        let notes = self.store.notes(record.user, record.channel, job.range().1, NOTES).await?;
        let is_of = |note: &AlertNote| device_of(job).is_none_or(|device| note.device_id == Some(device));
        let was_called =
            |note: &AlertNote| matches!(note.outcome, AlertOutcome::Taken | AlertOutcome::Unknown);
        Ok(notes.iter().any(|note| is_of(note) && was_called(note)))
    }

    /// When a device is decided again whose provider had no place.
    fn postponed(&self, subscription: &Subscription, channel: ChannelId, full: Full) -> (DeviceId, Millis) {
        self.metrics.postponed.get_or_create(&PushMetrics::of(subscription.target.provider())).inc();
        let device = subscription.device_id;
        let wait = full.wait + spread(full.wait.min(MOST_SPREAD), device.raw() ^ channel.raw());
        let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        (device, self.clock.now_ms().plus(wait))
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

/// The subscriptions to call, and the devices that get the messages with what they wait for already.
fn subscriptions_for(
    record: &Outstanding,
    taking: Taking,
    facts: &Facts,
) -> (Vec<Subscription>, Vec<DeviceId>) {
    let waits = |device| record.held.retries.iter().any(|retry| retry.target == Target::Device(device));
    let (mut called, mut waiting) = (Vec::new(), Vec::new());
    for subscription in &facts.found.subscriptions {
        let device = subscription.device_id;
        match taking {
            Taking::Fresh if waits(device) => waiting.push(device),
            Taking::Retry(target) if target != device => {}
            Taking::Fresh | Taking::Retry(_) => called.push(subscription.clone()),
        }
    }
    (called, waiting)
}
