//! A few tasks write for all connections, each for its share of them. A message to a hundred connections wakes these tasks
//! instead of a hundred, and frames that are enqueued for a connection before its turn go out in the same write.

use std::sync::Arc;

use madang_auth::Cursors;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::gateway::connection::outbound::Outbound;
use crate::metrics::ChatMetrics;

/// Connections that are written to before other tasks get their turn.
const WRITES_AT_ONCE: usize = 64;

/// The connections that have something to write. Each is in the list at most once ([`Outbound`] keeps the flag).
#[derive(Debug)]
pub(in crate::gateway) struct Lane {
    due: Mutex<Vec<Arc<Outbound>>>,
    wake: Notify,
    /// Seals the cursors for the clients of these connections.
    cursors: Arc<Cursors>,
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
        self.due.lock().len()
    }

    /// Makes the lane write to a connection soon.
    pub(in crate::gateway) fn add(&self, connection: Arc<Outbound>) {
        // Pushed before the wake: `run` looks at the list again after each wake, so no connection is left in it.
        self.due.lock().push(connection);
        self.wake.notify_one();
    }
}

/// Writes to the connections that become due. Never returns.
pub(in crate::gateway) async fn run(lane: Arc<Lane>, metrics: ChatMetrics) {
    let mut due = Vec::new();
    loop {
        lane.wake.notified().await;
        loop {
            // Swapped, so that the lock is not held while sockets are written, and both lists keep their memory.
            std::mem::swap(&mut due, &mut *lane.due.lock());
            if due.is_empty() {
                break;
            }
            for connections in due.chunks(WRITES_AT_ONCE) {
                connections.iter().for_each(|connection| connection.write_due(&metrics));
                tokio::task::yield_now().await;
            }
            due.clear();
        }
    }
}
