//! The one thread that writes. It takes what waits, lingers a little where that pays, runs it in one transaction,
//! commits with one fsync, answers, and then publishes the commits in order: what is durable is acknowledged also while the
//! reader of the feed is behind. While it waits for the disk, the next group gathers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use madang_ids::Position;
use rusqlite::Connection;
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use super::admin::copy::{self, CopyOrder};
use super::codec::number;
use super::disk;
use super::job::{self, Job, Transaction};
use super::linger::{Linger, Patience};
use super::metrics::StoreMetrics;
use super::seldom::Seldom;
use super::wal::{self, WalFile};
use crate::commit_order::{Commit, CommitFeed};
use crate::error::{StoreError, StoreResult};

/// Jobs that wait for the writer; more wait in their callers.
const QUEUE_JOBS: usize = 1024;
/// Bytes of rows that wait for the writer, in KiB.
pub(super) const QUEUE_KIB: usize = 64 * 1024;
/// Bytes of rows in the feed, and behind it until the gateway has brought them to its connections; in KiB.
pub(super) const FEED_KIB: usize = 32 * 1024;
/// A group: large enough that the fsync is a small part of each job, small enough that nobody waits long for it.
const GROUP_JOBS: usize = 512;
const GROUP_KIB: usize = 4 * 1024;

/// The handle to the thread. Dropping it finishes what is queued.
#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    jobs: Option<mpsc::Sender<Work>>,
    bytes: Arc<Semaphore>,
    closing: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

/// What callers and the thread both see.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// The last durable position.
    pub(super) position: AtomicU64,
    /// Somebody reads the feed.
    pub(super) feed_is_taken: AtomicBool,
    /// A commit failed at the disk; what the file holds now is not known before it is opened again.
    is_broken: watch::Sender<bool>,
    /// Jobs that entered the queue, and jobs that were answered.
    entered: AtomicU64,
    pub(super) answered: AtomicU64,
    /// `answered` must reach this before all jobs whose callers went away are settled.
    fence: AtomicU64,
}

impl Writer {
    /// Starts the thread on `connection`.
    pub(super) fn start(
        connection: Connection,
        wal: WalFile,
        feed_commits: usize,
        metrics: StoreMetrics,
    ) -> std::io::Result<(Self, CommitFeed)> {
        let position = connection
            .query_row("SELECT value FROM position", [], |row| number(row, 0))
            .map_err(std::io::Error::other)?;
        let shared = Arc::new(Shared { position: AtomicU64::new(position), ..Shared::default() });
        let (jobs, queue) = mpsc::channel(QUEUE_JOBS);
        let (feed, receiver) = mpsc::channel(feed_commits);
        let (closing, closed) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let (feed, shared_too) = (Some(feed), Arc::clone(&shared));
        let (linger, seldom) = (Linger::default(), Seldom::default());
        let copy_asked = None;
        let feed_room = Arc::new(Semaphore::new(FEED_KIB));
        let thread = Thread {
            wal,
            shared: shared_too,
            feed,
            feed_room,
            closed,
            runtime,
            metrics,
            linger,
            seldom,
            copy_asked,
        };
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || thread.run(&connection, queue))?;
        let bytes = Arc::new(Semaphore::new(QUEUE_KIB));
        Ok((Self { shared, jobs: Some(jobs), bytes, closing, thread: Some(thread) }, receiver))
    }

    pub(super) fn position(&self) -> Position {
        Position::new(self.shared.position.load(Ordering::SeqCst))
    }

    /// Shows the position to those who outlive this handle.
    pub(super) fn position_reader(&self) -> impl Fn() -> Position + Send + 'static {
        let shared = Arc::clone(&self.shared);
        move || Position::new(shared.position.load(Ordering::SeqCst))
    }

    /// Waits until the disk has failed. Cancel safe.
    pub(super) async fn broken(&self) {
        let mut is_broken = self.shared.is_broken.subscribe();
        // The sender lives in `shared`, which this handle holds.
        let _ = is_broken.wait_for(|broken| *broken).await;
    }

    /// Copies the database into a new file, page by page, between the groups; see [`copy`].
    pub(super) async fn copy(&self, target: std::path::PathBuf) -> StoreResult<()> {
        let jobs = self.jobs.as_ref().ok_or_else(stopped)?;
        let (reply, answer) = oneshot::channel();
        jobs.send(Work::Copy(CopyOrder { target, reply })).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    /// From now on commits enter the feed.
    pub(super) fn open_feed(&self) {
        self.shared.feed_is_taken.store(true, Ordering::SeqCst);
    }

    /// Runs `run` in the next transaction, and answers once it is durable. `run` may run more than once; only its
    /// last run counts. `bytes` is about what it holds in memory.
    pub(super) async fn write<T, F>(&self, bytes: usize, run: F) -> StoreResult<T>
    where
        T: Send + 'static,
        F: FnMut(&mut Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        let kib = (bytes / 1024 + 1).min(QUEUE_KIB) as u32;
        let room = Arc::clone(&self.bytes).acquire_many_owned(kib).await.map_err(|_| stopped())?;
        let jobs = self.jobs.as_ref().ok_or_else(stopped)?;
        let place = jobs.reserve().await.map_err(|_| stopped())?;
        let (reply, answer) = oneshot::channel();
        self.shared.entered.fetch_add(1, Ordering::SeqCst);
        place.send(Work::Job(job::job(run, room, reply)));
        let mut abandoned = Abandoned { shared: &self.shared, is_settled: false };
        let outcome = answer.await.unwrap_or_else(|_| Err(StoreError::Unknown("the writer stopped".into())));
        abandoned.is_settled = true;
        outcome
    }

    /// Waits until jobs whose callers went away are done, so that a read after this sees their outcome.
    pub(super) async fn settle(&self) -> StoreResult<()> {
        if *self.shared.is_broken.borrow() {
            return Err(broken());
        }
        if self.shared.answered.load(Ordering::SeqCst) < self.shared.fence.load(Ordering::SeqCst) {
            return self.write(0, |_| Ok(())).await;
        }
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.jobs = None;
        self.closing.send_replace(true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the store's writer panicked");
        }
    }
}

fn stopped() -> StoreError {
    StoreError::Unavailable("the writer stopped".into())
}

pub(super) fn broken() -> StoreError {
    StoreError::Unavailable("the disk failed; the server must be restarted".into())
}

/// Notes a caller who went away before the answer.
struct Abandoned<'a> {
    shared: &'a Shared,
    is_settled: bool,
}

impl Drop for Abandoned<'_> {
    fn drop(&mut self) {
        if !self.is_settled {
            let entered = self.shared.entered.load(Ordering::SeqCst);
            self.shared.fence.fetch_max(entered, Ordering::SeqCst);
        }
    }
}

/// What the thread is asked.
pub(super) enum Work {
    Job(Box<dyn Job>),
    Copy(CopyOrder),
}

/// What is committed together.
#[derive(Default)]
struct Group {
    jobs: Vec<Box<dyn Job>>,
    kib: usize,
}

/// The thread's own.
pub(super) struct Thread {
    pub(super) wal: WalFile,
    pub(super) shared: Arc<Shared>,
    pub(super) feed: Option<mpsc::Sender<Commit>>,
    /// Room for the rows in the feed.
    pub(super) feed_room: Arc<Semaphore>,
    pub(super) closed: watch::Receiver<bool>,
    pub(super) runtime: Runtime,
    pub(super) metrics: StoreMetrics,
    pub(super) linger: Linger,
    pub(super) seldom: Seldom,
    /// A copy that was asked for while a group gathered.
    pub(super) copy_asked: Option<CopyOrder>,
}

impl Thread {
    fn run(mut self, connection: &Connection, mut queue: mpsc::Receiver<Work>) {
        while let Some(work) = self.next(connection, &mut queue) {
            self.work(connection, work, &mut queue);
            while let Some(order) = self.copy_asked.take() {
                copy::run(&mut self, connection, order, &mut queue);
            }
        }
        if !self.is_broken()
            && let Err(error) = wal::empty(connection)
        {
            tracing::warn!(%error, "emptying the write-ahead log at shutdown failed");
        }
    }

    /// Waits for work, and tends the log meanwhile.
    fn next(&mut self, connection: &Connection, queue: &mut mpsc::Receiver<Work>) -> Option<Work> {
        while let Some(wait) = self.wal.due_in().filter(|_| !self.is_broken()) {
            let waited = self.runtime.block_on(async { tokio::time::timeout(wait, queue.recv()).await });
            match waited {
                Ok(work) => return work,
                Err(_) => self.tend_log(connection),
            }
        }
        queue.blocking_recv()
    }

    pub(super) fn is_broken(&self) -> bool {
        *self.shared.is_broken.borrow()
    }

    /// Commits `first` and what waits behind it as one group.
    pub(super) fn work(&mut self, connection: &Connection, first: Work, queue: &mut mpsc::Receiver<Work>) {
        let mut group = Group::default();
        if self.put(&mut group, first) {
            if let Some(breath) = self.linger.breath() {
                // waits for: jobs of callers who were answered just now
                std::thread::sleep(breath);
            }
            if self.gather(&mut group, queue) {
                self.linger(&mut group, queue);
            }
        }
        if !group.jobs.is_empty() {
            self.commit_group(connection, group.jobs, queue);
            self.tend_log(connection);
        }
    }

    /// Waits for more jobs where that pays.
    fn linger(&mut self, group: &mut Group, queue: &mut mpsc::Receiver<Work>) {
        let Some(Patience { pause, longest }) = self.linger.patience() else { return };
        let began = Instant::now();
        while let Some(left) = longest.checked_sub(began.elapsed()) {
            let paused = Instant::now();
            // waits for: jobs of callers who know nothing of each other
            std::thread::sleep(pause.min(left));
            self.linger.note(queue.len(), paused.elapsed());
            if queue.is_empty() || !self.gather(group, queue) {
                return;
            }
        }
    }

    /// Puts what waits into a group. `false` if nothing more may be put into it.
    fn gather(&mut self, group: &mut Group, queue: &mut mpsc::Receiver<Work>) -> bool {
        while let Ok(work) = queue.try_recv() {
            if !self.put(group, work) {
                return false;
            }
        }
        true
    }

    fn put(&mut self, group: &mut Group, work: Work) -> bool {
        match work {
            Work::Job(job) => {
                group.kib += job.kib();
                group.jobs.push(job);
                group.jobs.len() < GROUP_JOBS && group.kib < GROUP_KIB
            }
            Work::Copy(order) => {
                copy::refuse(self.copy_asked.replace(order));
                false
            }
        }
    }

    pub(super) fn tend_log(&mut self, connection: &Connection) {
        if self.is_broken() {
            return;
        }
        if let Err(error) = self.wal.tend(connection) {
            self.metrics.checkpoint_failures.inc();
            tracing::warn!(%error, "checkpoint failed");
            if disk::is_fatal(&error) {
                self.break_down();
            }
        }
    }

    pub(super) fn break_down(&self) {
        tracing::error!("sync failed: no further writes until the folder is opened again");
        self.shared.is_broken.send_replace(true);
    }
}
