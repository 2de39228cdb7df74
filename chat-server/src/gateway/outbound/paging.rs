//! A connection that reads its inbox: from where, whether it may, and where it stands afterwards.

use madang_ids::{Cursor, Epoch, Position};

use super::Outbound;

impl Outbound {
    /// Whether a page of the inbox may be read: there is room, or the connection holds nothing and the node has room.
    /// If not, it gives back what it can: held items are in the inbox as well.
    pub(crate) fn may_page(&self) -> bool {
        let mut state = self.state.lock();
        if !state.account.has_room() {
            state.sync.let_go();
            state.settle();
        }
        state.account.has_room() || (state.queue.is_empty() && !state.account.is_node_full())
    }

    /// Something was lost on the way here: read the inbox.
    pub(crate) fn read_inbox(&self) {
        self.state.lock().sync.read();
        self.wake.notify_one();
    }

    /// Whether the inbox must be read.
    pub(crate) fn is_reading(&self) -> bool {
        self.state.lock().sync.is_reading()
    }

    /// Begins a page: where to read the inbox from, if it must be read; and whether `resync` is to be said first.
    pub(crate) fn begin_page(&self) -> Option<(Position, Option<Epoch>, bool)> {
        let mut state = self.state.lock();
        if !state.sync.is_reading() {
            return None;
        }
        state.sync.begin_page();
        let fell_behind = std::mem::take(&mut state.fell_behind);
        Some((state.sync.position(), state.epoch, fell_behind))
    }

    /// A page was pushed: what came meanwhile goes on behind it.
    pub(crate) fn handle_page(&self, upto: Cursor, more: bool) {
        let mut state = self.state.lock();
        state.epoch = Some(upto.epoch);
        let after = state.sync.handle_page(upto.position, more);
        after.released.iter().for_each(|frames| state.enqueue(frames));
    }

    /// The cursor does not serve: go on from `end`.
    pub(crate) fn start_over(&self, end: Cursor) {
        let mut state = self.state.lock();
        state.epoch = Some(end.epoch);
        // A cursor for the end is sent, so that a client that needs no history can resume from there.
        state.told = Position::new(end.position.get().saturating_sub(1));
        let after = state.sync.jump(end.position);
        after.released.iter().for_each(|frames| state.enqueue(frames));
    }
}
