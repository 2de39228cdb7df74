//! The one place that reads the clock, so that tests can hold the time in their hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use madang_ids::Millis;
use tokio::sync::watch;

/// The latest wall-clock time that this process has seen, in ms. Shared by all system clocks.
static LATEST_MS: AtomicU64 = AtomicU64::new(0);

/// Wall-clock and monotonic time. Cheap to clone; clones show the same time.
#[derive(Debug, Clone)]
pub struct Clock(Source);

#[derive(Debug, Clone)]
enum Source {
    System { started: Instant },
    Manual { start: Millis, elapsed: watch::Receiver<Duration> },
}

/// Advances the [`Clock`] it was made with. Clones advance the same clock.
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<watch::Sender<Duration>>);

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub fn system() -> Self {
        Self(Source::System { started: Instant::now() })
    }

    /// A clock that stands at `start` until it is advanced.
    #[must_use]
    pub fn manual(start: Millis) -> (Self, ManualClock) {
        let (sender, elapsed) = watch::channel(Duration::ZERO);
        (Self(Source::Manual { start, elapsed }), ManualClock(Arc::new(sender)))
    }

    /// Wall-clock time. It may stand still when the machine's clock steps back, but it never steps back itself within
    /// the process.
    #[must_use]
    pub fn now_ms(&self) -> Millis {
        match &self.0 {
            Source::System { .. } => clamped(machine_ms(), &LATEST_MS),
            Source::Manual { start, elapsed } => start.plus(as_ms(*elapsed.borrow())),
        }
    }

    /// Time since this clock was made; rises steadily, whatever happens to the wall clock. For timeouts and durations.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        match &self.0 {
            Source::System { started } => started.elapsed(),
            Source::Manual { elapsed, .. } => *elapsed.borrow(),
        }
    }

    /// Waits until `duration` has passed on this clock. A manual clock that nobody can advance any more never wakes
    /// the caller. Cancel safe.
    pub async fn sleep(&self, duration: Duration) {
        match &self.0 {
            Source::System { .. } => tokio::time::sleep(duration).await,
            Source::Manual { elapsed, .. } => {
                let until = self.elapsed().saturating_add(duration);
                let mut elapsed = elapsed.clone();
                if elapsed.wait_for(|elapsed| *elapsed >= until).await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        }
    }
}

impl ManualClock {
    /// Moves the time on and wakes those whose sleep is over.
    pub fn advance(&self, by: Duration) {
        self.0.send_modify(|elapsed| *elapsed = elapsed.saturating_add(by));
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the clock through which everybody else reads")]
fn machine_ms() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, as_ms)
}

fn clamped(now_ms: u64, latest_ms: &AtomicU64) -> Millis {
    Millis::new(latest_ms.fetch_max(now_ms, Ordering::Relaxed).max(now_ms))
}

fn as_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_util::task::TaskTracker;

    #[test]
    fn the_wall_clock_never_steps_back() {
        let latest = AtomicU64::new(0);
        let shown: Vec<u64> = [500, 400, 499, 501, 0].map(|machine| clamped(machine, &latest).get()).to_vec();
        assert_eq!(shown, [500, 500, 500, 501, 501]);
    }

    #[test]
    fn the_system_clock_shows_this_century() {
        let clock = Clock::system();
        assert!(clock.now_ms() > Millis::new(1_700_000_000_000));
        assert!(clock.elapsed() <= clock.elapsed());
    }

    #[test]
    fn a_manual_clock_moves_when_told() {
        let (clock, hand) = Clock::manual(Millis::new(1_000));
        let twin = clock.clone();
        hand.advance(Duration::from_millis(1_500));
        assert_eq!(twin.now_ms(), Millis::new(2_500));
        assert_eq!(clock.elapsed(), Duration::from_millis(1_500));
    }

    #[tokio::test]
    async fn a_sleeper_wakes_when_its_time_has_passed() {
        let (clock, hand) = Clock::manual(Millis::ZERO);
        let sleeper = clock.clone();
        let task = TaskTracker::new().spawn(async move { sleeper.sleep(Duration::from_secs(30)).await });
        tokio::task::yield_now().await;
        hand.advance(Duration::from_secs(29));
        tokio::task::yield_now().await;
        assert!(!task.is_finished());
        hand.advance(Duration::from_secs(1));
        task.await.unwrap();
    }
}
