//! Who writes: a few tasks, each for its share of the connections. What comes for a hundred connections wakes these
//! tasks, not a hundred, and what comes for a connection before its turn goes out in the same write.

use std::sync::Arc;

use madang_auth::Cursors;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::outbound::Outbound;
use crate::metrics::ChatMetrics;

/// Connections that are written to before other tasks get their turn.
const WRITES_AT_ONCE: usize = 64;

/// Connections that have something to be written. Each is in it at most once.
#[derive(Debug)]
pub(super) struct Lane {
    due: Mutex<Vec<Arc<Outbound>>>,
    wake: Notify,
    /// Seals the cursors that its connections are told.
    cursors: Arc<Cursors>,
}

/// The lanes of a node, one for each core.
#[derive(Debug)]
pub(super) struct Lanes(Box<[Arc<Lane>]>);

impl Lanes {
    pub(super) fn new(cursors: &Arc<Cursors>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self((0..cores).map(|_| Arc::new(Lane::new(Arc::clone(cursors)))).collect())
    }

    /// The lane of a connection.
    pub(super) fn of(&self, number: u64) -> &Arc<Lane> {
        // There is at least one.
        let index = number % self.0.len() as u64;
        &self.0[usize::try_from(index).unwrap_or(0)]
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Lane>> {
        self.0.iter()
    }
}

impl Lane {
    pub(super) fn new(cursors: Arc<Cursors>) -> Self {
        Self { due: Mutex::default(), wake: Notify::new(), cursors }
    }

    /// One that nobody runs.
    #[cfg(any(test, fuzzing))]
    pub(super) fn idle() -> Arc<Self> {
        Arc::new(Self::new(Arc::new(Cursors::new(&[1; 32]).expect("a key of 32 bytes"))))
    }

    pub(super) fn cursors(&self) -> &Cursors {
        &self.cursors
    }

    /// Writes to a connection soon.
    pub(super) fn add(&self, connection: Arc<Outbound>) {
        self.due.lock().push(connection);
        self.wake.notify_one();
    }
}

/// Writes what becomes due, for ever.
pub(super) async fn run(lane: Arc<Lane>, metrics: ChatMetrics) {
    let mut due = Vec::new();
    loop {
        lane.wake.notified().await;
        loop {
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
