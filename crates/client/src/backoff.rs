//! Waits between attempts to reconnect: exponential backoff with full jitter, so that thousands of clients of a failed
//! server do not reconnect at the same moment ("Exponential Backoff And Jitter", AWS Architecture Blog, 2015).

use std::time::Duration;

use rand::Rng;
use rand::RngExt;

/// Waits that grow with each failure, until a success.
#[derive(Debug, Clone)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    failures: u32,
}

impl Backoff {
    /// The first wait is below `base`. No wait is above `cap`.
    #[must_use]
    pub const fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap, failures: 0 }
    }

    /// The longest wait.
    #[must_use]
    pub const fn cap(&self) -> Duration {
        self.cap
    }

    /// Records a success: the next failure starts again from `base`.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }

    /// Records a failure and draws the wait that follows it, between zero and the present bound.
    pub fn next_wait(&mut self, random: &mut impl Rng) -> Duration {
        let bound = self.bound();
        self.failures = self.failures.saturating_add(1);
        bound.mul_f64(random.random::<f64>())
    }

    fn bound(&self) -> Duration {
        self.base.saturating_mul(1 << self.failures.min(20)).min(self.cap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn waits_grow_to_the_cap_and_start_again_after_a_success() {
        let mut random = rand::rngs::StdRng::seed_from_u64(1);
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        for round in 0..100_u32 {
            let bound =
                Duration::from_millis(100).saturating_mul(1 << round.min(20)).min(Duration::from_secs(5));
            assert!(backoff.next_wait(&mut random) <= bound, "round {round}");
        }
        backoff.reset();
        assert!(backoff.next_wait(&mut random) <= Duration::from_millis(100));
    }

    #[test]
    fn waits_are_spread_over_the_whole_bound() {
        let mut random = rand::rngs::StdRng::seed_from_u64(1);
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(1));
        let mut tenths = [0_u32; 10];
        for _ in 0..1_000 {
            tenths[(backoff.next_wait(&mut random).as_millis() / 100) as usize] += 1;
        }
        assert!(tenths.iter().all(|count| (50..200).contains(count)), "{tenths:?}");
    }
}
