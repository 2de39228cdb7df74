//! A few tasks write for all connections, each for its share of them. A message to a hundred connections wakes these tasks
//! instead of a hundred, and frames that are enqueued for a connection before its turn go out in the same write.
//!
//! Connections that only have entries of open channels are written to by a thread beside each task. It has a lower priority than the rest
//! of the process, so a message to one user does not wait behind five thousand writes of a hot channel: other work gets the
//! processor at once.

use std::collections::VecDeque;
use std::sync::Arc;

use madang_auth::Cursors;
use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

use crate::gateway::connection::outbound::Outbound;
use crate::metrics::ChatMetrics;

/// Connections that are written to before other tasks get their turn.
const WRITES_AT_ONCE: usize = 64;
/// Connections of the crowd that are taken from the list at once.
const CROWD_AT_ONCE: usize = 8;
/// The niceness of the threads that write to the crowd: about a third of the weight of others that want the same processor.
const CROWD_NICE: i32 = 5;

/// The connections that have something to write. Each is in a list at most once ([`Outbound`] keeps the flags).
#[derive(Debug)]
pub(in crate::gateway) struct Lane {
    /// Connections that come first.
    first: Mutex<Vec<Arc<Outbound>>>,
    wake: Notify,
    /// Connections that have entries of open channels.
    crowd: Mutex<Crowd>,
    wake_crowd: Condvar,
    /// Seals the cursors for the clients of these connections.
    cursors: Arc<Cursors>,
}

#[derive(Debug, Default)]
struct Crowd {
    due: VecDeque<Arc<Outbound>>,
    /// The task of the lane has ended, and its thread ends as well.
    is_over: bool,
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
        let (first, crowd) = (Mutex::default(), Mutex::default());
        Self { first, wake: Notify::new(), crowd, wake_crowd: Condvar::new(), cursors }
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
        self.first.lock().len() + self.crowd.lock().due.len()
    }

    /// Makes the lane write to a connection soon.
    pub(in crate::gateway) fn add(&self, connection: Arc<Outbound>, urgency: Urgency) {
        match urgency {
            Urgency::First => {
                // Pushed before the wake: `run` looks at the list again after each wake, so no connection is left in it.
                self.first.lock().push(connection);
                self.wake.notify_one();
            }
            Urgency::Crowd => {
                self.crowd.lock().due.push_back(connection);
                self.wake_crowd.notify_one();
            }
        }
    }

    /// Waits for connections of the crowd, and takes some into an empty list. `false` at the end.
    fn wait_for_crowd(&self, taken: &mut Vec<Arc<Outbound>>) -> bool {
        let mut crowd = self.crowd.lock();
        self.wake_crowd.wait_while(&mut crowd, |crowd| crowd.due.is_empty() && !crowd.is_over);
        let count = crowd.due.len().min(CROWD_AT_ONCE);
        taken.extend(crowd.due.drain(..count));
        !crowd.is_over
    }
}

/// The thread that writes to the crowd of a lane. It ends soon after this is dropped.
struct CrowdWriter(Arc<Lane>);

impl CrowdWriter {
    /// # Panics
    /// If the system gives no more threads.
    fn start(lane: &Arc<Lane>, metrics: ChatMetrics) -> Self {
        let of_thread = Arc::clone(lane);
        let thread = std::thread::Builder::new().name("crowd".to_owned());
        let started = thread.spawn(move || write_to_crowd(&of_thread, &metrics));
        started.expect("a thread of each core, at the start of the process");
        Self(Arc::clone(lane))
    }
}

impl Drop for CrowdWriter {
    fn drop(&mut self) {
        self.0.crowd.lock().is_over = true;
        self.0.wake_crowd.notify_one();
    }
}

fn write_to_crowd(lane: &Lane, metrics: &ChatMetrics) {
    give_way();
    let mut taken = Vec::with_capacity(CROWD_AT_ONCE);
    while lane.wait_for_crowd(&mut taken) {
        taken.drain(..).for_each(|connection| connection.write_due(Urgency::Crowd, metrics));
    }
}

/// Lowers the priority of this thread. Without it everything works, and a crowd is felt more.
fn give_way() {
    // Only Linux has a priority for each thread; elsewhere it would be that of the process.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), CROWD_NICE) {
        tracing::warn!(%error, "the threads that write to crowds have the priority of all others");
    }
}

/// Writes to the connections that become due. Never returns.
pub(in crate::gateway) async fn run(lane: Arc<Lane>, metrics: ChatMetrics) {
    let _crowd = CrowdWriter::start(&lane, metrics.clone());
    let mut first = Vec::new();
    loop {
        lane.wake.notified().await;
        loop {
            // Swapped, so that the lock is not held while sockets are written, and both lists keep their memory.
            std::mem::swap(&mut first, &mut *lane.first.lock());
            if first.is_empty() {
                break;
            }
            for connections in first.chunks(WRITES_AT_ONCE) {
                connections.iter().for_each(|connection| connection.write_due(Urgency::First, &metrics));
                tokio::task::yield_now().await;
            }
            first.clear();
        }
    }
}
