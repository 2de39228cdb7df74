//! The one thread that writes. It takes the waiting jobs, lingers where that pays, runs the group in one transaction, commits with
//! one fsync, answers, and then publishes the commits in order. So a durable write is acknowledged also while the reader of the
//! feed is behind. While the thread waits for the disk, the next group gathers in the queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use madang_ids::Position;
use rusqlite::Connection;
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use super::admin::copy::{self, CopyOrder};
use super::codec::number;
use super::disk;
use super::job::{self, Job, Transaction};
use super::linger::{Linger, Patience};
use super::log_limit::LogLimit;
use super::metrics::StoreMetrics;
use super::wal::{self, WalFile};
use crate::commit_order::{Commit, CommitFeed};
use crate::error::{StoreError, StoreResult};
use crate::waits::Waits;

/// Jobs that wait for the writer; more wait in their callers.
const QUEUE_JOBS: usize = 1024;
/// Bytes of rows that wait for the writer, in KiB.
pub(super) const QUEUE_KIB: usize = 64 * 1024;
/// Bytes of rows in the feed, and of those that its reader has taken and the gateway has not delivered; in KiB.
pub(super) const FEED_KIB: usize = 32 * 1024;
/// The most jobs of a group: enough that the fsync is a small part of each job's cost, and the wait is short.
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

/// The state that callers and the thread share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// The last durable position.
    pub(super) position: AtomicU64,
    /// The feed has a reader.
    pub(super) feed_is_taken: AtomicBool,
    /// A commit failed at the disk; the content of the file is unknown until it is opened again.
    is_broken: watch::Sender<bool>,
    /// The number of jobs that entered the queue, and of those that were answered. Jobs are answered in the order of the queue.
    entered: AtomicU64,
    pub(super) answered: AtomicU64,
    /// Once `answered` reaches this, all jobs are done whose callers have dropped their futures.
    fence: AtomicU64,
}

impl Writer {
    /// Starts the thread on `connection`.
    pub(super) fn start(
        connection: Connection,
        wal: WalFile,
        feed_commits: usize,
        metrics: StoreMetrics,
        waits: Waits,
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
        let (linger, log_limit) = (Linger::default(), LogLimit::default());
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
            log_limit,
            copy_asked,
            waits,
            last_sync: Duration::ZERO,
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

    /// A function that reads the position, also after this handle was dropped.
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

    /// Lets commits enter the feed from now on.
    pub(super) fn open_feed(&self) {
        self.shared.feed_is_taken.store(true, Ordering::SeqCst);
    }

    /// Runs `run` in the next transaction, and answers once it is durable. `run` may run more than once (see
    /// [`Thread::commit_group`]); only its last run counts. `bytes` is about the memory that it holds.
    pub(super) async fn write<T, F>(&self, bytes: usize, run: F) -> StoreResult<T>
    where
        T: Send + 'static,
        F: FnMut(&mut Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        let called_at = Instant::now();
        let kib = (bytes / 1024 + 1).min(QUEUE_KIB) as u32;
        let room = Arc::clone(&self.bytes).acquire_many_owned(kib).await.map_err(|_| stopped())?;
        let jobs = self.jobs.as_ref().ok_or_else(stopped)?;
        // Up to here a dropped future has done nothing. Behind this line there is no await until the job is in the queue, so
        // `entered` counts every job that a fence may have to wait for.
        let place = jobs.reserve().await.map_err(|_| stopped())?;
        let (reply, answer) = oneshot::channel();
        self.shared.entered.fetch_add(1, Ordering::SeqCst);
        place.send(Work::Job(job::job(called_at, run, room, reply)));
        let mut abandoned = Abandoned { shared: &self.shared, is_settled: false };
        let outcome = answer.await.unwrap_or_else(|_| Err(StoreError::Unknown("the writer stopped".into())));
        abandoned.is_settled = true;
        outcome
    }

    /// Waits until all jobs are done whose callers have dropped their futures, so that a read after this sees their outcome. This
    /// is how the read after an unknown append becomes certain: a home that was dropped in the middle has left its append in
    /// the queue, and the next home's load must see its rows.
    pub(super) async fn settle(&self) -> StoreResult<()> {
        if *self.shared.is_broken.borrow() {
            return Err(broken());
        }
        // The queue is first in, first out: an empty job that is answered proves that all jobs before it are done.
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

/// Raises the fence if the caller's future is dropped before the answer.
struct Abandoned<'a> {
    shared: &'a Shared,
    is_settled: bool,
}

impl Drop for Abandoned<'_> {
    fn drop(&mut self) {
        if !self.is_settled {
            // The caller's own job is at most at this number; jobs that entered after it only make the fence later, never wrong.
            let entered = self.shared.entered.load(Ordering::SeqCst);
            self.shared.fence.fetch_max(entered, Ordering::SeqCst);
        }
    }
}

/// A request to the thread.
pub(super) enum Work {
    Job(Box<dyn Job>),
    Copy(CopyOrder),
}

/// The jobs of one commit.
#[derive(Default)]
struct Group {
    jobs: Vec<Box<dyn Job>>,
    kib: usize,
}

/// The state of the thread alone.
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
    pub(super) log_limit: LogLimit,
    /// A copy that was requested while a group gathered. It begins after the commit of that group.
    pub(super) copy_asked: Option<CopyOrder>,
    pub(super) waits: Waits,
    /// The duration of the last sync. A job that comes meanwhile waits for its end however few there are.
    pub(super) last_sync: Duration,
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

    /// Waits for work, and tends the write-ahead log when that is due. `None` once the handle is dropped and the queue is empty.
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

    /// Commits `first` and the jobs that wait behind it as one group.
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

    /// Puts waiting jobs into a group. `false` if the group takes no more.
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
                self.waits.note_write(job.called_at().elapsed().saturating_sub(self.last_sync));
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
