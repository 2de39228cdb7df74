//! What waits to be written on one connection, and how far it has come.
//!
//! Bounded in bytes (G7). Live items that find no room are not kept: the cursor stays behind them and the connection
//! reads its inbox instead. Answers always find room, since a connection whose answers pile up is not read.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use madang_engine::sync::{Live, Place, SyncCursor};
use madang_ids::{Cursor, DeviceId, Epoch, Millis, Position, UserId};
use madang_proto::CloseReason;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::encode::Frame;
use crate::plant::{self, Fault};

/// What one delivery brings: the same bytes for everybody.
pub(crate) type Frames = Arc<[Frame]>;

/// One connection, as the registry and the use cases see it.
#[derive(Debug)]
pub(crate) struct Outbound {
    /// Whose.
    pub(crate) user_id: UserId,
    /// Which device.
    pub(crate) device_id: DeviceId,
    /// A rising number; the oldest connection of a device is replaced first.
    pub(crate) number: u64,
    state: Mutex<State>,
    wake: Notify,
    in_flight: AtomicU32,
    /// When the session must be looked at again; the sweep wakes the connection then.
    look_at_ms: AtomicU64,
    is_draining: AtomicBool,
}

#[derive(Debug)]
struct State {
    queue: VecDeque<Frame>,
    bytes: usize,
    sync: SyncCursor<Frames>,
    epoch: Option<Epoch>,
    /// The last position that a `cursor` frame told.
    told: Position,
    close: Option<CloseReason>,
    /// The queue was full: say `resync` with the next page.
    fell_behind: bool,
}

impl State {
    fn enqueue(&mut self, frames: &[Frame]) {
        self.bytes += frames.iter().map(|frame| frame.as_str().len()).sum::<usize>();
        if plant::strikes(Fault::SkipFanout) {
            return;
        }
        self.queue.extend(frames.iter().cloned());
        if plant::strikes(Fault::DeliverTwice) {
            self.queue.extend(frames.iter().cloned());
        }
        let last = self.queue.len().saturating_sub(1);
        if last > 0 && plant::strikes(Fault::SwapTwo) {
            self.queue.swap(last - 1, last);
        }
    }
}

/// What is to be written now.
#[derive(Debug)]
pub(crate) struct Batch {
    /// The frames, in order.
    pub(crate) frames: VecDeque<Frame>,
    /// A cursor that was not told yet, true once the frames are written.
    pub(crate) cursor: Option<Cursor>,
    /// Whether to close afterwards.
    pub(crate) close: Option<CloseReason>,
}

impl Outbound {
    /// A connection that will read its inbox first.
    pub(crate) fn new(user_id: UserId, device_id: DeviceId, number: u64, cursor: Option<Cursor>) -> Self {
        let position = cursor.map_or(Position::ZERO, |cursor| cursor.position);
        let state = State {
            queue: VecDeque::new(),
            bytes: 0,
            // The client's number is believed once the inbox has.
            sync: SyncCursor::reading_from(Position::ZERO),
            epoch: None,
            told: position,
            close: None,
            fell_behind: false,
        };
        Self {
            user_id,
            device_id,
            number,
            state: Mutex::new(state),
            wake: Notify::new(),
            in_flight: AtomicU32::new(0),
            look_at_ms: AtomicU64::new(u64::MAX),
            is_draining: AtomicBool::new(false),
        }
    }

    /// A live item. `true` if the connection fell behind by it.
    pub(crate) fn deliver(&self, frames: &Frames, place: Place, sees_all: bool, limit_bytes: usize) -> bool {
        let mut state = self.state.lock();
        let size: usize = frames.iter().map(|frame| frame.as_str().len()).sum();
        let is_full = state.bytes > 0 && state.bytes + size > limit_bytes;
        let item = sees_all.then(|| (Arc::clone(frames), size));
        match state.sync.handle_item(place, item, !is_full, limit_bytes) {
            Live::Deliver(frames) => {
                state.enqueue(&frames);
                drop(state);
                self.wake.notify_one();
                false
            }
            Live::Drop => false,
            Live::Read => {
                state.fell_behind |= is_full;
                drop(state);
                self.wake.notify_one();
                is_full
            }
        }
    }

    /// A frame that must not be lost: an answer, or a page's content.
    pub(crate) fn push(&self, frame: Frame) {
        let mut state = self.state.lock();
        state.bytes += frame.as_str().len();
        state.queue.push_back(frame);
        drop(state);
        self.wake.notify_one();
    }

    /// A request is under way; its answer comes by [`Self::answer`].
    pub(crate) fn begin_request(&self) {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
    }

    /// The answer to a request that was under way.
    pub(crate) fn answer(&self, frame: Frame) {
        let mut state = self.state.lock();
        state.bytes += frame.as_str().len();
        state.queue.push_back(frame);
        // Under the lock: who sees that nothing is in flight sees the answer too.
        self.in_flight.fetch_sub(1, Ordering::AcqRel);
        drop(state);
        self.wake.notify_one();
    }

    /// Whether the socket may be read: neither requests nor answers pile up, and it is not about to be closed.
    pub(crate) fn may_read(&self, requests: u32, limit_bytes: usize) -> bool {
        let state = self.state.lock();
        self.in_flight.load(Ordering::Acquire) < requests
            && state.bytes <= limit_bytes
            && state.close.is_none()
    }

    /// Closes the connection once what is queued is written; a drain also waits for the requests under way.
    pub(crate) fn close(&self, reason: CloseReason) {
        self.state.lock().close.get_or_insert(reason);
        self.wake.notify_one();
    }

    /// Something was lost on the way here: read the inbox.
    pub(crate) fn read_inbox(&self) {
        self.state.lock().sync.read();
        self.wake.notify_one();
    }

    /// Everything that waits, for the connection's task.
    pub(crate) fn take(&self) -> Batch {
        let mut state = self.state.lock();
        let position = state.sync.position();
        let cursor = state.epoch.filter(|_| position > state.told).map(|epoch| Cursor { epoch, position });
        state.told = position;
        state.bytes = 0;
        let has_answered = self.in_flight.load(Ordering::Acquire) == 0;
        let close = state.close.filter(|&reason| reason != CloseReason::Draining || has_answered);
        Batch { frames: std::mem::take(&mut state.queue), cursor, close }
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
        // The end is told: who wants no past may begin there.
        state.told = Position::new(end.position.get().saturating_sub(1));
        let after = state.sync.jump(end.position);
        after.released.iter().for_each(|frames| state.enqueue(frames));
    }

    /// Waits until there is something to do. Cancel safe.
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Wakes the connection's task.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Look again at `at`.
    pub(crate) fn set_look_at(&self, at: Millis) {
        self.look_at_ms.store(at.get(), Ordering::Relaxed);
    }

    /// When to look again.
    pub(crate) fn look_at(&self) -> Millis {
        Millis::new(self.look_at_ms.load(Ordering::Relaxed))
    }

    /// The node drains: `true` the first time.
    pub(crate) fn begin_drain(&self) -> bool {
        !self.is_draining.swap(true, Ordering::AcqRel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor(position: u64) -> Cursor {
        Cursor { epoch: Epoch::from_raw(1), position: Position::new(position) }
    }

    fn live() -> Outbound {
        let outbound = Outbound::new(UserId::from_raw(1), DeviceId::from_raw(2), 1, Some(cursor(4)));
        outbound.handle_page(cursor(4), false);
        assert!(!outbound.is_reading());
        outbound
    }

    fn frames(text: &str) -> Frames {
        Arc::new([Frame::from(text)])
    }

    fn place(previous: u64, at: u64) -> Place {
        Place { previous: Position::new(previous), first: Position::new(at), last: Position::new(at) }
    }

    #[test]
    fn a_batch_carries_one_cursor_for_all_its_frames() {
        let outbound = live();
        assert!(!outbound.deliver(&frames("a"), place(4, 5), true, 100));
        assert!(!outbound.deliver(&frames("b"), place(5, 6), true, 100));
        let batch = outbound.take();
        assert_eq!(batch.frames.len(), 2);
        assert_eq!(batch.cursor, Some(cursor(6)));
        assert_eq!(outbound.take().cursor, None);
    }

    #[test]
    fn a_cursor_that_does_not_serve_is_left_behind() {
        let outbound =
            Outbound::new(UserId::from_raw(1), DeviceId::from_raw(2), 1, Some(cursor(u64::MAX / 4)));
        outbound.start_over(cursor(9));
        assert!(!outbound.is_reading());
        assert!(!outbound.deliver(&frames("a"), place(9, 10), true, 100));
        assert_eq!(outbound.take().cursor, Some(cursor(10)));
    }

    #[test]
    fn a_slow_consumer_keeps_its_bound_and_reads_on() {
        let outbound = live();
        assert!(!outbound.deliver(&frames(&"x".repeat(80)), place(4, 5), true, 100));
        assert!(outbound.deliver(&frames(&"x".repeat(80)), place(5, 6), true, 100));
        assert!(!outbound.deliver(&frames("x"), place(6, 7), true, 100));
        assert_eq!(outbound.take().frames.len(), 1);
        let (position, _, fell_behind) = outbound.begin_page().expect("it reads its inbox");
        assert_eq!((position, fell_behind), (Position::new(5), true));
        outbound.handle_page(cursor(7), false);
        assert!(!outbound.is_reading());
        assert_eq!(outbound.take().cursor, Some(cursor(7)));
    }

    #[test]
    fn a_drain_waits_for_the_requests_under_way() {
        let outbound = live();
        outbound.begin_request();
        outbound.close(CloseReason::Draining);
        assert!(!outbound.may_read(3, 100));
        assert_eq!(outbound.take().close, None);
        outbound.answer("a".into());
        let batch = outbound.take();
        assert_eq!((batch.frames.len(), batch.close), (1, Some(CloseReason::Draining)));
    }

    #[test]
    fn a_connection_whose_answers_pile_up_is_not_read() {
        let outbound = live();
        (0..3).for_each(|_| outbound.begin_request());
        assert!(!outbound.may_read(3, 100));
        outbound.answer("a".into());
        assert!(outbound.may_read(3, 100));
        outbound.answer("x".repeat(200).into());
        assert!(!outbound.may_read(3, 100));
        outbound.take();
        assert!(outbound.may_read(3, 100));
    }
}
