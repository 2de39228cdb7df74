//! A few tasks write for all connections, each for its share of them. A message to a hundred connections wakes these tasks
//! instead of a hundred, and frames that are enqueued for a connection before its turn go out in the same write.
//!
//! Connections with answers, or with entries of direct channels and groups, come first. Connections that only have entries of open
//! channels get at least [`CROWD_AT_ONCE`] writes after each round of the others. So a message to one user does not wait behind
//! five thousand writes of a hot channel.

use std::collections::VecDeque;
use std::sync::Arc;

use madang_auth::Cursors;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::gateway::connection::outbound::Outbound;
use crate::metrics::ChatMetrics;

/// Connections that are written to before other tasks get their turn.
const WRITES_AT_ONCE: usize = 64;
/// The same, of connections with entries of open channels: each write may be tens of KiB, so these take a fraction of a millisecond.
const CROWD_AT_ONCE: usize = 8;

/// The connections that have something to write. Each is in a list at most once ([`Outbound`] keeps the flags).
#[derive(Debug)]
pub(in crate::gateway) struct Lane {
    due: Mutex<Due>,
    wake: Notify,
    /// Seals the cursors for the clients of these connections.
    cursors: Arc<Cursors>,
}

#[derive(Debug, Default)]
struct Due {
    /// Connections that come first.
    first: Vec<Arc<Outbound>>,
    /// Connections that have entries of open channels.
    crowd: VecDeque<Arc<Outbound>>,
}

/// Why a connection is to be written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) enum Urgency {
    /// It has an answer, an event, or an item of its inbox.
    First,
    /// It has entries of an open channel.
    Crowd,
}

/// The lanes of a node, one for each core.
#[derive(Debug)]
pub(in crate::gateway) struct Lanes(Box<[Arc<Lane>]>);

impl Lanes {
    pub(in crate::gateway) fn new(cursors: &Arc<Cursors>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self((0..cores).map(|_| Arc::new(Lane::new(Arc::clone(cursors)))).collect())
    }

    /// The lane of the connection with this number. It never changes.
    pub(in crate::gateway) fn of(&self, number: u64) -> &Arc<Lane> {
        // There is at least one lane.
        let index = number % self.0.len() as u64;
        &self.0[usize::try_from(index).unwrap_or(0)]
    }

    pub(in crate::gateway) fn iter(&self) -> impl Iterator<Item = &Arc<Lane>> {
        self.0.iter()
    }
}

impl Lane {
    pub(in crate::gateway) fn new(cursors: Arc<Cursors>) -> Self {
        Self { due: Mutex::default(), wake: Notify::new(), cursors }
    }

    /// A lane that no task runs.
    #[cfg(any(test, fuzzing))]
    pub(in crate::gateway) fn idle() -> Arc<Self> {
        Arc::new(Self::new(Arc::new(Cursors::new(&[1; 32]).expect("a key of 32 bytes"))))
    }

    pub(in crate::gateway) fn cursors(&self) -> &Cursors {
        &self.cursors
    }

    /// The connections in the list.
    #[cfg(test)]
    pub(in crate::gateway) fn waiting(&self) -> usize {
        let due = self.due.lock();
        due.first.len() + due.crowd.len()
    }

    /// Makes the lane write to a connection soon.
    pub(in crate::gateway) fn add(&self, connection: Arc<Outbound>, urgency: Urgency) {
        // Pushed before the wake: `run` looks at the lists again after each wake, so no connection is left in them.
        let mut due = self.due.lock();
        match urgency {
            Urgency::First => due.first.push(connection),
            Urgency::Crowd => due.crowd.push_back(connection),
        }
        drop(due);
        self.wake.notify_one();
    }

    /// Takes all that come first, and some of the crowd, into empty lists.
    fn take(&self, first: &mut Vec<Arc<Outbound>>, crowd: &mut Vec<Arc<Outbound>>) {
        let mut due = self.due.lock();
        // Swapped, so that the lock is not held while sockets are written, and both lists keep their memory.
        std::mem::swap(first, &mut due.first);
        let count = due.crowd.len().min(CROWD_AT_ONCE);
        crowd.extend(due.crowd.drain(..count));
    }
}

/// Writes to the connections that become due. Never returns.
pub(in crate::gateway) async fn run(lane: Arc<Lane>, metrics: ChatMetrics) {
    let (mut first, mut crowd) = (Vec::new(), Vec::new());
    loop {
        lane.wake.notified().await;
        loop {
            lane.take(&mut first, &mut crowd);
            if first.is_empty() && crowd.is_empty() {
                break;
            }
            for connections in first.chunks(WRITES_AT_ONCE) {
                connections.iter().for_each(|connection| connection.write_due(Urgency::First, &metrics));
                tokio::task::yield_now().await;
            }
            crowd.iter().for_each(|connection| connection.write_due(Urgency::Crowd, &metrics));
            tokio::task::yield_now().await;
            first.clear();
            crowd.clear();
        }
    }
}
