//! One connection as the rest of the gateway sees it: what waits to be written, and how far its cursor has come.
//!
//! The queue is bounded in bytes (G7). Live items that find no room are not kept: the cursor stays before them and the connection
//! reads its inbox instead. Answers always find room, because the socket is not read while answers pile up.
//!
//! Any task that holds the lock may write: usually the lane, and the connection's own task for what it enqueues itself and while
//! the kernel takes no more.
//!
//! # The lock
//!
//! One mutex guards everything that changes. It is held for short and never while waiting.
//!
//! - Frames are enqueued and written under it, so the order of the queue is the order on the socket. An item and the cursor that
//!   follows it are enqueued under it as well, so no `cursor` frame precedes its items.
//! - Whether something is to be done is decided and recorded under it, and the task is woken afterwards: a task that runs sees what
//!   it was woken for. [`Notify`] keeps one permit, so a wake between two waits is not lost.
//! - It may be taken while a shard of the registry or of the subscribers is locked, and it takes the locks of the lane's list and
//!   of the ledger. None of these is held while this lock is taken: a lane takes its connections out of the list first.

mod inbox;
mod life;
mod state;
mod subscriptions;
#[cfg(test)]
mod tests;
mod write;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use madang_ids::UserId;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use self::life::Life;
use self::state::State;
use crate::gateway::delivery::encode::Frame;
use crate::gateway::ledger::Account;
use crate::gateway::socket::lane::Lane;
use crate::gateway::socket::pipe::Pipe;

pub(crate) use subscriptions::{HeadsFrames, OpenFrames};
pub(crate) use write::Written;

/// The bound of the requests in flight on one connection, in bytes; the request that crosses it is let in. A home refuses
/// commands above a bound of its own, and one connection alone must not fill it.
const IN_FLIGHT_BYTES: usize = 1024 * 1024;

/// The encoded frames of one delivery. All receivers share the same bytes.
pub(crate) type Frames = Arc<[Frame]>;

/// One connection, as the registry and the use cases see it.
#[derive(Debug)]
pub(crate) struct Outbound {
    /// Rises with each connection of the node. The oldest connection of a device is replaced first.
    pub(crate) number: u64,
    pipe: Pipe,
    lane: Arc<Lane>,
    state: Mutex<State>,
    /// Wakes the connection's task.
    wake: Notify,
    /// When the session must be looked at again, in milliseconds of the steady clock. The sweep wakes the connection then.
    look_at_ms: AtomicU64,
}

impl Outbound {
    /// A connection that reads its inbox first.
    pub(in crate::gateway) fn new(number: u64, pipe: Pipe, lane: Arc<Lane>, account: Account) -> Self {
        let (state, wake) = (Mutex::new(State::new(account)), Notify::new());
        Self { number, pipe, lane, state, wake, look_at_ms: AtomicU64::new(u64::MAX) }
    }

    /// The TCP socket, to wait for readiness.
    pub(in crate::gateway) const fn tcp(&self) -> &TcpStream {
        self.pipe.tcp()
    }

    /// The pipe, to read from.
    pub(in crate::gateway) const fn pipe(&self) -> &Pipe {
        &self.pipe
    }

    /// Names the user: what the connection holds is counted for that user too.
    pub(crate) fn set_user(&self, user: UserId) {
        self.state.lock().account.set_user(user);
    }

    /// Counts an incoming message of which `bytes` are announced, or none any more (0). `false` if the user, the address or the
    /// node has no room for it.
    pub(in crate::gateway) fn hold_incoming(&self, bytes: usize) -> bool {
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

    /// Whether the socket may be read: neither requests nor answers pile up, and no close was asked for. If it may not, the task is
    /// woken when that may have changed.
    pub(crate) fn may_read(&self, requests: u32, limit_bytes: usize) -> bool {
        let mut state = self.state.lock();
        let may_read = state.in_flight < requests
            && state.in_flight_bytes < IN_FLIGHT_BYTES
            && state.queue.bytes() <= limit_bytes
            && state.life == Life::Open;
        // Set under the lock of the counters: an answer that comes after this check finds the flag and wakes the task.
        state.is_stalled = !may_read;
        may_read
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
        if state.client.is_welcomed() && state.life.takes_deliveries() {
            state.push(frame.clone());
            self.make_due(&mut state);
        }
        true
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
