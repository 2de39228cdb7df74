//! The times in which a user was not a member of a channel, read from the channel's log, and the entries that the
//! user's devices need not have because of them.

use madang_proto::{Content, Entry};

use super::spans::Spans;

/// The absences of one user from one channel, in order.
#[derive(Debug, Default)]
pub(crate) struct Absences {
    spans: Vec<Absence>,
    is_open: bool,
}

#[derive(Debug, Clone, Copy)]
struct Absence {
    /// The entry with which the absence began; the base of the channel if the user was not a member at first.
    from: u64,
    /// The entry with which it ended; `None` if it lasts.
    to: Option<u64>,
}

impl Absences {
    /// Reads the absences from history. `base` is the head when the day began; `is_open` says that members may read
    /// everything.
    pub(crate) fn of(user: u64, history: &[Entry], base: u64, starts_away: bool, is_open: bool) -> Self {
        let mut spans = Vec::new();
        if starts_away {
            spans.push(Absence { from: base, to: None });
        }
        for entry in history.iter().filter(|entry| entry.seq.get() > base) {
            let seq = entry.seq.get();
            let last = spans.last_mut().filter(|absence: &&mut Absence| absence.to.is_none());
            match (&entry.content, last) {
                (Content::Joined { user_id, .. }, Some(absence)) if user_id.raw() == user => {
                    absence.to = Some(seq);
                }
                (Content::Left { user_id, .. } | Content::Banned { user_id, .. }, None)
                    if user_id.raw() == user =>
                {
                    spans.push(Absence { from: seq, to: None });
                }
                _ => {}
            }
        }
        Self { spans, is_open }
    }

    /// Whether the user's devices need not have the entry. The entries about the user's own departures and returns may
    /// arrive or not.
    pub(crate) fn excuses(&self, seq: u64) -> bool {
        self.spans.iter().any(|absence| match absence.to {
            Some(to) => absence.from <= seq && seq <= to && (!self.is_open || seq == absence.from),
            None => absence.from <= seq,
        })
    }

    /// Whether the user left after this place. If so, the text at this place may have been edited since.
    pub(crate) fn follow(&self, seq: u64) -> bool {
        self.spans.iter().any(|absence| absence.from > seq)
    }

    /// The place up to which a device must have the log, if it has every entry up to `contiguous`. A user who has left
    /// an open channel for good cannot fetch entries that were appended while the device was not connected.
    pub(crate) fn owed_to(&self, contiguous: u64) -> u64 {
        let is_gone = self.spans.last().is_some_and(|absence| absence.to.is_none());
        if self.is_open && is_gone { contiguous } else { u64::MAX }
    }

    /// Entries that the user's devices received although the user may not read them. `arrivals` contains, for each
    /// absence, what was received during it.
    pub(crate) fn leaks(&self, got: &Spans, arrivals: &[Spans]) -> Vec<u64> {
        let mut leaks = Vec::new();
        for (index, absence) in self.spans.iter().enumerate() {
            if let Some(arrivals) = arrivals.get(index) {
                leaks.extend(arrivals.iter().filter(|seq| *seq > absence.from));
            }
            if let (false, Some(to)) = (self.is_open, absence.to) {
                leaks.extend((absence.from + 1..to).filter(|seq| got.contains(*seq)));
            }
        }
        leaks.sort_unstable();
        leaks.dedup();
        leaks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use madang_ids::{Millis, Seq, UserId};

    fn log() -> Vec<Entry> {
        let user_id = UserId::from_raw(7);
        let by = user_id;
        let entry = |seq, content| Entry { seq: Seq::new(seq), at: Millis::new(seq), content };
        vec![
            entry(3, Content::Banned { user_id, by, until: None }),
            entry(5, Content::Unbanned { user_id, by }),
            entry(6, Content::Joined { user_id, by }),
            entry(9, Content::Left { user_id, by }),
        ]
    }

    fn spans(places: &[u64]) -> Spans {
        let mut spans = Spans::default();
        places.iter().for_each(|place| {
            spans.insert(*place);
        });
        spans
    }

    #[test]
    fn in_a_group_entries_of_an_absence_are_neither_owed_nor_allowed() {
        let absences = Absences::of(7, &log(), 1, false, false);
        let excused: Vec<u64> = (1..=11).filter(|seq| absences.excuses(*seq)).collect();
        assert_eq!(excused, [3, 4, 5, 6, 9, 10, 11]);
        assert!(absences.follow(2) && absences.follow(8) && !absences.follow(9));
        assert!(absences.leaks(&spans(&[1, 2, 3, 6, 7, 8, 9]), &[]).is_empty());
        assert_eq!(absences.leaks(&spans(&[1, 2, 4, 7]), &[Spans::default(), spans(&[10])]), [4, 10]);
    }

    #[test]
    fn in_an_open_channel_entries_of_an_absence_are_owed_after_the_return() {
        let absences = Absences::of(7, &log(), 1, false, true);
        let excused: Vec<u64> = (1..=11).filter(|seq| absences.excuses(*seq)).collect();
        assert_eq!(excused, [3, 9, 10, 11]);
        assert_eq!(
            absences.owed_to(7),
            7,
            "a device that was offline when its user left cannot fetch the rest"
        );
        assert_eq!(Absences::of(7, &log()[..3], 1, false, true).owed_to(7), u64::MAX);
        assert!(
            absences.leaks(&spans(&[1, 2, 4, 5, 6]), &[spans(&[2, 3])]).is_empty(),
            "a late entry is no leak"
        );
        assert_eq!(absences.leaks(&spans(&[]), &[spans(&[2, 3, 4])]), [4]);
    }

    #[test]
    fn entries_before_the_first_join_are_not_owed() {
        let log: Vec<Entry> = log().split_off(2);
        let absences = Absences::of(7, &log, 1, true, false);
        assert!(absences.excuses(2) && absences.excuses(6) && !absences.excuses(7));
        assert!(!Absences::of(8, &log, 1, false, false).excuses(9));
    }
}
