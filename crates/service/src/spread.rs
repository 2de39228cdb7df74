//! Keeps what failed together from being tried again together.

use std::time::Duration;

/// A part of `whole` that `seed` chooses (Fibonacci hashing): the same for the same seed, below `whole`, and evenly spread also for
/// seeds that follow each other.
#[must_use]
pub fn spread(whole: Duration, seed: u64) -> Duration {
    let part = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 54;
    whole * u32::try_from(part).unwrap_or(0) / 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_spread_evenly() {
        let whole = Duration::from_secs(60);
        let parts: Vec<Duration> = (1..=1_000).map(|seed| spread(whole, seed << 12)).collect();
        let in_second = |second: u64| parts.iter().filter(|part| part.as_secs() == second).count();
        assert!((0..60).all(|second| (1..60).contains(&in_second(second))), "{parts:?}");
        assert_eq!(spread(whole, 7), spread(whole, 7));
    }
}
