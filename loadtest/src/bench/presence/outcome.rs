//! Compares what users did with what watchers received about them. Pure.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// What a user did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Deed {
    /// Opened a connection.
    Comes,
    /// Sent a close frame and closed.
    Leaves,
    /// Reset the connection.
    Crashes,
    /// Stopped sending, with an open socket.
    FallsSilent,
}

impl Deed {
    const fn is_here(self) -> bool {
        matches!(self, Self::Comes)
    }
}

/// The time at which a user did something that watchers must see.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cause {
    pub(super) person: u64,
    pub(super) deed: Deed,
    pub(super) at: Duration,
}

/// A change of presence that one watcher received, and when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told {
    pub(super) watcher: usize,
    pub(super) person: u64,
    pub(super) is_here: bool,
    pub(super) at: Duration,
}

/// Result of the comparison.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// For each deed, the time until each watcher knew it.
    pub(super) seen: BTreeMap<Deed, Vec<Duration>>,
    /// Deeds that a watcher never learned about, in words.
    pub(super) unseen: Vec<String>,
    /// Changes without a cause.
    pub(super) flaps: u64,
}

/// Matches changes with causes. Each cause explains one change per watcher. A repeated report of the same state is not
/// a change.
pub(super) fn compare(causes: &[Cause], told: &[Told], watchers: usize) -> Outcome {
    let mut outcome = Outcome::default();
    let mut by_person: HashMap<u64, Vec<Cause>> = HashMap::new();
    for cause in causes {
        by_person.entry(cause.person).or_default().push(*cause);
    }
    for watcher in 0..watchers {
        let mut changes: HashMap<u64, Vec<Told>> = HashMap::new();
        for told in told.iter().filter(|told| told.watcher == watcher) {
            let known = changes.entry(told.person).or_default();
            if known.last().is_some_and(|last| last.is_here) != told.is_here {
                known.push(*told);
            }
        }
        for (person, causes) in &by_person {
            outcome.take(watcher, causes, changes.remove(person).unwrap_or_default());
        }
    }
    outcome
}

impl Outcome {
    /// Compares one user's deeds with what one watcher received.
    fn take(&mut self, watcher: usize, causes: &[Cause], changes: Vec<Told>) {
        let mut changes = changes.into_iter().peekable();
        for cause in causes {
            let is_it = |told: &Told| told.is_here == cause.deed.is_here() && told.at >= cause.at;
            // Changes received before this deed had no cause.
            while changes.next_if(|told| told.at < cause.at).is_some() {
                self.flaps += 1;
            }
            match changes.next_if(is_it) {
                Some(told) => self.seen.entry(cause.deed).or_default().push(told.at - cause.at),
                None => {
                    let (person, deed, at) = (cause.person, cause.deed, cause.at.as_secs_f64());
                    self.unseen.push(format!(
                        "user {person} {deed:?} at {at:.1} s; watcher {watcher} was not informed"
                    ));
                }
            }
        }
        self.flaps += changes.count() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cause(deed: Deed, at: u64) -> Cause {
        Cause { person: 7, deed, at: Duration::from_secs(at) }
    }

    fn told(is_here: bool, at: u64) -> Told {
        Told { watcher: 0, person: 7, is_here, at: Duration::from_secs(at) }
    }

    #[test]
    fn seen_changes_are_timed_by_deed() {
        let causes = [cause(Deed::Comes, 1), cause(Deed::Crashes, 5), cause(Deed::Comes, 30)];
        let told = [told(false, 0), told(true, 1), told(true, 2), told(false, 15), told(true, 31)];
        let outcome = compare(&causes, &told, 1);
        let seconds = |deed| outcome.seen[&deed].iter().map(Duration::as_secs).collect::<Vec<_>>();
        assert_eq!((seconds(Deed::Comes), seconds(Deed::Crashes)), (vec![0, 1], vec![10]));
        assert_eq!((outcome.flaps, outcome.unseen.len()), (0, 0));
    }

    #[test]
    fn a_change_without_a_cause_is_a_flap() {
        let causes = [cause(Deed::Comes, 1), cause(Deed::Leaves, 40)];
        let told = [told(true, 1), told(false, 10), told(true, 11), told(false, 41)];
        let outcome = compare(&causes, &told, 1);
        assert_eq!((outcome.flaps, outcome.unseen.len()), (2, 0));
        assert_eq!(outcome.seen[&Deed::Leaves], [Duration::from_secs(1)]);
    }

    #[test]
    fn a_departure_that_was_not_seen_is_reported_for_each_watcher() {
        let causes = [cause(Deed::Comes, 1), cause(Deed::FallsSilent, 5)];
        let outcome = compare(&causes, &[told(true, 1)], 2);
        assert_eq!((outcome.flaps, outcome.unseen.len()), (0, 3), "the second watcher received nothing");
    }
}
