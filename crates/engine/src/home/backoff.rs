//! Pauses of a home that finds its log moved by others.
//!
//! A miss costs a serial read of the tail, and in a CQL store that read takes part in the very contention that caused the
//! miss. So the first miss is tried again at once (another node appended one batch), each further one waits for an
//! exponential time with jitter (Brooker, "Exponential Backoff and Jitter", 2015: half of it fixed, half random), and after
//! [`MISSES`] in a row the commands are refused as `unavailable`: they have waited for about a second.

use std::time::Duration;

use crate::now::Now;

/// Misses in a row after which a step is refused: with [`FIRST`] and [`LONGEST`] the pauses add up to at most 1.2 s.
const MISSES: u32 = 8;
/// The longest pause before the second repetition; it doubles from there. About one conditional write of a CQL store.
const FIRST: Duration = Duration::from_millis(10);
/// No pause is longer.
const LONGEST: Duration = Duration::from_millis(500);

#[derive(Debug, Default)]
pub(super) struct Backoff {
    misses: u32,
    /// By the steady clock.
    until: Option<Duration>,
}

impl Backoff {
    /// The log moved. `false`: for the last time, the step is to be refused.
    pub(super) fn miss(&mut self, now: Now) -> bool {
        self.misses += 1;
        if self.misses > MISSES {
            self.clear();
            return false;
        }
        if self.misses > 1 {
            let longest = LONGEST.min(FIRST * 2_u32.pow(self.misses - 2));
            self.until = Some(now.elapsed + longest / 2 + jitter(now, longest / 2));
        }
        true
    }

    /// An append or a change of seats succeeded, or a command was answered.
    pub(super) const fn clear(&mut self) {
        (self.misses, self.until) = (0, None);
    }

    /// How long the step has to wait yet.
    pub(super) fn due_in(&self, now: Now) -> Duration {
        self.until.map_or(Duration::ZERO, |until| until.saturating_sub(now.elapsed))
    }
}

/// Below `bound`. The low digits of the steady clocks of two nodes have nothing to do with each other, and a core has no
/// other source of chance.
fn jitter(now: Now, bound: Duration) -> Duration {
    // Fibonacci hashing (Knuth, TAOCP 3, 6.4) spreads neighbouring values.
    let spread = u64::from(now.elapsed.subsec_nanos()).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    bound.mul_f64(spread as f64 / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use madang_ids::Millis;

    use super::*;

    #[test]
    fn the_first_miss_is_tried_again_at_once_and_the_others_wait_within_their_bounds() {
        let mut backoff = Backoff::default();
        let mut now = Now { at: Millis::new(1), elapsed: Duration::from_nanos(123_456_789) };
        let mut waited = Duration::ZERO;
        assert!(backoff.miss(now));
        assert_eq!(backoff.due_in(now), Duration::ZERO);
        for miss in 2..=MISSES {
            assert!(backoff.miss(now));
            let wait = backoff.due_in(now);
            let longest = LONGEST.min(FIRST * 2_u32.pow(miss - 2));
            assert!((longest / 2..=longest).contains(&wait), "miss {miss} waits for {wait:?}");
            waited += wait;
            now = now.plus(wait);
        }
        assert!(waited < Duration::from_millis(1_200), "{waited:?}");
        assert!(!backoff.miss(now), "the ninth miss is the last one");
        assert!(backoff.miss(now), "and the next step begins anew");
        assert_eq!(backoff.due_in(now), Duration::ZERO);
    }
}
