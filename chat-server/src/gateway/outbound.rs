//! One connection as the rest of the gateway sees it: what waits to be written, and how far its cursor has come.
//!
//! The queue is bounded in bytes (G7). Live items that find no room are not kept: the cursor stays before them and the connection
//! reads its inbox instead. Answers always find room, because the socket is not read while answers pile up.
//!
//! Any task that holds the lock may write: usually the lane, and the connection's own task for what it enqueues itself and while
//! the kernel takes no more.

mod paging;
mod subscriptions;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use madang_auth::Cursors;
use madang_engine::subscriptions::Subscriptions;
use madang_engine::sync::{Live, Place, SyncCursor};
use madang_ids::{Cursor, Epoch, Position, UserId};
use madang_proto::CloseReason;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::encode::{self, Frame};
use super::lane::Lane;
use super::ledger::{Account, FREE_BYTES};
use super::pipe::Pipe;
use super::queue::Queue;
use crate::metrics::ChatMetrics;
use crate::plant::{self, Fault};

pub(crate) use subscriptions::{HeadsFrames, OpenFrames};

/// The bound of the requests in flight on one connection, in bytes; the request that crosses it is let in. A home refuses
/// commands above a bound of its own, and one connection alone must not fill it.
const IN_FLIGHT_BYTES: usize = 1024 * 1024;

/// The encoded frames of one delivery. All receivers share the same bytes.
pub(crate) type Frames = Arc<[Frame]>;

/// One connection, as the registry and the use cases see it. The lock is held for short, never while waiting.
#[derive(Debug)]
pub(crate) struct Outbound {
    /// Rises with each connection of the node. The oldest connection of a device is replaced first.
    pub(crate) number: u64,
    pipe: Pipe,
    lane: Arc<Lane>,
    state: Mutex<State>,
    /// Wakes the connection's task. It keeps one permit, so a wake between two waits is not lost.
    wake: Notify,
    /// When the session must be looked at again, in milliseconds of the steady clock. The sweep wakes the connection then.
    look_at_ms: AtomicU64,
}

#[derive(Debug)]
struct State {
    /// The bytes that the connection holds, counted for its user, its address and the node.
    account: Account,
    queue: Queue,
    sync: SyncCursor<Frames>,
    /// To open channels. `None` if there are none.
    subscriptions: Option<Box<Subscriptions>>,
    /// The user whose inbox is read, once known.
    user: Option<UserId>,
    epoch: Option<Epoch>,
    /// The position of the last `cursor` frame that was enqueued.
    told: Position,
    /// The number of requests that [`Outbound::answer`] will answer.
    in_flight: u32,
    /// The size of those requests as JSON, in bytes.
    in_flight_bytes: usize,
    /// Bytes of an incoming message that is not complete.
    incoming_bytes: usize,
    /// Another task has asked to close the connection, for this reason.
    close: Option<CloseReason>,
    /// Since when the kernel takes nothing.
    blocked: Option<Instant>,
    /// The connection is in the list of its lane.
    is_due: bool,
    /// The task does not read the socket until something was written or answered.
    is_stalled: bool,
    /// The close frame is enqueued. Later frames are dropped.
    is_over: bool,
    /// The socket is closed. Nothing is written any more.
    is_gone: bool,
    /// `welcome` was sent, and events are accepted.
    is_welcomed: bool,
    /// The client has said that nobody uses it.
    is_idle: bool,
    /// A live item found the queue full: the next page is preceded by `resync`.
    fell_behind: bool,
}

/// The result of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    /// Nothing waits any more.
    All,
    /// The kernel takes no more at the moment.
    Blocked,
    /// The peer has gone.
    Gone,
}

impl State {
    /// The connection is about to be closed for another reason than a drain. No delivery and no event is for it any more, even if
    /// its task is still busy with a request (G5).
    fn is_cut_off(&self) -> bool {
        self.close.is_some_and(|reason| reason != CloseReason::Draining)
    }

    fn push(&mut self, frame: Frame) {
        if !self.is_over && !self.is_gone {
            self.queue.push(frame);
            self.settle();
        }
    }

    fn held_bytes(&self) -> usize {
        self.queue.bytes() + self.sync.held_bytes() + self.in_flight_bytes + self.incoming_bytes
    }

    fn settle(&mut self) {
        self.account.set(self.held_bytes());
    }

    /// Whether `size` more bytes may wait. A small queue has room even if the user, the address or the node has not.
    fn has_room(&self, size: usize, limit_bytes: usize) -> bool {
        let bytes = self.queue.bytes() + size;
        self.queue.is_empty() || (bytes <= limit_bytes && (bytes <= FREE_BYTES || self.account.has_room()))
    }

    fn enqueue(&mut self, frames: &[Frame]) {
        if plant::strikes(Fault::SkipFanout) {
            return;
        }
        frames.iter().for_each(|frame| self.push(frame.clone()));
        if plant::strikes(Fault::DeliverTwice) {
            frames.iter().for_each(|frame| self.push(frame.clone()));
        }
        if plant::strikes(Fault::SwapTwo) {
            self.queue.swap_last_two();
        }
    }

    /// Enqueues one cursor behind everything that waits.
    fn tell_cursor(&mut self, cursors: &Cursors) {
        let position = self.sync.position();
        if let Some((user, epoch)) = self.user.zip(self.epoch).filter(|_| position > self.told) {
            self.told = position;
            match cursors.seal(user, Cursor { epoch, position }) {
                Ok(sealed) => self.push(encode::cursor(&sealed)),
                // A client whose cursor lags behind receives more entries twice and loses none.
                Err(error) => tracing::error!(%error, user.id = %user, "sealing a cursor failed"),
            }
        }
    }

    fn write(&mut self, pipe: &Pipe, cursors: &Cursors, metrics: &ChatMetrics) -> Written {
        self.tell_cursor(cursors);
        let keeps_room = self.subscriptions.is_some();
        // Gaps come last: rows behind a gap are delivered only once everything before it was written, so that there is room for
        // them.
        while !self.is_gone && (!self.queue.is_empty() || pipe.has_rest() || self.tell_gaps()) {
            match self.queue.write(keeps_room, |slices| pipe.write(slices)) {
                Ok(_) => {
                    metrics.writes.inc();
                    self.blocked = None;
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    self.settle();
                    self.blocked.get_or_insert_with(Instant::now);
                    return Written::Blocked;
                }
                Err(_) => self.go(),
            }
        }
        self.settle();
        self.blocked = None;
        if self.is_gone { Written::Gone } else { Written::All }
    }

    fn go(&mut self) {
        self.queue.clear();
        self.settle();
        self.is_gone = true;
    }
}

impl Outbound {
    /// A connection that reads its inbox first.
    pub(super) fn new(number: u64, pipe: Pipe, lane: Arc<Lane>, account: Account) -> Self {
        let state = State {
            account,
            queue: Queue::default(),
            // The client's own position is not used here: it is only trusted once the inbox has accepted it.
            sync: SyncCursor::reading_from(Position::ZERO),
            subscriptions: None,
            user: None,
            epoch: None,
            told: Position::ZERO,
            in_flight: 0,
            in_flight_bytes: 0,
            incoming_bytes: 0,
            close: None,
            blocked: None,
            is_due: false,
            is_stalled: false,
            is_over: false,
            is_gone: false,
            is_welcomed: false,
            is_idle: false,
            fell_behind: false,
        };
        let (state, wake, look_at_ms) = (Mutex::new(state), Notify::new(), AtomicU64::new(u64::MAX));
        Self { number, pipe, lane, state, wake, look_at_ms }
    }

    /// The TCP socket, to wait for readiness.
    pub(super) const fn tcp(&self) -> &TcpStream {
        self.pipe.tcp()
    }

    /// The pipe, to read from.
    pub(super) const fn pipe(&self) -> &Pipe {
        &self.pipe
    }

    /// Names the user: what the connection holds is counted for that user too.
    pub(crate) fn set_user(&self, user: UserId) {
        self.state.lock().account.set_user(user);
    }

    /// Counts an incoming message of which `bytes` are announced, or none any more (0). `false` if the user, the address or the
    /// node has no room for it.
    pub(super) fn hold_incoming(&self, bytes: usize) -> bool {
        let mut state = self.state.lock();
        let before = std::mem::replace(&mut state.incoming_bytes, bytes);
        let held_bytes = state.held_bytes();
        let has_room = state.account.try_set(held_bytes);
        if !has_room {
            state.incoming_bytes = before;
        }
        has_room
    }

    /// Whether a large answer may be made: neither the user, nor the address, nor the node has reached its bound.
    pub(crate) fn may_ask(&self) -> bool {
        self.state.lock().account.has_room()
    }

    /// Whether more than [`FREE_BYTES`] wait and the kernel has taken nothing for `patience`.
    pub(crate) fn is_hoarding(&self, patience: Duration) -> bool {
        let state = self.state.lock();
        state.queue.bytes() > FREE_BYTES && state.blocked.is_some_and(|since| since.elapsed() >= patience)
    }

    /// Opens the connection for a device of `user` that has received everything up to `position`.
    pub(crate) fn open(&self, user: UserId, position: Position) {
        let mut state = self.state.lock();
        (state.user, state.told) = (Some(user), position);
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
        if state.is_cut_off() {
            return false;
        }
        let size: usize = frames.iter().map(Frame::len).sum();
        let is_full = !state.has_room(size, limit_bytes);
        let item = sees_all.then(|| (Arc::clone(frames), size));
        let is_reading = state.sync.is_reading();
        // An item that is not held is read from the inbox later.
        let hold_bytes = if !is_reading || state.account.has_room() { limit_bytes } else { 0 };
        match state.sync.handle_item(place, item, !is_full, hold_bytes) {
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
                state.fell_behind |= is_full;
                // The flags are set before the wake, so the task sees them when it runs.
                drop(state);
                self.wake.notify_one();
                is_full
            }
        }
    }

    /// Enqueues a frame of the connection's own task, which writes it afterwards. Such a frame is never dropped for lack of room:
    /// it is an answer or the content of a page.
    pub(crate) fn push(&self, frame: Frame) {
        self.state.lock().push(frame);
    }

    /// As [`Self::push`], for other tasks: the lane writes the frame soon.
    pub(crate) fn post(self: &Arc<Self>, frame: Frame) {
        let mut state = self.state.lock();
        state.push(frame);
        self.make_due(&mut state);
    }

    /// Enqueues an event, which must not push out durable entries. `false` if it was dropped because too much waits. Before
    /// `welcome` and after a close, events are dropped and the result is `true`.
    pub(crate) fn offer(self: &Arc<Self>, frame: &Frame, limit_bytes: usize) -> bool {
        let mut state = self.state.lock();
        if state.queue.bytes() > limit_bytes / 2 {
            return false;
        }
        if state.is_welcomed && !state.is_cut_off() {
            state.push(frame.clone());
            self.make_due(&mut state);
        }
        true
    }

    /// Accepts events from now on.
    pub(crate) fn welcome(&self) {
        self.state.lock().is_welcomed = true;
    }

    /// Whether the client has said that nobody uses it. `None` before `welcome`.
    pub(crate) fn idle(&self) -> Option<bool> {
        let state = self.state.lock();
        state.is_welcomed.then_some(state.is_idle)
    }

    /// Sets whether nobody uses the client, as the client says.
    pub(crate) fn set_idle(&self, is_idle: bool) {
        self.state.lock().is_idle = is_idle;
    }

    /// Counts a request of `bytes` that [`Self::answer`] will answer.
    pub(crate) fn begin_request(&self, bytes: usize) {
        let mut state = self.state.lock();
        state.in_flight += 1;
        state.in_flight_bytes += bytes;
        state.settle();
    }

    /// Answers a request of `bytes` that was counted by [`Self::begin_request`].
    pub(crate) fn answer(self: &Arc<Self>, frame: Frame, bytes: usize) {
        let mut state = self.state.lock();
        state.in_flight -= 1;
        state.in_flight_bytes -= bytes;
        state.push(frame);
        self.make_due(&mut state);
    }

    /// Puts the connection into its lane. While the kernel takes nothing, the connection's task waits for the socket and writes
    /// everything once it can, so the lane is not needed.
    fn make_due(self: &Arc<Self>, state: &mut State) {
        if state.blocked.is_none() && !std::mem::replace(&mut state.is_due, true) {
            self.lane.add(Arc::clone(self));
        }
    }

    /// Writes what waits. Called by the lane.
    pub(super) fn write_due(&self, metrics: &ChatMetrics) {
        let mut state = self.state.lock();
        // Cleared before the write and under the lock: a frame that is pushed afterwards puts the connection into the lane again.
        state.is_due = false;
        let written = state.write(&self.pipe, self.lane.cursors(), metrics);
        // The task must know that the kernel takes no more, that it may read again, or that a close may be due now.
        let concerns_task = written != Written::All || state.is_stalled || state.close.is_some();
        drop(state);
        if concerns_task {
            self.wake.notify_one();
        }
    }

    /// Writes what waits and one cursor behind it, as far as the kernel takes it.
    pub(crate) fn write(&self, metrics: &ChatMetrics) -> Written {
        self.state.lock().write(&self.pipe, self.lane.cursors(), metrics)
    }

    /// Bytes that wait.
    #[cfg(test)]
    fn waiting_bytes(&self) -> usize {
        self.state.lock().queue.bytes()
    }

    /// Since when the kernel takes nothing.
    pub(crate) fn blocked(&self) -> Option<Instant> {
        self.state.lock().blocked
    }

    /// Whether the socket may be read: neither requests nor answers pile up, and the connection is not about to be closed. If it
    /// may not, the task is woken when that may have changed.
    pub(crate) fn may_read(&self, requests: u32, limit_bytes: usize) -> bool {
        let mut state = self.state.lock();
        let may_read = state.in_flight < requests
            && state.in_flight_bytes < IN_FLIGHT_BYTES
            && state.queue.bytes() <= limit_bytes
            && state.close.is_none();
        // Set under the lock of the counters: an answer that comes after this check finds the flag and wakes the task.
        state.is_stalled = !may_read;
        may_read
    }

    /// Asks the connection's task to close the connection. A drain waits for the requests in flight and for queued frames.
    pub(crate) fn close(&self, reason: CloseReason) {
        let mut state = self.state.lock();
        // Any other reason replaces a drain, and does not wait. The first other reason stays.
        if state.close.is_none_or(|reason| reason == CloseReason::Draining) {
            state.close = Some(reason);
        }
        drop(state);
        self.wake.notify_one();
    }

    /// Whether a close was asked for.
    pub(crate) fn is_closing(&self) -> bool {
        self.state.lock().close.is_some()
    }

    /// The reason for which the connection must be closed now, if any.
    pub(crate) fn close_due(&self) -> Option<CloseReason> {
        let state = self.state.lock();
        let has_answered = state.in_flight == 0 && state.queue.is_empty();
        state.close.filter(|&reason| reason != CloseReason::Draining || has_answered)
    }

    /// Enqueues the close frame. Later frames are dropped.
    pub(crate) fn push_close(&self, reason: CloseReason) {
        let mut state = self.state.lock();
        state.push(Frame::close(reason));
        state.is_over = true;
    }

    /// Ends the socket at once, even if other tasks still hold the connection.
    pub(crate) fn shut_down(&self) {
        self.state.lock().go();
        self.pipe.shut_down();
    }

    /// Waits until the task is woken. Cancel safe.
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Wakes the connection's task.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Sets when the session must be looked at again, by the steady clock.
    pub(crate) fn set_look_at(&self, at: Duration) {
        self.look_at_ms.store(u64::try_from(at.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// When the session must be looked at again, by the steady clock.
    pub(crate) fn look_at(&self) -> Duration {
        Duration::from_millis(self.look_at_ms.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::ledger::tests::account;
    use madang_service::Metrics;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    const LIMIT: usize = 300;

    /// A connection and its peer.
    pub(super) struct Pair {
        pub(super) outbound: Arc<Outbound>,
        peer: TcpStream,
        metrics: ChatMetrics,
    }

    const USER: UserId = UserId::from_raw(7);

    fn cursor(position: u64) -> Cursor {
        Cursor { epoch: Epoch::from_raw(1), position: Position::new(position) }
    }

    impl Pair {
        async fn new(at: Option<Cursor>) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let tcp = listener.accept().await.unwrap().0;
            let outbound = Arc::new(Outbound::new(1, Pipe::Plain(tcp), Lane::idle(), account()));
            outbound.open(USER, at.map_or(Position::ZERO, |cursor| cursor.position));
            Self { outbound, peer, metrics: ChatMetrics::register(&Metrics::new()) }
        }

        pub(super) async fn live() -> Self {
            let pair = Self::new(Some(cursor(4))).await;
            pair.outbound.handle_page(cursor(4), false);
            assert!(!pair.outbound.is_reading());
            pair
        }

        /// Checks that exactly `expected` is written now.
        pub(super) async fn written(&mut self, expected: &[&Frame]) {
            assert_eq!(self.outbound.write(&self.metrics), Written::All);
            let expected: Vec<u8> = expected.iter().flat_map(|frame| frame.bytes()).copied().collect();
            let mut bytes = vec![0; expected.len()];
            self.peer.read_exact(&mut bytes).await.unwrap();
            assert_eq!(bytes, expected);
            // Lets the runtime notice bytes that have arrived.
            tokio::task::yield_now().await;
            let mut more = [0];
            assert!(self.peer.try_read(&mut more).is_err(), "more was written");
        }
    }

    pub(super) fn said(position: u64) -> Frame {
        encode::cursor(&Lane::idle().cursors().seal(USER, cursor(position)).unwrap())
    }

    pub(super) fn frame(text: &str) -> Frame {
        Frame::written(text.as_bytes())
    }

    pub(super) fn frames(text: &str) -> Frames {
        Arc::new([frame(text)])
    }

    pub(super) fn place(previous: u64, at: u64) -> Place {
        Place { previous: Position::new(previous), first: Position::new(at), last: Position::new(at) }
    }

    #[tokio::test]
    async fn a_write_carries_one_cursor_for_all_its_frames() {
        let mut pair = Pair::live().await;
        assert!(!pair.outbound.deliver(&frames("a"), place(4, 5), true, LIMIT));
        assert!(!pair.outbound.deliver(&frames("b"), place(5, 6), true, LIMIT));
        pair.written(&[&frame("a"), &frame("b"), &said(6)]).await;
        pair.written(&[]).await;
    }

    #[tokio::test]
    #[should_panic(expected = "more was written")]
    async fn the_check_notices_unexpected_bytes() {
        let mut pair = Pair::live().await;
        assert!(!pair.outbound.deliver(&frames("a"), place(4, 5), true, LIMIT));
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
    async fn a_drain_waits_for_the_requests_in_flight() {
        let mut pair = Pair::live().await;
        pair.outbound.begin_request(10);
        pair.outbound.close(CloseReason::Draining);
        assert!(!pair.outbound.may_read(3, LIMIT));
        assert_eq!(pair.outbound.close_due(), None);
        pair.outbound.answer(frame("a"), 10);
        assert_eq!(pair.outbound.close_due(), None, "the answer waits");
        pair.written(&[&frame("a")]).await;
        assert_eq!(pair.outbound.close_due(), Some(CloseReason::Draining));
    }

    #[tokio::test]
    async fn a_drain_gives_way_to_a_revocation() {
        let pair = Pair::live().await;
        pair.outbound.begin_request(10);
        pair.outbound.close(CloseReason::Draining);
        pair.outbound.close(CloseReason::DeviceRevoked);
        pair.outbound.close(CloseReason::Replaced);
        assert_eq!(pair.outbound.close_due(), Some(CloseReason::DeviceRevoked));
    }

    #[tokio::test]
    async fn a_revoked_connection_receives_nothing_more_even_with_a_request_in_flight() {
        let mut pair = Pair::live().await;
        pair.outbound.begin_request(10);
        pair.outbound.close(CloseReason::DeviceRevoked);
        assert!(!pair.outbound.deliver(&frames("late"), place(4, 5), true, LIMIT));
        assert!(pair.outbound.offer(&frame("typing"), LIMIT));
        pair.outbound.push_close(CloseReason::DeviceRevoked);
        pair.written(&[&Frame::close(CloseReason::DeviceRevoked)]).await;
    }

    #[tokio::test]
    async fn events_are_enqueued_after_welcome_and_only_while_little_waits() {
        let mut pair = Pair::live().await;
        assert!(pair.outbound.offer(&frame("early"), LIMIT));
        assert_eq!(pair.outbound.idle(), None);
        pair.outbound.welcome();
        assert_eq!(pair.outbound.idle(), Some(false));
        assert!(pair.outbound.offer(&frame("a"), LIMIT));
        let long = frame(&"x".repeat(LIMIT / 2));
        pair.outbound.push(long.clone());
        assert!(!pair.outbound.offer(&frame("b"), LIMIT));
        // A durable entry still finds room.
        assert!(!pair.outbound.deliver(&frames("c"), place(4, 5), true, 2 * LIMIT));
        pair.written(&[&frame("a"), &long, &frame("c"), &said(5)]).await;
        assert!(pair.outbound.offer(&frame("d"), LIMIT));
    }

    #[tokio::test]
    async fn nothing_comes_behind_the_close_frame() {
        let mut pair = Pair::live().await;
        pair.outbound.push(frame("a"));
        pair.outbound.push_close(CloseReason::Replaced);
        assert!(!pair.outbound.deliver(&frames("b"), place(4, 5), true, LIMIT));
        pair.outbound.push(frame("c"));
        pair.written(&[&frame("a"), &Frame::close(CloseReason::Replaced)]).await;
    }

    #[tokio::test]
    async fn a_connection_whose_answers_pile_up_is_not_read() {
        let mut pair = Pair::live().await;
        (0..3).for_each(|_| pair.outbound.begin_request(10));
        assert!(!pair.outbound.may_read(3, LIMIT));
        pair.outbound.answer(frame("a"), 10);
        assert!(pair.outbound.may_read(3, LIMIT));
        pair.outbound.begin_request(IN_FLIGHT_BYTES);
        assert!(!pair.outbound.may_read(9, LIMIT));
        pair.outbound.answer(frame("b"), IN_FLIGHT_BYTES);
        assert!(pair.outbound.may_read(9, LIMIT));
        let long = frame(&"x".repeat(400));
        pair.outbound.answer(long.clone(), 10);
        assert!(!pair.outbound.may_read(3, LIMIT));
        pair.written(&[&frame("a"), &frame("b"), &long]).await;
        assert!(pair.outbound.may_read(3, LIMIT));
    }

    #[tokio::test]
    async fn a_peer_that_does_not_read_blocks_its_connection_until_it_reads() {
        let mut pair = Pair::live().await;
        let text = "x".repeat(60_000);
        let last = frame("last");
        let mut pushed = 0;
        while pair.outbound.write(&pair.metrics) == Written::All {
            pair.outbound.push(frame(&text));
            pushed += text.len();
        }
        pair.outbound.push(last.clone());
        assert!(pair.outbound.blocked().is_some());
        let mut bytes = vec![0; pushed + last.len()];
        let (outbound, metrics) = (&pair.outbound, &pair.metrics);
        let write = async {
            while outbound.write(metrics) == Written::Blocked {
                outbound.tcp().writable().await.unwrap();
            }
        };
        let (read, ()) = tokio::join!(pair.peer.read_exact(&mut bytes), write);
        read.unwrap();
        assert!(bytes.ends_with(last.bytes()));
        assert_eq!(pair.outbound.blocked(), None);
    }

    #[tokio::test]
    async fn encrypted_bytes_that_the_kernel_does_not_take_block_as_well() {
        let (pipe, mut peer) = crate::gateway::pipe::tests::pair().await;
        let outbound = Outbound::new(1, pipe, Lane::idle(), account());
        let metrics = ChatMetrics::register(&Metrics::new());
        let long = frame(&"x".repeat(20_000));
        let mut pushed = 0;
        while outbound.write(&metrics) == Written::All {
            outbound.push(long.clone());
            pushed += long.len();
        }
        // The last frame is inside rustls, and the queue is empty.
        assert_eq!(outbound.waiting_bytes(), 0);
        assert!(outbound.blocked().is_some());
        let write = async {
            while outbound.write(&metrics) == Written::Blocked {
                outbound.tcp().writable().await.unwrap();
            }
        };
        let mut bytes = vec![0; pushed];
        let (read, ()) = tokio::join!(peer.read_exact(&mut bytes), write);
        read.unwrap();
        assert_eq!(outbound.blocked(), None);
        // After a shutdown the connection is gone, whatever rustls still holds.
        while outbound.write(&metrics) == Written::All {
            outbound.push(long.clone());
        }
        outbound.shut_down();
        assert_eq!(outbound.write(&metrics), Written::Gone);
    }
}
