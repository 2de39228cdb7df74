//! How a process leaves: running, then draining (nothing new, what is there ends well), then stopped.

use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

/// Where a process is on its way out. It only ever moves on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// At work.
    Running,
    /// Takes nothing new and lets what is there end well.
    Draining,
    /// Everything ends now.
    Stopped,
}

/// The phase of a process, seen and moved by all who hold a clone.
#[derive(Debug, Clone, Default)]
pub struct Drain {
    draining: CancellationToken,
    stopped: CancellationToken,
}

impl Drain {
    /// A process that runs.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The present phase.
    #[must_use]
    pub fn phase(&self) -> Phase {
        if self.stopped.is_cancelled() {
            Phase::Stopped
        } else if self.draining.is_cancelled() {
            Phase::Draining
        } else {
            Phase::Running
        }
    }

    /// Begins to drain. Does nothing the second time.
    pub fn begin(&self) {
        self.draining.cancel();
    }

    /// Ends the drain: whoever waits for [`Self::stopped`] ends now.
    pub fn stop(&self) {
        self.draining.cancel();
        self.stopped.cancel();
    }

    /// Waits for the drain to begin. Cancel safe.
    pub fn draining(&self) -> WaitForCancellationFuture<'_> {
        self.draining.cancelled()
    }

    /// Waits for the stop. Cancel safe.
    pub fn stopped(&self) -> WaitForCancellationFuture<'_> {
        self.stopped.cancelled()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn phases_only_move_on() {
        let drain = Drain::new();
        assert_eq!(drain.phase(), Phase::Running);
        drain.clone().begin();
        drain.draining().await;
        assert_eq!(drain.phase(), Phase::Draining);
        drain.stop();
        drain.begin();
        drain.stopped().await;
        assert_eq!(drain.phase(), Phase::Stopped);
    }

    #[tokio::test]
    async fn who_stops_at_once_has_drained() {
        let drain = Drain::new();
        drain.stop();
        drain.draining().await;
    }
}
