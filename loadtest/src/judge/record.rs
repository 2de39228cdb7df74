//! What came to one device of one channel.

use super::spans::Spans;

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

/// Places of one channel on one device. All intervals: usually one each.
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
}

impl Record {
    /// Another connection begins.
    pub(crate) fn connect(&mut self) {
        self.here.clear();
        self.last = 0;
        self.may_return.absorb(&mut self.uncovered);
    }

    /// An entry came. Places up to `base` are not expected, but may come.
    pub(crate) fn receive(&mut self, seq: u64, base: u64) -> Arrival {
        let is_late = seq <= self.last;
        self.last = self.last.max(seq);
        if !self.here.insert(seq) {
            return Arrival::Twice;
        }
        self.uncovered.insert(seq);
        if !self.got.contains(seq) {
            let skipped = self.skipped_before(seq, base);
            self.got.insert(seq);
            return Arrival::First { is_late, skipped };
        }
        if self.may_return.remove(seq) { Arrival::Again } else { Arrival::Twice }
    }

    /// A cursor frame came: what came before it on this connection will not come again.
    pub(crate) fn cover(&mut self) {
        self.uncovered.clear();
    }

    /// What of the places above `base`, up to `head`, never came.
    pub(crate) fn missing(&self, base: u64, head: u64) -> impl Iterator<Item = u64> {
        self.got.missing(base + 1, head)
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
}
