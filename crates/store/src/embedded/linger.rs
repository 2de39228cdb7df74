//! Decides when a commit waits for more jobs. A single job pays for the whole fsync and wakes every thread on its way; where jobs
//! come independently of each other, a few milliseconds of waiting let them share it. Where each caller waits for the answer
//! before its next job, waiting gains nothing and costs the caller time.
//!
//! The two cases are distinguished by counting only the jobs that come while a commit runs or waits: a caller that waits for this
//! very commit does not send one then, and a few callers that are answered together send their next jobs together, so that waiting
//! for them is short.
//!
//! After a slow commit the next one always waits a sixteenth as long. Otherwise a caller that makes one write after the other
//! would miss each next commit by microseconds, and wait for two.

use std::time::Duration;

/// The longest wait for more jobs.
const LONGEST: Duration = Duration::from_millis(4);
/// Where jobs come faster than this, a group gathers by itself while the one before is committed.
const SHORTEST: Duration = Duration::from_micros(800);
/// The wait after a slow commit is this part of its duration, between the two bounds below.
const BREATH: u32 = 16;
const SHORTEST_BREATH: Duration = Duration::from_micros(100);
const LONGEST_BREATH: Duration = Duration::from_millis(50);
/// The weight of the past in each new mean.
const KEPT: f64 = 15.0 / 16.0;

/// A wait for more jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Patience {
    /// The wait for the next job.
    pub(super) pause: Duration,
    /// The wait for all of them together.
    pub(super) longest: Duration,
}

/// The rate of independent jobs: a mean over about the last sixteen observations.
#[derive(Debug, Default)]
pub(super) struct Linger {
    jobs: f64,
    seconds: f64,
    breath: Duration,
}

impl Linger {
    /// Records a commit: its duration, and the number of jobs that came meanwhile.
    pub(super) fn note_commit(&mut self, jobs: usize, took: Duration) {
        self.breath = (took / BREATH).min(LONGEST_BREATH);
        self.note(jobs, took);
    }

    /// The wait for the callers that the last commit answered; returned once for each commit.
    pub(super) fn breath(&mut self) -> Option<Duration> {
        Some(std::mem::take(&mut self.breath)).filter(|breath| *breath >= SHORTEST_BREATH)
    }

    /// Records the number of jobs that came within `took`, while a commit ran or waited.
    pub(super) fn note(&mut self, jobs: usize, took: Duration) {
        self.jobs = self.jobs * KEPT + jobs as f64;
        self.seconds = self.seconds * KEPT + took.as_secs_f64();
    }

    /// The wait for more jobs; `None` if waiting does not pay.
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
    fn a_caller_that_waits_for_its_answer_is_not_delayed() {
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
    fn a_few_a_second_and_many_thousands_are_not_delayed() {
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
