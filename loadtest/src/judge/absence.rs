//! When somebody was no member of a channel, as the channel's own log says it, and what she need not have then.

use madang_proto::{Content, Entry};

use super::spans::Spans;

/// Of one user in one channel, in order.
#[derive(Debug, Default)]
pub(crate) struct Absences {
    spans: Vec<Absence>,
    is_open: bool,
}

#[derive(Debug, Clone, Copy)]
struct Absence {
    /// The entry with which it began; the base of the channel if she was not there at first.
    from: u64,
    /// The entry with which it ended.
    to: Option<u64>,
}

impl Absences {
    /// Reads them out of history. `base` is the head when the day began; `is_open` says that members read everything.
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

    /// Whether her devices need not have the entry. The entries that tell of her own going and coming may come or not.
    pub(crate) fn excuses(&self, seq: u64) -> bool {
        self.spans.iter().any(|absence| match absence.to {
            Some(to) => absence.from <= seq && seq <= to && (!self.is_open || seq == absence.from),
            None => absence.from <= seq,
        })
    }

    /// Whether she left after this place: its words may have been edited since.
    pub(crate) fn follow(&self, seq: u64) -> bool {
        self.spans.iter().any(|absence| absence.from > seq)
    }

    /// Up to where a device is owed the log, if it has all of it up to `contiguous`. Whose user has left an open channel
    /// for good cannot fetch what came while the device was not connected.
    pub(crate) fn owed_to(&self, contiguous: u64) -> u64 {
        let is_gone = self.spans.last().is_some_and(|absence| absence.to.is_none());
        if self.is_open && is_gone { contiguous } else { u64::MAX }
    }

    /// What her devices got that she may not read. `arrivals` holds, for each absence, what came during it.
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
    fn in_a_group_what_was_said_meanwhile_is_neither_owed_nor_allowed() {
        let absences = Absences::of(7, &log(), 1, false, false);
        let excused: Vec<u64> = (1..=11).filter(|seq| absences.excuses(*seq)).collect();
        assert_eq!(excused, [3, 4, 5, 6, 9, 10, 11]);
        assert!(absences.follow(2) && absences.follow(8) && !absences.follow(9));
        assert!(absences.leaks(&spans(&[1, 2, 3, 6, 7, 8, 9]), &[]).is_empty());
        assert_eq!(absences.leaks(&spans(&[1, 2, 4, 7]), &[Spans::default(), spans(&[10])]), [4, 10]);
    }

    #[test]
    fn in_an_open_channel_it_is_owed_after_the_return_and_not_before() {
        let absences = Absences::of(7, &log(), 1, false, true);
        let excused: Vec<u64> = (1..=11).filter(|seq| absences.excuses(*seq)).collect();
        assert_eq!(excused, [3, 9, 10, 11]);
        assert_eq!(absences.owed_to(7), 7, "a device that was away when she left has no way to the rest");
        assert_eq!(Absences::of(7, &log()[..3], 1, false, true).owed_to(7), u64::MAX);
        assert!(absences.leaks(&spans(&[1, 2, 4, 5, 6]), &[spans(&[2, 3])]).is_empty(), "late is no leak");
        assert_eq!(absences.leaks(&spans(&[]), &[spans(&[2, 3, 4])]), [4]);
    }

    #[test]
    fn who_was_not_there_at_first_owes_nothing_of_it() {
        let log: Vec<Entry> = log().split_off(2);
        let absences = Absences::of(7, &log, 1, true, false);
        assert!(absences.excuses(2) && absences.excuses(6) && !absences.excuses(7));
        assert!(!Absences::of(8, &log, 1, false, false).excuses(9));
    }
}
