//! When a commit waits for more jobs. One that is alone pays for the whole fsync, and wakes every thread on its way;
//! where jobs come one after another anyway, a few milliseconds of waiting let them share it. Where each caller waits for
//! her answer before she comes again, waiting gains nothing and costs her the time.
//!
//! The two are told apart by counting only while a commit runs or waits: a caller who waits for that very commit does
//! not come, and a few who are answered together come together, so fast that waiting for them is short.
//!
//! After a commit that took long the next one waits a sixteenth as long in any case. Who makes one write after the other
//! would otherwise miss each next commit by microseconds, and wait for two.

use std::time::Duration;

/// Nobody waits longer.
const LONGEST: Duration = Duration::from_millis(4);
/// Where jobs come faster than this, a group gathers by itself while the one before is committed.
const SHORTEST: Duration = Duration::from_micros(800);
/// Between two slow commits: the part of the first that is waited before the second, and how long that is worth it.
const BREATH: u32 = 16;
const SHORTEST_BREATH: Duration = Duration::from_micros(100);
const LONGEST_BREATH: Duration = Duration::from_millis(50);
/// What is remembered of the past with each note.
const KEPT: f64 = 15.0 / 16.0;

/// How long to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Patience {
    /// For the next job.
    pub(super) pause: Duration,
    /// For all of them.
    pub(super) longest: Duration,
}

/// How many jobs come by themselves: a mean over about the last sixteen notes.
#[derive(Debug, Default)]
pub(super) struct Linger {
    jobs: f64,
    seconds: f64,
    breath: Duration,
}

impl Linger {
    /// A commit took so long, and meanwhile so many jobs came.
    pub(super) fn note_commit(&mut self, jobs: usize, took: Duration) {
        self.breath = (took / BREATH).min(LONGEST_BREATH);
        self.note(jobs, took);
    }

    /// How long to wait for those whom the last commit answered.
    pub(super) fn breath(&mut self) -> Option<Duration> {
        Some(std::mem::take(&mut self.breath)).filter(|breath| *breath >= SHORTEST_BREATH)
    }

    /// While a commit ran or waited for so long, so many jobs came.
    pub(super) fn note(&mut self, jobs: usize, took: Duration) {
        self.jobs = self.jobs * KEPT + jobs as f64;
        self.seconds = self.seconds * KEPT + took.as_secs_f64();
    }

    /// How long to wait for more jobs; `None` if waiting does not pay.
    pub(super) fn patience(&self) -> Option<Patience> {
        // Twice the mean: of jobs that come at random, one in seven is later.
        let pause = Duration::try_from_secs_f64(2.0 * self.seconds / self.jobs).ok()?;
        let pays = (SHORTEST..=2 * LONGEST).contains(&pause);
        pays.then_some(Patience { pause: pause.min(LONGEST), longest: LONGEST })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: Duration = Duration::from_micros(250);

    fn after(commits: usize, jobs: impl Fn(usize) -> usize) -> Option<Patience> {
        let mut linger = Linger::default();
        (0..commits).for_each(|commit| linger.note(jobs(commit), COMMIT));
        linger.patience()
    }

    #[test]
    fn who_waits_for_her_answer_is_not_kept() {
        assert_eq!(after(0, |_| 0), None);
        assert_eq!(after(100, |_| 0), None);
    }

    #[test]
    fn a_thousand_a_second_share_a_commit() {
        let patience = after(100, |commit| usize::from(commit.is_multiple_of(4))).unwrap();
        assert!((Duration::from_micros(1_500)..=LONGEST).contains(&patience.pause), "{patience:?}");
        assert_eq!(patience.longest, LONGEST);
    }

    #[test]
    fn a_few_a_second_and_many_thousands_are_not_kept() {
        assert_eq!(after(100, |commit| usize::from(commit == 50)), None);
        assert_eq!(after(100, |_| 4), None);
    }

    #[test]
    fn a_slow_commit_is_followed_by_a_breath() {
        for (commit_ms, breath_us) in [(1, None), (4, Some(250)), (80, Some(5_000)), (2_000, Some(50_000))] {
            let mut linger = Linger::default();
            linger.note_commit(1, Duration::from_millis(commit_ms));
            assert_eq!(linger.breath(), breath_us.map(Duration::from_micros), "after {commit_ms} ms");
            assert_eq!(linger.breath(), None, "once");
        }
    }

    #[test]
    fn what_was_long_ago_is_forgotten() {
        let burst = |commit: usize| if commit < 100 { usize::from(commit.is_multiple_of(4)) } else { 0 };
        assert!(after(100, burst).is_some());
        assert_eq!(after(150, burst), None);
    }
}
