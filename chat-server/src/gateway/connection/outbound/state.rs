//! What changes in a connection. Everything here is called under the lock of [`Outbound`](super::Outbound).

use madang_engine::subscriptions::Subscriptions;
use tokio::time::Instant;

use super::inbox::InboxCursor;
use super::life::{Client, Life};
use crate::gateway::delivery::encode::Frame;
use crate::gateway::ledger::{Account, FREE_BYTES};
use crate::gateway::socket::queue::Queue;

/// The lists of its lane in which a connection is.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Due {
    pub(super) first: bool,
    pub(super) crowd: bool,
}

#[derive(Debug)]
pub(super) struct State {
    /// The bytes that the connection holds, counted for its user, its address and the node.
    pub(super) account: Account,
    pub(super) queue: Queue,
    pub(super) life: Life,
    pub(super) client: Client,
    pub(super) inbox: InboxCursor,
    /// To open channels. `None` if there are none.
    pub(super) subscriptions: Option<Box<Subscriptions>>,
    /// The number of requests that [`Outbound::answer`](super::Outbound::answer) will answer.
    pub(super) in_flight: u32,
    /// The size of those requests as JSON, in bytes.
    pub(super) in_flight_bytes: usize,
    /// Bytes of an incoming message that is not complete.
    pub(super) incoming_bytes: usize,
    /// The task does not read the socket until something was written or answered.
    pub(super) is_stalled: bool,
    /// The lists of its lane in which the connection is. Independent of `blocked`: the connection's own task may find the kernel full
    /// before the lane's turn, and the connection must not be put into a list a second time meanwhile.
    pub(super) due: Due,
    /// Since when the kernel takes nothing.
    pub(super) blocked: Option<Instant>,
}

impl State {
    pub(super) fn new(account: Account) -> Self {
        Self {
            account,
            queue: Queue::default(),
            life: Life::Open,
            client: Client::Greeting,
            inbox: InboxCursor::default(),
            subscriptions: None,
            in_flight: 0,
            in_flight_bytes: 0,
            incoming_bytes: 0,
            is_stalled: false,
            due: Due::default(),
            blocked: None,
        }
    }

    pub(super) fn push(&mut self, frame: Frame) {
        if self.life.takes_frames() {
            self.queue.push(frame);
            self.settle();
        }
    }

    pub(super) fn enqueue(&mut self, frames: &[Frame]) {
        frames.iter().for_each(|frame| self.push(frame.clone()));
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.queue.bytes() + self.inbox.held_bytes() + self.in_flight_bytes + self.incoming_bytes
    }

    /// Updates the account after a change of what the connection holds.
    pub(super) fn settle(&mut self) {
        self.account.set(self.held_bytes());
    }

    /// Whether what was delivered before still waits: the kernel takes nothing, or too much has come. A frame that was enqueued a
    /// moment ago does not make a connection slow.
    pub(super) const fn is_slow(&self, limit_bytes: usize) -> bool {
        self.blocked.is_some() || self.queue.bytes() > limit_bytes / 4
    }

    /// Whether `size` more bytes may wait. A small queue has room even if the user, the address or the node has not.
    pub(super) fn has_room(&self, size: usize, limit_bytes: usize) -> bool {
        let bytes = self.queue.bytes() + size;
        self.queue.is_empty() || (bytes <= limit_bytes && (bytes <= FREE_BYTES || self.account.has_room()))
    }
}
