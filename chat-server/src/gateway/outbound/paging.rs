//! A connection that reads its inbox: where a page begins, whether there is room for it, and where the cursor stands after it.

use madang_ids::{Cursor, Epoch, Position};

use super::Outbound;

impl Outbound {
    /// Whether a page of the inbox may be read: there is room, or the connection holds nothing and the node has room. If there is
    /// no room, held live items are released, because the inbox has them too.
    pub(crate) fn may_page(&self) -> bool {
        let mut state = self.state.lock();
        if !state.account.has_room() {
            state.sync.let_go();
            state.settle();
        }
        state.account.has_room() || (state.queue.is_empty() && !state.account.is_node_full())
    }

    /// Rows were lost on the way to this node: makes the connection read its inbox.
    pub(crate) fn read_inbox(&self) {
        self.state.lock().sync.read();
        self.wake.notify_one();
    }

    /// Whether the inbox must be read.
    pub(crate) fn is_reading(&self) -> bool {
        self.state.lock().sync.is_reading()
    }

    /// Begins a page. Returns the position and the epoch to read from, and whether `resync` must be sent first; `None` if the
    /// inbox need not be read.
    pub(crate) fn begin_page(&self) -> Option<(Position, Option<Epoch>, bool)> {
        let mut state = self.state.lock();
        if !state.sync.is_reading() {
            return None;
        }
        state.sync.begin_page();
        let fell_behind = std::mem::take(&mut state.fell_behind);
        Some((state.sync.position(), state.epoch, fell_behind))
    }

    /// A page was enqueued. Held live items that continue it are enqueued behind it.
    pub(crate) fn handle_page(&self, upto: Cursor, more: bool) {
        let mut state = self.state.lock();
        state.epoch = Some(upto.epoch);
        let after = state.sync.handle_page(upto.position, more);
        after.released.iter().for_each(|frames| state.enqueue(frames));
    }

    /// The cursor cannot be used: continues from `end`.
    pub(crate) fn start_over(&self, end: Cursor) {
        let mut state = self.state.lock();
        state.epoch = Some(end.epoch);
        // One below the end, so that a cursor frame for the end is sent. A client that needs no history can resume from there.
        state.told = Position::new(end.position.get().saturating_sub(1));
        let after = state.sync.jump(end.position);
        after.released.iter().for_each(|frames| state.enqueue(frames));
    }
}
