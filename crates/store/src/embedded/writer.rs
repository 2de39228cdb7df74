//! The one thread that writes. It takes what waits, runs it in one transaction, commits with one fsync, publishes
//! the commits in order, and then answers. While it waits for the disk, the next group gathers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use madang_ids::{LogId, Position};
use rusqlite::{Connection, TransactionBehavior};
use tokio::runtime::Runtime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use super::codec::{int, number, store_error};
use super::wal::WalFile;
use crate::commit_order::{Commit, CommitFeed};
use crate::error::{StoreError, StoreResult};
use crate::log::Row;

/// Jobs that wait for the writer; more wait in their callers.
const QUEUE_JOBS: usize = 1024;
/// Bytes of rows that wait for the writer, in KiB.
const QUEUE_KIB: usize = 64 * 1024;
/// A group: large enough that the fsync is a small part of each job, small enough that nobody waits long for it.
const GROUP_JOBS: usize = 512;
const GROUP_KIB: usize = 4 * 1024;

/// The handle to the thread. Dropping it finishes what is queued.
#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    jobs: Option<mpsc::Sender<Box<dyn Job>>>,
    bytes: Arc<Semaphore>,
    closing: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

/// What callers and the thread both see.
#[derive(Debug, Default)]
struct Shared {
    /// The last durable position.
    position: AtomicU64,
    /// Somebody reads the feed.
    feed_is_taken: AtomicBool,
    /// A commit failed at the disk; what the file holds now is not known before it is opened again.
    is_broken: AtomicBool,
    /// Jobs that entered the queue, and jobs that were answered.
    entered: AtomicU64,
    answered: AtomicU64,
    /// `answered` must reach this before all jobs whose callers went away are settled.
    fence: AtomicU64,
}

impl Writer {
    /// Starts the thread on `connection`.
    pub(super) fn start(
        connection: Connection,
        wal: WalFile,
        feed_commits: usize,
    ) -> std::io::Result<(Self, CommitFeed)> {
        let position = connection
            .query_row("SELECT value FROM position", [], |row| number(row, 0))
            .map_err(std::io::Error::other)?;
        let shared = Arc::new(Shared { position: AtomicU64::new(position), ..Shared::default() });
        let (jobs, queue) = mpsc::channel(QUEUE_JOBS);
        let (feed, receiver) = mpsc::channel(feed_commits);
        let (closing, closed) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let feed = Some(feed);
        let thread = Thread { connection, wal, shared: Arc::clone(&shared), feed, closed, runtime };
        let thread =
            std::thread::Builder::new().name("store-writer".into()).spawn(move || thread.run(queue))?;
        let bytes = Arc::new(Semaphore::new(QUEUE_KIB));
        Ok((Self { shared, jobs: Some(jobs), bytes, closing, thread: Some(thread) }, receiver))
    }

    pub(super) fn position(&self) -> Position {
        Position::new(self.shared.position.load(Ordering::SeqCst))
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
        place.send(Box::new(Task { run, result: None, reply, room }));
        let mut abandoned = Abandoned { shared: &self.shared, is_settled: false };
        let outcome = answer.await.unwrap_or_else(|_| Err(StoreError::Unknown("the writer stopped".into())));
        abandoned.is_settled = true;
        outcome
    }

    /// Waits until jobs whose callers went away are done, so that a read after this sees their outcome.
    pub(super) async fn settle(&self) -> StoreResult<()> {
        if self.shared.is_broken.load(Ordering::SeqCst) {
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

fn broken() -> StoreError {
    StoreError::Unavailable("a write failed at the disk; restart the server once the disk is well".into())
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

/// What jobs write in.
pub(super) struct Transaction<'a> {
    db: &'a Connection,
    position: u64,
    commits: Vec<Commit>,
}

impl Transaction<'_> {
    pub(super) const fn db(&self) -> &Connection {
        self.db
    }

    /// The last position given out.
    pub(super) const fn position(&self) -> Position {
        Position::new(self.position)
    }

    /// Gives `rows` their positions; they are published if the transaction commits. Answers with the first.
    pub(super) fn publish(&mut self, log: LogId, rows: &Arc<[Row]>) -> Position {
        let first = Position::new(self.position + 1);
        self.position += rows.len() as u64;
        self.commits.push(Commit { log, rows: Arc::clone(rows), first });
        first
    }
}

/// One caller's work.
trait Job: Send {
    fn run(&mut self, transaction: &mut Transaction<'_>) -> rusqlite::Result<()>;
    fn kib(&self) -> usize;
    /// Answers the caller: with the result of the last run, or with why it did not count.
    fn answer(self: Box<Self>, failure: Option<&StoreError>);
}

struct Task<T, F> {
    run: F,
    result: Option<T>,
    reply: oneshot::Sender<StoreResult<T>>,
    room: OwnedSemaphorePermit,
}

impl<T, F> Job for Task<T, F>
where
    T: Send,
    F: FnMut(&mut Transaction<'_>) -> rusqlite::Result<T> + Send,
{
    fn run(&mut self, transaction: &mut Transaction<'_>) -> rusqlite::Result<()> {
        self.result = Some((self.run)(transaction)?);
        Ok(())
    }

    fn kib(&self) -> usize {
        self.room.num_permits()
    }

    fn answer(self: Box<Self>, failure: Option<&StoreError>) {
        let outcome = match (failure, self.result) {
            (Some(failure), _) => Err(failure.clone()),
            (None, Some(result)) => Ok(result),
            (None, None) => Err(StoreError::Corrupt("a write that never ran was committed".into())),
        };
        // Who no longer waits finds the outcome by reading.
        let _ = self.reply.send(outcome);
    }
}

/// How a group failed.
enum Failure {
    /// A job in it did; rolled back.
    Job(StoreError),
    /// Nothing was done.
    Group(StoreError),
    /// The disk failed at the commit, so nobody knows.
    Unknown(StoreError),
}

/// The thread's own.
struct Thread {
    connection: Connection,
    wal: WalFile,
    shared: Arc<Shared>,
    feed: Option<mpsc::Sender<Commit>>,
    closed: watch::Receiver<bool>,
    runtime: Runtime,
}

impl Thread {
    fn run(mut self, mut queue: mpsc::Receiver<Box<dyn Job>>) {
        while let Some(first) = queue.blocking_recv() {
            let mut kib = first.kib();
            let mut group = vec![first];
            while group.len() < GROUP_JOBS && kib < GROUP_KIB {
                let Ok(job) = queue.try_recv() else { break };
                kib += job.kib();
                group.push(job);
            }
            self.commit_group(group);
            self.wal.keep_short(&self.connection);
        }
    }

    /// Commits and answers a group. If a job in it fails, each runs alone, so that it hurts only itself.
    fn commit_group(&mut self, mut group: Vec<Box<dyn Job>>) {
        match self.attempt(&mut group) {
            Ok(commits) => {
                self.publish(commits);
                self.answer(group, None);
            }
            Err(Failure::Job(_)) if group.len() > 1 => {
                for job in group {
                    self.commit_group(vec![job]);
                }
            }
            Err(Failure::Job(error) | Failure::Group(error)) => {
                tracing::error!(%error, jobs = group.len(), "the store did not write");
                self.answer(group, Some(&error));
            }
            Err(Failure::Unknown(error)) => {
                tracing::error!(%error, jobs = group.len(), "the store does not know whether it wrote, and stops");
                self.shared.is_broken.store(true, Ordering::SeqCst);
                self.answer(group, Some(&error));
            }
        }
    }

    fn attempt(&self, group: &mut [Box<dyn Job>]) -> Result<Vec<Commit>, Failure> {
        if self.shared.is_broken.load(Ordering::SeqCst) {
            return Err(Failure::Group(broken()));
        }
        let start = self.shared.position.load(Ordering::SeqCst);
        let begun = rusqlite::Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate)
            .map_err(|error| Failure::Group(store_error(&error)))?;
        let mut transaction = Transaction { db: &self.connection, position: start, commits: Vec::new() };
        let ran = group
            .iter_mut()
            .try_for_each(|job| job.run(&mut transaction))
            .and_then(|()| save_position(&transaction, start));
        let commits = transaction.commits;
        if let Err(error) = ran {
            drop(begun);
            return Err(self.rolled_back(Failure::Job(store_error(&error))));
        }
        match begun.commit() {
            Ok(()) => Ok(commits),
            Err(error) => Err(self.commit_failed(&error)),
        }
    }

    /// A commit that failed for want of space or of a lock was not done. One that the disk failed may have been: a
    /// failed fsync leaves pages in a state that nobody knows (Rebello et al. 2020), so there is no second try.
    fn commit_failed(&self, error: &rusqlite::Error) -> Failure {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull | rusqlite::ErrorCode::DatabaseBusy) => {
                self.rolled_back(Failure::Group(StoreError::Unavailable(error.to_string())))
            }
            _ => Failure::Unknown(StoreError::Unknown(error.to_string())),
        }
    }

    fn rolled_back(&self, failure: Failure) -> Failure {
        if self.connection.is_autocommit() || self.connection.execute_batch("ROLLBACK").is_ok() {
            return failure;
        }
        Failure::Unknown(StoreError::Unknown("a transaction could not be rolled back".into()))
    }

    /// Waits while the feed is full, unless the store closes.
    fn publish(&mut self, commits: Vec<Commit>) {
        for commit in commits {
            self.shared.position.store(commit.last().get(), Ordering::SeqCst);
            if !self.shared.feed_is_taken.load(Ordering::SeqCst) {
                continue;
            }
            let Some(feed) = &self.feed else { continue };
            let closed = &mut self.closed;
            let sent = match feed.try_send(commit) {
                Ok(()) => true,
                Err(mpsc::error::TrySendError::Closed(_)) => false,
                Err(mpsc::error::TrySendError::Full(commit)) => self.runtime.block_on(async {
                    tokio::select! {
                        sent = feed.send(commit) => sent.is_ok(),
                        _ = closed.wait_for(|closed| *closed) => false,
                    }
                }),
            };
            if !sent {
                self.feed = None;
            }
        }
    }

    fn answer(&self, group: Vec<Box<dyn Job>>, failure: Option<&StoreError>) {
        for job in group {
            job.answer(failure);
            self.shared.answered.fetch_add(1, Ordering::SeqCst);
        }
    }
}

fn save_position(transaction: &Transaction<'_>, start: u64) -> rusqlite::Result<()> {
    if transaction.position == start {
        return Ok(());
    }
    let mut statement = transaction.db.prepare_cached("UPDATE position SET value = ?1")?;
    statement.execute([int(transaction.position)])?;
    Ok(())
}
