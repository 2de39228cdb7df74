//! Reads and writes the rows behind presence, in batches that run beside the core.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use madang_engine::session::Now;
use madang_ids::{Millis, UserId};
use madang_proto::limits;
use madang_store::{Store, StoreResult};

use crate::core::{Core, Loaded, Wanted};
use crate::metrics::PresenceMetrics;

/// Users whose rows are read in one batch, and batches that run at the same time. The store serves others too.
const BATCH: usize = 32;
const BATCHES: usize = 2;
/// The pause between two writes, and after a failure.
const REST: Duration = Duration::from_secs(1);

/// The result of a batch.
pub(crate) enum Done {
    Loaded(Vec<Loaded>),
    NotLoaded(Vec<Wanted>),
    Written,
    NotWritten(Vec<(UserId, Millis)>),
}

/// Batches that run, and the earliest times of the next ones.
pub(crate) struct Rows {
    store: Arc<dyn Store>,
    metrics: PresenceMetrics,
    running: FuturesUnordered<BoxFuture<'static, Done>>,
    load_at: Duration,
    write_at: Duration,
}

impl Rows {
    pub(crate) fn new(store: Arc<dyn Store>, metrics: PresenceMetrics) -> Self {
        let (load_at, write_at) = (Duration::ZERO, Duration::ZERO);
        Self { store, metrics, running: FuturesUnordered::new(), load_at, write_at }
    }

    /// When the next batch is due, if there is anything to read or write.
    pub(crate) fn next_look(&self, core: &Core) -> Option<Duration> {
        let load = (core.has_wanted() && self.running.len() < BATCHES).then_some(self.load_at);
        let write = core.has_left().then_some(self.write_at);
        load.into_iter().chain(write).min()
    }

    /// Waits for the next batch; `None` if none is running. Cancel safe.
    pub(crate) async fn done(&mut self) -> Option<Done> {
        self.running.next().await
    }

    pub(crate) fn handle(&mut self, done: Done, core: &mut Core, now: Now) {
        match done {
            Done::Loaded(all) => all.into_iter().for_each(|loaded| core.handle_loaded(loaded, now)),
            Done::NotLoaded(wanted) => {
                self.metrics.row_failures.inc();
                self.load_at = now.elapsed + REST;
                wanted.into_iter().for_each(|wanted| core.handle_not_loaded(wanted));
            }
            Done::Written => {}
            Done::NotWritten(marks) => {
                self.metrics.row_failures.inc();
                core.handle_unwritten(marks);
            }
        }
    }

    /// Starts the reads and writes that are due.
    pub(crate) fn begin(&mut self, core: &mut Core, now: Duration) {
        while core.has_wanted() && self.running.len() < BATCHES && self.load_at <= now {
            let wanted = core.poll_wanted(BATCH);
            if !wanted.is_empty() {
                self.running.push(Box::pin(load(Arc::clone(&self.store), wanted)));
            }
        }
        if core.has_left() && self.write_at <= now {
            self.write_at = now + REST;
            self.running.push(Box::pin(write(Arc::clone(&self.store), core.poll_left())));
        }
    }

    /// Writes everything that is left, and waits for it.
    pub(crate) async fn write_all(&mut self, core: &mut Core) {
        write(Arc::clone(&self.store), core.poll_left()).await;
    }
}

/// Reads what is wanted: all of it or nothing.
async fn load(store: Arc<dyn Store>, wanted: Vec<Wanted>) -> Done {
    match try_load(&*store, &wanted).await {
        Ok(loaded) => Done::Loaded(loaded),
        Err(error) => {
            tracing::warn!(%error, users = wanted.len(), "reading presence settings failed");
            Done::NotLoaded(wanted)
        }
    }
}

async fn try_load(store: &dyn Store, wanted: &[Wanted]) -> StoreResult<Vec<Loaded>> {
    let users: Vec<UserId> = wanted.iter().map(|wanted| wanted.user).collect();
    let rows = store.presence(&users).await?;
    let revs = store.users(&users).await?.into_iter().map(|user| user.map_or(1, |user| user.rev));
    let mut loaded = Vec::with_capacity(wanted.len());
    for ((Wanted { user, circle }, row), rev) in wanted.iter().zip(rows).zip(revs) {
        let most = limits::CONTACTS as usize;
        let circle = match circle {
            true => Some(store.circle(*user, limits::WATCHED_GROUP_MEMBERS, most).await?),
            false => None,
        };
        loaded.push(Loaded { user: *user, row, rev, circle });
    }
    Ok(loaded)
}

/// Writes when users were last active.
async fn write(store: Arc<dyn Store>, marks: Vec<(UserId, Millis)>) -> Done {
    match store.set_last_active(&marks).await {
        Ok(()) => Done::Written,
        Err(error) => {
            tracing::warn!(%error, users = marks.len(), "saving times of last activity failed");
            Done::NotWritten(marks)
        }
    }
}
