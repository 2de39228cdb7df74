//! The interface of presence. [`local`] makes the two ends of a presence role inside the process: [`Local`] for those who report
//! and ask, and the [`Service`] that [`crate::run`] drives. A report never waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use madang_engine::session::Now;
use madang_ids::{ConnectionId, DeviceId, Epoch, UserId};
use madang_proto::UserPresence;
use madang_service::Clock;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::config::PresenceConfig;
use crate::metrics::PresenceMetrics;
use crate::service::Service;

/// Reports that may wait. A drain closes all connections of a node at the same time.
const REPORTS: usize = 16_384;
/// The pause between a lost report, or a set that could not be sent, and the next set.
const CALM: Duration = Duration::from_secs(1);

/// A node in one of its epochs, with one of its sets. Later ones replace earlier ones, which are refused from then on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NodeRun {
    /// The worker number of the node.
    pub worker: u16,
    /// The epoch of the node: rises when the node is restarted or has lost its lease. It comes from discovery.
    pub epoch: Epoch,
    /// The number of the full set that the node has sent last; rises within the epoch. A node sends a set when a report or a
    /// renewal may have been lost, when it is asked to, and when the view of the presence processes has changed.
    pub set: u64,
}

impl NodeRun {
    /// Whether `other` replaces this one. Both have the same worker number.
    pub(crate) fn is_before(self, other: Self) -> bool {
        (self.epoch.raw(), self.set) < (other.epoch.raw(), other.set)
    }
}

/// A connection that is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Up {
    /// The user of the connection.
    pub user: UserId,
    /// The device of the connection.
    pub device: DeviceId,
    /// Unique on its node.
    pub connection: ConnectionId,
    /// Whether the client says that nobody uses it.
    pub is_idle: bool,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    /// It was seen to end. The client may come back within the grace period.
    Seen,
    /// The node has drained it. The grace period is longer.
    Drained,
    /// It was silent for too long, or another connection has replaced it. There is no grace period.
    Final,
    /// Its device was revoked. All connections of the device end, including those within their grace period.
    Revoked,
}

/// The presence of some users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct States {
    /// In the order of the question. `None` for users who are offline.
    pub users: Vec<Option<UserPresence>>,
    /// Whether users with `None` are known to be offline. If not, they may be on their way back after a restart.
    pub is_settled: bool,
}

/// A report or a question to the service.
#[derive(Debug)]
pub(crate) enum Report {
    Set { run: NodeRun, set: Vec<Up> },
    Renewal { run: NodeRun },
    Up { run: NodeRun, up: Up },
    Down { run: NodeRun, connection: (UserId, ConnectionId), how: Departure },
    Idle { run: NodeRun, connection: (UserId, ConnectionId), is_idle: bool },
    Changed { user: UserId, circle: bool },
    Dropped { user: UserId, connection: ConnectionId },
    States { asker: Option<UserId>, users: Vec<UserId>, answer: oneshot::Sender<States> },
    End { done: oneshot::Sender<()> },
}

/// Presence in this process. A clone shares it.
#[derive(Debug, Clone)]
pub struct Local(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// One lock for the number of the set and the queue, so that a full set and the reports around it are queued in the order in which they
    /// were true.
    node: Mutex<Node>,
    clock: Clock,
    config: PresenceConfig,
    metrics: PresenceMetrics,
    has_lost: AtomicBool,
    wake: Notify,
}

#[derive(Debug)]
struct Node {
    run: NodeRun,
    reports: mpsc::Sender<(Now, Report)>,
}

/// Makes both ends of a presence role in this process.
#[must_use]
pub fn local(config: PresenceConfig, clock: Clock, metrics: PresenceMetrics) -> (Local, Service) {
    let (reports, receiver) = mpsc::channel(REPORTS);
    // One process is one worker, and presence starts and ends with it: one epoch is enough.
    let run = NodeRun { worker: 0, epoch: Epoch::from_raw(0), set: 0 };
    let local = Local(Arc::new(Inner {
        node: Mutex::new(Node { run, reports }),
        clock: clock.clone(),
        config,
        metrics: metrics.clone(),
        has_lost: AtomicBool::new(false),
        wake: Notify::new(),
    }));
    let service = Service::new(config, clock, metrics, receiver, local.clone());
    (local, service)
}

impl Local {
    /// Reports that a connection was opened.
    pub fn up(&self, up: Up) {
        self.report(|run| Report::Up { run, up });
    }

    /// Reports that a connection has ended. The node's full set must not contain it any more.
    pub fn down(&self, user: UserId, connection: ConnectionId, how: Departure) {
        self.report(|run| Report::Down { run, connection: (user, connection), how });
    }

    /// Reports that nobody uses a client any more, or that somebody does again.
    pub fn set_idle(&self, user: UserId, connection: ConnectionId, is_idle: bool) {
        self.report(|run| Report::Idle { run, connection: (user, connection), is_idle });
    }

    /// Reports that the rows of a user's own settings have changed.
    pub fn settings_changed(&self, user: UserId) {
        self.report(|_| Report::Changed { user, circle: false });
    }

    /// Reports that the rows behind a user's circle have changed.
    pub fn circle_changed(&self, user: UserId) {
        self.report(|_| Report::Changed { user, circle: true });
    }

    /// Reports that a connection had no room for a frame. It gets everything again later.
    pub fn dropped(&self, user: UserId, connection: ConnectionId) {
        self.0.metrics.frames_dropped.inc();
        self.report(|_| Report::Dropped { user, connection });
    }

    /// The presence of users as `asker` may see it; users always see their own real state. `None` if presence cannot answer.
    /// Cancel safe.
    pub async fn states(&self, asker: Option<UserId>, users: Vec<UserId>) -> Option<States> {
        let (answer, states) = oneshot::channel();
        self.try_report(|_| Report::States { asker, users, answer }).then_some(())?;
        states.await.ok()
    }

    /// The process ends: writes when each user who is here was last active.
    pub async fn end(&self) {
        let (done, is_done) = oneshot::channel();
        if self.try_report(|_| Report::End { done }) {
            // If presence has ended, there is nothing to write.
            let _ = is_done.await;
        }
    }

    /// Presence does not know a node, or not in its present state. If it is this node, it sends its full set.
    pub(crate) fn ask_set(&self, stranger: NodeRun) {
        if self.0.node.lock().run.worker == stranger.worker {
            self.resend();
        }
    }

    /// Reports may have been lost: the node sends its full set, and the rows of its users are read again.
    pub fn resend(&self) {
        self.0.has_lost.store(true, Ordering::Release);
        self.0.wake.notify_one();
    }

    fn report(&self, report: impl FnOnce(NodeRun) -> Report) {
        if !self.try_report(report) {
            self.0.metrics.reports_lost.inc();
            self.resend();
        }
    }

    fn try_report(&self, report: impl FnOnce(NodeRun) -> Report) -> bool {
        let node = self.0.node.lock();
        node.reports.try_send((now(&self.0.clock), report(node.run))).is_ok()
    }

    fn send_set(&self, connections: &impl Fn() -> Vec<Up>) -> bool {
        let mut node = self.0.node.lock();
        let run = NodeRun { set: node.run.set + 1, ..node.run };
        // Cleared before the set is taken: a loss from here on asks for one more set. The lock is held while `connections`
        // collects the set, so each other report is queued either before or behind it.
        self.0.has_lost.store(false, Ordering::Release);
        let set = Report::Set { run, set: connections() };
        let is_sent = node.reports.try_send((now(&self.0.clock), set)).is_ok();
        if is_sent {
            node.run = run;
        }
        is_sent
    }
}

/// Keeps the lease of this node; never returns. Renews the lease, or sends the full set under a new number if the lease was missed
/// or a report was lost. `connections` must not call the [`Local`], whose lock is held meanwhile.
pub async fn lease(local: Local, connections: impl Fn() -> Vec<Up> + Send) {
    let Inner { clock, config, .. } = &*local.0;
    let mut renewed = None;
    loop {
        let now = clock.elapsed();
        let is_missed = renewed.is_none_or(|at| now.saturating_sub(at) >= config.lease());
        let is_kept = match is_missed || local.0.has_lost.load(Ordering::Acquire) {
            true => local.send_set(&connections),
            false => local.try_report(|run| Report::Renewal { run }),
        };
        if is_kept {
            renewed = Some(now);
            tokio::select! {
                () = clock.sleep(Duration::from_millis(config.renew_ms)) => continue,
                () = local.0.wake.notified() => {}
            }
        } else {
            // The queue is full: the next round must send a set, not a renewal.
            local.0.has_lost.store(true, Ordering::Release);
        }
        clock.sleep(CALM).await;
    }
}

pub(crate) fn now(clock: &Clock) -> Now {
    Now { at: clock.now_ms(), elapsed: clock.elapsed() }
}
