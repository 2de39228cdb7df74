//! A breaker: a backend that fails is not called for a while, so that its callers get a quick refusal instead of a late failure.
//!
//! Intended wiring: one breaker for each shard of the store, each Redis shard and each push service, asked before the concurrency
//! limit of the same backend.

use std::time::Duration;

use super::{Outcome, Refused};

/// The window: the last calls that count.
const CALLS: u32 = 100;
/// Fewer calls say nothing.
const ENOUGH: u32 = 20;
/// The bits of the window.
const WINDOW: u128 = (1 << CALLS) - 1;

/// The settings of a [`Breaker`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerConfig {
    /// The rest after the breaker has opened.
    pub first_rest: Duration,
    /// The rest doubles each time the probes fail, up to this one.
    pub longest_rest: Duration,
    /// Calls after a rest that decide whether the breaker closes. Zero counts as one.
    pub probes: u32,
}

impl Default for BreakerConfig {
    /// For a backend of many short calls. A long first rest would turn a failure of 100 ms into one of 30 s.
    fn default() -> Self {
        Self { first_rest: Duration::from_secs(1), longest_rest: Duration::from_secs(30), probes: 5 }
    }
}

/// The breaker of one backend (Nygard, "Release It!", 2007).
///
/// Ask [`Breaker::try_call`] before each call, and give its [`Attempt`] to [`Breaker::record`] with the outcome: always, so the shell
/// holds it in a guard that records [`Outcome::Dropped`] when it is dropped. [`Breaker::check`] asks without taking an attempt. The
/// breaker opens when at least half of the last 100 calls, and at least 20 of them, have failed or timed out. After the rest it is half
/// open: a few probes are let through, and their majority closes it or opens it for twice as long. Attempts from before the last change
/// of state do not count: calls that time out after 5 s would otherwise decide a trial that begins after 1 s. A fixed size, O(1).
#[derive(Debug, Clone)]
pub struct Breaker {
    config: BreakerConfig,
    state: State,
    /// Counts changes of state, so that attempts of an earlier period are known.
    period: u32,
    /// The present rest, or the last one.
    rest: Duration,
}

/// The right to make one call.
#[derive(Debug)]
#[must_use = "the outcome of an attempt is recorded, otherwise a probe is lost until the next rest is over"]
pub struct Attempt {
    period: u32,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// One bit for each of the last calls, the newest lowest: whether it failed.
    Closed { failed: u128, calls: u32 },
    /// Nothing is called until then.
    Open { until: Duration },
    /// Probes are let through; `free` more may be. If no answer decides, as many again after another rest, counted from `since`.
    HalfOpen { since: Duration, free: u32, good: u32, failed: u32 },
}

/// Closed, and no calls known.
const CLOSED: State = State::Closed { failed: 0, calls: 0 };

impl Breaker {
    /// A closed breaker.
    #[must_use]
    pub fn new(config: BreakerConfig) -> Self {
        let config = BreakerConfig { probes: config.probes.max(1), ..config };
        Self { config, state: CLOSED, period: 0, rest: config.first_rest }
    }

    /// Whether a call may be made now.
    ///
    /// # Errors
    /// The time until the rest is over, or until further probes may be made.
    pub fn check(&self, now: Duration) -> Result<(), Refused> {
        let at = match self.state {
            State::Open { until } => until,
            State::HalfOpen { since, free: 0, .. } => since.saturating_add(self.rest),
            State::Closed { .. } | State::HalfOpen { .. } => return Ok(()),
        };
        if now < at { Err(Refused { retry_after: at - now }) } else { Ok(()) }
    }

    /// Takes the right to make one call now.
    ///
    /// # Errors
    /// As [`Breaker::check`].
    pub fn try_call(&mut self, now: Duration) -> Result<Attempt, Refused> {
        self.check(now)?;
        let probes = self.config.probes;
        match &mut self.state {
            State::Closed { .. } => {}
            State::Open { .. } => {
                self.change(State::HalfOpen { since: now, free: probes - 1, good: 0, failed: 0 });
            }
            State::HalfOpen { since, free, .. } if *free == 0 => (*since, *free) = (now, probes - 1),
            State::HalfOpen { free, .. } => *free -= 1,
        }
        Ok(Attempt { period: self.period })
    }

    /// Counts the outcome of a call.
    pub fn record(&mut self, attempt: Attempt, now: Duration, outcome: Outcome) {
        if attempt.period != self.period {
            return;
        }
        let has_failed = match outcome {
            Outcome::Ok => false,
            Outcome::Failed | Outcome::TimedOut => true,
            Outcome::Dropped => return self.give_back(),
        };
        match self.state {
            State::Closed { .. } => self.count(now, has_failed),
            State::HalfOpen { .. } => self.count_probe(now, has_failed),
            // No attempt is given while it is open.
            State::Open { .. } => {}
        }
    }

    fn give_back(&mut self) {
        if let State::HalfOpen { free, .. } = &mut self.state {
            *free = self.config.probes.min(*free + 1);
        }
    }

    fn count(&mut self, now: Duration, has_failed: bool) {
        let State::Closed { failed, calls } = &mut self.state else { return };
        *failed = ((*failed << 1) | u128::from(has_failed)) & WINDOW;
        *calls = CALLS.min(*calls + 1);
        if *calls >= ENOUGH && failed.count_ones() * 2 >= *calls {
            self.open(now, self.config.first_rest);
        }
    }

    fn count_probe(&mut self, now: Duration, has_failed: bool) {
        let State::HalfOpen { good, failed, .. } = &mut self.state else { return };
        if has_failed {
            *failed += 1
        } else {
            *good += 1
        }
        if *failed * 2 >= self.config.probes {
            self.open(now, self.rest.saturating_mul(2));
        } else if *good * 2 > self.config.probes {
            self.change(CLOSED);
        }
    }

    fn open(&mut self, now: Duration, rest: Duration) {
        self.rest = rest.min(self.config.longest_rest);
        self.change(State::Open { until: now.saturating_add(self.rest) });
    }

    const fn change(&mut self, state: State) {
        self.state = state;
        self.period = self.period.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As push uses it: one probe, and always the same rest.
    const ONE_PROBE: BreakerConfig =
        BreakerConfig { first_rest: at(30_000), longest_rest: at(30_000), probes: 1 };

    const fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    impl Breaker {
        fn call(&mut self, now: Duration, outcome: Outcome) {
            let attempt = self.try_call(now).expect("a call may be made");
            self.record(attempt, now, outcome);
        }

        fn retry_after(&self, now: Duration) -> Option<Duration> {
            self.check(now).err().map(|refused| refused.retry_after)
        }
    }

    fn opened(config: BreakerConfig) -> Breaker {
        let mut breaker = Breaker::new(config);
        (0..20).for_each(|_| breaker.call(at(0), Outcome::Failed));
        breaker
    }

    #[test]
    fn it_opens_when_half_fail_and_closes_after_a_good_answer() {
        let mut breaker = Breaker::new(ONE_PROBE);
        (0..10).for_each(|_| breaker.call(at(0), Outcome::Ok));
        (0..9).for_each(|_| breaker.call(at(0), Outcome::Failed));
        assert!(breaker.check(at(1_000)).is_ok(), "few calls say nothing");
        breaker.call(at(1_000), Outcome::TimedOut);
        assert_eq!(breaker.retry_after(at(1_000)), Some(at(30_000)));
        assert!(breaker.try_call(at(30_999)).is_err());
        let probe = breaker.try_call(at(31_000)).unwrap();
        assert_eq!(breaker.retry_after(at(32_000)), Some(at(29_000)), "the others wait for the answer");
        breaker.record(probe, at(33_000), Outcome::Failed);
        assert_eq!(breaker.retry_after(at(33_000)), Some(at(30_000)));
        let lost = breaker.try_call(at(63_000)).unwrap();
        assert!(breaker.check(at(92_999)).is_err());
        let other =
            breaker.try_call(at(93_000)).expect("an answer that never comes does not hold it up for ever");
        breaker.record(other, at(94_000), Outcome::Dropped);
        assert!(breaker.check(at(94_000)).is_ok(), "the probe was not made");
        breaker.record(lost, at(95_000), Outcome::Ok);
        assert!((0..19).all(|_| breaker.try_call(at(95_000)).is_ok()), "it is closed");
    }

    #[test]
    fn old_calls_are_forgotten() {
        let mut breaker = Breaker::new(BreakerConfig::default());
        let calls = |breaker: &mut Breaker, count: u32, outcome: Outcome| {
            (0..count).for_each(|_| breaker.call(at(0), outcome));
        };
        calls(&mut breaker, 60, Outcome::Ok);
        calls(&mut breaker, 30, Outcome::Failed);
        calls(&mut breaker, 70, Outcome::Ok);
        calls(&mut breaker, 30, Outcome::Failed);
        assert!(breaker.check(at(0)).is_ok(), "30 of the last 100");
        calls(&mut breaker, 100, Outcome::Ok);
        calls(&mut breaker, 49, Outcome::Failed);
        assert!(breaker.check(at(0)).is_ok());
        breaker.call(at(0), Outcome::Failed);
        assert!(breaker.check(at(0)).is_err());
    }

    #[test]
    fn the_rest_doubles_up_to_its_bound_and_begins_anew_after_a_recovery() {
        let mut breaker = opened(BreakerConfig::default());
        let mut now = at(0);
        for expected in [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000] {
            assert_eq!(breaker.retry_after(now), Some(at(expected)));
            now += at(expected);
            (0..3).for_each(|_| breaker.call(now, Outcome::Failed));
        }
        now += at(30_000);
        (0..3).for_each(|_| breaker.call(now, Outcome::Ok));
        (0..20).for_each(|_| breaker.call(now, Outcome::Failed));
        assert_eq!(breaker.retry_after(now), Some(at(1_000)));
    }

    #[test]
    fn the_majority_of_the_probes_decides() {
        for (outcomes, is_closed) in
            [("gfgfg", true), ("ggg", true), ("fgfgf", false), ("fff", false), ("ffgg", false)]
        {
            let mut breaker = opened(BreakerConfig::default());
            let probes: Vec<Attempt> = (0..5).map(|_| breaker.try_call(at(1_000)).unwrap()).collect();
            assert_eq!(breaker.retry_after(at(1_000)), Some(at(1_000)), "five probes and no more");
            for (probe, letter) in probes.into_iter().zip(outcomes.chars()) {
                let outcome = if letter == 'g' { Outcome::Ok } else { Outcome::Failed };
                breaker.record(probe, at(1_001), outcome);
            }
            assert_eq!(breaker.check(at(1_001)).is_ok(), is_closed, "{outcomes}");
        }
    }

    #[test]
    fn calls_from_before_it_opened_decide_nothing() {
        let mut breaker = Breaker::new(BreakerConfig::default());
        let slow: Vec<Attempt> = (0..5).map(|_| breaker.try_call(at(0)).unwrap()).collect();
        (0..20).for_each(|_| breaker.call(at(0), Outcome::Failed));
        let probe = breaker.try_call(at(1_000)).unwrap();
        slow.into_iter().for_each(|attempt| breaker.record(attempt, at(1_500), Outcome::TimedOut));
        breaker.record(probe, at(1_500), Outcome::Ok);
        assert!(breaker.check(at(1_500)).is_ok(), "four more probes may be made");
    }

    proptest! {
        /// Whatever happens, a call is let through at the time that a refusal names, not before, and after the longest rest at most.
        #[test]
        fn a_refusal_keeps_its_word(steps in prop::collection::vec((0_u64..3_000, 0_usize..6, 0_u8..4), 1..300)) {
            let mut breaker = Breaker::new(BreakerConfig::default());
            let (mut now, mut held) = (at(0), Vec::new());
            for (gap, which, outcome) in steps {
                now += at(gap);
                match breaker.try_call(now) {
                    Ok(attempt) => held.push(attempt),
                    Err(Refused { retry_after }) => {
                        prop_assert!(retry_after > Duration::ZERO && retry_after <= at(30_000));
                        prop_assert!(breaker.clone().try_call(now + retry_after).is_ok());
                        prop_assert!(breaker.check(now + retry_after - at(1)).is_err());
                    }
                }
                if which < held.len() {
                    let outcome = [Outcome::Ok, Outcome::Failed, Outcome::TimedOut, Outcome::Dropped][usize::from(outcome)];
                    breaker.record(held.swap_remove(which), now, outcome);
                }
            }
        }
    }
}
