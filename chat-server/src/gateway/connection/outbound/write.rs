//! Writes what waits, by the lane or by the connection's own task.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use madang_auth::Cursors;
use tokio::time::Instant;

use super::Outbound;
use super::life::Life;
use super::state::{Due, State};
use crate::gateway::ledger::FREE_BYTES;
use crate::gateway::socket::lane::Urgency;
use crate::gateway::socket::pipe::Pipe;
use crate::metrics::ChatMetrics;

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
    fn write(&mut self, pipe: &Pipe, cursors: &Cursors, metrics: &ChatMetrics) -> Written {
        self.push_cursor(cursors);
        let keeps_room = self.subscriptions.is_some();
        // Gaps come last: rows behind a gap are delivered only once everything before it was written, so that there is room for
        // them.
        while self.life != Life::Gone && (!self.queue.is_empty() || pipe.has_rest() || self.push_gaps()) {
            match self.queue.write(keeps_room, |slices| pipe.write(slices)) {
                Ok(_) => {
                    metrics.writes.inc();
                    self.blocked = None;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.settle();
                    self.blocked.get_or_insert_with(Instant::now);
                    return Written::Blocked;
                }
                Err(_) => self.go(),
            }
        }
        self.settle();
        self.blocked = None;
        if self.life == Life::Gone { Written::Gone } else { Written::All }
    }
}

impl Outbound {
    /// Puts the connection into its lane. While the kernel takes nothing, the connection's task waits for the socket and writes
    /// everything once it can, so the lane is not needed.
    pub(super) fn make_due(self: &Arc<Self>, state: &mut State) {
        if state.blocked.is_none() && !std::mem::replace(&mut state.due.first, true) {
            self.lane.add(Arc::clone(self), Urgency::First);
        }
    }

    /// The same for entries of an open channel, which come behind what concerns the user alone. What waits for the connection keeps
    /// its order in any case.
    pub(super) fn make_due_in_crowd(self: &Arc<Self>, state: &mut State) {
        let Due { first, crowd } = state.due;
        if state.blocked.is_none() && !first && !crowd {
            state.due.crowd = true;
            self.lane.add(Arc::clone(self), Urgency::Crowd);
        }
    }

    /// Writes what waits. Called by the lane, which has taken the connection out of one of its lists.
    pub(in crate::gateway) fn write_due(&self, list: Urgency, metrics: &ChatMetrics) {
        let mut state = self.state.lock();
        // Cleared before the write and under the lock: a frame that is pushed afterwards puts the connection into the lane again.
        match list {
            Urgency::First => state.due.first = false,
            Urgency::Crowd => state.due.crowd = false,
        }
        let written = state.write(&self.pipe, self.lane.cursors(), metrics);
        // The task must know that the kernel takes no more, that it may read again, or that a close may be due now.
        let concerns_task = written != Written::All || state.is_stalled || state.life != Life::Open;
        drop(state);
        if concerns_task {
            self.wake.notify_one();
        }
    }

    /// Writes what waits and one cursor behind it, as far as the kernel takes it.
    pub(crate) fn write(&self, metrics: &ChatMetrics) -> Written {
        self.state.lock().write(&self.pipe, self.lane.cursors(), metrics)
    }

    /// Since when the kernel takes nothing.
    pub(crate) fn blocked(&self) -> Option<Instant> {
        self.state.lock().blocked
    }

    /// Whether more than [`FREE_BYTES`] wait and the kernel has taken nothing for `patience`.
    pub(crate) fn is_hoarding(&self, patience: Duration) -> bool {
        let state = self.state.lock();
        state.queue.bytes() > FREE_BYTES && state.blocked.is_some_and(|since| since.elapsed() >= patience)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::super::tests::{Pair, frame};
    use super::*;
    use crate::gateway::ledger::tests::account;
    use crate::gateway::socket::lane::Lane;

    /// Pushes frames until the kernel takes no more. Returns how many bytes were pushed.
    fn fill(outbound: &Outbound, metrics: &ChatMetrics, size: usize) -> usize {
        let long = frame(&"x".repeat(size));
        let mut pushed = 0;
        while outbound.write(metrics) == Written::All {
            outbound.push(long.clone());
            pushed += long.len();
        }
        pushed
    }

    /// Writes until nothing waits.
    async fn write_all(outbound: &Outbound, metrics: &ChatMetrics) {
        while outbound.write(metrics) == Written::Blocked {
            outbound.tcp().writable().await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_peer_that_does_not_read_blocks_its_connection_until_it_reads() {
        let mut pair = Pair::live().await;
        let pushed = fill(&pair.outbound, &pair.metrics, 60_000);
        let last = frame("last");
        pair.outbound.push(last.clone());
        assert!(pair.outbound.blocked().is_some());
        let mut bytes = vec![0; pushed + last.len()];
        let write = write_all(&pair.outbound, &pair.metrics);
        let (read, ()) = tokio::join!(pair.peer.read_exact(&mut bytes), write);
        read.unwrap();
        assert!(bytes.ends_with(last.bytes()));
        assert_eq!(pair.outbound.blocked(), None);
    }

    #[tokio::test]
    async fn encrypted_bytes_that_the_kernel_does_not_take_block_as_well() {
        let (pipe, mut peer) = crate::gateway::socket::pipe::tests::pair().await;
        let outbound = Outbound::new(1, pipe, Lane::idle(), account());
        let metrics = super::super::tests::metrics();
        let pushed = fill(&outbound, &metrics, 20_000);
        // The last frame is inside rustls, and the queue is empty.
        assert_eq!(outbound.waiting_bytes(), 0);
        assert!(outbound.blocked().is_some());
        let mut bytes = vec![0; pushed];
        let (read, ()) = tokio::join!(peer.read_exact(&mut bytes), write_all(&outbound, &metrics));
        read.unwrap();
        assert_eq!(outbound.blocked(), None);
        // After a shutdown the connection is gone, whatever rustls still holds.
        fill(&outbound, &metrics, 20_000);
        outbound.shut_down();
        assert_eq!(outbound.write(&metrics), Written::Gone);
    }

    #[tokio::test]
    async fn a_connection_is_in_its_lane_at_most_once_and_not_while_the_kernel_takes_nothing() {
        let mut pair = Pair::live().await;
        let lane = Arc::clone(&pair.outbound.lane);
        pair.outbound.post(frame("a"));
        pair.outbound.post(frame("b"));
        assert_eq!(lane.waiting(), 1);
        // The connection's own task writes before the lane's turn, and the kernel takes no more.
        let pushed = fill(&pair.outbound, &pair.metrics, 60_000) + frame("ab").len();
        pair.outbound.post(frame("c"));
        assert_eq!(lane.waiting(), 1, "blocked, and still in the list");
        let mut bytes = vec![0; pushed + frame("c").len()];
        let write = write_all(&pair.outbound, &pair.metrics);
        let (read, ()) = tokio::join!(pair.peer.read_exact(&mut bytes), write);
        read.unwrap();
        pair.outbound.post(frame("d"));
        assert_eq!(lane.waiting(), 1, "still in the list");
        pair.outbound.write_due(Urgency::First, &pair.metrics);
        pair.outbound.post(frame("e"));
        assert_eq!(lane.waiting(), 2, "the lane has had its turn");
    }

    #[tokio::test]
    async fn what_concerns_the_user_alone_does_not_wait_in_the_crowd() {
        let mut pair = Pair::live().await;
        let lane = Arc::clone(&pair.outbound.lane);
        let crowd = |outbound: &Arc<Outbound>| outbound.make_due_in_crowd(&mut outbound.state.lock());
        crowd(&pair.outbound);
        crowd(&pair.outbound);
        assert_eq!(lane.waiting(), 1);
        pair.outbound.post(frame("a"));
        assert_eq!(lane.waiting(), 2, "it is in both lists");
        pair.outbound.write_due(Urgency::First, &pair.metrics);
        crowd(&pair.outbound);
        assert_eq!(lane.waiting(), 2, "its turn in the crowd has not come");
        pair.outbound.write_due(Urgency::Crowd, &pair.metrics);
        crowd(&pair.outbound);
        assert_eq!(lane.waiting(), 3);
        let mut read = vec![0; frame("a").len()];
        pair.peer.read_exact(&mut read).await.unwrap();
        assert_eq!(read, frame("a").bytes());
    }

    #[tokio::test]
    async fn a_peer_that_has_gone_ends_the_connection_at_the_next_write() {
        let mut pair = Pair::live().await;
        pair.peer.set_zero_linger().unwrap();
        drop(std::mem::replace(&mut pair.peer, Pair::live().await.peer));
        let error = pair.outbound.tcp().readable().await;
        error.unwrap();
        pair.outbound.push(frame("a"));
        assert_eq!(pair.outbound.write(&pair.metrics), Written::Gone);
        assert!(pair.outbound.is_closing());
        pair.outbound.push(frame("b"));
        assert_eq!(pair.outbound.waiting_bytes(), 0);
    }
}
