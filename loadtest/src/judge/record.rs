//! What one device received from one channel.

use std::collections::{HashMap, HashSet};

use super::spans::Spans;
use super::state::{Reacted, State};

/// Meaning of an arrival for the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// The entry arrived for the first time.
    First {
        /// Whether a later entry arrived on this connection before.
        is_late: bool,
        /// Number of places before it that have not arrived.
        skipped: u64,
    },
    /// The entry arrived again after a reconnect, and no cursor covered it. This is how resuming works.
    Again,
    /// The entry arrived again although it had arrived on this connection, or a cursor covered it.
    Twice,
}

/// Places of one channel on one device, as intervals (usually one each), and the state of its changed messages.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// Places that arrived.
    got: Spans,
    /// Places that arrived on this connection.
    here: Spans,
    /// The last place that arrived on this connection.
    last: u64,
    /// Places that arrived since the last `cursor` frame.
    uncovered: Spans,
    /// Places that arrived on earlier connections with no `cursor` frame after them. Each may arrive once more.
    may_return: Spans,
    /// The server reported a gap up to here. History has these entries.
    gap: u64,
    /// History was read up to here to fill the gap.
    read: u64,
    /// A snapshot showed entries up to here. Those that history provides may also arrive live, because the connection was
    /// open before the snapshot was taken.
    shown: u64,
    /// The cache of the device: messages that have changed. The others have their first text.
    changed: HashMap<u64, State>,
    /// Reactions to messages that the device does not have yet. An older copy may still arrive, in a page that was read
    /// before.
    awaiting: HashMap<u64, Reacted>,
    /// Messages whose deletion arrived live.
    deleted: HashSet<u64>,
    /// Messages that arrived without their text and are not deleted.
    withheld: HashSet<u64>,
    /// Whether the user is not a member at present.
    is_away: bool,
    /// For each absence of the user, the places that arrived during it.
    arrivals: Vec<Spans>,
    /// Skipped places with their ends, in a channel whose members come and go. They are judged at the end.
    jumps: Vec<(u64, u64)>,
}

impl Record {
    /// Starts another connection.
    pub(crate) fn connect(&mut self) {
        self.here.clear();
        self.last = 0;
        self.may_return.absorb(&mut self.uncovered);
    }

    /// The server starts to deliver an open channel from `after` on, whatever it delivered before.
    pub(crate) fn subscribe(&mut self, after: u64) {
        self.here.clear();
        self.uncovered.clear();
        self.may_return.clear();
        self.got.iter().filter(|place| *place > after).for_each(|place| {
            self.may_return.insert(place);
        });
        self.last = after;
    }

    /// Entries up to `seq` will not arrive live.
    pub(crate) fn leave_gap(&mut self, seq: u64) {
        self.gap = self.gap.max(seq);
        self.last = self.last.max(seq);
    }

    /// A snapshot shows that the channel has entries up to `head`. The server may deliver each of them once more: what it
    /// knew about this device is lost.
    pub(crate) fn show(&mut self, head: u64) {
        self.gap = self.gap.max(head);
        self.shown = self.shown.max(head);
        self.here.clear();
        self.uncovered.clear();
        self.got.iter().filter(|place| *place <= head).for_each(|place| {
            self.may_return.insert(place);
        });
    }

    /// The place after which history must fill a gap; `None` if there is no gap.
    pub(crate) fn gap_after(&self, base: u64) -> Option<u64> {
        let after = self.contiguous(base).max(self.read);
        (after < self.gap).then_some(after)
    }

    /// A page of history for the gap ended with this entry; `None` if it was empty. Entries that it lacks are not in
    /// history, or the user may not read them.
    pub(crate) fn end_page(&mut self, last: Option<u64>) {
        self.read = self.read.max(last.unwrap_or(self.gap));
    }

    /// Records an arrival. Places up to `base` are not expected, but may arrive.
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

    /// Records an entry from history. Returns `true` if it arrived for the first time.
    pub(crate) fn fill(&mut self, seq: u64) -> bool {
        self.note_arrival(seq);
        let is_first = self.got.insert(seq);
        if is_first && (seq > self.gap || seq <= self.shown) {
            // A page may reach beyond the gap. Entries there arrive live too.
            self.may_return.insert(seq);
        }
        is_first
    }

    /// Records a `cursor` frame: entries that arrived before it on this connection will not arrive again.
    pub(crate) fn cover(&mut self) {
        self.uncovered.clear();
    }

    /// The places above `base` and up to `head` that never arrived.
    pub(crate) fn missing(&self, base: u64, head: u64) -> impl Iterator<Item = u64> {
        self.got.missing(base + 1, head)
    }

    /// All places that arrived.
    pub(crate) const fn got(&self) -> &Spans {
        &self.got
    }

    /// The place up to which every entry arrived.
    pub(crate) fn contiguous(&self, base: u64) -> u64 {
        self.got.end_of(base + 1).unwrap_or(base)
    }

    /// Keeps the newer of two copies of a message.
    pub(crate) fn keep(&mut self, target: u64, state: State) {
        let kept = self.changed.entry(target).or_insert(state);
        if state.version > kept.version {
            *kept = state;
        }
    }

    /// Applies reactions to a message; `said` is its first text.
    pub(crate) fn react(&mut self, target: u64, said: &str, reacted: Reacted) {
        self.changed.entry(target).or_insert_with(|| State::said(said)).react(reacted);
    }

    /// Keeps reactions to a message that the device does not have yet.
    pub(crate) fn await_message(&mut self, target: u64, reacted: Reacted) {
        let kept = self.awaiting.entry(target).or_insert(reacted);
        if reacted.version > kept.version {
            *kept = reacted;
        }
    }

    /// Removes and returns the reactions that arrived before their message.
    pub(crate) fn take_awaited(&mut self, target: u64) -> Option<Reacted> {
        self.awaiting.remove(&target)
    }

    /// Records that a message arrived without its text.
    pub(crate) fn withhold(&mut self, target: u64) {
        self.withheld.insert(target);
    }

    /// Messages that arrived without their text.
    pub(crate) fn withheld(&self) -> impl Iterator<Item = u64> {
        self.withheld.iter().copied()
    }

    /// Records the deletion of a message, which arrived live.
    pub(crate) fn delete(&mut self, target: u64) {
        self.deleted.insert(target);
    }

    /// Whether the deletion of a message arrived live. The message may look deleted earlier, because a row is delivered as
    /// it is now.
    pub(crate) fn is_deleted(&self, target: u64) -> bool {
        self.deleted.contains(&target)
    }

    /// The state of a message that has changed on this device.
    pub(crate) fn changed(&self, target: u64) -> Option<State> {
        self.changed.get(&target).copied()
    }

    /// All changed messages.
    pub(crate) fn all_changed(&self) -> impl Iterator<Item = (u64, State)> {
        self.changed.iter().map(|(target, state)| (*target, *state))
    }

    /// Records that the user leaves or returns.
    pub(crate) fn set_away(&mut self, is_away: bool) {
        if is_away && !self.is_away {
            self.arrivals.push(Spans::default());
        }
        self.is_away = is_away;
    }

    pub(crate) const fn is_away(&self) -> bool {
        self.is_away
    }

    /// For each absence of the user, the places that arrived during it.
    pub(crate) fn arrivals(&self) -> &[Spans] {
        &self.arrivals
    }

    /// Records that `seq` arrived while `skipped` places before it had not.
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
    fn an_entry_without_a_cursor_may_arrive_again_once() {
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
    fn an_entry_lost_twice_may_arrive_a_third_time() {
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
    fn skipped_and_late_entries_are_recognised() {
        let mut record = Record::default();
        record.connect();
        assert_eq!(record.receive(4, 2), Arrival::First { is_late: false, skipped: 1 });
        assert_eq!(record.receive(3, 2), Arrival::First { is_late: true, skipped: 0 });
        assert_eq!(record.missing(2, 6).collect::<Vec<_>>(), [5, 6]);
    }

    #[test]
    fn a_gap_is_filled_from_history_and_is_no_hole() {
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
    fn after_a_snapshot_each_entry_may_arrive_once_more_and_history_fills_the_rest() {
        let mut record = Record::default();
        record.connect();
        (1..=3).for_each(|seq| assert_eq!(record.receive(seq, 0), IN_ORDER));
        record.cover();
        record.connect();
        record.show(8);
        assert_eq!(record.gap_after(0), Some(3));
        assert_eq!(record.receive(7, 0), IN_ORDER, "it was appended before the snapshot was taken");
        assert_eq!(record.receive(9, 0), IN_ORDER, "history fills what was skipped");
        (4..=6).for_each(|seq| assert!(record.fill(seq)));
        record.end_page(Some(6));
        assert_eq!(record.gap_after(0), Some(6 + 1).filter(|after| *after < 8));
        assert_eq!(record.receive(5, 0), Arrival::Again);
        assert_eq!(record.receive(2, 0), Arrival::Again);
        assert_eq!(record.receive(2, 0), Arrival::Twice);
        // The user may not read the last one.
        record.end_page(None);
        assert_eq!((record.gap_after(0), record.missing(0, 9).collect::<Vec<_>>()), (None, vec![8]));
    }

    #[test]
    fn a_subscription_delivers_only_entries_after_its_place() {
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
        assert_eq!(record.receive(4, 0), Arrival::Twice, "the subscription began after it");
    }
}
