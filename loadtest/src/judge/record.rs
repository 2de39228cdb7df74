//! What came to one device of one channel.

use std::collections::{HashMap, HashSet};

use super::spans::Spans;
use super::state::{Reacted, State};

/// What an entry's coming meant for the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// The first time.
    First {
        /// It lies below what had come on this connection.
        is_late: bool,
        /// How many places before it have not come.
        skipped: u64,
    },
    /// Again, after a reconnect with a cursor that did not cover it. That is how resuming works.
    Again,
    /// Again, although it came on this connection before, or a cursor covered it.
    Twice,
}

/// Places of one channel on one device, all as intervals: usually one each. And what its messages say there.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// Everything that came.
    got: Spans,
    /// What came on this connection.
    here: Spans,
    /// The last place that came on this connection.
    last: u64,
    /// What came since the last cursor frame.
    uncovered: Spans,
    /// What came on former connections without a cursor frame after it: it may come once more.
    may_return: Spans,
    /// The server said that entries up to here are left out: history has them.
    gap: u64,
    /// The cache: messages that have changed. The others say what was said at first.
    changed: HashMap<u64, State>,
    /// Reactions to messages that are not here yet: an older copy may still be on its way, in a page that was read before.
    awaiting: HashMap<u64, Reacted>,
    /// Messages whose deletion came.
    deleted: HashSet<u64>,
    /// Messages that came without their words, which are not deleted.
    withheld: HashSet<u64>,
    /// The user is no member just now.
    is_away: bool,
    /// What came in each of the times when she was none.
    arrivals: Vec<Spans>,
    /// Steps over places, with their ends, in a channel in which people come and go: the end says what they meant.
    jumps: Vec<(u64, u64)>,
}

impl Record {
    /// Another connection begins.
    pub(crate) fn connect(&mut self) {
        self.here.clear();
        self.last = 0;
        self.may_return.absorb(&mut self.uncovered);
    }

    /// The server begins to tell of an open channel what lies behind `after`, whatever it told before.
    pub(crate) fn subscribe(&mut self, after: u64) {
        self.here.clear();
        self.uncovered.clear();
        self.may_return.clear();
        self.got.iter().filter(|place| *place > after).for_each(|place| {
            self.may_return.insert(place);
        });
        self.last = after;
    }

    /// Entries up to `seq` will not come by themselves.
    pub(crate) fn leave_gap(&mut self, seq: u64) {
        self.gap = self.gap.max(seq);
        self.last = self.last.max(seq);
    }

    /// Where to ask history for what a gap left out: behind the returned place. Nothing if nothing is left out.
    pub(crate) fn gap_after(&self, base: u64) -> Option<u64> {
        let after = self.contiguous(base);
        (after < self.gap).then_some(after)
    }

    /// An entry came. Places up to `base` are not expected, but may come.
    pub(crate) fn receive(&mut self, seq: u64, base: u64) -> Arrival {
        self.note_arrival(seq);
        let is_late = seq <= self.last;
        self.last = self.last.max(seq);
        if !self.here.insert(seq) {
            return Arrival::Twice;
        }
        self.uncovered.insert(seq);
        if !self.got.contains(seq) {
            let skipped = self.skipped_before(seq, base.max(self.gap));
            self.got.insert(seq);
            return Arrival::First { is_late, skipped };
        }
        if self.may_return.remove(seq) { Arrival::Again } else { Arrival::Twice }
    }

    /// An entry was read from history. True if it is the first time.
    pub(crate) fn fill(&mut self, seq: u64) -> bool {
        self.note_arrival(seq);
        let is_first = self.got.insert(seq);
        if is_first && seq > self.gap {
            // A page may reach beyond the gap, and what lies there comes by itself as well.
            self.may_return.insert(seq);
        }
        is_first
    }

    /// A cursor frame came: what came before it on this connection will not come again.
    pub(crate) fn cover(&mut self) {
        self.uncovered.clear();
    }

    /// What of the places above `base`, up to `head`, never came.
    pub(crate) fn missing(&self, base: u64, head: u64) -> impl Iterator<Item = u64> {
        self.got.missing(base + 1, head)
    }

    /// Everything that came.
    pub(crate) const fn got(&self) -> &Spans {
        &self.got
    }

    /// All places up to the returned one came.
    pub(crate) fn contiguous(&self, base: u64) -> u64 {
        self.got.end_of(base + 1).unwrap_or(base)
    }

    /// Keeps the later of two copies of a message.
    pub(crate) fn keep(&mut self, target: u64, state: State) {
        let kept = self.changed.entry(target).or_insert(state);
        if state.version > kept.version {
            *kept = state;
        }
    }

    /// Reactions came to a message that was said so at first.
    pub(crate) fn react(&mut self, target: u64, said: &str, reacted: Reacted) {
        self.changed.entry(target).or_insert_with(|| State::said(said)).react(reacted);
    }

    /// Reactions came to a message that is not here.
    pub(crate) fn await_message(&mut self, target: u64, reacted: Reacted) {
        let kept = self.awaiting.entry(target).or_insert(reacted);
        if reacted.version > kept.version {
            *kept = reacted;
        }
    }

    /// The reactions that came before their message.
    pub(crate) fn take_awaited(&mut self, target: u64) -> Option<Reacted> {
        self.awaiting.remove(&target)
    }

    /// A message came without its words.
    pub(crate) fn withhold(&mut self, target: u64) {
        self.withheld.insert(target);
    }

    /// Messages that came without their words.
    pub(crate) fn withheld(&self) -> impl Iterator<Item = u64> {
        self.withheld.iter().copied()
    }

    /// The deletion of a message came.
    pub(crate) fn delete(&mut self, target: u64) {
        self.deleted.insert(target);
    }

    /// Whether the deletion of a message came. The message may look deleted before: a row is read as it is now.
    pub(crate) fn is_deleted(&self, target: u64) -> bool {
        self.deleted.contains(&target)
    }

    /// What a changed message says here.
    pub(crate) fn changed(&self, target: u64) -> Option<State> {
        self.changed.get(&target).copied()
    }

    /// All changed messages.
    pub(crate) fn all_changed(&self) -> impl Iterator<Item = (u64, State)> {
        self.changed.iter().map(|(target, state)| (*target, *state))
    }

    /// The user goes, or comes back.
    pub(crate) fn set_away(&mut self, is_away: bool) {
        if is_away && !self.is_away {
            self.arrivals.push(Spans::default());
        }
        self.is_away = is_away;
    }

    pub(crate) const fn is_away(&self) -> bool {
        self.is_away
    }

    /// What came in each of the times when she was no member.
    pub(crate) fn arrivals(&self) -> &[Spans] {
        &self.arrivals
    }

    /// `seq` came, and `skipped` places before it had not.
    pub(crate) fn note_jump(&mut self, seq: u64, skipped: u64) {
        self.jumps.push((seq - skipped, seq - 1));
    }

    pub(crate) fn jumps(&self) -> &[(u64, u64)] {
        &self.jumps
    }

    fn note_arrival(&mut self, seq: u64) {
        if let Some(arrivals) = self.arrivals.last_mut().filter(|_| self.is_away) {
            arrivals.insert(seq);
        }
    }

    fn skipped_before(&self, seq: u64, base: u64) -> u64 {
        let places = (base + 1..seq).rev();
        places.take_while(|place| !self.got.contains(*place)).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IN_ORDER: Arrival = Arrival::First { is_late: false, skipped: 0 };

    #[test]
    fn what_no_cursor_covered_may_come_again_once() {
        let mut record = Record::default();
        record.connect();
        assert_eq!(record.receive(1, 0), IN_ORDER);
        record.cover();
        assert_eq!(record.receive(2, 0), IN_ORDER);
        record.connect();
        assert_eq!(record.receive(2, 0), Arrival::Again);
        assert_eq!(record.receive(2, 0), Arrival::Twice);
        assert_eq!(record.receive(3, 0), IN_ORDER);
        record.cover();
        record.connect();
        assert_eq!(record.receive(3, 0), Arrival::Twice, "a cursor covered it");
    }

    #[test]
    fn what_was_lost_twice_on_the_way_may_come_a_third_time() {
        let mut record = Record::default();
        for connection in 0..3 {
            record.connect();
            let expected = if connection == 0 { IN_ORDER } else { Arrival::Again };
            assert_eq!(record.receive(1, 0), expected);
        }
        record.connect();
        record.connect();
        assert_eq!(record.receive(1, 0), Arrival::Again);
    }

    #[test]
    fn a_jump_and_a_late_comer_are_seen() {
        let mut record = Record::default();
        record.connect();
        assert_eq!(record.receive(4, 2), Arrival::First { is_late: false, skipped: 1 });
        assert_eq!(record.receive(3, 2), Arrival::First { is_late: true, skipped: 0 });
        assert_eq!(record.missing(2, 6).collect::<Vec<_>>(), [5, 6]);
    }

    #[test]
    fn what_a_gap_leaves_out_is_asked_of_history_and_no_hole() {
        let mut record = Record::default();
        record.connect();
        record.subscribe(2);
        assert_eq!(record.receive(3, 2), IN_ORDER);
        record.leave_gap(8);
        assert_eq!(record.receive(9, 2), IN_ORDER);
        assert_eq!(record.gap_after(2), Some(3));
        (4..=8).for_each(|seq| assert!(record.fill(seq)));
        assert!(record.fill(10));
        assert_eq!(record.receive(10, 2), Arrival::Again, "the page reached beyond the gap");
        assert_eq!((record.gap_after(2), record.contiguous(2)), (None, 10));
        assert_eq!(record.receive(12, 2), Arrival::First { is_late: false, skipped: 1 }, "without a gap");
    }

    #[test]
    fn a_subscription_brings_what_lies_behind_its_place_and_nothing_else() {
        let mut record = Record::default();
        record.connect();
        record.subscribe(0);
        record.receive(1, 0);
        record.leave_gap(3);
        record.receive(4, 0);
        record.connect();
        assert_eq!(record.contiguous(0), 1);
        record.subscribe(1);
        record.receive(2, 0);
        record.receive(3, 0);
        assert_eq!(record.receive(4, 0), Arrival::Again);
        assert_eq!(record.receive(4, 0), Arrival::Twice);
        assert_eq!(record.contiguous(0), 4);
        record.subscribe(4);
        assert_eq!(record.receive(4, 0), Arrival::Twice, "it asked for what comes behind");
    }
}
