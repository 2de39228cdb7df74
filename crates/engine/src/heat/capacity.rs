//! How much a node can do, as it has been seen to, and the bars that follow from it.

use serde::{Deserialize, Serialize};

use super::{CapacityConfig, Level};

/// The costs a second from which on a channel is warm, hot and blazing. Rising.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bars(pub [f64; 3]);

impl Bars {
    /// The level of a channel with this cost a second, without regard to what it was.
    #[must_use]
    pub fn level(&self, rate: f64) -> Level {
        let reached = self.0.iter().filter(|bar| rate > **bar).count();
        Level::ALL[reached]
    }

    /// The bar of a level; zero for normal.
    #[must_use]
    pub fn of(&self, level: Level) -> f64 {
        match level {
            Level::Normal => 0.0,
            level => self.0[level as usize - 1],
        }
    }
}

/// What a node can do in a second, learnt from what it does and how long work waits meanwhile.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Capacity {
    config: CapacityConfig,
    estimate: f64,
}

/// The estimate falls by a tenth of the difference in a second with waiting work, and rises by a hundredth.
const FALLS: f64 = 0.1;
const RISES: f64 = 0.01;

impl Capacity {
    /// Before anything was seen.
    #[must_use]
    pub const fn new(config: CapacityConfig) -> Self {
        Self { config, estimate: config.assumed }
    }

    /// Takes in one second: the cost of everything, and how long work has waited on average.
    pub fn observe(&mut self, cost: f64, lag_ms: f64) {
        let is_full = lag_ms > self.config.lag_ms;
        if is_full && cost < self.estimate {
            self.estimate += (cost - self.estimate) * FALLS;
        } else if !is_full && cost > self.estimate {
            self.estimate = cost;
        } else if !is_full && self.estimate < self.config.assumed {
            // A lag may have had another reason: slowly forgotten.
            self.estimate += (self.config.assumed - self.estimate) * RISES;
        }
        // A second in which nothing was done although work waited says nothing about costs.
        self.estimate = self.estimate.max(self.config.floor[2]);
    }

    /// Other settings hold from now on. What was learnt stays.
    pub const fn configure(&mut self, config: CapacityConfig) {
        self.config = config;
    }

    /// Costs a second.
    #[must_use]
    pub const fn estimate(&self) -> f64 {
        self.estimate
    }

    /// The bars that follow.
    #[must_use]
    pub fn bars(&self) -> Bars {
        let CapacityConfig { shares, floor, cap, .. } = self.config;
        let bar = |level: usize| (self.estimate * shares[level]).clamp(floor[level], cap[level]);
        Bars([bar(0), bar(1), bar(2)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_follow_the_capacity_between_floor_and_cap() {
        let config = CapacityConfig::default();
        let mut capacity = Capacity::new(config);
        assert_eq!(capacity.bars(), Bars([500.0, 2_000.0, 6_250.0]));
        for _ in 0..100 {
            capacity.observe(20_000.0, 50.0);
        }
        assert!((capacity.estimate() - 20_000.0).abs() < 10.0, "{}", capacity.estimate());
        let full = capacity.bars();
        assert!((full.0[0] - 400.0).abs() < 5.0);
        // It did more than it was thought to be able to.
        capacity.observe(90_000.0, 3.0);
        assert_eq!(capacity.bars(), Bars([1_800.0, 7_200.0, 22_500.0]));
        capacity.observe(9_000_000.0, 3.0);
        assert_eq!(capacity.bars(), Bars(config.cap));
        // Waiting without work (a pause of the machine) does not make every channel hot.
        for _ in 0..1_000 {
            capacity.observe(0.0, 500.0);
        }
        assert_eq!(capacity.bars(), Bars(config.floor));
        for _ in 0..2_000 {
            capacity.observe(100.0, 1.0);
        }
        assert!((capacity.estimate() - config.assumed).abs() < 100.0, "it is forgotten");
    }

    #[test]
    fn a_rate_has_a_level() {
        let bars = Bars([10.0, 20.0, 30.0]);
        let levels = [5.0, 10.0, 11.0, 25.0, 31.0].map(|rate| bars.level(rate));
        assert_eq!(levels, [Level::Normal, Level::Normal, Level::Warm, Level::Hot, Level::Blazing]);
        assert_eq!(bars.of(Level::Hot), 20.0);
    }
}
