//! A token bucket: limits the rate of one caller's calls.

use std::time::Duration;

/// Rate and burst of a kind of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Calls a second in the long run. Zero means no limit.
    pub per_second: u32,
    /// Calls at once after a rest.
    pub burst: u32,
}

/// One caller's tokens. Twenty-four bytes; time is a parameter, by a clock that rises steadily: a wall clock that is set
/// back would shut everybody out.
///
/// After a refusal the bucket stays shut until the time that it named, so that calls that were sent behind the refused one are
/// refused as well: a limit never reorders messages.
#[derive(Debug, Clone, Copy)]
pub struct Bucket {
    /// In thousandths of a call.
    tokens_milli: u32,
    /// The charge beyond the tokens; it is paid off before there are tokens again.
    debt_milli: u32,
    shut: bool,
    at_ms: u64,
}

impl Bucket {
    /// A full bucket.
    #[must_use]
    pub fn full(rate: Rate, now: Duration) -> Self {
        Self { tokens_milli: rate.burst.saturating_mul(1000), debt_milli: 0, shut: false, at_ms: as_ms(now) }
    }

    /// Takes `calls` at once.
    ///
    /// # Errors
    /// The milliseconds to wait before the same call.
    pub fn take(&mut self, rate: Rate, calls: u32, now: Duration) -> Result<(), u64> {
        if rate.per_second == 0 {
            return Ok(());
        }
        self.refill(rate, now);
        // More than a burst at once is paid for as a burst.
        let price = calls.min(rate.burst).saturating_mul(1000);
        let wanted = if self.shut { price.max(rate.burst.saturating_mul(1000) / 4) } else { price };
        if self.tokens_milli >= wanted {
            self.tokens_milli -= price;
            self.shut = false;
            return Ok(());
        }
        self.shut = true;
        let wanted = price.max(rate.burst.saturating_mul(1000) / 4);
        let missing = u64::from(wanted.saturating_sub(self.tokens_milli)) + u64::from(self.debt_milli);
        Err(missing.div_ceil(u64::from(rate.per_second)).max(1))
    }

    /// Undoes a [`Bucket::take`] that does not count.
    pub fn give_back(&mut self, rate: Rate, calls: u32) {
        let full = rate.burst.saturating_mul(1000);
        let back = calls.min(rate.burst).saturating_mul(1000);
        self.tokens_milli = self.tokens_milli.saturating_add(back).min(full);
    }

    /// Charges `calls` for work that is done already, as its price is known only afterwards. The part that the tokens do not
    /// cover becomes a debt of at most a minute: the next [`Bucket::take`] waits until it is paid off.
    pub fn charge(&mut self, rate: Rate, calls: u32, now: Duration) {
        if rate.per_second == 0 {
            return;
        }
        self.refill(rate, now);
        let price = calls.saturating_mul(1000);
        let paid = price.min(self.tokens_milli);
        self.tokens_milli -= paid;
        let most = rate.per_second.saturating_mul(60_000);
        self.debt_milli = self.debt_milli.saturating_add(price - paid).min(most);
    }

    fn refill(&mut self, rate: Rate, now: Duration) {
        let elapsed_ms = as_ms(now).saturating_sub(self.at_ms);
        let earned = elapsed_ms.saturating_mul(u64::from(rate.per_second));
        let paid_off = u32::try_from(earned).unwrap_or(u32::MAX).min(self.debt_milli);
        self.debt_milli -= paid_off;
        let added = earned - u64::from(paid_off);
        let full = u64::from(rate.burst.saturating_mul(1000));
        let tokens = (u64::from(self.tokens_milli) + added).min(full);
        self.tokens_milli = u32::try_from(tokens).unwrap_or(u32::MAX);
        self.at_ms = self.at_ms.max(as_ms(now));
    }
}

fn as_ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RATE: Rate = Rate { per_second: 10, burst: 20 };

    fn at(ms: u64) -> Duration {
        Duration::from_millis(1_000_000 + ms)
    }

    #[test]
    fn a_burst_then_a_pause_that_is_kept() {
        let mut bucket = Bucket::full(RATE, at(0));
        assert!((0..20).all(|_| bucket.take(RATE, 1, at(0)).is_ok()));
        assert_eq!(bucket.take(RATE, 1, at(0)), Err(500));
        // One token is there, but what was sent behind the refused call is refused as well.
        assert_eq!(bucket.take(RATE, 1, at(100)), Err(400));
        assert_eq!(bucket.take(RATE, 1, at(500)), Ok(()));
    }

    /// Work whose price is known afterwards costs as much as any other in the long run.
    #[test]
    fn a_charge_beyond_the_tokens_is_a_debt() {
        let mut bucket = Bucket::full(RATE, at(0));
        bucket.charge(RATE, 50, at(0));
        // 30 calls are owed, and a quarter of a burst opens the bucket again.
        assert_eq!(bucket.take(RATE, 1, at(0)), Err(3_500));
        assert_eq!(bucket.take(RATE, 1, at(3_000)), Err(500));
        assert_eq!(bucket.take(RATE, 1, at(3_500)), Ok(()));
        bucket.charge(RATE, u32::MAX, at(3_500));
        assert_eq!(bucket.take(RATE, 1, at(3_500)), Err(60_500), "a debt has an end");
    }

    proptest! {
        #[test]
        fn charges_keep_to_the_rate(calls in proptest::collection::vec((0u64..400, 0u32..9), 1..200)) {
            let mut bucket = Bucket::full(RATE, at(0));
            let (mut now, mut done) = (0, 0u64);
            for (gap, price) in calls {
                now += gap;
                if bucket.take(RATE, 1, at(now)).is_ok() {
                    bucket.charge(RATE, price, at(now));
                    done += 1 + u64::from(price);
                }
                // The last call may have been begun with one token.
                prop_assert!(done * 1000 <= 20_000 + now * 10 + 9_000);
            }
        }
    }

    #[test]
    fn zero_means_no_limit() {
        let none = Rate { per_second: 0, burst: 0 };
        let mut bucket = Bucket::full(none, at(0));
        assert!((0..1000).all(|_| bucket.take(none, 1, at(0)).is_ok()));
    }

    proptest! {
        #[test]
        fn never_more_than_burst_and_rate(gaps in proptest::collection::vec(0u64..200, 1..200)) {
            let mut bucket = Bucket::full(RATE, at(0));
            let (mut now, mut taken) = (0, 0u64);
            for gap in gaps {
                now += gap;
                if bucket.take(RATE, 1, at(now)).is_ok() {
                    taken += 1;
                }
                prop_assert!(taken * 1000 <= 20_000 + now * 10);
            }
        }
    }
}
