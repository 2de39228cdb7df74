//! An adaptive concurrency limit: a backend that slows down gets fewer calls at once, before its queue makes it slower still.
//!
//! Intended wiring: one limit for each CQL node, each Redis shard and each push provider, behind the breaker of the same backend. The
//! shell holds a [`Permit`] in a guard that releases it as [`Outcome::Dropped`] when it is dropped. Calls on behalf of a channel
//! name it as their key, so that a hot channel leaves three quarters of the permits to the others.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use super::{Outcome, Refused};

/// The limit is never below this: with fewer calls at once a latency cannot be measured in time.
const MIN: f64 = 20.0;
/// And never above this, which bounds what a backend that becomes slow at once has in hand.
const MAX: f64 = 200.0;
/// Calls beyond the present limit that are tried while the latency stays low: the queue at the backend that is allowed.
const QUEUE: f64 = 4.0;
/// The recent latency may be this much greater than the long one before the limit falls.
const TOLERANCE: f64 = 1.5;
/// A window reduces the limit by no more than this factor before smoothing: one pause of a machine is no overload.
const STEEPEST: f64 = 0.5;
/// The share of a new estimate in the limit.
const SMOOTHING: f64 = 0.2;
/// The factor after a window in which calls timed out, as in Netflix' AIMD limit.
const BACKOFF: f64 = 0.9;
/// Windows of the long average: 150 s under load.
const LONG_WINDOWS: f64 = 600.0;
/// The first windows have equal weights in the long average.
const WARM_UP: u32 = 10;
/// Above this many recent latencies the long average is one of a past overload, and decays faster.
const DRIFT: f64 = 2.0;
const DRIFT_DECAY: f64 = 0.95;
/// A window has at least this duration and this number of calls. A quarter of a second lets the limit rise from `MIN` to `MAX` in a
/// minute (0.8 a window). With a sample for each call the long average would forget within 600 calls, less than a second.
const WINDOW: Duration = Duration::from_millis(250);
const WINDOW_CALLS: u32 = 10;
/// Shorter latencies count as this one, in seconds: they differ by the noise of the scheduler, and none is zero.
const SHORTEST: f64 = 0.000_1;
/// A key holds at most one permit in this number.
const KEY_SHARE: usize = 4;
/// The bounds of a pause after a refusal, in seconds.
const PAUSE: [f64; 2] = [0.05, 1.0];

/// The concurrency limit of one backend, after Gradient2 in Netflix' `concurrency-limits` (`Gradient2Limit` in a `WindowedLimit`).
///
/// Call [`Limit::try_acquire`] before each call, and [`Limit::release`] after it, whatever its outcome; in any order. The calls of a
/// window of a quarter of a second give one mean latency, `short`, which is compared with its own average over 600 windows, `long`:
/// `gradient = clamp(1.5 · long / short, 0.5, 1)`, `limit = 0.8 · limit + 0.2 · (limit · gradient + 4)`, between 20 and 200. Unless half
/// of the limit was in use, the window says nothing about it. A window with a call that timed out reduces the limit to nine tenths.
/// `long` learns an overload that lasts for minutes, and the limit rises again: then 200 is the bound, and [`super::Shed`] must end it.
/// Memory: keys with permits only, so at most 200. O(1).
#[derive(Debug, Clone)]
pub struct Limit<K> {
    limit: f64,
    in_flight: usize,
    of_key: HashMap<K, usize>,
    /// The latency in the last window, in seconds.
    short: f64,
    long: Average,
    window: Window,
}

/// The right to make one call.
#[derive(Debug)]
#[must_use = "a permit that is not released is lost"]
pub struct Permit<K> {
    key: Option<K>,
    since: Duration,
}

#[derive(Debug, Clone, Copy, Default)]
struct Window {
    since: Duration,
    calls: u32,
    /// The sum of their latencies.
    took: Duration,
    most_in_flight: usize,
    has_timed_out: bool,
}

impl<K: Copy + Eq + Hash> Default for Limit<K> {
    /// The lowest limit, and no latency known.
    fn default() -> Self {
        let (of_key, long, window) = (HashMap::new(), Average::default(), Window::default());
        Self { limit: MIN, in_flight: 0, of_key, short: 0.0, long, window }
    }
}

impl<K: Copy + Eq + Hash> Limit<K> {
    /// Takes a permit. Calls without a key, which are those of no channel, may hold all of them.
    ///
    /// # Errors
    /// All permits are taken, or the key holds a quarter of them. The pause is the recent mean latency, in which the present permits
    /// come back, between 50 ms and 1 s.
    pub fn try_acquire(&mut self, key: Option<K>, now: Duration) -> Result<Permit<K>, Refused> {
        let held = key.and_then(|key| self.of_key.get(&key)).copied().unwrap_or(0);
        let is_free = self.in_flight < self.limit();
        if !is_free || held >= self.limit() / KEY_SHARE {
            return Err(Refused {
                retry_after: Duration::from_secs_f64(self.short.clamp(PAUSE[0], PAUSE[1])),
            });
        }
        if let Some(key) = key {
            self.of_key.insert(key, held + 1);
        }
        self.in_flight += 1;
        self.window.most_in_flight = self.window.most_in_flight.max(self.in_flight);
        Ok(Permit { key, since: now })
    }

    /// Returns a permit with the outcome of its call.
    pub fn release(&mut self, permit: Permit<K>, now: Duration, outcome: Outcome) {
        match outcome {
            Outcome::Ok => self.window.add(now.saturating_sub(permit.since)),
            Outcome::TimedOut => self.window.has_timed_out = true,
            Outcome::Failed | Outcome::Dropped => {}
        }
        if self.window.is_over(now) {
            self.close_window(now);
        }
        self.in_flight = self.in_flight.saturating_sub(1);
        if let Some(key) = permit.key {
            self.give_back(key);
        }
    }

    /// The permits that there are.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between `MIN` and `MAX`")]
    fn limit(&self) -> usize {
        self.limit as usize
    }

    fn give_back(&mut self, key: K) {
        let Some(held) = self.of_key.get_mut(&key) else { return };
        *held -= 1;
        if *held == 0 {
            self.of_key.remove(&key);
        }
    }

    fn close_window(&mut self, now: Duration) {
        let next = Window { since: now, most_in_flight: self.in_flight, ..Window::default() };
        let window = std::mem::replace(&mut self.window, next);
        if let Some(short) = window.mean() {
            self.short = short;
            self.long.add(short);
        }
        let is_in_use = window.most_in_flight >= self.limit() / 2;
        let new = if window.has_timed_out {
            self.limit * BACKOFF
        } else if is_in_use && self.short > 0.0 {
            let gradient = (TOLERANCE * self.long.value / self.short).clamp(STEEPEST, 1.0);
            self.limit * (1.0 - SMOOTHING) + (self.limit * gradient + QUEUE) * SMOOTHING
        } else {
            self.limit
        };
        self.limit = new.clamp(MIN, MAX);
        if self.long.value > DRIFT * self.short {
            self.long.value *= DRIFT_DECAY;
        }
    }
}

impl Window {
    fn add(&mut self, took: Duration) {
        self.calls += 1;
        self.took = self.took.saturating_add(took);
    }

    /// A timeout does not wait for further calls: if all calls time out there are none.
    fn is_over(&self, now: Duration) -> bool {
        let has_enough = self.calls >= WINDOW_CALLS || self.has_timed_out;
        has_enough && now.saturating_sub(self.since) >= WINDOW
    }

    fn mean(&self) -> Option<f64> {
        let has_enough = self.calls >= WINDOW_CALLS;
        has_enough.then(|| (self.took.as_secs_f64() / f64::from(self.calls)).max(SHORTEST))
    }
}

/// An exponentially weighted moving average that begins as an arithmetic one.
#[derive(Debug, Clone, Copy, Default)]
struct Average {
    value: f64,
    samples: u32,
}

impl Average {
    fn add(&mut self, sample: f64) {
        self.samples = WARM_UP.min(self.samples + 1);
        let is_warm = self.samples == WARM_UP;
        let weight = if is_warm { 2.0 / (LONG_WINDOWS + 1.0) } else { 1.0 / f64::from(self.samples) };
        self.value += (sample - self.value) * weight;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A backend that serves a number of calls at once, each within `service_ms`; further calls wait at the backend. Callers without end
    /// want to call it, and each call takes a permit.
    struct Backend {
        limit: Limit<u8>,
        at_once: usize,
        service_ms: u64,
        now_ms: u64,
        waiting: VecDeque<Permit<u8>>,
        /// With the end of each call.
        served: VecDeque<(u64, Permit<u8>)>,
    }

    impl Backend {
        fn new(at_once: usize, service_ms: u64) -> Self {
            let (limit, waiting, served) = (Limit::default(), VecDeque::new(), VecDeque::new());
            Self { limit, at_once, service_ms, now_ms: 0, waiting, served }
        }

        fn run(&mut self, ms: u64, callers: usize) {
            for _ in 0..ms {
                self.now_ms += 1;
                let now = Duration::from_millis(self.now_ms);
                while self.served.front().is_some_and(|(end, _)| *end <= self.now_ms) {
                    let (_, permit) = self.served.pop_front().unwrap();
                    self.limit.release(permit, now, Outcome::Ok);
                }
                while self.limit.in_flight < callers {
                    let Ok(permit) = self.limit.try_acquire(None, now) else { break };
                    self.waiting.push_back(permit);
                }
                while self.served.len() < self.at_once && !self.waiting.is_empty() {
                    let permit = self.waiting.pop_front().unwrap();
                    self.served.push_back((self.now_ms + self.service_ms, permit));
                }
            }
        }
    }

    #[test]
    fn a_fast_backend_is_called_up_to_the_greatest_limit_within_a_minute() {
        let mut backend = Backend::new(1_000, 10);
        backend.run(30_000, 1_000);
        assert!((100..130).contains(&backend.limit.limit()), "{}", backend.limit.limit());
        backend.run(30_000, 1_000);
        assert_eq!(backend.limit.limit(), 200);
    }

    #[test]
    fn the_limit_does_not_grow_unless_half_of_it_is_in_use() {
        let mut backend = Backend::new(1_000, 10);
        backend.run(60_000, 9);
        assert_eq!(backend.limit.limit(), 20);
        backend.run(60_000, 25);
        assert!((50..=52).contains(&backend.limit.limit()), "{}", backend.limit.limit());
    }

    #[test]
    fn a_backend_that_becomes_slow_gets_few_calls_and_a_healthy_one_all_again() {
        let mut backend = Backend::new(1_000, 5);
        backend.run(60_000, 1_000);
        backend.service_ms = 100;
        backend.run(5_000, 1_000);
        assert!(backend.limit.limit() < 60, "{}", backend.limit.limit());
        backend.run(5_000, 1_000);
        assert_eq!(backend.limit.limit(), 20);
        backend.run(60_000, 1_000);
        backend.service_ms = 5;
        backend.run(60_000, 1_000);
        assert_eq!(backend.limit.limit(), 200);
        let (short, long) = (backend.limit.short, backend.limit.long.value);
        assert!(short < 0.007 && long <= DRIFT * short, "the slow minute is forgotten: {short} {long}");
    }

    /// What Gradient2 does not do: it compares a latency with those of the last minutes, so it learns a queue that stays.
    #[test]
    fn a_queue_that_grows_holds_the_limit_back_and_one_that_stays_is_bounded_only_by_the_greatest() {
        let mut backend = Backend::new(40, 10);
        backend.run(60_000, 1_000);
        assert!((80..110).contains(&backend.limit.limit()), "{}", backend.limit.limit());
        backend.run(300_000, 1_000);
        assert_eq!(backend.limit.limit(), 200);
    }

    #[test]
    fn timeouts_shrink_the_limit_once_a_window_also_if_nothing_else_ends() {
        let mut limit = Limit::<u8> { limit: MAX, ..Limit::default() };
        let permits: Vec<_> = (0..200).map(|_| limit.try_acquire(None, at(0)).unwrap()).collect();
        assert!(limit.try_acquire(None, at(0)).is_err());
        permits.into_iter().for_each(|permit| limit.release(permit, at(5_000), Outcome::TimedOut));
        assert_eq!(
            (limit.limit(), limit.in_flight),
            (180, 0),
            "200 calls that time out together are one event"
        );
        for second in 6..60 {
            let permit = limit.try_acquire(None, at(second * 1_000)).unwrap();
            limit.release(permit, at(second * 1_000), Outcome::TimedOut);
        }
        assert_eq!(limit.limit(), 20, "not below");
    }

    #[test]
    fn failures_and_dropped_calls_are_no_latency() {
        let mut limit = Limit::<u8>::default();
        for second in 0..100 {
            for outcome in [Outcome::Failed, Outcome::Dropped] {
                let permit = limit.try_acquire(None, at(second * 1_000)).unwrap();
                limit.release(permit, at(second * 1_000), outcome);
            }
        }
        assert_eq!((limit.window.calls, limit.short), (0, 0.0));
    }

    #[test]
    fn calls_without_a_duration_are_measured_as_short_ones() {
        let mut limit = Limit::<u8>::default();
        for ms in 0..1_000 {
            let permits: Vec<_> = (0..20).map(|_| limit.try_acquire(None, at(ms)).unwrap()).collect();
            permits.into_iter().for_each(|permit| limit.release(permit, at(ms), Outcome::Ok));
        }
        assert!(limit.limit() > 20 && limit.short == SHORTEST);
    }

    #[test]
    fn a_refusal_names_the_recent_latency_within_bounds() {
        let mut pauses = Vec::new();
        for service_ms in [1, 400, 5_000] {
            let mut backend = Backend::new(10, service_ms);
            backend.run(20_000, 1_000);
            let refused = backend.limit.try_acquire(None, at(20_000)).unwrap_err();
            pauses.push(refused.retry_after.as_millis());
        }
        // At 400 ms half of the calls wait for one other call at the backend.
        assert!(pauses[0] == 50 && (400..=1_000).contains(&pauses[1]) && pauses[2] == 1_000, "{pauses:?}");
    }

    proptest! {
        /// A key never gets more than a quarter, no call gets a permit beyond the limit, and keys without permits take no memory.
        #[test]
        fn permits_are_bounded_in_all_and_for_each_key(
            steps in prop::collection::vec((0_u8..6, 0_usize..300, 0_u64..100, 0_usize..6), 1..1_500),
        ) {
            let (mut limit, mut held, mut now) = (Limit::default(), Vec::<Permit<u8>>::new(), at(0));
            for (key, which, gap, outcome) in steps {
                now += at(gap);
                let key = (key > 0).then_some(key);
                let of_key = held.iter().filter(|permit| key.is_some() && permit.key == key).count();
                let may = held.len() < limit.limit() && of_key < limit.limit() / 4;
                let taken = limit.try_acquire(key, now);
                prop_assert_eq!(taken.is_ok(), may);
                held.extend(taken.ok());
                if which < held.len() {
                    let outcomes = [Outcome::Ok, Outcome::Ok, Outcome::Ok, Outcome::Failed, Outcome::TimedOut, Outcome::Dropped];
                    limit.release(held.swap_remove(which), now, outcomes[outcome]);
                }
                prop_assert!((20..=200).contains(&limit.limit()));
                prop_assert_eq!(limit.in_flight, held.len());
                let keys: std::collections::HashSet<u8> = held.iter().filter_map(|permit| permit.key).collect();
                prop_assert_eq!(limit.of_key.len(), keys.len());
            }
        }
    }
}
