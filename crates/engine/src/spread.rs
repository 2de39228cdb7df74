//! Waits of callers who were refused together, so that they do not come back together.

/// The wait differs by at most a quarter in both directions, in thousandths of its half.
const STEPS: u64 = 1_000;
/// Steps of about the golden ratio, so that waits that follow each other are not close to each other. It has no divisor in common with
/// [`STEPS`], so that all of them occur.
const GOLDEN: u64 = 619;

/// The wait of the caller who was refused as number `count`: between three and five quarters of `wait_ms`.
#[must_use]
pub const fn spread_ms(wait_ms: u64, count: u64) -> u64 {
    let step = count.wrapping_mul(GOLDEN) % STEPS;
    wait_ms * 3 / 4 + wait_ms / 2 * step / STEPS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_within_a_quarter_and_differ() {
        let mut waits: Vec<u64> = (0..STEPS).map(|count| spread_ms(5_000, count)).collect();
        assert!(waits.iter().all(|wait| (3_750..=6_250).contains(wait)));
        assert!(waits.windows(2).all(|pair| pair[0].abs_diff(pair[1]) > 900), "neighbours are far apart");
        waits.sort_unstable();
        waits.dedup();
        assert_eq!(waits.len(), 1_000);
        assert!((3_750..=6_250).contains(&spread_ms(5_000, u64::MAX)));
    }
}
