//! Faults of the model store: drawn from a seed, or scripted in advance.

use madang_ids::LogId;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Rates of faults. If all are zero, no operation fails or yields.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Faults {
    /// Most yields before and after an operation. The number is drawn for each.
    pub delay_yields: u32,
    /// Share of operations that fail and have certainly had no effect.
    pub unavailable: f64,
    /// Share of writes that fail with an unknown outcome.
    pub unknown: f64,
}

impl Faults {
    /// No faults.
    pub const NONE: Self = Self { delay_yields: 0, unavailable: 0.0, unknown: 0.0 };
    /// All faults, often enough to occur in a short test.
    pub const ROUGH: Self = Self { delay_yields: 4, unavailable: 0.05, unknown: 0.2 };
}

/// What happens to a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It takes effect, and the caller is informed.
    Done,
    /// It has no effect, and the caller is informed.
    Unavailable,
    /// It takes effect, and the outcome is unknown to the caller.
    UnknownDone,
    /// It has no effect, and the outcome is unknown to the caller.
    UnknownLost,
    /// An append that takes effect later: by the next `tail` of its log at the latest.
    UnknownLate,
    /// An append of which only the changes of earlier rows take effect.
    UnknownChangesOnly,
}

/// Draws fates of writes.
#[derive(Debug)]
pub(super) struct Dice {
    rng: StdRng,
    faults: Faults,
    scripted: Vec<(LogId, Fate)>,
}

impl Dice {
    pub(super) fn new(seed: u64, faults: Faults) -> Self {
        Self { rng: StdRng::seed_from_u64(seed), faults, scripted: Vec::new() }
    }

    pub(super) const fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
    }

    pub(super) fn script(&mut self, log: LogId, fate: Fate) {
        self.scripted.push((log, fate));
    }

    pub(super) fn yields(&mut self) -> u32 {
        match self.faults.delay_yields {
            0 => 0,
            most => self.rng.random_range(0..=most),
        }
    }

    pub(super) fn is_unavailable(&mut self) -> bool {
        self.faults.unavailable > 0.0 && self.rng.random_bool(self.faults.unavailable)
    }

    pub(super) fn is_heads(&mut self) -> bool {
        self.rng.random_bool(0.5)
    }

    pub(super) fn fate(&mut self) -> Fate {
        if self.is_unavailable() {
            return Fate::Unavailable;
        }
        if self.faults.unknown == 0.0 || !self.rng.random_bool(self.faults.unknown) {
            return Fate::Done;
        }
        match self.rng.random_range(0..8_u32) {
            0..=2 => Fate::UnknownDone,
            3..=4 => Fate::UnknownLost,
            5..=6 => Fate::UnknownLate,
            _ => Fate::UnknownChangesOnly,
        }
    }

    pub(super) fn append_fate(&mut self, log: LogId) -> Fate {
        match self.scripted.iter().position(|(scripted, _)| *scripted == log) {
            Some(index) => self.scripted.remove(index).1,
            None => self.fate(),
        }
    }
}
