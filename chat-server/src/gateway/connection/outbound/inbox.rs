//! The inbox of a connection's user on its way out: live items, pages, and the cursor behind them.

use std::sync::Arc;

use madang_auth::Cursors;
use madang_engine::sync::{Live, Place, SyncCursor};
use madang_ids::{Cursor, Epoch, Position, UserId};

use super::state::State;
use super::{Frames, Outbound};
use crate::gateway::delivery::encode::{self, Frame};

/// How far the connection has come in the inbox.
#[derive(Debug)]
pub(super) struct InboxCursor {
    sync: SyncCursor<Frames>,
    /// The user whose inbox is read, once known.
    user: Option<UserId>,
    /// Known from the first page on.
    epoch: Option<Epoch>,
    /// The position of the last `cursor` frame that was enqueued.
    sent: Position,
    /// A live item found the queue full: the next page is preceded by `resync`.
    fell_behind: bool,
}

impl Default for InboxCursor {
    fn default() -> Self {
        Self {
            // The client's own position is not used here: it is only trusted once the inbox has accepted it.
            sync: SyncCursor::reading_from(Position::ZERO),
            user: None,
            epoch: None,
            sent: Position::ZERO,
            fell_behind: false,
        }
    }
}

impl InboxCursor {
    /// Bytes of live items that are held until a page was written.
    pub(super) fn held_bytes(&self) -> usize {
        self.sync.held_bytes()
    }
}

impl State {
    /// Enqueues one cursor behind everything that waits.
    pub(super) fn push_cursor(&mut self, cursors: &Cursors) {
        let inbox = &mut self.inbox;
        let position = inbox.sync.position();
        if let Some((user, epoch)) = inbox.user.zip(inbox.epoch).filter(|_| position > inbox.sent) {
            inbox.sent = position;
            match cursors.seal(user, Cursor { epoch, position }) {
                Ok(sealed) => self.push(encode::cursor(&sealed)),
                // A client whose cursor lags behind receives more entries twice and loses none.
                Err(error) => tracing::error!(%error, user.id = %user, "sealing a cursor failed"),
            }
        }
    }
}

impl Outbound {
    /// Opens the connection for a device of `user` that has received everything up to `position`.
    pub(crate) fn open(&self, user: UserId, position: Position) {
        let inbox = &mut self.state.lock().inbox;
        (inbox.user, inbox.sent) = (Some(user), position);
    }

    /// Delivers a live item. `true` if the connection fell behind because the queue is full.
    pub(crate) fn deliver(
        self: &Arc<Self>,
        frames: &Frames,
        place: Place,
        sees_all: bool,
        limit_bytes: usize,
    ) -> bool {
        let mut state = self.state.lock();
        if !state.life.takes_deliveries() {
            return false;
        }
        let size: usize = frames.iter().map(Frame::len).sum();
        let is_full = !state.has_room(size, limit_bytes);
        let item = sees_all.then(|| (Arc::clone(frames), size));
        let is_reading = state.inbox.sync.is_reading();
        // An item that is not held is read from the inbox later.
        let hold_bytes = if !is_reading || state.account.has_room() { limit_bytes } else { 0 };
        match state.inbox.sync.handle_item(place, item, !is_full, hold_bytes) {
            Live::Deliver(frames) => {
                state.enqueue(&frames);
                self.make_due(&mut state);
                false
            }
            Live::Drop => {
                if is_reading {
                    // The item may be held now.
                    state.settle();
                }
                false
            }
            Live::Read => {
                state.inbox.fell_behind |= is_full;
                // The flags are set before the wake, so the task sees them when it runs.
                drop(state);
                self.wake.notify_one();
                is_full
            }
        }
    }

    /// Rows were lost on the way to this node: makes the connection read its inbox.
    pub(crate) fn read_inbox(&self) {
        self.state.lock().inbox.sync.read();
        self.wake.notify_one();
    }

    /// Whether the inbox must be read.
    pub(crate) fn is_reading(&self) -> bool {
        self.state.lock().inbox.sync.is_reading()
    }

    /// Whether a page of the inbox may be read: there is room, or the connection holds nothing and the node has room. If there is
    /// no room, held live items are released, because the inbox has them too.
    pub(crate) fn may_page(&self) -> bool {
        let mut state = self.state.lock();
        if !state.account.has_room() {
            state.inbox.sync.let_go();
            state.settle();
        }
        state.account.has_room() || (state.queue.is_empty() && !state.account.is_node_full())
    }

    /// Begins a page. Returns the position and the epoch to read from, and whether `resync` must be sent first; `None` if the
    /// inbox need not be read.
    pub(crate) fn begin_page(&self) -> Option<(Position, Option<Epoch>, bool)> {
        let inbox = &mut self.state.lock().inbox;
        if !inbox.sync.is_reading() {
            return None;
        }
        inbox.sync.begin_page();
        let fell_behind = std::mem::take(&mut inbox.fell_behind);
        Some((inbox.sync.position(), inbox.epoch, fell_behind))
    }

    /// A page was enqueued. Held live items that continue it are enqueued behind it.
    pub(crate) fn handle_page(&self, upto: Cursor, more: bool) {
        let mut state = self.state.lock();
        state.inbox.epoch = Some(upto.epoch);
        let after = state.inbox.sync.handle_page(upto.position, more);
        after.released.iter().for_each(|frames| state.enqueue(frames));
    }

    /// The cursor cannot be used: continues from `end`.
    pub(crate) fn start_over(&self, end: Cursor) {
        let mut state = self.state.lock();
        state.inbox.epoch = Some(end.epoch);
        // One below the end, so that a cursor frame for the end is sent. A client that needs no history can resume from there.
        state.inbox.sent = Position::new(end.position.get().saturating_sub(1));
        let after = state.inbox.sync.jump(end.position);
        after.released.iter().for_each(|frames| state.enqueue(frames));
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{LIMIT, Pair, cursor, frame, frames, place, said};
    use super::*;

    #[tokio::test]
    async fn a_write_carries_one_cursor_for_all_its_frames() {
        let mut pair = Pair::live().await;
        assert!(!pair.outbound.deliver(&frames("a"), place(4, 5), true, LIMIT));
        assert!(!pair.outbound.deliver(&frames("b"), place(5, 6), true, LIMIT));
        pair.written(&[&frame("a"), &frame("b"), &said(6)]).await;
        pair.written(&[]).await;
    }

    #[tokio::test]
    async fn a_cursor_that_cannot_be_used_is_replaced_by_the_end_of_the_inbox() {
        let mut pair = Pair::new(Some(cursor(u64::MAX / 4))).await;
        pair.outbound.start_over(cursor(9));
        assert!(!pair.outbound.is_reading());
        assert!(!pair.outbound.deliver(&frames("a"), place(9, 10), true, LIMIT));
        pair.written(&[&frame("a"), &said(10)]).await;
    }

    #[tokio::test]
    async fn a_slow_consumer_stays_within_its_bound_and_reads_its_inbox() {
        let mut pair = Pair::live().await;
        let long = "x".repeat(200);
        assert!(!pair.outbound.deliver(&frames(&long), place(4, 5), true, LIMIT));
        assert!(pair.outbound.deliver(&frames(&long), place(5, 6), true, LIMIT));
        assert!(!pair.outbound.deliver(&frames("x"), place(6, 7), true, LIMIT));
        pair.written(&[&frame(&long), &said(5)]).await;
        let (position, _, fell_behind) = pair.outbound.begin_page().expect("it reads its inbox");
        assert_eq!((position, fell_behind), (Position::new(5), true));
        pair.outbound.handle_page(cursor(7), false);
        assert!(!pair.outbound.is_reading());
        pair.written(&[&said(7)]).await;
    }

    #[tokio::test]
    async fn the_inbox_is_read_after_a_loss_and_no_resync_precedes_that_page() {
        let pair = Pair::live().await;
        assert_eq!(pair.outbound.begin_page(), None);
        pair.outbound.read_inbox();
        assert!(pair.outbound.is_reading());
        assert_eq!(pair.outbound.begin_page(), Some((Position::new(4), Some(Epoch::from_raw(1)), false)));
    }

    #[tokio::test]
    async fn no_cursor_is_sent_before_the_user_and_the_first_page_are_known() {
        let mut pair = Pair::new(None).await;
        pair.outbound.push(frame("a"));
        pair.written(&[&frame("a")]).await;
        pair.outbound.handle_page(cursor(4), true);
        assert!(pair.outbound.is_reading(), "there is more");
        pair.written(&[&said(4)]).await;
    }
}
