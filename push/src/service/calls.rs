//! Calls the providers about one alert, and writes what came of it.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use madang_engine::alerts::{CallEnd, Calls, Outstanding, Shown};
use madang_ids::{ChannelId, DeviceId, Millis, Seq};
use madang_proto::AlertOutcome;
use madang_proto::rest::{AlertData, AlertKind};
use madang_store::{DeadLetter, NoteOf, StoreError, StoreResult, Subscription};

use super::Inner;
use super::facts::Facts;
use crate::core::{Alert, Answered, DeadReason, Next, Verdict, Words, after};
use crate::lanes::Place;
use crate::metrics::PushMetrics;
use crate::notice::{Answer, Notice};

/// Channels that were read elsewhere, of which one alert brings news.
const READ_CHANNELS: usize = 32;
/// Attempts to write the end of calls, and the pause between them. Afterwards their outcome counts as unknown.
const TRIES: usize = 10;
const AGAIN: Duration = Duration::from_millis(500);

/// What an alert says, read before anything is written: a failure of the store then costs nothing.
pub(super) struct Message {
    alert: Alert,
    words: Words,
    badge: u32,
    /// Alerts that devices show although they were read elsewhere.
    read: Vec<(ChannelId, Shown)>,
}

impl Inner {
    pub(super) async fn message(
        &self,
        record: &Outstanding,
        facts: &Facts,
        alert: Alert,
    ) -> StoreResult<Message> {
        let words = self.words(facts, &alert);
        let badge = u32::try_from(facts.found.unread).unwrap_or(u32::MAX);
        let read = self.queue.shown_and_read(record.user, READ_CHANNELS).await?;
        Ok(Message { alert, words, badge, read })
    }

    /// The true number at this time.
    pub(super) async fn badge(&self, record: &Outstanding) -> StoreResult<u32> {
        let unread = self.store.unread(record.user, self.clock.now_ms()).await?;
        Ok(u32::try_from(unread).unwrap_or(u32::MAX))
    }

    /// Makes the calls that `begun` names, and writes their end. The record as it was written then, or as it was found.
    pub(super) async fn call_all(
        &self,
        begun: &Outstanding,
        places: Vec<(Subscription, Place)>,
        message: &Message,
    ) -> Outstanding {
        let Some(calls) = &begun.held.calls else { return begun.clone() };
        let made = places.into_iter().map(|(subscription, place)| async move {
            let notice = self.notice(begun, calls, message, subscription.device_id);
            let answer = self.call(&subscription, &notice).await;
            let is_strange = place.is_strange();
            let may_remove = self.lanes.count(place, subscription.target.provider(), &answer);
            let next = match self.next(begun, calls, &subscription, &answer) {
                // The user's own host, at which no operator can mend anything.
                Next::Dead(DeadReason::Refused) if is_strange => Next::Done,
                next => next,
            };
            let note = self.follow(begun, calls, &subscription, &answer, next, may_remove).await;
            ((subscription.device_id, self.end_of(next, &answer)), note)
        });
        let (ends, notes): (Vec<(DeviceId, CallEnd)>, Vec<NoteOf>) = join_all(made).await.into_iter().unzip();
        let (ended, ()) = tokio::join!(self.finish(begun, &ends), self.put_notes(notes));
        ended
    }

    fn notice(&self, begun: &Outstanding, calls: &Calls, message: &Message, device: DeviceId) -> Notice {
        let data = AlertData {
            kind: AlertKind::Alert,
            channel_id: Some(begun.channel),
            seq: Some(message.alert.about),
            count: message.alert.count,
            badge: message.badge,
            read: read_elsewhere(&message.read, device, begun.channel),
        };
        Notice {
            data,
            words: Some(message.words.clone()),
            tag: self.tags.of_channel(begun.channel),
            link: self.link(Some(begun.channel)),
            expires_at: calls.job.expires_at,
        }
    }

    /// Sends one notice.
    pub(super) async fn call(&self, to: &Subscription, notice: &Notice) -> Answer {
        let kind = to.target.provider();
        let Some(provider) = self.providers.of(kind) else {
            return Answer::without(Verdict::WrongEnvironment, "this server does not use the provider");
        };
        let began = self.clock.elapsed();
        let answer = provider.send(to, notice, self.clock.now_ms()).await;
        let took = self.clock.elapsed().saturating_sub(began);
        self.metrics.call_seconds.get_or_create(&PushMetrics::of(kind)).observe(took.as_secs_f64());
        answer
    }

    fn next(&self, begun: &Outstanding, calls: &Calls, to: &Subscription, answer: &Answer) -> Next {
        after(&Answered {
            verdict: answer.verdict,
            now: self.clock.now_ms(),
            attempt: calls.job.attempt,
            expires_at: calls.job.expires_at,
            registered_at: to.seen_at,
            seed: to.device_id.raw() ^ begun.channel.raw(),
        })
    }

    fn end_of(&self, next: Next, answer: &Answer) -> CallEnd {
        match next {
            Next::Again { at } | Next::Pause { at } => CallEnd::Again { at },
            // Of an unknown outcome the device may show it, so it is withdrawn as well.
            Next::Done if matches!(answer.verdict, Verdict::Delivered | Verdict::Unknown) => {
                CallEnd::Shown { until: self.expiry(self.clock.now_ms()) }
            }
            Next::Done | Next::Remove | Next::Mark | Next::Dead(_) => CallEnd::Over,
        }
    }

    /// Does what follows from an answer outside the record. Returns the note of it.
    async fn follow(
        &self,
        begun: &Outstanding,
        calls: &Calls,
        to: &Subscription,
        answer: &Answer,
        next: Next,
        may_remove: bool,
    ) -> NoteOf {
        let outcome = outcome_of(answer.verdict, next);
        self.metrics.count_call(to.target.provider(), outcome);
        let note = self.note(begun, &calls.job, Some(to.device_id), outcome, &answer.detail());
        let done = match next {
            Next::Remove if may_remove => self.remove(to).await,
            Next::Remove => {
                self.metrics.guarded.get_or_create(&PushMetrics::of(to.target.provider())).inc();
                self.halt(to, outcome).await
            }
            // If it says so of too many, a key or a setting of this server is wrong, and not their tokens.
            Next::Mark if may_remove => self.halt(to, outcome).await,
            Next::Dead(_) => self.bury(begun, calls, to, &note).await,
            Next::Pause { at } => {
                tracing::error!(
                    provider = to.target.provider().as_str(),
                    answer = answer.detail(),
                    "a push provider does not \
                     accept the keys of this server; it is tried again in 15 minutes"
                );
                self.lanes.pause(&to.target, at);
                Ok(())
            }
            Next::Done | Next::Mark | Next::Again { .. } => Ok(()),
        };
        if let Err(error) = done {
            self.metrics.store_failures.inc();
            tracing::warn!(user.id = %to.user_id, device.id = %to.device_id, %error, "writing what followed from the \
                 answer of a push provider failed");
        }
        note
    }

    async fn remove(&self, to: &Subscription) -> StoreResult<()> {
        self.store.remove_subscription(to.user_id, to.device_id, Some(to.seen_at)).await.map(drop)
    }

    async fn halt(&self, to: &Subscription, why: AlertOutcome) -> StoreResult<()> {
        self.store.halt_subscription(to.user_id, to.device_id, to.seen_at, why).await
    }

    async fn bury(
        &self,
        begun: &Outstanding,
        calls: &Calls,
        to: &Subscription,
        note: &NoteOf,
    ) -> StoreResult<()> {
        let now = (note.note.at, self.clock.elapsed());
        let minted = self.ids.mint(now, Millis::ZERO, 1);
        let minted = minted.map_err(|over| StoreError::Unavailable(over.to_string()))?;
        let letter = DeadLetter {
            id: minted.raw(),
            user_id: begun.user,
            channel_id: begun.channel,
            device_id: to.device_id,
            job: calls.job.clone(),
            note: note.note.clone(),
        };
        self.store.put_dead_letter(&letter).await
    }

    /// Writes the end of calls. It is tried for a while: afterwards another worker counts them as unknown.
    async fn finish(&self, begun: &Outstanding, ends: &[(DeviceId, CallEnd)]) -> Outstanding {
        let mut found = begun.clone();
        for _ in 0..TRIES {
            match self.try_finish(begun, &mut found, ends).await {
                Ok(true) => {
                    // What came meanwhile may be due.
                    self.made.notify_one();
                    return found.finish(ends);
                }
                Ok(false) if !found.has_calls_of(begun) => break,
                Ok(false) => {}
                Err(error) => {
                    self.metrics.store_failures.inc();
                    tracing::warn!(%error, "writing the end of a push failed; it is repeated");
                    self.clock.sleep(AGAIN).await;
                }
            }
        }
        tracing::warn!(user.id = %begun.user, channel.id = %begun.channel, "the end of a push came too late to be written");
        found
    }

    /// The user may have read on meanwhile, which is noted in the record.
    async fn try_finish(
        &self,
        begun: &Outstanding,
        found: &mut Outstanding,
        ends: &[(DeviceId, CallEnd)],
    ) -> StoreResult<bool> {
        if self.change(found, &found.finish(ends)).await? {
            return Ok(true);
        }
        *found = self.queue.outstanding(begun.user, begun.channel).await?;
        Ok(false)
    }
}

/// What this device shows although it was read elsewhere: as far as can be known, it has not been withdrawn.
fn read_elsewhere(read: &[(ChannelId, Shown)], device: DeviceId, but: ChannelId) -> BTreeMap<ChannelId, Seq> {
    let of_device = read.iter().filter(|(channel, shown)| *channel != but && shown.device == device);
    of_device.map(|(channel, shown)| (*channel, shown.last)).collect()
}

/// The word for operators.
pub(super) const fn outcome_of(verdict: Verdict, next: Next) -> AlertOutcome {
    match (verdict, next) {
        (_, Next::Dead(DeadReason::Expired)) => AlertOutcome::Expired,
        (Verdict::Delivered, _) => AlertOutcome::Taken,
        (Verdict::Gone { .. }, _) => AlertOutcome::Gone,
        (Verdict::WrongEnvironment, _) => AlertOutcome::WrongEnvironment,
        (Verdict::NotTaken { .. }, _) => AlertOutcome::NotTaken,
        (Verdict::Unknown, _) => AlertOutcome::Unknown,
        (Verdict::Credential, _) => AlertOutcome::Credential,
        (Verdict::Ours, _) => AlertOutcome::Refused,
    }
}
