//! Checks that one reader receives every entry of one log once and in order, except for announced gaps.

use serde::{Deserialize, Serialize};

/// Ranges of a reader that are kept, of each kind: 16 KiB. Faults beyond are counted, but an entry that arrives late in
/// a range that is not kept counts as a duplicate instead of as reordered.
const RANGES: usize = 1_024;

/// What one reader has received. Drive it with [`Self::take_entry`] and [`Self::take_gap`] in the order of arrival.
#[derive(Debug)]
pub(super) struct Checker {
    /// The head of the log when the reader began. Entries after it are expected.
    base: u64,
    /// The greatest place that was delivered or announced as left out.
    last: u64,
    /// Entries delivered for the first time.
    delivered: u64,
    duplicated: u64,
    reordered: u64,
    lost: Ranges,
    left_out: Ranges,
}

/// Result of one reader.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Outcome {
    pub(super) base: u64,
    pub(super) last: u64,
    pub(super) delivered: u64,
    /// Entries that came again.
    pub(super) duplicated: u64,
    /// Entries that came after a later one, or after the gap that left them out.
    pub(super) reordered: u64,
    /// Entries that were skipped without an announcement and did not come later.
    pub(super) lost: u64,
    /// Places at which entries were skipped without an announcement.
    pub(super) unannounced_gaps: u64,
    pub(super) announced_gaps: u64,
    /// Entries in announced gaps that did not come.
    pub(super) left_out: u64,
    /// Entries after the end of the connection. They are not lost: a client subscribes again and reads them.
    pub(super) cut_off: u64,
    /// Why the connection ended, if it did.
    pub(super) closed: Option<String>,
}

impl Checker {
    /// A reader that expects the entries after `base`.
    pub(super) fn new(base: u64) -> Self {
        let (lost, left_out) = (Ranges::default(), Ranges::default());
        Self { base, last: base, delivered: 0, duplicated: 0, reordered: 0, lost, left_out }
    }

    pub(super) const fn last(&self) -> u64 {
        self.last
    }

    /// Takes an entry at its place in the log.
    pub(super) fn take_entry(&mut self, seq: u64) {
        if seq > self.last {
            if seq > self.last + 1 {
                self.lost.push(self.last + 1, seq - 1);
            }
            self.last = seq;
            self.delivered += 1;
        } else if self.lost.remove(seq) || self.left_out.remove(seq) {
            self.reordered += 1;
            self.delivered += 1;
        } else {
            self.duplicated += 1;
        }
    }

    /// Takes the announcement that entries up to `seq` are left out. One that leaves nothing out has no effect.
    pub(super) fn take_gap(&mut self, seq: u64) {
        if seq > self.last {
            self.left_out.push(self.last + 1, seq);
            self.last = seq;
        }
    }

    /// The result so far. Entries after [`Self::last`] are not in it.
    pub(super) fn outcome(&self) -> Outcome {
        Outcome {
            base: self.base,
            last: self.last,
            delivered: self.delivered,
            duplicated: self.duplicated,
            reordered: self.reordered,
            lost: self.lost.places,
            unannounced_gaps: self.lost.pushed,
            announced_gaps: self.left_out.pushed,
            left_out: self.left_out.places,
            cut_off: 0,
            closed: None,
        }
    }
}

impl Outcome {
    /// Counts the entries up to the log's head that never came. A reader that reached it is unchanged.
    pub(super) fn end_at(&mut self, head: u64) {
        let missing = head.saturating_sub(self.last);
        if self.closed.is_some() {
            self.cut_off += missing;
        } else if missing > 0 {
            self.lost += missing;
            self.unannounced_gaps += 1;
        }
        self.last = self.last.max(head);
    }

    /// Adds the counts of another reader.
    pub(super) fn add(&mut self, other: &Self) {
        self.delivered += other.delivered;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.lost += other.lost;
        self.unannounced_gaps += other.unannounced_gaps;
        self.announced_gaps += other.announced_gaps;
        self.left_out += other.left_out;
        self.cut_off += other.cut_off;
    }
}

/// Rising ranges of places that did not come.
#[derive(Debug, Default)]
struct Ranges {
    /// The latest ones, both ends included.
    kept: Vec<(u64, u64)>,
    /// All of their places, including those of ranges that are no longer kept.
    places: u64,
    /// Number of ranges that were pushed.
    pushed: u64,
}

impl Ranges {
    fn push(&mut self, first: u64, last: u64) {
        if self.kept.len() == RANGES {
            // Half at once, so that this does not happen with each push.
            self.kept.drain(..RANGES / 2);
        }
        self.kept.push((first, last));
        self.places += last - first + 1;
        self.pushed += 1;
    }

    /// Removes a place that came after all. Returns whether it was in a range.
    fn remove(&mut self, place: u64) -> bool {
        let index = self.kept.partition_point(|(_, last)| *last < place);
        let Some(&(first, last)) = self.kept.get(index).filter(|(first, _)| *first <= place) else {
            return false;
        };
        let (below, above) =
            ((first < place).then(|| (first, place - 1)), (place < last).then(|| (place + 1, last)));
        self.kept.splice(index..=index, below.into_iter().chain(above));
        self.places -= 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn outcome(base: u64, seqs: &[u64]) -> Outcome {
        let mut checker = Checker::new(base);
        seqs.iter().for_each(|seq| checker.take_entry(*seq));
        checker.outcome()
    }

    #[test]
    fn everything_in_order_is_fine() {
        let expected = Outcome { base: 4, last: 7, delivered: 3, ..Outcome::default() };
        assert_eq!(outcome(4, &[5, 6, 7]), expected);
    }

    #[test]
    fn a_skipped_entry_is_lost() {
        let found = outcome(4, &[5, 8]);
        assert_eq!((found.lost, found.unannounced_gaps, found.delivered), (2, 1, 2));
    }

    #[test]
    fn an_entry_that_comes_again_is_a_duplicate() {
        let found = outcome(4, &[5, 6, 5, 4]);
        assert_eq!((found.duplicated, found.delivered, found.lost), (2, 2, 0));
    }

    #[test]
    fn an_entry_that_comes_late_is_reordered_and_not_lost() {
        let found = outcome(4, &[5, 8, 7, 6, 7]);
        assert_eq!((found.reordered, found.lost, found.duplicated, found.delivered), (2, 0, 1, 4));
    }

    #[test]
    fn entries_of_an_announced_gap_are_left_out() {
        let mut checker = Checker::new(4);
        checker.take_entry(5);
        checker.take_gap(9);
        checker.take_entry(10);
        checker.take_gap(10);
        let found = checker.outcome();
        assert_eq!((found.left_out, found.announced_gaps, found.lost, found.delivered), (4, 1, 0, 2));
        // The gap was announced, so what is in it must not follow.
        checker.take_entry(8);
        let found = checker.outcome();
        assert_eq!((found.left_out, found.reordered), (3, 1));
    }

    #[test]
    fn a_gap_does_not_excuse_what_was_skipped_before_it() {
        let mut checker = Checker::new(4);
        checker.take_entry(7);
        checker.take_gap(6);
        assert_eq!(checker.outcome().lost, 2);
    }

    #[test]
    fn entries_before_the_head_that_never_came_are_lost() {
        let mut found = outcome(4, &[5]);
        found.end_at(9);
        assert_eq!((found.lost, found.unannounced_gaps), (4, 1));
        let mut found = Outcome { closed: Some("reset".to_owned()), ..outcome(4, &[5]) };
        found.end_at(9);
        assert_eq!((found.lost, found.unannounced_gaps, found.cut_off), (0, 0, 4));
        let mut found = outcome(4, &[5]);
        found.end_at(5);
        assert_eq!((found.lost, found.unannounced_gaps), (0, 0));
    }

    #[test]
    fn ranges_are_bounded_and_their_places_are_still_counted() {
        let mut checker = Checker::new(0);
        (1..=10_000).for_each(|index| checker.take_entry(index * 2));
        assert_eq!(checker.outcome().lost, 10_000);
        assert!(checker.lost.kept.len() <= RANGES);
    }

    /// What happens to one entry.
    #[derive(Debug, Clone, Copy)]
    enum Fate {
        Delivered,
        Skipped,
        LeftOut,
        Twice,
        /// After the next entry that is delivered.
        Late,
    }

    fn fate() -> impl Strategy<Value = Fate> {
        prop_oneof![
            6 => Just(Fate::Delivered),
            1 => Just(Fate::Skipped),
            1 => Just(Fate::LeftOut),
            1 => Just(Fate::Twice),
            1 => Just(Fate::Late),
        ]
    }

    proptest! {
        #[test]
        fn every_fault_is_counted(fates in prop::collection::vec(fate(), 0..200), base in 0_u64..1_000) {
            let (mut checker, mut late, mut expected) = (Checker::new(base), Vec::new(), Outcome::default());
            for (seq, fate) in (base + 1..).zip(&fates) {
                match fate {
                    Fate::Skipped => expected.lost += 1,
                    Fate::Late => late.push(seq),
                    Fate::LeftOut => {
                        // What is skipped right before an announcement is part of the gap.
                        let before = (base + 1..seq).rev().zip(fates[..(seq - base - 1) as usize].iter().rev());
                        let open: Vec<u64> = before
                            .take_while(|(_, fate)| matches!(fate, Fate::Skipped | Fate::Late))
                            .map(|(place, _)| place)
                            .collect();
                        let skipped = open.iter().filter(|place| !late.contains(place)).count() as u64;
                        expected.lost -= skipped;
                        expected.left_out += skipped + 1;
                        expected.announced_gaps += 1;
                        checker.take_gap(seq);
                    }
                    Fate::Delivered | Fate::Twice => {
                        checker.take_entry(seq);
                        if matches!(fate, Fate::Twice) {
                            checker.take_entry(seq);
                            expected.duplicated += 1;
                        }
                        expected.reordered += late.len() as u64;
                        expected.delivered += 1 + late.len() as u64;
                        late.drain(..).for_each(|seq| checker.take_entry(seq));
                    }
                }
            }
            // Late entries at the end never came.
            expected.lost += late.len() as u64;
            for place in late {
                let gap = (place..).zip(&fates[(place - base - 1) as usize..]).any(|(_, fate)| matches!(fate, Fate::LeftOut));
                if gap {
                    expected.lost -= 1;
                    expected.left_out += 1;
                }
            }
            let mut found = checker.outcome();
            found.end_at(base + fates.len() as u64);
            let counts = |outcome: &Outcome| {
                [outcome.delivered, outcome.duplicated, outcome.reordered, outcome.lost, outcome.left_out,
                    outcome.announced_gaps]
            };
            prop_assert_eq!(counts(&found), counts(&expected));
            prop_assert!(found.lost == 0 || found.unannounced_gaps > 0);
        }
    }
}
