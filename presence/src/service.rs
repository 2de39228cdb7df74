//! The shell that drives the core: takes reports, reads and writes rows concurrently, and hands out notices.

use std::future::pending;
use std::sync::Arc;

use madang_engine::session::Now;
use madang_ids::NodeEpoch;
use madang_service::Clock;
use madang_store::Store;
use tokio::sync::mpsc;

use crate::api::{NodeRun, Presence, Report, States, now};
use crate::config::PresenceConfig;
use crate::core::{Core, Notice, View};
use crate::metrics::PresenceMetrics;
use crate::rows::Rows;

/// Reports that are taken before the notices that they cause are handed out.
const REPORTS_AT_ONCE: usize = 256;

/// Presence in this process. [`run`] drives it.
#[derive(Debug)]
pub struct Service {
    core: Core,
    clock: Clock,
    metrics: PresenceMetrics,
    reports: mpsc::Receiver<(Now, Report)>,
    presence: Presence,
    /// The only node, with the number of its last set. Presence starts and ends with it, so one epoch is enough.
    node: NodeRun,
}

impl Service {
    pub(crate) fn new(
        config: PresenceConfig,
        clock: Clock,
        metrics: PresenceMetrics,
        reports: mpsc::Receiver<(Now, Report)>,
        presence: Presence,
    ) -> Self {
        let node = NodeRun { worker: 0, epoch: NodeEpoch(0), set: 0 };
        Self { core: Core::new(config, now(&clock)), clock, metrics, reports, presence, node }
    }

    fn handle(&mut self, at: Now, report: Report) {
        let core = &mut self.core;
        match report {
            Report::Node(report) => core.handle_report(self.node, report, at),
            Report::Set(set) => {
                self.node.set += 1;
                core.handle_set(self.node, &View::whole(), &set, at);
            }
            Report::States { asker, users, answer } => {
                let states = States { users: core.states(asker, &users), is_settled: core.is_settled() };
                // The caller may have stopped waiting.
                let _ = answer.send(states);
            }
            // Handled by the loop, which has the store.
            Report::End { .. } => {}
        }
    }

    fn count(&mut self) {
        self.metrics.users.set(i64::try_from(self.core.users()).unwrap_or(i64::MAX));
        self.metrics.leases_missed.inc_by(self.core.poll_leases_missed());
        while self.core.poll_stranger().is_some() {
            self.presence.resend();
        }
        self.metrics.reports_refused.inc_by(self.core.poll_refused());
    }
}

/// Drives presence; never returns. `tell` is called for each notice, in order, and must not block.
pub async fn run(mut service: Service, store: Arc<dyn Store>, mut tell: impl FnMut(Notice) + Send) {
    let mut rows = Rows::new(store, service.metrics.clone());
    let mut reports = Vec::with_capacity(REPORTS_AT_ONCE);
    loop {
        let clock = service.clock.clone();
        let look = service.core.next_look().into_iter().chain(rows.next_look(&service.core)).min();
        let due = async {
            match look {
                Some(at) => clock.sleep(at.saturating_sub(clock.elapsed())).await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            _ = service.reports.recv_many(&mut reports, REPORTS_AT_ONCE) => {}
            Some(done) = rows.done() => rows.handle(done, &mut service.core, now(&service.clock)),
            () = due => {}
        }
        for (at, report) in reports.drain(..) {
            match report {
                Report::End { done } => {
                    service.core.handle_end(at);
                    rows.write_all(&mut service.core).await;
                    // The caller may have stopped waiting.
                    let _ = done.send(());
                }
                report => service.handle(at, report),
            }
        }
        let now = now(&service.clock);
        if service.core.next_look().is_some_and(|at| at <= now.elapsed) {
            service.core.handle_time(now);
        }
        rows.begin(&mut service.core, now.elapsed);
        while let Some(notice) = service.core.poll_notice() {
            service.metrics.changes_sent.inc();
            tell(notice);
        }
        service.count();
    }
}
