//! Bounds the calls of the store that are under way, shard by shard: a slow shard does not take the node with it, and a hot channel not
//! its shard.

use std::future::Future;
use std::sync::OnceLock;
use std::time::Duration;

use madang_engine::overload::{Attempt, Breaker, BreakerConfig, Limit, Outcome, Permit};
use madang_ids::ChannelId;
use madang_service::Clock;
use madang_store::{StoreError, StoreResult};
use parking_lot::Mutex;

/// How long a call waits for a permit, and how often it looks.
const PATIENCE: Duration = Duration::from_millis(500);
const LOOK: Duration = Duration::from_millis(10);
/// Bulkheads of a kind. A cluster with more shards has some that share one.
const SHARDS: u64 = 4_096;

/// The bulkheads of a node.
pub struct Bulkheads {
    /// Reads of history, the calls that a crowd makes.
    pub history: Shards,
    /// Appends.
    pub appends: Shards,
}

impl Bulkheads {
    /// With breakers in a fleet. The store of one process has none: if it fails, it fails as a whole, and says so at once.
    #[must_use]
    pub fn new(clock: &Clock, is_fleet: bool) -> Self {
        // A log has one append under way at a time, so no channel can take many.
        Self { history: Shards::new(clock, true, is_fleet), appends: Shards::new(clock, false, is_fleet) }
    }
}

/// The bulkheads of one kind of calls, one for each shard of the store that was called. An unused one takes 16 bytes.
pub struct Shards {
    clock: Clock,
    has_limit: bool,
    has_breaker: bool,
    bulkheads: Box<[OnceLock<Box<Bulkhead>>]>,
}

impl Shards {
    fn new(clock: &Clock, has_limit: bool, has_breaker: bool) -> Self {
        let bulkheads = (0..SHARDS).map(|_| OnceLock::new()).collect();
        Self { clock: clock.clone(), has_limit, has_breaker, bulkheads }
    }

    /// The bulkhead of a shard, as [`LogStore::shard`](madang_store::LogStore::shard) numbers it.
    #[must_use]
    pub fn of(&self, shard: u64) -> &Bulkhead {
        let place = usize::try_from(shard % SHARDS).unwrap_or(0);
        self.bulkheads[place].get_or_init(|| {
            Box::new(Bulkhead {
                clock: self.clock.clone(),
                limit: self.has_limit.then(Mutex::default),
                breaker: self.has_breaker.then(|| Mutex::new(Breaker::new(BreakerConfig::default()))),
            })
        })
    }
}

/// The bound of one kind of calls of one shard.
pub struct Bulkhead {
    clock: Clock,
    /// By how many are under way, which follows from the latency of the shard.
    limit: Option<Mutex<Limit<ChannelId>>>,
    /// Refuses at once while the shard does not answer.
    breaker: Option<Mutex<Breaker>>,
}

/// A call under way. If it is dropped before its end, its outcome says nothing.
struct Call<'a> {
    bulkhead: &'a Bulkhead,
    permit: Option<Permit<ChannelId>>,
    attempt: Option<Attempt>,
}

impl Bulkhead {
    /// Makes a call. `key` names a hot channel, which may hold a quarter of the permits.
    ///
    /// # Errors
    /// Those of the call; `Unavailable` if it was not made, because too many are under way or the store does not answer.
    pub async fn call<T>(
        &self,
        key: Option<ChannelId>,
        call: impl Future<Output = StoreResult<T>>,
    ) -> StoreResult<T> {
        let mut under_way =
            Call { bulkhead: self, permit: self.permit(key).await?, attempt: self.attempt()? };
        let done = call.await;
        under_way.end(match &done {
            Ok(_) | Err(StoreError::Corrupt(_)) => Outcome::Ok,
            Err(StoreError::Unavailable(_)) => Outcome::Failed,
            Err(StoreError::Unknown(_)) => Outcome::TimedOut,
        });
        done
    }

    async fn permit(&self, key: Option<ChannelId>) -> StoreResult<Option<Permit<ChannelId>>> {
        let Some(limit) = &self.limit else { return Ok(None) };
        let mut waited = Duration::ZERO;
        loop {
            let taken = limit.lock().try_acquire(key, self.clock.elapsed());
            match taken {
                Ok(permit) => return Ok(Some(permit)),
                Err(_) if waited < PATIENCE => {
                    // By the time of the machine: a permit is free when a call ends, whatever the node's clock says.
                    tokio::time::sleep(LOOK).await;
                    waited += LOOK;
                }
                Err(_) => {
                    return Err(StoreError::Unavailable("too many calls of the store are under way".into()));
                }
            }
        }
    }

    fn attempt(&self) -> StoreResult<Option<Attempt>> {
        let Some(breaker) = &self.breaker else { return Ok(None) };
        let attempt = breaker.lock().try_call(self.clock.elapsed());
        attempt.map(Some).map_err(|_| StoreError::Unavailable("the store does not answer at present".into()))
    }
}

impl Call<'_> {
    fn end(&mut self, outcome: Outcome) {
        let now = self.bulkhead.clock.elapsed();
        if let (Some(limit), Some(permit)) = (&self.bulkhead.limit, self.permit.take()) {
            limit.lock().release(permit, now, outcome);
        }
        if let (Some(breaker), Some(attempt)) = (&self.bulkhead.breaker, self.attempt.take()) {
            breaker.lock().record(attempt, now, outcome);
        }
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.end(Outcome::Dropped);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use madang_ids::Millis;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_hot_channel_holds_a_quarter_of_the_calls_and_the_others_go_on() {
        let (clock, _) = Clock::manual(Millis::new(1));
        let bulkheads = Bulkheads::new(&clock, false);
        let history = bulkheads.history.of(1);
        let hot = ChannelId::from_raw(7);
        let mut stuck: Vec<_> = (0..5)
            .map(|_| Box::pin(history.call(Some(hot), std::future::pending::<StoreResult<()>>())))
            .collect();
        stuck.iter_mut().for_each(|call| assert!(call.now_or_never().is_none()));
        let refused = history.call(Some(hot), async { Ok(()) }).await;
        assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
        assert_eq!(history.call(Some(ChannelId::from_raw(8)), async { Ok(1) }).await, Ok(1));
        assert_eq!(history.call(None, async { Ok(2) }).await, Ok(2));
        // Another shard does not know of it.
        assert_eq!(bulkheads.history.of(2).call(Some(hot), async { Ok(4) }).await, Ok(4));
        // A caller who has gone gives the permit back.
        drop(stuck.pop());
        assert_eq!(history.call(Some(hot), async { Ok(3) }).await, Ok(3));
    }

    #[tokio::test]
    async fn a_shard_that_fails_is_left_alone_for_a_while_in_a_fleet() {
        let (clock, hand) = Clock::manual(Millis::new(1));
        let bulkheads = Bulkheads::new(&clock, true);
        let (failing, other) = (bulkheads.appends.of(1), bulkheads.appends.of(2));
        let fail = || async { StoreResult::<()>::Err(StoreError::Unknown("no answer".into())) };
        for _ in 0..20 {
            assert!(failing.call(None, fail()).await.is_err());
        }
        let refused = failing.call(None, async { StoreResult::Ok(()) }).await;
        assert!(matches!(refused, Err(StoreError::Unavailable(_))), "it was not called");
        assert_eq!(other.call(None, async { StoreResult::Ok(5) }).await, Ok(5));
        hand.advance(Duration::from_secs(2));
        assert_eq!(failing.call(None, async { StoreResult::Ok(4) }).await, Ok(4));
        let alone = Bulkheads::new(&clock, false);
        for _ in 0..100 {
            assert!(matches!(alone.appends.of(1).call(None, fail()).await, Err(StoreError::Unknown(_))));
        }
    }
}
