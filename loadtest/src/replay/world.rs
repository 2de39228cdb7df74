//! State that the tasks of a run share.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use madang_client::Rest;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::device::Device;
use super::reach::Reach;
use super::uptime::Uptime;
use crate::args::Replay;
use crate::corpus::{Move, NickIndex};
use crate::fleet::Role;
use crate::judge::book::{Book, Keys};
use crate::judge::faults::Faults;
use crate::report::Kills;

/// All state of a run.
pub(crate) struct World {
    pub(crate) args: Replay,
    pub(crate) reach: Reach,
    pub(crate) keys: Keys,
    /// By nick. Each user has as many devices as the command line says.
    pub(crate) devices: Vec<Vec<Arc<Device>>>,
    pub(crate) days: Vec<DayPlan>,
    pub(crate) books_by_channel: HashMap<u64, u32>,
    pub(crate) faults: Faults,
    pub(crate) counters: Counters,
    /// Why connections ended and sends were delayed, and how often; for readers of the report.
    pub(crate) trouble: Mutex<BTreeMap<String, u64>>,
    pub(crate) started: Instant,
    pub(crate) setup_time: Duration,
    /// Whether the server that this tool started is up. A fleet is always up, with or without one of its members.
    pub(crate) server_up: watch::Sender<bool>,
    /// The time in which every server ran.
    pub(crate) uptime: Uptime,
    /// Kills of members of a fleet.
    pub(crate) kills: Mutex<BTreeMap<Role, Kills>>,
    /// Snapshots that the devices had to take for a reason that is no fault.
    pub(crate) snapshots: Mutex<BTreeMap<String, u64>>,
    pub(crate) tasks: TaskTracker,
    pub(crate) socket_freed: Notify,
    pub(crate) sockets: AtomicUsize,
    /// Notified when a send was written to a socket.
    pub(crate) send_written: Notify,
    /// The last number that was given to a membership of an open channel.
    pub(crate) memberships: AtomicU32,
}

/// One day.
pub(crate) struct DayPlan {
    pub(crate) members: Vec<NickIndex>,
    /// Members who are not there at first, and the events between the lines.
    pub(crate) latecomers: Vec<NickIndex>,
    pub(crate) moves: Vec<Move>,
    /// The speaker and the time of each line.
    pub(crate) schedule: Vec<(NickIndex, Duration)>,
    pub(crate) book: Mutex<Book>,
    /// One permit for each send that may be in flight.
    pub(crate) window: Semaphore,
    /// Chains of changes that are not done.
    pub(crate) changing: AtomicUsize,
}

/// Figures of the report that rise during the run.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) sent: AtomicU64,
    pub(crate) acked: AtomicU64,
    pub(crate) settled: AtomicU64,
    pub(crate) retried: AtomicU64,
    pub(crate) acked_by_retry: AtomicU64,
    pub(crate) resumes: AtomicU64,
    pub(crate) resyncs: AtomicU64,
    pub(crate) delivered: AtomicU64,
    pub(crate) edits: AtomicU64,
    pub(crate) deletes: AtomicU64,
    pub(crate) reactions: AtomicU64,
    pub(crate) changes_retried: AtomicU64,
    pub(crate) joins: AtomicU64,
    pub(crate) leaves: AtomicU64,
    pub(crate) bans: AtomicU64,
    pub(crate) gaps: AtomicU64,
    pub(crate) kills: AtomicU64,
    pub(crate) kills_in_flight: AtomicU64,
    /// Sends that are written to a socket and not answered at present.
    pub(crate) in_flight: AtomicUsize,
}

/// Adds 1.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Locks a mutex even if a holder panicked: its data is still there, and the judge reports what is missing.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    #[expect(clippy::cast_possible_truncation, reason = "days are counted in hundreds")]
    pub(crate) fn day_count(&self) -> u32 {
        self.days.len() as u32
    }

    /// Number of lines of all days.
    pub(crate) fn lines(&self) -> u64 {
        self.days.iter().map(|day| day.schedule.len() as u64).sum()
    }

    pub(crate) fn day(&self, index: u32) -> &DayPlan {
        &self.days[index as usize]
    }

    /// Microseconds of the run; at least 1, because 0 means never.
    #[expect(clippy::cast_possible_truncation, reason = "2^64 microseconds are a long run")]
    pub(crate) fn now_us(&self) -> u64 {
        (self.started.elapsed().as_micros() as u64).max(1)
    }

    /// All devices of the members of a day.
    pub(crate) fn devices_of(&self, day: u32) -> impl Iterator<Item = &Arc<Device>> {
        self.day(day).members.iter().flat_map(|nick| &self.devices[nick.get()])
    }

    /// Allows the user's devices to subscribe to the open channel of a day, with a new membership.
    pub(crate) fn open_to(&self, nick: NickIndex, day: u32) {
        let membership = self.memberships.fetch_add(1, Ordering::SeqCst);
        for device in &self.devices[nick.get()] {
            lock(&device.memory).open.insert(day, membership);
            device.wake.notify_one();
        }
    }

    /// Forbids it.
    pub(crate) fn close_to(&self, nick: NickIndex, day: u32) {
        for device in &self.devices[nick.get()] {
            lock(&device.memory).open.remove(&day);
        }
    }

    /// Counts a reason. Reasons beyond the first hundred are counted together.
    pub(crate) fn note_trouble(&self, reason: String) {
        let mut trouble = lock(&self.trouble);
        let is_known = trouble.len() < 100 || trouble.contains_key(&reason);
        *trouble.entry(if is_known { reason } else { "others".to_owned() }).or_default() += 1;
    }

    /// Devices that have a socket or are about to open one.
    pub(crate) fn sockets(&self) -> usize {
        self.sockets.load(Ordering::SeqCst)
    }

    pub(crate) fn has_sockets_for(&self, day: u32) -> bool {
        let more = self.devices_of(day).filter(|device| !device.is_running()).count();
        self.sockets() + more <= self.args.sockets
    }

    /// Starts a socket for each device of a day that has none.
    pub(crate) fn want_devices(self: &Arc<Self>, day: u32) {
        for device in self.devices_of(day) {
            if device.want() {
                self.sockets.fetch_add(1, Ordering::SeqCst);
                self.tasks.spawn(super::device::drive(Arc::clone(self), Arc::clone(device)));
            }
        }
    }

    /// The caller of a device's REST calls.
    pub(crate) fn rest_of(&self, device: &Device) -> &Rest {
        self.reach.rest(device.seed)
    }

    /// The end of the patience with what begins now, on the clock of [`Self::uptime`].
    pub(crate) fn patience_ends(&self) -> Duration {
        self.uptime.now() + self.args.patience()
    }

    /// Waits while the server is being restarted.
    pub(crate) async fn server_is_up(&self) {
        // This cannot fail: the sender lives as long as the world.
        let _ = self.server_up.subscribe().wait_for(|up| *up).await;
    }
}
