//! Phases of a process: running, then draining (accepts no new work, finishes present work), then stopped.

use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

/// Phase of a process. It only moves forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The process accepts work.
    Running,
    /// The process accepts no new work and lets present work finish.
    Draining,
    /// Everything still running ends now.
    Stopped,
}

/// The phase of a process. Every clone can read it and move it forward.
#[derive(Debug, Clone, Default)]
pub struct Drain {
    draining: CancellationToken,
    stopped: CancellationToken,
}

impl Drain {
    /// The phase of a process that runs.
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

    /// Starts the drain. A second call has no effect.
    pub fn begin(&self) {
        self.draining.cancel();
    }

    /// Ends the drain: tasks that wait for [`Self::stopped`] end now.
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
    async fn a_stop_includes_the_drain() {
        let drain = Drain::new();
        drain.stop();
        drain.draining().await;
    }
}
