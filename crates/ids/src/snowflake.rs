//! Time-sortable ids: 41 bits of milliseconds since [`EPOCH_MS`], 10 bits of worker, 12 bits of counter.
//!
//! The generator takes the time and a lower bound from its caller: message ids must rise with `seq` although the last
//! append may have come from a node whose clock is ahead (a hybrid logical clock, Kulkarni et al. 2014). Existing
//! crates such as ferroid read the clock themselves and accept no lower bound, hence this module.

use std::sync::Mutex;
use std::sync::PoisonError;

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

/// Mints ids for one worker. Shared by all threads of a process.
#[derive(Debug)]
pub struct Snowflakes {
    worker: u64,
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

    /// A generator for `worker`.
    ///
    /// # Errors
    /// Refuses a worker above 1023: masking it would give two workers the same ids.
    pub const fn new(worker: u16) -> Result<Self, WorkerError> {
        if worker >= 1 << WORKER_BITS {
            return Err(WorkerError(worker));
        }
        Ok(Self { worker: worker as u64, state: Mutex::new(State { last_ms: 0, counter: 0 }) })
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
    pub fn mint(&self, now: Millis, not_before: Millis, count: u64) -> MintedIds {
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
        let minted = Snowflakes::new(9).unwrap().mint(Millis::new(EPOCH_MS + 77), Millis::ZERO, 5);
        assert_eq!(Snowflakes::time_of(minted.message(4).raw()), minted.at);
        let last = Snowflakes::last_of(minted.at);
        assert!(last > minted.message(4));
        assert_eq!(Snowflakes::time_of(last.raw()), minted.at);
    }

    #[test]
    fn ids_rise_with_the_bound_though_the_clock_steps_back() {
        let ids = Snowflakes::new(3).unwrap();
        let noon = Millis::new(EPOCH_MS + 1_000_000);
        let first = ids.mint(noon, Millis::ZERO, 256);
        let second = ids.mint(noon.minus(3_600_000), first.at.next(), 1);
        assert!(second.message(0) > first.message(255));
        assert_eq!(second.at, first.at.next());
    }

    #[test]
    fn ids_of_many_channels_in_one_millisecond_differ() {
        let ids = Snowflakes::new(0).unwrap();
        let now = Millis::new(EPOCH_MS + 5);
        let mut seen = HashSet::new();
        for _ in 0..400 {
            let run = ids.mint(now, Millis::ZERO, 100);
            assert!((0..100).all(|index| seen.insert(run.message(index))));
        }
    }
}
