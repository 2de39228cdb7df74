//! The commit of a group of jobs by the writer's thread: one transaction, one fsync, then the answers, then the feed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rusqlite::{Connection, TransactionBehavior};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};

use super::codec::store_error;
use super::disk;
use super::job::{Job, Transaction};
use super::writer::{FEED_KIB, Thread, Work, broken};
use crate::commit_order::Commit;
use crate::error::StoreError;

/// A commit that takes longer is logged for the operator, whose users wait.
const SLOW_COMMIT: Duration = Duration::from_secs(1);

/// The failure of a group.
enum Failure {
    /// A job in it failed; the transaction was rolled back.
    Job(StoreError),
    /// The transaction did not begin or was not committed; nothing was done.
    Group(StoreError),
    /// The disk failed at the commit: whether it is durable is unknown.
    Unknown(StoreError),
}

impl Thread {
    /// Commits and answers a group. If a job in it fails, the group runs once more with a savepoint before each job, so that a
    /// failing job fails alone and costs the others one more transaction. Savepoints in every group would cost every job.
    pub(super) fn commit_group(
        &mut self,
        connection: &Connection,
        mut group: Vec<Box<dyn Job>>,
        queue: &mpsc::Receiver<Work>,
    ) {
        let (waiting, began) = (queue.len(), Instant::now());
        match self.attempt(connection, &mut group) {
            Ok(commits) => {
                // Before the answers: a caller that is answered may send its next job at once, and would be counted as one that
                // comes without waiting for this commit.
                self.linger.note_commit(queue.len().saturating_sub(waiting), began.elapsed());
                self.finish(commits, |thread| thread.answer(group, None));
            }
            Err(Failure::Job(_)) if group.len() > 1 => self.commit_apart(connection, group),
            Err(failure) => self.fail_group(group, failure),
        }
    }

    /// Commits a group in which some jobs fail, and answers each job separately.
    fn commit_apart(&mut self, connection: &Connection, mut group: Vec<Box<dyn Job>>) {
        let mut failures = Vec::with_capacity(group.len());
        let run = |transaction: &mut Transaction<'_>| {
            for job in &mut group {
                failures.push(transaction.run_apart(job.as_mut())?);
            }
            Ok(())
        };
        match self.transact(connection, run) {
            Ok(commits) => self.finish(commits, |thread| {
                for (job, failure) in group.into_iter().zip(failures) {
                    match failure {
                        Some(error) => thread.fail_group(vec![job], Failure::Job(error)),
                        None => thread.answer(vec![job], None),
                    }
                }
            }),
            Err(failure) => self.fail_group(group, failure),
        }
    }

    /// Announces durable commits: first the position, then the answers, then the feed.
    fn finish(&mut self, commits: Vec<Commit>, answer: impl FnOnce(&mut Self)) {
        if let Some(last) = commits.last() {
            // Before the answers, so that a caller that is answered and reads the position finds its own commit at or below it.
            self.shared.position.store(last.last().get(), Ordering::SeqCst);
        }
        // Read before the answers: a caller that is answered may take the feed at once, and the feed must begin with the commits
        // after that. Read afterwards, this commit would be in the feed although the caller has counted it already.
        let is_fed = self.shared.feed_is_taken.load(Ordering::SeqCst);
        answer(self);
        // After the answers: publishing may wait for a slow reader, and an ack must not.
        if is_fed {
            self.publish(commits);
        }
    }

    fn fail_group(&mut self, group: Vec<Box<dyn Job>>, failure: Failure) {
        let error = match failure {
            Failure::Job(error) | Failure::Group(error) => {
                if let Some(unlogged) = self.log_limit.unlogged() {
                    tracing::error!(%error, jobs = group.len(), unlogged, "commit failed");
                }
                error
            }
            Failure::Unknown(error) => {
                tracing::error!(%error, jobs = group.len(), "commit failed, with an unknown outcome");
                self.break_down();
                error
            }
        };
        self.count_failure(&error);
        self.answer(group, Some(&error));
    }

    fn count_failure(&self, error: &StoreError) {
        match error {
            StoreError::Corrupt(_) => self.metrics.damaged.inc(),
            _ => self.metrics.write_failures.inc(),
        };
    }

    fn attempt(
        &mut self,
        connection: &Connection,
        group: &mut [Box<dyn Job>],
    ) -> Result<Vec<Commit>, Failure> {
        self.transact(connection, |transaction| group.iter_mut().try_for_each(|job| job.run(transaction)))
    }

    /// Runs `run` in one transaction.
    fn transact(
        &mut self,
        connection: &Connection,
        run: impl FnOnce(&mut Transaction<'_>) -> rusqlite::Result<()>,
    ) -> Result<Vec<Commit>, Failure> {
        if self.is_broken() {
            return Err(Failure::Group(broken()));
        }
        let start = self.shared.position.load(Ordering::SeqCst);
        let begun = rusqlite::Transaction::new_unchecked(connection, TransactionBehavior::Immediate)
            .map_err(|error| Failure::Group(store_error(&error)))?;
        let mut transaction = Transaction::after(start, connection);
        // In the same transaction as the rows: after a crash the positions continue exactly behind the last durable row.
        let ran = run(&mut transaction).and_then(|()| transaction.save_position());
        let (commits, has_changes) = transaction.into_commits();
        if let Err(error) = ran {
            drop(begun);
            return Err(undone_or_unknown(connection, &error, disk::is_fatal(&error), Failure::Job));
        }
        let began = Instant::now();
        let committed = begun.commit();
        let took = began.elapsed();
        self.last_sync = took;
        if took > SLOW_COMMIT {
            tracing::warn!(duration_ms = took.as_millis() as u64, "slow commit: the sync took long");
        }
        match committed {
            Ok(()) => {
                if has_changes {
                    self.wal.forget_soon();
                }
                Ok(commits)
            }
            Err(error) => {
                let is_fatal = disk::is_fatal_commit(&error);
                Err(undone_or_unknown(connection, &error, is_fatal, Failure::Group))
            }
        }
    }

    /// Waits while the feed is full, in commits or in bytes, unless the store closes.
    fn publish(&mut self, commits: Vec<Commit>) {
        for commit in commits {
            let Some(feed) = self.feed.take() else { return };
            let kib = (commit.rows.size_bytes() / 1024 + 1).min(FEED_KIB) as u32;
            let room = match Arc::clone(&self.feed_room).try_acquire_many_owned(kib) {
                Ok(room) => Some(room),
                Err(_) => {
                    wait(&self.runtime, &mut self.closed, Arc::clone(&self.feed_room).acquire_many_owned(kib))
                }
            };
            let place = match feed.try_reserve() {
                Ok(place) => Some(place),
                Err(_) => wait(&self.runtime, &mut self.closed, feed.reserve()),
            };
            // If the reader is gone or the store closes, `feed` stays `None`: a feed with a hole must not continue.
            let sent = room.zip(place).map(|(room, place)| {
                place.send(Commit { rows: commit.rows.in_room(room), ..commit });
            });
            self.feed = sent.map(|()| feed);
        }
    }

    fn answer(&self, group: Vec<Box<dyn Job>>, failure: Option<&StoreError>) {
        for job in group {
            job.answer(failure);
            self.shared.answered.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// Waits for the reader of the feed. `None` if it is gone, or the store closes.
fn wait<T, E>(
    runtime: &Runtime,
    closed: &mut watch::Receiver<bool>,
    turn: impl Future<Output = Result<T, E>>,
) -> Option<T> {
    runtime.block_on(async {
        tokio::select! {
            turn = turn => turn.ok(),
            _ = closed.wait_for(|closed| *closed) => None,
        }
    })
}

/// A transaction that failed for want of space or of a lock, or because a write was refused, was not done. One that failed at a
/// sync may have been: a failed fsync leaves pages in an unknown state (Rebello et al. 2020), so there is no second try.
fn undone_or_unknown(
    connection: &Connection,
    error: &rusqlite::Error,
    is_fatal: bool,
    undone: impl FnOnce(StoreError) -> Failure,
) -> Failure {
    if is_fatal {
        return Failure::Unknown(StoreError::Unknown(error.to_string()));
    }
    if connection.is_autocommit() || connection.execute_batch("ROLLBACK").is_ok() {
        return undone(store_error(error));
    }
    Failure::Unknown(StoreError::Unknown("rollback failed".into()))
}
