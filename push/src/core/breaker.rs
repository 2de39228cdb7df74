//! A provider that fails is left alone for a while, so that it holds up nothing but its own alerts.

use std::collections::VecDeque;
use std::time::Duration;

/// Calls that are looked at.
const CALLS: usize = 100;
/// Fewer say nothing.
const ENOUGH: usize = 20;
/// How long a provider is left alone.
const REST: Duration = Duration::from_secs(30);
/// An answer to a single call is awaited for as long. If none comes, another is made.
const TRIAL: Duration = Duration::from_secs(30);

/// The last calls of one provider. Times are of the steady clock.
#[derive(Debug, Clone, Default)]
pub struct Breaker {
    /// Whether each failed, oldest first.
    calls: VecDeque<bool>,
    failed: usize,
    state: State,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Closed,
    /// Nothing is called until then.
    Open { until: Duration },
    /// One call is under way since then; its answer decides.
    Trial { since: Duration },
}

impl Breaker {
    /// Whether a call may be made now. After a rest one may, and the others wait for its answer.
    pub fn may_call(&mut self, now: Duration) -> bool {
        match self.state {
            State::Closed => true,
            State::Open { until } if now < until => false,
            State::Trial { since } if now < since + TRIAL => false,
            State::Open { .. } | State::Trial { .. } => {
                self.state = State::Trial { since: now };
                true
            }
        }
    }

    /// Counts the answer of a call.
    pub fn count(&mut self, now: Duration, has_failed: bool) {
        match self.state {
            State::Trial { .. } if has_failed => self.open(now),
            State::Trial { .. } => *self = Self::default(),
            // Answers to calls from before say nothing new.
            State::Open { .. } => {}
            State::Closed => {
                self.calls.push_back(has_failed);
                self.failed += usize::from(has_failed);
                if self.calls.len() > CALLS && self.calls.pop_front() == Some(true) {
                    self.failed -= 1;
                }
                if self.calls.len() >= ENOUGH && self.failed * 2 >= self.calls.len() {
                    self.open(now);
                }
            }
        }
    }

    /// When a call may be made; `None`: now.
    #[must_use]
    pub fn opens_at(&self, now: Duration) -> Option<Duration> {
        match self.state {
            State::Open { until } if now < until => Some(until),
            State::Trial { since } if now < since + TRIAL => Some(since + TRIAL),
            State::Closed | State::Open { .. } | State::Trial { .. } => None,
        }
    }

    /// The call that was let through was not made after all.
    pub fn give_back(&mut self, now: Duration) {
        if matches!(self.state, State::Trial { .. }) {
            self.state = State::Open { until: now };
        }
    }

    /// Whether the provider is left alone.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state != State::Closed
    }

    fn open(&mut self, now: Duration) {
        *self = Self { state: State::Open { until: now + REST }, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(second: u64) -> Duration {
        Duration::from_secs(second)
    }

    #[test]
    fn it_opens_when_half_fail_and_closes_after_a_good_answer() {
        let mut breaker = Breaker::default();
        (0..10).for_each(|_| breaker.count(at(0), false));
        (0..9).for_each(|_| breaker.count(at(0), true));
        assert!(breaker.may_call(at(1)), "few calls say nothing");
        breaker.count(at(1), true);
        assert!(!breaker.may_call(at(1)));
        assert!(!breaker.may_call(at(30)));
        assert!(breaker.may_call(at(31)));
        assert!(!breaker.may_call(at(32)), "the others wait for the answer");
        breaker.count(at(33), true);
        assert!(!breaker.may_call(at(62)));
        assert!(breaker.may_call(at(63)));
        assert!(breaker.may_call(at(93)), "an answer that never comes does not hold it up for ever");
        assert_eq!(breaker.opens_at(at(94)), Some(at(123)));
        breaker.give_back(at(94));
        assert!(breaker.opens_at(at(94)).is_none() && breaker.may_call(at(94)), "the trial was not made");
        breaker.count(at(94), false);
        assert!(!breaker.is_open() && breaker.may_call(at(94)));
    }

    #[test]
    fn old_calls_are_forgotten() {
        let mut breaker = Breaker::default();
        (0..9).for_each(|_| breaker.count(at(0), true));
        (0..500).for_each(|_| breaker.count(at(0), false));
        assert_eq!((breaker.calls.len(), breaker.failed), (CALLS, 0));
        (0..49).for_each(|_| breaker.count(at(1), true));
        assert!(!breaker.is_open());
        breaker.count(at(1), true);
        assert!(breaker.is_open());
    }
}
