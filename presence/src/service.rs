//! The shell that drives the core: takes reports, reads and writes rows concurrently, and hands out notices.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use madang_engine::session::Now;
use madang_service::Clock;
use madang_store::Store;
use tokio::sync::mpsc;

use crate::api::{Local, Report, States, now};
use crate::config::PresenceConfig;
use crate::core::{Core, Notice, View};
use crate::metrics::PresenceMetrics;
use crate::rows::{self, Done};

/// Reports that are taken before the notices that they cause are handed out.
const REPORTS_AT_ONCE: usize = 256;
/// Users whose rows are read in one batch, and batches that run at the same time. The store serves others too.
const BATCH: usize = 32;
const BATCHES: usize = 2;
/// The pause between two writes, and after a failure.
const REST: Duration = Duration::from_secs(1);

/// Presence in this process. [`run`] drives it.
#[derive(Debug)]
pub struct Service {
    core: Core,
    clock: Clock,
    metrics: PresenceMetrics,
    reports: mpsc::Receiver<(Now, Report)>,
    local: Local,
}

/// Batches of rows that run, and the earliest times of the next ones.
#[derive(Default)]
struct Rows {
    running: FuturesUnordered<BoxFuture<'static, Done>>,
    load_at: Duration,
    write_at: Duration,
}

impl Service {
    pub(crate) fn new(
        config: PresenceConfig,
        clock: Clock,
        metrics: PresenceMetrics,
        reports: mpsc::Receiver<(Now, Report)>,
        local: Local,
    ) -> Self {
        Self { core: Core::new(config, now(&clock)), clock, metrics, reports, local }
    }

    /// When there is something to do even if no report comes.
    fn next_look(&self, rows: &Rows) -> Option<Duration> {
        let load = (self.core.has_wanted() && rows.running.len() < BATCHES).then_some(rows.load_at);
        let write = self.core.has_left().then_some(rows.write_at);
        self.core.next_look().into_iter().chain(load).chain(write).min()
    }

    fn handle(&mut self, at: Now, report: Report) {
        let core = &mut self.core;
        match report {
            Report::Set { run, set } => core.handle_set(run, &View::whole(), &set, at),
            Report::Renewal { run } => core.handle_renewal(run, at),
            Report::Up { run, up } => core.handle_up(run, up, at),
            Report::Down { run, connection, how } => core.handle_down(run, connection, how, at),
            Report::Idle { run, connection, is_idle } => core.handle_idle(run, connection, is_idle, at),
            Report::Changed { user, circle } => core.handle_changed(user, circle),
            Report::Dropped { user, connection } => core.handle_dropped(user, connection, at),
            Report::States { asker, users, answer } => {
                let states = States { users: core.states(asker, &users), is_settled: core.is_settled() };
                // The caller may have stopped waiting.
                let _ = answer.send(states);
            }
            // Handled by the loop, which has the store.
            Report::End { .. } => {}
        }
    }

    fn handle_rows(&mut self, done: Done, rows: &mut Rows) {
        let now = now(&self.clock);
        match done {
            Done::Loaded(all) => all.into_iter().for_each(|loaded| self.core.handle_loaded(loaded, now)),
            Done::NotLoaded(wanted) => {
                self.metrics.row_failures.inc();
                rows.load_at = now.elapsed + REST;
                wanted.into_iter().for_each(|wanted| self.core.handle_not_loaded(wanted));
            }
            Done::Written => {}
            Done::NotWritten(marks) => {
                self.metrics.row_failures.inc();
                self.core.handle_unwritten(marks);
            }
        }
    }

    /// Starts the reads and writes that are due.
    fn begin_rows(&mut self, store: &Arc<dyn Store>, rows: &mut Rows) {
        let now = self.clock.elapsed();
        while self.core.has_wanted() && rows.running.len() < BATCHES && rows.load_at <= now {
            let wanted = self.core.poll_wanted(BATCH);
            if !wanted.is_empty() {
                rows.running.push(Box::pin(rows::load(Arc::clone(store), wanted)));
            }
        }
        if self.core.has_left() && rows.write_at <= now {
            rows.write_at = now + REST;
            rows.running.push(Box::pin(rows::write(Arc::clone(store), self.core.poll_left())));
        }
    }

    fn count(&mut self) {
        self.metrics.users.set(i64::try_from(self.core.users()).unwrap_or(i64::MAX));
        self.metrics.leases_missed.inc_by(self.core.poll_leases_missed());
        while let Some(stranger) = self.core.poll_stranger() {
            self.local.ask_set(stranger);
        }
        self.metrics.reports_refused.inc_by(self.core.poll_refused());
    }
}

/// Drives presence; never returns. `tell` is called for each notice, in order, and must not block.
pub async fn run(mut service: Service, store: Arc<dyn Store>, mut tell: impl FnMut(Notice) + Send) {
    let mut rows = Rows::default();
    let mut reports = Vec::with_capacity(REPORTS_AT_ONCE);
    loop {
        let clock = service.clock.clone();
        let look = service.next_look(&rows);
        let due = async {
            match look {
                Some(at) => clock.sleep(at.saturating_sub(clock.elapsed())).await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            _ = service.reports.recv_many(&mut reports, REPORTS_AT_ONCE) => {}
            Some(done) = rows.running.next() => service.handle_rows(done, &mut rows),
            () = due => {}
        }
        for (at, report) in reports.drain(..) {
            match report {
                Report::End { done } => {
                    service.core.handle_end(at);
                    rows::write(Arc::clone(&store), service.core.poll_left()).await;
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
        service.begin_rows(&store, &mut rows);
        while let Some(notice) = service.core.poll_notice() {
            service.metrics.changes_sent.inc();
            tell(notice);
        }
        service.count();
    }
}
