//! Time-sortable ids: 41 bits of milliseconds since [`EPOCH_MS`], 10 bits of worker, 12 bits of counter.
//!
//! The generator takes the time and a lower bound from its caller: message ids must rise with `seq` although the last
//! append may have come from a node whose clock is ahead (a hybrid logical clock, Kulkarni et al. 2014). Existing
//! crates such as ferroid read the clock themselves and accept no lower bound, hence this module.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::numeric::{MessageId, Millis};

/// 2025-01-01T00:00:00Z, in milliseconds since 1970. The 41 bits of time last until 2094.
pub const EPOCH_MS: u64 = 1_735_689_600_000;

const WORKER_BITS: u32 = 10;
const COUNTER_BITS: u32 = 12;
const COUNTERS: u64 = 1 << COUNTER_BITS;

/// A worker id that does not fit in ten bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("worker id {0} is above 1023")]
pub struct WorkerError(pub u16);

/// The lease of the worker number is over. Another process may have the number: nothing is minted until the lease is renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the lease of the worker number is over")]
pub struct LeaseOver;

/// Mints ids for one worker, while the lease of its number lasts. Shared by all threads of a process.
#[derive(Debug)]
pub struct Snowflakes {
    worker: u64,
    /// The end of the lease in milliseconds of the steady clock; `u64::MAX` if the number belongs to this process alone.
    leased_until_ms: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The latest time for which an id was minted. It never decreases, although the clock may step back.
    last_ms: u64,
    /// Takes every value before it repeats one. So two ids of one millisecond differ even if milliseconds are used out
    /// of order (a channel whose head is ahead of the clock).
    counter: u64,
}

/// A run of ids that share one millisecond, in rising order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MintedIds {
    /// The time that the ids contain: not before the lower bound that the caller gave.
    pub at: Millis,
    first: u64,
}

impl MintedIds {
    /// The id at `index` of the run. `index` must be below the number of ids that were minted.
    #[must_use]
    pub const fn message(&self, index: u64) -> MessageId {
        MessageId::from_raw(self.first + index)
    }

    /// The raw value of the first id, for ids other than message ids.
    #[must_use]
    pub const fn raw(&self) -> u64 {
        self.first
    }
}

impl Snowflakes {
    /// The largest number of ids in one run. An append has at most 256 entries.
    pub const MAX_RUN: u64 = 256;

    /// A generator for `worker`, whose number needs no lease.
    ///
    /// # Errors
    /// Refuses a worker above 1023: masking it would give two workers the same ids.
    pub const fn new(worker: u16) -> Result<Self, WorkerError> {
        if worker >= 1 << WORKER_BITS {
            return Err(WorkerError(worker));
        }
        Ok(Self::of(worker))
    }

    /// The generator of a process that is alone: worker 0, without a lease.
    #[must_use]
    pub const fn of_one_process() -> Self {
        Self::of(0)
    }

    const fn of(worker: u16) -> Self {
        let state = Mutex::new(State { last_ms: 0, counter: 0 });
        Self { worker: worker as u64, leased_until_ms: AtomicU64::new(u64::MAX), state }
    }

    /// The lease of the number lasts until this time of the steady clock. A grant or a renewal moves it forward, the loss of the
    /// lease to zero.
    pub fn lease_until(&self, steady: Duration) {
        let until_ms = u64::try_from(steady.as_millis()).unwrap_or(u64::MAX);
        self.leased_until_ms.store(until_ms, Ordering::Release);
    }

    /// Mints nothing at or before `latest` from now on: a clock that was set back must not mint an id twice.
    pub fn begin_after(&self, latest: Millis) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.last_ms = state.last_ms.max(latest.next().get());
    }

    /// The time at which an id was minted.
    #[must_use]
    pub const fn time_of(id: u64) -> Millis {
        Millis::new((id >> (WORKER_BITS + COUNTER_BITS)) + EPOCH_MS)
    }

    /// The greatest id of a millisecond, for a message whose own id is lost.
    #[must_use]
    pub const fn last_of(at: Millis) -> MessageId {
        let bits = WORKER_BITS + COUNTER_BITS;
        MessageId::from_raw((at.get().saturating_sub(EPOCH_MS) << bits) | ((1 << bits) - 1))
    }

    /// Mints `count` ids (at most [`Self::MAX_RUN`]) at the later of `now`, the last time used, and `not_before`.
    ///
    /// # Errors
    /// If the lease of the number is over at `steady`, the present time of the steady clock.
    pub fn mint(
        &self,
        (now, steady): (Millis, Duration),
        not_before: Millis,
        count: u64,
    ) -> Result<MintedIds, LeaseOver> {
        if steady >= Duration::from_millis(self.leased_until_ms.load(Ordering::Acquire)) {
            return Err(LeaseOver);
        }
        Ok(self.take(now, not_before, count))
    }

    /// The time of an entry that needs no id: as of [`Self::mint`].
    pub fn time(&self, now: Millis, not_before: Millis) -> Millis {
        self.take(now, not_before, 1).at
    }

    fn take(&self, now: Millis, not_before: Millis, count: u64) -> MintedIds {
        debug_assert!((1..=Self::MAX_RUN).contains(&count));
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.last_ms = state.last_ms.max(now.get()).max(EPOCH_MS + 1);
        if state.counter + count > COUNTERS {
            state.counter = 0;
            // When the ids of this millisecond are used up, the generator goes ahead of the clock.
            state.last_ms += 1;
        }
        let at_ms = state.last_ms.max(not_before.get());
        let counter = state.counter;
        state.counter += count;
        drop(state);
        let time = at_ms - EPOCH_MS;
        let first = (time << (WORKER_BITS + COUNTER_BITS)) | (self.worker << COUNTER_BITS) | counter;
        MintedIds { at: Millis::new(at_ms), first }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_worker_beyond_ten_bits_is_refused() {
        assert!(Snowflakes::new(1023).is_ok());
        assert_eq!(Snowflakes::new(1024).unwrap_err(), WorkerError(1024));
    }

    #[test]
    fn an_id_says_when_it_was_minted() {
        let minted = Snowflakes::new(9).unwrap().take(Millis::new(EPOCH_MS + 77), Millis::ZERO, 5);
        assert_eq!(Snowflakes::time_of(minted.message(4).raw()), minted.at);
        let last = Snowflakes::last_of(minted.at);
        assert!(last > minted.message(4));
        assert_eq!(Snowflakes::time_of(last.raw()), minted.at);
    }

    #[test]
    fn ids_rise_with_the_bound_though_the_clock_steps_back() {
        let ids = Snowflakes::new(3).unwrap();
        let noon = Millis::new(EPOCH_MS + 1_000_000);
        let first = ids.take(noon, Millis::ZERO, 256);
        let second = ids.take(noon.minus(3_600_000), first.at.next(), 1);
        assert!(second.message(0) > first.message(255));
        assert_eq!(second.at, first.at.next());
    }

    #[test]
    fn ids_of_many_channels_in_one_millisecond_differ() {
        let ids = Snowflakes::new(0).unwrap();
        let now = Millis::new(EPOCH_MS + 5);
        let mut seen = HashSet::new();
        for _ in 0..400 {
            let run = ids.take(now, Millis::ZERO, 100);
            assert!((0..100).all(|index| seen.insert(run.message(index))));
        }
    }

    #[test]
    fn nothing_is_minted_when_the_lease_is_over() {
        let ids = Snowflakes::new(3).unwrap();
        let at = |seconds| (Millis::new(EPOCH_MS + 5), Duration::from_secs(seconds));
        assert!(ids.mint(at(1_000_000), Millis::ZERO, 1).is_ok(), "no lease is needed");
        ids.lease_until(Duration::from_secs(15));
        assert!(ids.mint(at(14), Millis::ZERO, 1).is_ok());
        assert_eq!(ids.mint(at(15), Millis::ZERO, 1), Err(LeaseOver));
        ids.lease_until(Duration::from_secs(30));
        assert!(ids.mint(at(29), Millis::ZERO, 1).is_ok());
    }

    #[test]
    fn ids_are_above_those_of_an_earlier_start() {
        let ids = Snowflakes::new(0).unwrap();
        let latest = Millis::new(EPOCH_MS + 9_000);
        ids.begin_after(latest);
        assert!(ids.time(Millis::new(EPOCH_MS + 5), Millis::ZERO) > latest);
    }
}
