//! The shells that drive both sides of presence in a fleet.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use madang_engine::session::Now;
use madang_service::{Clock, Drain};
use madang_store::Store;
use tokio::sync::{mpsc, oneshot, watch};

use super::LiveProcesses;
use super::node::Node;
use super::post::{CoreInbox, NodeInbox, Post};
use super::process::{Process, TICK};
use crate::api::{Presence, Report, Up, now};
use crate::config::PresenceConfig;
use crate::core::Notice;
use crate::metrics::{FleetMetrics, PresenceMetrics};
use crate::rows::Rows;

/// Reports and frames that are taken before what they cause is sent.
const AT_ONCE: usize = 256;
/// After the others own its users, a process that drains takes frames for this time: nodes read the view once a second, and what a
/// node has reported before must be handed over too.
const AFTER_VIEW: Duration = Duration::from_secs(3);
/// The longest drain. A registry that cannot be reached does not hold up the process.
const DRAIN: Duration = Duration::from_secs(10);

/// The live processes, whenever they change.
pub type Live = watch::Receiver<Arc<LiveProcesses>>;

/// The node's side of presence in a fleet. [`run_node`] drives it.
#[derive(Debug)]
pub struct Remote {
    node: Node,
    clock: Clock,
    presence: Presence,
    reports: mpsc::Receiver<(Now, Report)>,
}

/// Makes both ends of a presence role whose users are spread over presence processes.
#[must_use]
pub fn remote(
    config: PresenceConfig,
    clock: Clock,
    metrics: PresenceMetrics,
    fleet: FleetMetrics,
) -> (Presence, Remote) {
    let (presence, reports) = Presence::new(config, clock.clone(), metrics);
    let remote = Remote { node: Node::new(config, fleet), clock, presence: presence.clone(), reports };
    (presence, remote)
}

/// Drives the node's side; never returns. `connections` are those of this node; it must not call the [`Presence`]. `deliver` is
/// called for each notice, in order, and must not block.
pub async fn run_node(
    remote: Remote,
    (post, mut inbox): (Post, NodeInbox),
    mut live: Live,
    connections: impl Fn() -> Vec<Up> + Send,
    mut deliver: impl FnMut(Notice) + Send,
) {
    let Remote { mut node, clock, presence, mut reports } = remote;
    let mut waiting = Vec::with_capacity(AT_ONCE);
    let mut ended: Vec<oneshot::Sender<()>> = Vec::new();
    node.handle_live(&live.borrow_and_update().clone(), now(&clock));
    loop {
        let at = now(&clock);
        node.handle_time(at);
        if presence.take_lost() {
            node.handle_lost();
        }
        if node.wants_set(at) {
            node.give_set(&connections(), at);
        }
        while let Some((to, frame)) = node.poll_frame(at) {
            if !post.send(node.me(), to, &frame) {
                node.handle_unsent(to, &frame, at);
            }
        }
        while let Some(notice) = node.poll_notice() {
            deliver(notice);
        }
        for done in ended.drain(..) {
            // The caller may have stopped waiting.
            let _ = done.send(());
        }
        let due = clock.sleep(node.next_look().saturating_sub(clock.elapsed()));
        tokio::select! {
            biased;
            () = changed(&mut live) => {
                let live = live.borrow_and_update().clone();
                node.handle_live(&live, now(&clock));
            }
            _ = reports.recv_many(&mut waiting, AT_ONCE) => {}
            Some(frame) = inbox.0.recv() => node.handle_frame(frame),
            () = presence.lost() => {}
            () = due => {}
        }
        // Also while there are always more reports.
        for frame in std::iter::from_fn(|| inbox.0.try_recv()).take(AT_ONCE) {
            node.handle_frame(frame);
        }
        for (at, report) in waiting.drain(..) {
            match report {
                Report::Node(report) => node.handle_report(report, at),
                Report::States { asker, users, answer } => node.ask(asker, users, answer, at),
                // Answered when everything that was reported before has been sent.
                Report::End { done } => ended.push(done),
                // Only the lease of one process puts a set into the queue.
                Report::Set(_) => {}
            }
        }
    }
}

/// Waits for other live processes. Never returns if there is no source of them any more. Cancel safe.
async fn changed(live: &mut Live) {
    if live.changed().await.is_err() {
        pending::<()>().await;
    }
}

/// The parts of a presence process.
pub struct ProcessParts {
    /// The settings.
    pub config: PresenceConfig,
    /// The clock.
    pub clock: Clock,
    /// The metrics of the core.
    pub metrics: PresenceMetrics,
    /// The metrics of what passes between processes.
    pub fleet: FleetMetrics,
    /// The rows.
    pub store: Arc<dyn Store>,
    /// Its frames.
    pub post: (Post, CoreInbox),
    /// The live processes.
    pub live: Live,
}

/// Drives a presence process until `drain` begins and its users have been handed over, which takes some seconds. Those who drain it
/// must also take it out of the live processes, because that moves the users.
pub async fn run_process(parts: ProcessParts, drain: Drain) {
    let ProcessParts { config, clock, metrics, fleet, store, post: (post, mut inbox), mut live } = parts;
    let mut rows = Rows::new(Arc::clone(&store), metrics.clone());
    let first = live.borrow_and_update().clone();
    let mut process = Process::new(config, &first, now(&clock), fleet);
    let mut ends_at: Option<Duration> = None;
    loop {
        let at = now(&clock);
        process.begin(at);
        rows.begin(&mut process.core, at.elapsed);
        while let Some((to, frame)) = process.poll_frame(at) {
            if !post.send(process.me(), to, &frame) {
                process.handle_unsent(to, &frame, at);
            }
        }
        count(&mut process, &metrics);
        if process.has_left() {
            let after = at.elapsed + AFTER_VIEW;
            ends_at = ends_at.map(|ends| ends.min(after));
        }
        if ends_at.is_some_and(|ends| ends <= at.elapsed) {
            break;
        }
        let look = process.core.next_look().into_iter().chain(rows.next_look(&process.core)).min();
        let wait = look.map_or(TICK, |look| look.saturating_sub(clock.elapsed()).min(TICK));
        let frame = tokio::select! {
            biased;
            Some(done) = rows.done() => {
                rows.handle(done, &mut process.core, now(&clock));
                None
            }
            () = changed(&mut live) => {
                let live = live.borrow_and_update().clone();
                if live.me != process.me() {
                    // What was read for the former life of the process is too old for the new one.
                    rows = Rows::new(Arc::clone(&store), metrics.clone());
                }
                process.handle_live(&live, now(&clock));
                None
            }
            Some(frame) = inbox.0.recv() => Some(frame),
            () = drain.draining(), if ends_at.is_none() => {
                ends_at = Some(clock.elapsed() + DRAIN);
                process.handle_drain();
                // A view without this process was not taken before.
                let live = live.borrow_and_update().clone();
                process.handle_live(&live, now(&clock));
                None
            }
            () = clock.sleep(wait) => None,
        };
        let at = now(&clock);
        process.begin(at);
        // Also while there are always more rows.
        let more = std::iter::from_fn(|| inbox.0.try_recv()).take(AT_ONCE);
        for frame in frame.into_iter().chain(more) {
            process.handle_frame(frame, at);
        }
    }
    process.core.handle_end(now(&clock));
    rows.write_all(&mut process.core).await;
}

fn count(process: &mut Process, metrics: &PresenceMetrics) {
    metrics.changes_sent.inc_by(process.poll_told());
    let core = &mut process.core;
    metrics.users.set(i64::try_from(core.users()).unwrap_or(i64::MAX));
    metrics.leases_missed.inc_by(core.poll_leases_missed());
    metrics.reports_refused.inc_by(core.poll_refused());
}
