//! A session's cursor over its user's inbox. Live delivery is the fast path of the same cursor: there is one
//! mechanism, not two.
//!
//! The shell registers the connection first and reads the inbox from the cursor next. A live item is delivered if
//! the cursor stands between the item before and it; what the cursor has passed is dropped; anything else means a
//! gap, and the inbox is read.

use madang_ids::Position;

/// What a live item says about its place in the user's inbox. An item may be a batch of several positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The last position of the item before it.
    pub previous: Position,
    /// Its own first position.
    pub first: Position,
    /// Its own last position.
    pub last: Position,
}

/// What to do with a live item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Live {
    /// Enqueue it; the cursor has moved behind it.
    Deliver,
    /// It was delivered before, or will be read: do nothing.
    Drop,
    /// Read the inbox from the cursor; nothing was read before.
    Read,
}

/// What to do after a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterPage {
    /// Read the next page from the cursor.
    Read,
    /// Live items are delivered again.
    Live,
}

/// The cursor and whether it moves by live items or by pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SyncCursor {
    position: Position,
    /// While pages are read: the last position that was seen to exist.
    reading_to: Option<Position>,
}

impl SyncCursor {
    /// A cursor that reads the inbox first.
    #[must_use]
    pub const fn reading_from(position: Position) -> Self {
        Self { position, reading_to: Some(position) }
    }

    /// A cursor that stands at the end.
    #[must_use]
    pub const fn live_at(position: Position) -> Self {
        Self { position, reading_to: None }
    }

    /// Everything up to here was enqueued.
    #[must_use]
    pub const fn position(&self) -> Position {
        self.position
    }

    /// Whether pages are being read.
    #[must_use]
    pub const fn is_reading(&self) -> bool {
        self.reading_to.is_some()
    }

    /// A live item came. `has_room` tells whether the outbound queue takes it.
    pub fn handle_item(&mut self, place: Place, has_room: bool) -> Live {
        if place.last <= self.position {
            return Live::Drop;
        }
        if let Some(seen) = &mut self.reading_to {
            *seen = (*seen).max(place.last);
            return Live::Drop;
        }
        let follows = place.previous <= self.position && self.position < place.first;
        if follows && has_room {
            self.position = place.last;
            return Live::Deliver;
        }
        self.reading_to = Some(place.last);
        Live::Read
    }

    /// The cursor does not serve: go on from `end`, which was taken after the connection was registered. What was
    /// seen to exist beyond it is read.
    pub fn jump(&mut self, end: Position) -> AfterPage {
        self.position = end;
        if self.reading_to.is_none() {
            self.reading_to = Some(end);
        }
        self.handle_page(end, false)
    }

    /// A page was enqueued: everything up to `upto` is on its way, and `more` tells whether the inbox goes on.
    ///
    /// A page is one consistent read, so what was seen to exist before it was asked for is in it or in `more`.
    pub fn handle_page(&mut self, upto: Position, more: bool) -> AfterPage {
        self.position = self.position.max(upto);
        match self.reading_to {
            Some(seen) if more || seen > self.position => AfterPage::Read,
            _ => {
                self.reading_to = None;
                AfterPage::Live
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn position(value: u64) -> Position {
        Position::new(value)
    }

    fn place(previous: u64, first: u64, last: u64) -> Place {
        Place { previous: position(previous), first: position(first), last: position(last) }
    }

    #[test]
    fn live_items_follow_each_other() {
        let mut cursor = SyncCursor::live_at(position(5));
        assert_eq!(cursor.handle_item(place(3, 7, 9), true), Live::Deliver);
        assert_eq!(cursor.handle_item(place(3, 7, 9), true), Live::Drop);
        assert_eq!(cursor.handle_item(place(12, 13, 13), true), Live::Read);
        assert_eq!(cursor.handle_item(place(13, 14, 14), true), Live::Drop);
        assert_eq!(cursor.handle_page(position(12), true), AfterPage::Read);
        assert_eq!(cursor.handle_page(position(14), false), AfterPage::Live);
        assert_eq!(cursor.handle_item(place(14, 15, 15), true), Live::Deliver);
    }

    #[test]
    fn a_full_queue_falls_back_to_reading() {
        let mut cursor = SyncCursor::live_at(position(1));
        assert_eq!(cursor.handle_item(place(1, 2, 2), false), Live::Read);
        assert_eq!(cursor.position(), position(1));
    }

    #[test]
    fn a_cursor_inside_a_batch_reads_the_rest() {
        let mut cursor = SyncCursor::live_at(position(8));
        assert_eq!(cursor.handle_item(place(3, 7, 9), true), Live::Read);
    }

    /// An inbox with holes between its positions, delivered with losses, repeats and full queues, in any order of
    /// live items and pages: what is enqueued is the inbox, each item once, in order.
    #[derive(Debug, Clone)]
    enum Step {
        Append(u64),
        LoseNext,
        Full,
        Repeat(usize),
        Page(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => (1u64..4).prop_map(Step::Append),
            1 => Just(Step::LoseNext),
            1 => Just(Step::Full),
            1 => (0usize..50).prop_map(Step::Repeat),
            4 => (1usize..5).prop_map(Step::Page),
        ];
        proptest::collection::vec(step, 0..120)
    }

    fn page(cursor: &mut SyncCursor, inbox: &[u64], limit: usize, delivered: &mut Vec<u64>) {
        let after: Vec<u64> = inbox.iter().copied().filter(|&item| item > cursor.position().get()).collect();
        let taken = &after[..limit.min(after.len())];
        delivered.extend_from_slice(taken);
        let upto = taken.last().copied().unwrap_or(cursor.position().get());
        cursor.handle_page(position(upto), taken.len() < after.len());
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
                            && cursor.handle_item(place(previous, clock, clock), !std::mem::take(&mut full)) == Live::Deliver
                        {
                            delivered.push(clock);
                        }
                    }
                    Step::LoseNext => lose = true,
                    Step::Full => full = true,
                    Step::Repeat(index) if index < inbox.len() => {
                        let previous = if index == 0 { 0 } else { inbox[index - 1] };
                        if cursor.handle_item(place(previous, inbox[index], inbox[index]), true) == Live::Deliver {
                            delivered.push(inbox[index]);
                        }
                    }
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
