//! How long work waits on this node.

use std::time::Duration;

/// The waits of one second.
#[derive(Debug, Default)]
pub(super) struct Lag {
    sum: Duration,
    count: u32,
}

impl Lag {
    pub(super) fn note(&mut self, wait: Duration) {
        self.sum += wait;
        self.count += 1;
    }

    /// The mean since the last call.
    pub(super) fn take(&mut self) -> Duration {
        let Self { sum, count } = std::mem::take(self);
        sum.checked_div(count).unwrap_or_default()
    }
}
