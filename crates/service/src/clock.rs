//! The only place that reads the system clock, so that tests can control the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use madang_ids::Millis;
use tokio::sync::watch;

/// The latest time that [`Clock::now_ms`] has returned in this process, in ms. Shared by all system clocks.
static LATEST_MS: AtomicU64 = AtomicU64::new(0);
/// Backward steps up to this size are hidden by standing still: corrections by NTP are smaller. A larger step is
/// followed; otherwise a clock that was days ahead for one second would stand still for the rest of the process.
const HIDDEN_STEP_MS: u64 = 10_000;
/// How far, in ms, the wall clock may be ahead of the steady clock before [`Clock::past_ms`] no longer trusts it.
const DRIFT_MS: u64 = 300_000;

/// Wall-clock and monotonic time. Cheap to clone; all clones have the same time.
#[derive(Debug, Clone)]
pub struct Clock(Source);

#[derive(Debug, Clone)]
enum Source {
    System { started: Instant, started_ms: Millis },
    Manual { start: Millis, elapsed: watch::Receiver<Duration> },
}

/// Advances the [`Clock`] that was created with it. Clones advance the same clock.
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<watch::Sender<Duration>>);

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub fn system() -> Self {
        Self(Source::System { started: Instant::now(), started_ms: Millis::new(machine_ms()) })
    }

    /// A clock that stays at `start` until it is advanced.
    #[must_use]
    pub fn manual(start: Millis) -> (Self, ManualClock) {
        let (sender, elapsed) = watch::channel(Duration::ZERO);
        (Self(Source::Manual { start, elapsed }), ManualClock(Arc::new(sender)))
    }

    /// Wall-clock time, for timestamps. It stands still for up to 10 s while the machine's clock catches up with an
    /// earlier result; a larger backward step is followed. Do not measure durations with it: see [`Self::elapsed`].
    #[must_use]
    pub fn now_ms(&self) -> Millis {
        match &self.0 {
            Source::System { .. } => clamped(machine_ms(), &LATEST_MS),
            Source::Manual { start, elapsed } => start.plus(as_ms(*elapsed.borrow())),
        }
    }

    /// The machine's clock without correction, for expiries that were stored: tokens, mutes, bans.
    #[must_use]
    pub fn raw_ms(&self) -> Millis {
        match &self.0 {
            Source::System { .. } => Millis::new(machine_ms()),
            Source::Manual { .. } => self.now_ms(),
        }
    }

    /// A time that has certainly passed, for deletion by age: the wall clock, but at most 5 minutes ahead of the time
    /// that the steady clock has measured since the start. So a clock that is days ahead for one second deletes
    /// nothing.
    #[must_use]
    pub fn past_ms(&self) -> Millis {
        match &self.0 {
            Source::System { started, started_ms } => {
                self.raw_ms().min(started_ms.plus(as_ms(started.elapsed())).plus(DRIFT_MS))
            }
            Source::Manual { .. } => self.now_ms(),
        }
    }

    /// Time since this clock was created. It rises steadily, whatever happens to the wall clock. For timeouts and
    /// durations.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        match &self.0 {
            Source::System { started, .. } => started.elapsed(),
            Source::Manual { elapsed, .. } => *elapsed.borrow(),
        }
    }

    /// Waits until `duration` has passed on this clock. If the handle of a manual clock was dropped, the caller never
    /// wakes. Cancel safe.
    pub async fn sleep(&self, duration: Duration) {
        self.sleep_until(self.elapsed().saturating_add(duration)).await;
    }

    /// Waits until [`Self::elapsed`] is at this time. A caller that looks at the time, works, and then waits for the rest of an interval
    /// uses this: it wakes also if the interval was over during the work. Otherwise as [`Self::sleep`].
    pub async fn sleep_until(&self, until: Duration) {
        match &self.0 {
            Source::System { .. } => tokio::time::sleep(until.saturating_sub(self.elapsed())).await,
            Source::Manual { elapsed, .. } => {
                let mut elapsed = elapsed.clone();
                if elapsed.wait_for(|elapsed| *elapsed >= until).await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        }
    }
}

impl ManualClock {
    /// Advances the time and wakes the sleepers whose time has come.
    pub fn advance(&self, by: Duration) {
        self.0.send_modify(|elapsed| *elapsed = elapsed.saturating_add(by));
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the clock that all other code uses")]
fn machine_ms() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, as_ms)
}

fn clamped(now_ms: u64, latest_ms: &AtomicU64) -> Millis {
    let shown = |latest: u64| {
        if latest.saturating_sub(now_ms) > HIDDEN_STEP_MS { now_ms } else { latest.max(now_ms) }
    };
    let before = latest_ms.update(Ordering::Relaxed, Ordering::Relaxed, shown);
    Millis::new(shown(before))
}

fn as_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_util::task::TaskTracker;

    #[test]
    fn a_small_step_back_is_hidden() {
        let latest = AtomicU64::new(0);
        let shown: Vec<u64> = [500, 400, 499, 501, 0].map(|machine| clamped(machine, &latest).get()).to_vec();
        assert_eq!(shown, [500, 500, 500, 501, 501]);
    }

    #[test]
    fn a_large_step_is_followed_in_both_directions() {
        const DAY_MS: u64 = 86_400_000;
        let (latest, noon) = (AtomicU64::new(0), 1_800_000_000_000);
        // A hundred days ahead for a moment, then correct again; then an hour behind.
        let machine = [noon, noon + 100 * DAY_MS, noon + 1, noon - 5, noon - 3_600_000];
        let shown = machine.map(|machine| clamped(machine, &latest).get());
        assert_eq!(shown, [noon, noon + 100 * DAY_MS, noon + 1, noon + 1, noon - 3_600_000]);
    }

    #[test]
    fn the_system_clock_shows_this_century() {
        let clock = Clock::system();
        assert!(clock.now_ms() > Millis::new(1_700_000_000_000));
        assert!(clock.elapsed() <= clock.elapsed());
    }

    #[test]
    fn a_manual_clock_moves_only_when_advanced() {
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
