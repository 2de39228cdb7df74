//! The interface of presence: a [`Presence`] for those who report and ask. A report never waits.
//!
//! [`local`] makes a presence role inside the process, which [`crate::run`] drives. [`crate::fleet`] makes one whose users are
//! spread over the presence processes of a fleet. Both have a queue of reports, and differ in what is at its other end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use madang_engine::session::Now;
use madang_ids::{ConnectionId, DeviceId, NodeEpoch, UserId};
use madang_proto::UserPresence;
use madang_service::Clock;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::config::PresenceConfig;
use crate::metrics::PresenceMetrics;
use crate::service::Service;

/// Reports that may wait. A drain closes all connections of a node at the same time.
pub(crate) const REPORTS: usize = 16_384;
/// The pause between a lost report, or a set that could not be sent, and the next set.
pub(crate) const CALM: Duration = Duration::from_secs(1);

/// A node in one of its epochs, with one of its sets. Later ones replace earlier ones, which are refused from then on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NodeRun {
    /// The worker number of the node.
    pub worker: u16,
    /// The epoch of the node: rises when the node is restarted or has lost its lease. It comes from discovery.
    pub epoch: NodeEpoch,
    /// The number of the full set that the node has sent last; rises within the epoch, separately for each presence process. A node sends a set when a report or a
    /// renewal may have been lost, when it is asked to, and when the view of the presence processes has changed.
    pub set: u64,
}

impl NodeRun {
    /// Whether `other` replaces this one. Both have the same worker number.
    pub(crate) fn is_before(self, other: Self) -> bool {
        (self.epoch.0, self.set) < (other.epoch.0, other.set)
    }
}

/// A connection that is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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

/// What a node reports to the owner of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum NodeReport {
    /// The node is alive.
    Renewal,
    Up(Up),
    Down {
        user: UserId,
        connection: ConnectionId,
        how: Departure,
    },
    Idle {
        user: UserId,
        connection: ConnectionId,
        is_idle: bool,
    },
    /// Rows of a user have changed.
    Changed {
        user: UserId,
        circle: bool,
    },
    /// A connection had no room for a frame.
    Dropped {
        user: UserId,
        connection: ConnectionId,
    },
    /// Notices have not reached the node.
    Missed,
}

/// What is in the queue.
#[derive(Debug)]
pub(crate) enum Report {
    Node(NodeReport),
    /// All connections of this node.
    Set(Vec<Up>),
    States {
        asker: Option<UserId>,
        users: Vec<UserId>,
        answer: oneshot::Sender<States>,
    },
    End {
        done: oneshot::Sender<()>,
    },
}

/// Reports to presence, and questions. A clone shares it.
#[derive(Debug, Clone)]
pub struct Presence(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Locked while a full set is collected, so that the set and the reports around it are queued in the order in which they were true.
    reports: Mutex<mpsc::Sender<(Now, Report)>>,
    clock: Clock,
    config: PresenceConfig,
    metrics: PresenceMetrics,
    has_lost: AtomicBool,
    wake: Notify,
}

/// Makes both ends of a presence role in this process.
#[must_use]
pub fn local(config: PresenceConfig, clock: Clock, metrics: PresenceMetrics) -> (Presence, Service) {
    let (presence, reports) = Presence::new(config, clock.clone(), metrics.clone());
    let service = Service::new(config, clock, metrics, reports, presence.clone());
    (presence, service)
}

impl Presence {
    pub(crate) fn new(
        config: PresenceConfig,
        clock: Clock,
        metrics: PresenceMetrics,
    ) -> (Self, mpsc::Receiver<(Now, Report)>) {
        let (reports, receiver) = mpsc::channel(REPORTS);
        let (has_lost, wake) = (AtomicBool::new(false), Notify::new());
        let inner = Inner { reports: Mutex::new(reports), clock, config, metrics, has_lost, wake };
        (Self(Arc::new(inner)), receiver)
    }

    /// Reports that a connection was opened.
    pub fn up(&self, up: Up) {
        self.report(NodeReport::Up(up));
    }

    /// Reports that a connection has ended. The node's full set must not contain it any more.
    pub fn down(&self, user: UserId, connection: ConnectionId, how: Departure) {
        self.report(NodeReport::Down { user, connection, how });
    }

    /// Reports that nobody uses a client any more, or that somebody does again.
    pub fn set_idle(&self, user: UserId, connection: ConnectionId, is_idle: bool) {
        self.report(NodeReport::Idle { user, connection, is_idle });
    }

    /// Reports that the rows of a user's own settings have changed.
    pub fn settings_changed(&self, user: UserId) {
        self.report(NodeReport::Changed { user, circle: false });
    }

    /// Reports that the rows behind a user's circle have changed.
    pub fn circle_changed(&self, user: UserId) {
        self.report(NodeReport::Changed { user, circle: true });
    }

    /// Reports that a connection had no room for a frame. It gets everything again later.
    pub fn dropped(&self, user: UserId, connection: ConnectionId) {
        self.0.metrics.frames_dropped.inc();
        self.report(NodeReport::Dropped { user, connection });
    }

    /// The presence of users as `asker` may see it; users always see their own real state. `None` if presence cannot answer.
    /// Cancel safe.
    pub async fn states(&self, asker: Option<UserId>, users: Vec<UserId>) -> Option<States> {
        let (answer, states) = oneshot::channel();
        self.try_report(Report::States { asker, users, answer }).then_some(())?;
        states.await.ok()
    }

    /// The process ends. Waits until all reports have been passed on; in one process also until the times at which users were last
    /// active are written.
    pub async fn end(&self) {
        let (done, is_done) = oneshot::channel();
        if self.try_report(Report::End { done }) {
            // If presence has ended, there is nothing to write.
            let _ = is_done.await;
        }
    }

    /// Reports may have been lost: the node sends its full set, and the rows of its users are read again.
    pub fn resend(&self) {
        self.0.has_lost.store(true, Ordering::Release);
        self.0.wake.notify_one();
    }

    fn report(&self, report: NodeReport) {
        if !self.try_report(Report::Node(report)) {
            self.0.metrics.reports_lost.inc();
            self.resend();
        }
    }

    fn try_report(&self, report: Report) -> bool {
        self.0.reports.lock().try_send((now(&self.0.clock), report)).is_ok()
    }

    fn send_set(&self, connections: &impl Fn() -> Vec<Up>) -> bool {
        let reports = self.0.reports.lock();
        // A loss from here on asks for one more set. The lock is held while `connections` collects the set, so each other report is
        // queued either before or behind it.
        self.take_lost();
        reports.try_send((now(&self.0.clock), Report::Set(connections()))).is_ok()
    }

    /// Whether reports may have been lost since the last call.
    pub(crate) fn take_lost(&self) -> bool {
        self.0.has_lost.swap(false, Ordering::AcqRel)
    }

    /// Waits until reports may have been lost. Cancel safe.
    pub(crate) async fn lost(&self) {
        self.0.wake.notified().await;
    }
}

/// Keeps the lease of the node of one process; never returns. Renews the lease, or sends the full set under a new number if the lease was missed
/// or a report was lost. `connections` must not call the [`Presence`], whose lock is held meanwhile.
pub async fn lease(presence: Presence, connections: impl Fn() -> Vec<Up> + Send) {
    let Inner { clock, config, .. } = &*presence.0;
    let mut renewed = None;
    loop {
        let now = clock.elapsed();
        let is_missed = renewed.is_none_or(|at| now.saturating_sub(at) >= config.lease());
        let is_kept = match is_missed || presence.0.has_lost.load(Ordering::Acquire) {
            true => presence.send_set(&connections),
            false => presence.try_report(Report::Node(NodeReport::Renewal)),
        };
        if is_kept {
            renewed = Some(now);
            tokio::select! {
                () = clock.sleep(Duration::from_millis(config.renew_ms)) => continue,
                () = presence.0.wake.notified() => {}
            }
        } else {
            // The queue is full: the next round must send a set, not a renewal.
            presence.0.has_lost.store(true, Ordering::Release);
        }
        clock.sleep(CALM).await;
    }
}

pub(crate) fn now(clock: &Clock) -> Now {
    Now { at: clock.now_ms(), elapsed: clock.elapsed() }
}
