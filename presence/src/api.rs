//! What others may call. [`local`] makes the two ends for a presence role inside the process: [`Local`] for those who
//! report and ask, and the [`Service`] that [`crate::run`] drives. Nobody ever waits for presence to take a report.

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

/// Reports that wait; a node's connections come and go at once in a drain.
const REPORTS: usize = 16_384;
/// Between a lost report, or a failed set, and the next set.
const CALM: Duration = Duration::from_secs(1);

/// A node in one of its epochs: it takes a new one with each full set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NodeRun {
    /// Its worker number.
    pub worker: u16,
    /// Its epoch.
    pub epoch: Epoch,
}

/// A connection that is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Up {
    /// Whose.
    pub user: UserId,
    /// On which device.
    pub device: DeviceId,
    /// Which, unique on its node.
    pub connection: ConnectionId,
    /// Whether nobody uses it.
    pub is_idle: bool,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    /// It was seen to end: the client may be on its way back.
    Seen,
    /// The node sent it away: it has longer.
    Drained,
    /// It was silent for so long, or another took its place: nothing more is waited for.
    Final,
    /// Its device was revoked: all connections of the device end, also those that are waited for.
    Revoked,
}

/// How some users are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct States {
    /// In the order asked for; `None` for who is offline.
    pub users: Vec<Option<UserPresence>>,
    /// Whether those who are `None` are known to be offline. If not, they may be on their way back.
    pub is_settled: bool,
}

/// What is reported and asked.
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

/// Presence in this process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Local(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// One lock for both, so that a set and the reports around it go in the order in which they were true.
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

/// Both ends of a presence role in this process.
#[must_use]
pub fn local(config: PresenceConfig, clock: Clock, metrics: PresenceMetrics) -> (Local, Service) {
    let (reports, receiver) = mpsc::channel(REPORTS);
    // One process is one worker, and its first set begins its first epoch.
    let run = NodeRun { worker: 0, epoch: Epoch::from_raw(0) };
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
    /// A connection was opened.
    pub fn up(&self, up: Up) {
        self.report(|run| Report::Up { run, up });
    }

    /// A connection ended. It must not be in the node's full set any more.
    pub fn down(&self, user: UserId, connection: ConnectionId, how: Departure) {
        self.report(|run| Report::Down { run, connection: (user, connection), how });
    }

    /// Somebody stopped using a client, or began again.
    pub fn set_idle(&self, user: UserId, connection: ConnectionId, is_idle: bool) {
        self.report(|run| Report::Idle { run, connection: (user, connection), is_idle });
    }

    /// The rows of what a user says of herself have changed.
    pub fn settings_changed(&self, user: UserId) {
        self.report(|_| Report::Changed { user, circle: false });
    }

    /// The rows of whom a user watches have changed.
    pub fn circle_changed(&self, user: UserId) {
        self.report(|_| Report::Changed { user, circle: true });
    }

    /// A connection had no room for a frame.
    pub fn dropped(&self, user: UserId, connection: ConnectionId) {
        self.0.metrics.frames_dropped.inc();
        self.report(|_| Report::Dropped { user, connection });
    }

    /// How users are, for one who asks, who learns the truth of herself; `None` if presence cannot say. Cancel safe.
    pub async fn states(&self, asker: Option<UserId>, users: Vec<UserId>) -> Option<States> {
        let (answer, states) = oneshot::channel();
        self.try_report(|_| Report::States { asker, users, answer }).then_some(())?;
        states.await.ok()
    }

    /// The process ends: writes when everybody who is here was last active.
    pub async fn end(&self) {
        let (done, is_done) = oneshot::channel();
        if self.try_report(|_| Report::End { done }) {
            // Who is gone has nothing to write.
            let _ = is_done.await;
        }
    }

    /// Reports may not be complete: the node sends its full set, and what concerns its users is read again.
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
        let run = NodeRun { epoch: Epoch::from_raw(node.run.epoch.raw() + 1), ..node.run };
        self.0.has_lost.store(false, Ordering::Release);
        let set = Report::Set { run, set: connections() };
        let is_sent = node.reports.try_send((now(&self.0.clock), set)).is_ok();
        if is_sent {
            node.run = run;
        }
        is_sent
    }
}

/// Keeps the lease of this node, for ever: renews it, or sends the full set under a new epoch where it was missed or a
/// report was lost. `connections` must not call the [`Local`].
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
            local.0.has_lost.store(true, Ordering::Release);
        }
        clock.sleep(CALM).await;
    }
}

pub(crate) fn now(clock: &Clock) -> Now {
    Now { at: clock.now_ms(), elapsed: clock.elapsed() }
}
