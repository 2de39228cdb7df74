//! The jobs of the writer, and the transaction in which they run.

use std::sync::Arc;
use std::time::Instant;

use madang_ids::{LogId, Position};
use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::codec::{int, store_error};
use super::disk;
use crate::commit_order::Commit;
use crate::error::{StoreError, StoreResult};
use crate::log::Row;

/// The transaction of a group: jobs write in it, and take positions for their rows.
pub(super) struct Transaction<'a> {
    db: &'a Connection,
    start: u64,
    position: u64,
    commits: Vec<Commit>,
    /// A job has replaced the content of a row, whose old pages must leave the write-ahead log.
    has_changes: bool,
}

impl<'a> Transaction<'a> {
    /// Positions are given out after `start`.
    pub(super) const fn after(start: u64, db: &'a Connection) -> Self {
        Self { db, start, position: start, commits: Vec::new(), has_changes: false }
    }

    /// Writes down the last position.
    pub(super) fn save_position(&self) -> rusqlite::Result<()> {
        if self.position == self.start {
            return Ok(());
        }
        let mut statement = self.db.prepare_cached("UPDATE position SET value = ?1")?;
        statement.execute([int(self.position)])?;
        Ok(())
    }

    /// Runs a job in a savepoint, so that its failure undoes only this job; returns the failure.
    ///
    /// # Errors
    /// The transaction is gone: the disk failed, or SQLite rolled all of it back.
    pub(super) fn run_apart(&mut self, job: &mut dyn Job) -> rusqlite::Result<Option<StoreError>> {
        self.db.prepare_cached("SAVEPOINT job")?.execute([])?;
        let (position, commits, has_changes) = (self.position, self.commits.len(), self.has_changes);
        let failure = match job.run(self) {
            Ok(()) => None,
            Err(error) if disk::is_fatal(&error) || self.db.is_autocommit() => return Err(error),
            Err(error) => {
                self.db.prepare_cached("ROLLBACK TO job")?.execute([])?;
                // The positions of the failed job are given to the next one: positions have no holes.
                self.position = position;
                self.commits.truncate(commits);
                self.has_changes = has_changes;
                Some(store_error(&error))
            }
        };
        self.db.prepare_cached("RELEASE job")?.execute([])?;
        Ok(failure)
    }

    /// The commits to publish, and whether the content of rows was replaced.
    pub(super) fn into_commits(self) -> (Vec<Commit>, bool) {
        (self.commits, self.has_changes)
    }

    pub(super) const fn db(&self) -> &Connection {
        self.db
    }

    /// The last position given out.
    pub(super) const fn position(&self) -> Position {
        Position::new(self.position)
    }

    /// Records that the content of a row was replaced, and must not stay on the disk.
    pub(super) const fn forget_soon(&mut self) {
        self.has_changes = true;
    }

    /// Assigns positions to `rows`, which are published if the transaction commits. Returns the first position.
    pub(super) fn publish(&mut self, log: LogId, rows: &Arc<[Row]>) -> Position {
        let first = Position::new(self.position + 1);
        self.position += rows.len() as u64;
        self.commits.push(Commit { log, rows: Arc::clone(rows).into(), first });
        first
    }
}

/// One caller's work.
pub(super) trait Job: Send {
    fn run(&mut self, transaction: &mut Transaction<'_>) -> rusqlite::Result<()>;
    fn kib(&self) -> usize;
    /// The time at which the caller called.
    fn called_at(&self) -> Instant;
    /// Answers the caller with the result of the last run, or with the failure.
    fn answer(self: Box<Self>, failure: Option<&StoreError>);
}

/// A job that was called for at `called_at`, runs `run`, holds `room` in the queue and answers by `reply`.
pub(super) fn job<T, F>(
    called_at: Instant,
    run: F,
    room: OwnedSemaphorePermit,
    reply: oneshot::Sender<StoreResult<T>>,
) -> Box<dyn Job>
where
    T: Send + 'static,
    F: FnMut(&mut Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
{
    Box::new(Task { called_at, run, result: None, reply, room })
}

struct Task<T, F> {
    called_at: Instant,
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

    fn called_at(&self) -> Instant {
        self.called_at
    }

    fn answer(self: Box<Self>, failure: Option<&StoreError>) {
        let outcome = match (failure, self.result) {
            (Some(failure), _) => Err(failure.clone()),
            (None, Some(result)) => Ok(result),
            (None, None) => Err(StoreError::Corrupt("a write that never ran was committed".into())),
        };
        // The caller may have dropped its future; it finds the outcome by reading.
        let _ = self.reply.send(outcome);
    }
}
