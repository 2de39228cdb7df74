//! What operators and users ask of push: a test, why there was (no) alert, dead letters.

use futures_util::future::join_all;
use madang_engine::alerts::{Held, Job};
use madang_ids::{ChannelId, DeviceId, Seq, UserId};
use madang_proto::AlertOutcome;
use madang_proto::rest::{AlertHistory, PushTest};
use madang_store::{DeadLetter, OutstandingChange, StoreError, StoreResult, Subscription};

use super::calls::outcome_of;
use super::{Inner, Push};
use crate::core::Next;
use crate::notice::Notice;

/// Notes about one message that are shown.
const NOTES: usize = 200;
/// Attempts on a record that changes meanwhile.
const TRIES: usize = 8;
/// Letters that were put back are sent within this time, if a provider takes them.
const KEPT_MS: u64 = 3_600_000;

/// What became of a dead letter that was to be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redriven {
    /// It is in the queue again, and is decided anew.
    Queued,
    /// There is no such letter.
    Unknown,
}

impl Push {
    /// Sends a test to the subscriptions of a user, or to that of one device, and returns what the providers answered. Nothing else
    /// follows from the answers.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn test(&self, user: UserId, device: Option<DeviceId>) -> StoreResult<Vec<PushTest>> {
        let Some(inner) = &self.0 else { return Ok(Vec::new()) };
        let subscriptions = inner.store.subscriptions(user).await?;
        let wanted = subscriptions.iter().filter(|found| device.is_none_or(|id| id == found.device_id));
        Ok(join_all(wanted.map(|subscription| inner.test(subscription))).await)
    }

    /// What happened about a message for a user.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn why(&self, user: UserId, channel: ChannelId, seq: Seq) -> StoreResult<AlertHistory> {
        let Some(inner) = &self.0 else { return Ok(AlertHistory::default()) };
        let record = inner.queue.outstanding(user, channel).await?;
        let items = inner.store.notes(user, channel, seq, NOTES).await?;
        let has = |job: &Job| job.messages().any(|message| message == seq);
        let Held { calls, retries, .. } = &record.held;
        let calls = calls.iter().map(|calls| &calls.job);
        let is_waiting = record.fresh.iter().chain(retries).chain(calls).any(has);
        Ok(AlertHistory { items, is_waiting })
    }

    /// Dead letters by id, after `after`.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn dead_letters(&self, after: u64, limit: usize) -> StoreResult<Vec<DeadLetter>> {
        match &self.0 {
            Some(inner) => inner.store.dead_letters(after, limit).await,
            None => Ok(Vec::new()),
        }
    }

    /// Puts a dead letter back into the queue. Everything is decided anew: what was read since is not sent.
    ///
    /// # Errors
    /// Those of the store. The letter is where it was, unless the store does not know the outcome: then it may be lost.
    pub async fn redrive(&self, letter: &DeadLetter) -> StoreResult<Redriven> {
        let Some(inner) = &self.0 else { return Ok(Redriven::Unknown) };
        // Removed first: a crash in between loses an alert, and the other order would send it twice.
        if !inner.store.remove_dead_letter(letter.id).await? {
            return Ok(Redriven::Unknown);
        }
        match inner.queue_again(letter).await {
            Ok(true) => {
                inner.made.notify_one();
                Ok(Redriven::Queued)
            }
            Err(error @ StoreError::Unknown(_)) => Err(error),
            done => {
                inner.store.put_dead_letter(letter).await?;
                done.map(|_| Redriven::Unknown)
            }
        }
    }
}

impl Inner {
    /// Whether the record did not change all the time.
    async fn queue_again(&self, letter: &DeadLetter) -> StoreResult<bool> {
        let now = self.clock.now_ms();
        for _ in 0..TRIES {
            let record = self.queue.outstanding(letter.user_id, letter.channel_id).await?;
            let after = record.with_retry(&letter.job, letter.device_id, now, now.plus(KEPT_MS));
            if self.queue.change_outstanding(&OutstandingChange::between(&record, &after)).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn test(&self, subscription: &Subscription) -> PushTest {
        let now = self.clock.now_ms();
        let notice = Notice::test(&self.config.app, &self.link(None), &self.tags, now);
        let began = self.clock.elapsed();
        let (provider, device_id) = (subscription.target.provider(), subscription.device_id);
        let Ok(place) = self.lanes.enter(&subscription.target).await else {
            let answer = "the provider is left alone at present, because it fails or is slow".to_owned();
            let outcome = AlertOutcome::NotTaken;
            return PushTest { device_id, provider, outcome, status: None, answer, took_ms: 0 };
        };
        let answer = self.call(subscription, &notice).await;
        self.lanes.count(place, provider, &answer);
        let took = self.clock.elapsed().saturating_sub(began);
        PushTest {
            device_id,
            provider,
            outcome: outcome_of(answer.verdict, Next::Done),
            status: answer.status,
            answer: answer.text,
            took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        }
    }
}
