//! A session's cursor over its user's inbox. Live delivery is the fast path of the same cursor: there is one
//! mechanism, not two.
//!
//! The shell registers the connection first and reads the inbox from the cursor next. A live item is delivered if the cursor
//! is at the end of the item before it, and dropped if the cursor has passed it; otherwise there is a gap, and the inbox is
//! read.

use std::collections::VecDeque;

use madang_ids::Position;

/// The place of a live item in the user's inbox. An item may be a batch of several positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The last position of the item before it.
    pub previous: Position,
    /// The first position of the item.
    pub first: Position,
    /// The last position of the item.
    pub last: Position,
}

/// What to do with a live item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Live<T> {
    /// Enqueue it; the cursor has moved behind it.
    Deliver(T),
    /// It was delivered before, is held until the page is there, or will be read: do nothing.
    Drop,
    /// Read the inbox from the cursor; no read is under way.
    Read,
}

/// What to do after a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AfterPage<T> {
    /// Items that came while the page was read and follow its end: enqueue them.
    pub released: Vec<T>,
    /// Whether the next page must be read; otherwise live items are delivered again.
    pub reads_on: bool,
}

/// The cursor, and whether it moves by live items or by pages. `T` is the content of a live item.
#[derive(Debug, Clone)]
pub struct SyncCursor<T> {
    position: Position,
    reading: Option<Box<Reading<T>>>,
}

/// While pages are read, live items are held, so that reading catches up with a busy inbox: without them each page would end
/// before the items that came meanwhile.
#[derive(Debug, Clone)]
struct Reading<T> {
    /// The last position that was seen to exist.
    seen: Position,
    /// Each follows the one before it without a gap.
    held: VecDeque<(Place, T)>,
    held_bytes: usize,
    /// More than the limit came; nothing is held until the next page begins.
    is_overflown: bool,
    /// Something was lost while a page was read: another one must begin after that.
    must_read_again: bool,
}

impl<T> Reading<T> {
    const fn new(seen: Position) -> Self {
        Self { seen, held: VecDeque::new(), held_bytes: 0, is_overflown: false, must_read_again: false }
    }

    fn drop_held(&mut self) {
        self.held = VecDeque::new();
        self.held_bytes = 0;
    }

    fn hold(&mut self, place: Place, item: T, size_bytes: usize, limit_bytes: usize) {
        if self.held.back().is_some_and(|(last, _)| place.previous > last.last) {
            // An item is missing in between. The page that brings it also brings the held ones.
            self.drop_held();
        }
        if self.held_bytes + size_bytes > limit_bytes {
            self.is_overflown = true;
            self.drop_held();
        }
        if !self.is_overflown {
            self.held_bytes += size_bytes;
            self.held.push_back((place, item));
        }
    }
}

impl<T> SyncCursor<T> {
    /// A cursor that reads the inbox first.
    #[must_use]
    pub fn reading_from(position: Position) -> Self {
        // `seen` must not start at the cursor: a cursor of another store may lie beyond everything that this one has.
        Self { position, reading: Some(Box::new(Reading::new(Position::ZERO))) }
    }

    /// A cursor at the end of the inbox.
    #[must_use]
    pub const fn live_at(position: Position) -> Self {
        Self { position, reading: None }
    }

    /// Everything up to here was enqueued.
    #[must_use]
    pub const fn position(&self) -> Position {
        self.position
    }

    /// Whether pages are being read.
    #[must_use]
    pub const fn is_reading(&self) -> bool {
        self.reading.is_some()
    }

    /// Bytes of the items that are held until pages are read.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.reading.as_ref().map_or(0, |reading| reading.held_bytes)
    }

    /// A live item came. `item` is `None` if the user may not see all of it. `has_room` says whether the outbound queue has room
    /// for it; while pages are read, items of up to `limit_bytes` in all are held.
    pub fn handle_item(
        &mut self,
        place: Place,
        item: Option<(T, usize)>,
        has_room: bool,
        limit_bytes: usize,
    ) -> Live<T> {
        // Items that the cursor has passed count too: only the first page shows whether the cursor is valid.
        if let Some(reading) = &mut self.reading {
            reading.seen = reading.seen.max(place.last);
            if let Some((item, size_bytes)) = item {
                reading.hold(place, item, size_bytes, limit_bytes);
            }
            return Live::Drop;
        }
        if place.last <= self.position {
            return Live::Drop;
        }
        let follows = place.previous <= self.position && self.position < place.first;
        match item {
            Some((item, _)) if follows && has_room => {
                self.position = place.last;
                Live::Deliver(item)
            }
            _ => {
                self.reading = Some(Box::new(Reading::new(place.last)));
                Live::Read
            }
        }
    }

    /// Something was lost on the way here: read the inbox, by a page that begins after this.
    pub fn read(&mut self) {
        let position = self.position;
        let reading = self.reading.get_or_insert_with(|| Box::new(Reading::new(position)));
        reading.drop_held();
        reading.must_read_again = true;
    }

    /// Drops the held items, and those that come until the next page: pages bring them.
    pub fn let_go(&mut self) {
        if let Some(reading) = &mut self.reading {
            reading.is_overflown = true;
            reading.drop_held();
        }
    }

    /// A page is about to be read.
    pub fn begin_page(&mut self) {
        if let Some(reading) = &mut self.reading {
            reading.is_overflown = false;
            reading.must_read_again = false;
        }
    }

    /// A page was enqueued: everything up to `upto` is on its way, and `more` says whether the inbox has more.
    ///
    /// A page is one consistent read, so every item that was seen before the read began is in it or in `more`.
    pub fn handle_page(&mut self, upto: Position, more: bool) -> AfterPage<T> {
        self.position = self.position.max(upto);
        let mut released = Vec::new();
        let Some(mut reading) = self.reading.take() else { return AfterPage { released, reads_on: false } };
        if !more && !reading.must_read_again {
            while let Some((place, item)) = reading.held.pop_front() {
                if place.last <= self.position {
                    continue;
                }
                if place.previous > self.position || place.first <= self.position {
                    break;
                }
                self.position = place.last;
                released.push(item);
            }
            reading.drop_held();
        }
        let reads_on = more || reading.must_read_again || reading.seen > self.position;
        if reads_on {
            self.reading = Some(reading);
        }
        AfterPage { released, reads_on }
    }

    /// The cursor is not valid: continue from `end`, which was taken after the connection was registered. Items that were seen
    /// beyond it are released or read.
    pub fn jump(&mut self, end: Position) -> AfterPage<T> {
        self.position = end;
        self.handle_page(end, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn position(value: u64) -> Position {
        Position::new(value)
    }

    fn item(cursor: &mut SyncCursor<u64>, place: Place, has_room: bool) -> Live<u64> {
        cursor.handle_item(place, Some((place.last.get(), 10)), has_room, 30)
    }

    fn page_ends(cursor: &mut SyncCursor<u64>, upto: u64, more: bool) -> (Vec<u64>, bool) {
        let after = cursor.handle_page(position(upto), more);
        (after.released, after.reads_on)
    }

    fn place(previous: u64, first: u64, last: u64) -> Place {
        Place { previous: position(previous), first: position(first), last: position(last) }
    }

    #[test]
    fn live_items_follow_each_other() {
        let mut cursor = SyncCursor::live_at(position(5));
        assert_eq!(item(&mut cursor, place(3, 7, 9), true), Live::Deliver(9));
        assert_eq!(item(&mut cursor, place(3, 7, 9), true), Live::Drop);
        assert_eq!(item(&mut cursor, place(12, 13, 13), true), Live::Read);
        assert_eq!(page_ends(&mut cursor, 12, true), (vec![], true));
        assert_eq!(page_ends(&mut cursor, 13, false), (vec![], false));
        assert_eq!(item(&mut cursor, place(13, 15, 15), true), Live::Deliver(15));
    }

    #[test]
    fn what_comes_while_a_page_is_read_goes_on_behind_it() {
        let mut cursor = SyncCursor::reading_from(position(1));
        cursor.begin_page();
        for at in 3..=5 {
            assert_eq!(item(&mut cursor, place(at - 1, at, at), true), Live::Drop);
        }
        assert_eq!(page_ends(&mut cursor, 3, false), (vec![4, 5], false));
        assert_eq!(cursor.position(), position(5));
    }

    #[test]
    fn what_is_let_go_while_a_page_is_read_is_read_by_another() {
        let mut cursor = SyncCursor::reading_from(position(1));
        cursor.begin_page();
        item(&mut cursor, place(2, 3, 3), true);
        assert_eq!(cursor.held_bytes(), 10);
        cursor.let_go();
        item(&mut cursor, place(3, 4, 4), true);
        assert_eq!(cursor.held_bytes(), 0);
        assert_eq!(page_ends(&mut cursor, 2, false), (vec![], true));
        cursor.begin_page();
        assert_eq!(page_ends(&mut cursor, 4, false), (vec![], false));
    }

    #[test]
    fn what_is_lost_while_a_page_is_read_is_read_by_another() {
        let mut cursor = SyncCursor::reading_from(position(1));
        cursor.begin_page();
        cursor.read();
        item(&mut cursor, place(2, 4, 4), true);
        assert_eq!(page_ends(&mut cursor, 2, false), (vec![], true));
        cursor.begin_page();
        assert_eq!(page_ends(&mut cursor, 3, false), (vec![4], false));
    }

    #[test]
    fn a_cursor_that_jumps_to_the_end_is_live_there() {
        let mut cursor: SyncCursor<u64> = SyncCursor::reading_from(Position::ZERO);
        item(&mut cursor, place(6, 8, 8), true);
        let after = cursor.jump(position(7));
        assert_eq!((after.released, after.reads_on, cursor.position()), (vec![8], false, position(8)));
    }

    #[test]
    fn what_is_held_is_bounded() {
        let mut cursor = SyncCursor::reading_from(position(1));
        cursor.begin_page();
        for at in 3..=6 {
            item(&mut cursor, place(at - 1, at, at), true);
        }
        assert_eq!(page_ends(&mut cursor, 3, false), (vec![], true));
        cursor.begin_page();
        item(&mut cursor, place(6, 7, 7), true);
        assert_eq!(page_ends(&mut cursor, 6, false), (vec![7], false));
    }

    #[test]
    fn a_full_queue_falls_back_to_reading() {
        let mut cursor = SyncCursor::live_at(position(1));
        assert_eq!(item(&mut cursor, place(1, 2, 2), false), Live::Read);
        assert_eq!(cursor.position(), position(1));
    }

    #[test]
    fn a_cursor_beyond_the_end_jumps_there_and_is_live() {
        let mut cursor = SyncCursor::<u64>::reading_from(position(900));
        assert!(!cursor.jump(position(5)).reads_on);
        assert_eq!(item(&mut cursor, place(5, 6, 6), true), Live::Deliver(6));
        let mut cursor = SyncCursor::reading_from(position(3));
        assert_eq!(item(&mut cursor, place(6, 9, 9), true), Live::Drop);
        assert!(cursor.jump(position(7)).released == [9] && cursor.position() == position(9));
        // What came after the end was taken, while the cursor still stood beyond it.
        let mut cursor = SyncCursor::reading_from(position(900));
        assert_eq!(item(&mut cursor, place(4, 5, 5), true), Live::Drop);
        assert_eq!(item(&mut cursor, place(5, 6, 6), true), Live::Drop);
        assert_eq!(cursor.jump(position(5)), AfterPage { released: vec![6], reads_on: false });
        assert_eq!(cursor.position(), position(6));
    }

    #[test]
    fn a_cursor_inside_a_batch_reads_the_rest() {
        let mut cursor = SyncCursor::live_at(position(8));
        assert_eq!(item(&mut cursor, place(3, 7, 9), true), Live::Read);
    }

    #[test]
    fn what_may_not_be_seen_whole_is_read() {
        let mut cursor: SyncCursor<u64> = SyncCursor::live_at(position(1));
        assert_eq!(cursor.handle_item(place(1, 2, 3), None, true, 30), Live::Read);
        cursor.begin_page();
        assert_eq!(cursor.handle_item(place(3, 4, 4), None, true, 30), Live::Drop);
        item(&mut cursor, place(4, 5, 5), true);
        assert_eq!(page_ends(&mut cursor, 3, false), (vec![], true));
        assert_eq!(page_ends(&mut cursor, 5, false), (vec![], false));
    }

    /// An inbox with holes between its positions, delivered with losses, repeats and full queues, in any order of
    /// live items and pages: what is enqueued is the inbox, each item once, in order.
    #[derive(Debug, Clone)]
    enum Step {
        Append(u64),
        LoseNext,
        Full,
        Repeat(usize),
        Begin,
        Page(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => (1u64..4).prop_map(Step::Append),
            1 => Just(Step::LoseNext),
            1 => Just(Step::Full),
            1 => (0usize..50).prop_map(Step::Repeat),
            2 => Just(Step::Begin),
            4 => (1usize..5).prop_map(Step::Page),
        ];
        proptest::collection::vec(step, 0..120)
    }

    fn page(cursor: &mut SyncCursor<u64>, inbox: &[u64], limit: usize, delivered: &mut Vec<u64>) {
        let after: Vec<u64> = inbox.iter().copied().filter(|&item| item > cursor.position().get()).collect();
        let taken = &after[..limit.min(after.len())];
        delivered.extend_from_slice(taken);
        let upto = taken.last().copied().unwrap_or(cursor.position().get());
        delivered.extend(cursor.handle_page(position(upto), taken.len() < after.len()).released);
    }

    proptest! {
        #[test]
        fn every_item_is_enqueued_once_and_in_order(steps in steps()) {
            let mut cursor = SyncCursor::live_at(Position::ZERO);
            let (mut inbox, mut delivered): (Vec<u64>, Vec<u64>) = (Vec::new(), Vec::new());
            let (mut lose, mut full, mut clock) = (false, false, 0);
            for step in steps {
                match step {
                    Step::Append(gap) => {
                        let previous = inbox.last().copied().unwrap_or(0);
                        clock += gap;
                        inbox.push(clock);
                        if !std::mem::take(&mut lose)
                            && let Live::Deliver(at) =
                                item(&mut cursor, place(previous, clock, clock), !std::mem::take(&mut full))
                        {
                            delivered.push(at);
                        }
                    }
                    Step::LoseNext => lose = true,
                    Step::Full => full = true,
                    Step::Repeat(index) if index < inbox.len() => {
                        let previous = if index == 0 { 0 } else { inbox[index - 1] };
                        let repeated = place(previous, inbox[index], inbox[index]);
                        if let Live::Deliver(at) = item(&mut cursor, repeated, true) {
                            delivered.push(at);
                        }
                    }
                    Step::Begin => cursor.begin_page(),
                    Step::Repeat(_) => {}
                    Step::Page(limit) if cursor.is_reading() => page(&mut cursor, &inbox, limit, &mut delivered),
                    Step::Page(_) => {}
                }
                prop_assert_eq!(&delivered[..], &inbox[..delivered.len()]);
            }
            // A lost last item shows with the next one, or on resume.
            cursor = SyncCursor::reading_from(cursor.position());
            while cursor.is_reading() {
                page(&mut cursor, &inbox, 3, &mut delivered);
            }
            prop_assert_eq!(delivered, inbox);
        }
    }
}
