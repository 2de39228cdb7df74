//! Quantiles of times within the last five to ten seconds, in bounded memory.

use std::time::Duration;

use madang_proto::rest::Quantiles;

/// Buckets: four for each doubling, up to 65 s.
const BUCKETS: usize = 65;
const PER_DOUBLING: u32 = 4;
/// Half of what is remembered.
const HALF: Duration = Duration::from_secs(5);

/// Times that were recorded of late. Each is rounded up by at most a fifth.
#[derive(Debug, Clone)]
pub(super) struct Recent {
    /// The present half, and the one before.
    halves: [[u32; BUCKETS]; 2],
    begun: Duration,
}

impl Default for Recent {
    fn default() -> Self {
        Self { halves: [[0; BUCKETS]; 2], begun: Duration::ZERO }
    }
}

impl Recent {
    /// Records a time.
    pub(super) fn record(&mut self, ms: u64, now: Duration) {
        self.turn(now);
        let count = &mut self.halves[0][bucket(ms)];
        *count = count.saturating_add(1);
    }

    /// The quantiles now; zero if nothing was recorded.
    pub(super) fn quantiles(&mut self, now: Duration) -> Quantiles {
        self.turn(now);
        Quantiles { p50: self.quantile(50), p99: self.quantile(99) }
    }

    fn quantile(&self, percent: u64) -> f64 {
        let counts = || (0..BUCKETS).map(|at| u64::from(self.halves[0][at]) + u64::from(self.halves[1][at]));
        let total: u64 = counts().sum();
        let wanted = (total * percent).div_ceil(100);
        let mut seen = 0;
        let at = counts().position(|count| {
            seen += count;
            seen >= wanted
        });
        if total == 0 { 0.0 } else { upper_edge(at.unwrap_or(BUCKETS - 1)) }
    }

    fn turn(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.begun);
        if passed >= HALF * 2 {
            (self.halves, self.begun) = ([[0; BUCKETS]; 2], now);
        } else if passed >= HALF {
            self.halves = [[0; BUCKETS], self.halves[0]];
            self.begun += HALF;
        }
    }
}

/// The bucket of a time: the first whose upper edge is not below it.
fn bucket(ms: u64) -> usize {
    if ms <= 1 {
        return 0;
    }
    let doublings = ms.ilog2();
    let rest = (u128::from(ms) << 8 >> doublings) as f64 / 256.0;
    let fine = (rest.log2() * f64::from(PER_DOUBLING)).ceil() as usize;
    (doublings as usize * PER_DOUBLING as usize + fine).min(BUCKETS - 1)
}

fn upper_edge(bucket: usize) -> f64 {
    (bucket as f64 / f64::from(PER_DOUBLING)).exp2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_rounded_up_by_at_most_a_fifth() {
        for ms in (1..2_000).chain([40_000, 65_000]) {
            let edge = upper_edge(bucket(ms));
            assert!(edge >= ms as f64 * 0.995 && edge <= ms as f64 * 1.2, "{ms}: {edge}");
        }
        assert_eq!(bucket(0), 0);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn what_is_older_than_ten_seconds_is_forgotten() {
        let mut recent = Recent::default();
        let at = Duration::from_secs;
        assert_eq!(recent.quantiles(at(0)), Quantiles::default());
        (0..99).for_each(|_| recent.record(8, at(1)));
        recent.record(4_096, at(6));
        assert_eq!(recent.quantiles(at(6)), Quantiles { p50: 8.0, p99: 8.0 });
        recent.record(4_096, at(6));
        assert_eq!(recent.quantiles(at(9)), Quantiles { p50: 8.0, p99: 4_096.0 });
        assert_eq!(recent.quantiles(at(11)), Quantiles { p50: 4_096.0, p99: 4_096.0 });
        assert_eq!(recent.quantiles(at(30)), Quantiles::default());
    }
}
