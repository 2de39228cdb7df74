//! How long work waits on this node: how late timers are.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// The time between two timers.
const EVERY: Duration = Duration::from_millis(50);

/// The lateness of the timers of one second.
#[derive(Debug, Default)]
pub(super) struct Lag {
    due: Option<Instant>,
    sum: Duration,
    count: u32,
}

impl Lag {
    /// Waits for the next timer, and notes how late it is. Cancel safe.
    pub(super) async fn measure(&mut self) {
        let due = *self.due.get_or_insert_with(|| Instant::now() + EVERY);
        sleep_until(due).await;
        let now = Instant::now();
        self.sum += now.saturating_duration_since(due);
        self.count += 1;
        self.due = Some(now + EVERY);
    }

    /// The mean of the timers since the last call.
    pub(super) fn take(&mut self) -> Duration {
        let mean = self.sum.checked_div(self.count).unwrap_or_default();
        (self.sum, self.count) = (Duration::ZERO, 0);
        mean
    }
}
