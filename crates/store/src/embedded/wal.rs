//! Checkpoints of the write-ahead log. They run here, since SQLite's automatic ones would hide their failures. The log is kept
//! short, since SQLite restarts it only at a moment without readers in it, and readers that overlap all day would let it grow for
//! ever. It is also emptied some time after a row was changed: it holds the old pages, and deleted text must not be on the disk for
//! longer than a minute.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rusqlite::{Connection, Result};

use super::schema::{BUSY_TIMEOUT, Medium};

/// Twice what a log without readers reaches. Beyond it the writer waits for the readers once.
pub(super) const LIMIT_BYTES: u64 = 32 * 1024 * 1024;
/// Pages (of 4 KiB) in the log before they move to the database file: each checkpoint costs two fsyncs and one random
/// write per page that differs.
pub(super) const CHECKPOINT_PAGES: u64 = 4_000;

/// The protocol promises a minute; emptying the log waits for readers, and may be tried some times.
pub(super) const FORGET_AFTER: Duration = Duration::from_secs(30);
const FORGET_RETRY: Duration = Duration::from_secs(1);
const FORGET_RETRY_MOST: Duration = Duration::from_secs(30);
/// The longest wait of the writer for readers. Readers of this program need a few milliseconds; another program that has the file
/// open may read for hours.
const READERS_PATIENCE: Duration = Duration::from_millis(100);
/// The longest wait for readers while the log is too long, which is rare and must end.
const LENGTH_PATIENCE: Duration = Duration::from_secs(1);

/// The file of a write-ahead log.
pub(super) struct WalFile {
    path: Option<PathBuf>,
    /// After the last commit.
    pages: Arc<AtomicU64>,
    checkpoint_pages: u64,
    next_checkpoint_pages: u64,
    limit_bytes: u64,
    next_try_bytes: u64,
    forget_after: Duration,
    /// The time at which the log must be emptied, since it holds old content of changed rows.
    forget_at: Option<Instant>,
    forget_retry: Duration,
}

impl WalFile {
    /// Takes over from SQLite's automatic checkpoints.
    pub(super) fn of(connection: &mut Connection, medium: Medium) -> Result<Self> {
        let path = connection.path().map(|path| PathBuf::from(format!("{path}-wal")));
        let pages = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&pages);
        connection.wal_hook(Some(move |_: &mut _, count: i32| {
            seen.store(u64::from(count.unsigned_abs()), Ordering::Relaxed);
            Ok(())
        }))?;
        Ok(Self {
            path,
            pages,
            checkpoint_pages: medium.checkpoint_pages,
            next_checkpoint_pages: medium.checkpoint_pages,
            limit_bytes: medium.wal_limit_bytes,
            next_try_bytes: medium.wal_limit_bytes,
            forget_after: medium.forget_after,
            forget_at: None,
            forget_retry: FORGET_RETRY,
        })
    }

    fn length_bytes(&self) -> u64 {
        self.path.as_ref().and_then(|path| path.metadata().ok()).map_or(0, |file| file.len())
    }

    /// Records that a row was changed: its old content must leave the log within [`FORGET_AFTER`].
    pub(super) fn forget_soon(&mut self) {
        self.forget_at.get_or_insert_with(|| Instant::now() + self.forget_after);
    }

    /// Time until [`Self::tend`] has work although nothing is committed.
    pub(super) fn due_in(&self) -> Option<Duration> {
        self.forget_at.map(|at| at.saturating_duration_since(Instant::now()))
    }

    fn forget(&mut self, connection: &Connection) -> Result<()> {
        if self.due_in().is_some_and(|wait| wait.is_zero()) {
            self.forget_at = Some(Instant::now() + self.forget_retry);
            if try_empty(connection, READERS_PATIENCE)? {
                (self.forget_at, self.forget_retry) = (None, FORGET_RETRY);
            } else {
                if self.forget_retry == FORGET_RETRY_MOST {
                    tracing::warn!(
                        "another program reads the database: deleted data stays in the write-ahead log until that \
                         program ends"
                    );
                }
                self.forget_retry = (2 * self.forget_retry).min(FORGET_RETRY_MOST);
            }
        }
        Ok(())
    }

    /// Called after a commit, and when work is due: moves pages to the database file when there are enough. The log stays valid
    /// until all of it has moved, so a failure loses nothing, and the next attempt comes when the log has grown further.
    pub(super) fn tend(&mut self, connection: &Connection) -> Result<()> {
        self.forget(connection)?;
        let pages = self.pages.load(Ordering::Relaxed);
        if pages < self.checkpoint_pages {
            self.next_checkpoint_pages = self.checkpoint_pages;
        }
        if pages >= self.next_checkpoint_pages {
            self.next_checkpoint_pages = pages + self.checkpoint_pages / 4;
            connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
        }
        self.keep_short(connection)
    }

    /// Restarts the log if it is too long. New readers do not use it meanwhile, and no read lasts longer than a page, so the wait
    /// is a few milliseconds.
    fn keep_short(&mut self, connection: &Connection) -> Result<()> {
        let length_bytes = self.length_bytes();
        if length_bytes <= self.next_try_bytes {
            return Ok(());
        }
        self.next_try_bytes = length_bytes + self.limit_bytes;
        if try_empty(connection, LENGTH_PATIENCE)? {
            self.next_try_bytes = self.limit_bytes;
        } else {
            tracing::warn!(length_bytes, "restarting the write-ahead log failed");
        }
        Ok(())
    }
}

/// As [`empty`], and waits no longer than `patience`.
fn try_empty(connection: &Connection, patience: Duration) -> Result<bool> {
    connection.busy_timeout(patience)?;
    let emptied = empty(connection);
    connection.busy_timeout(BUSY_TIMEOUT)?;
    emptied
}

/// Moves all pages to the database file and empties the log. `false` if readers use it.
pub(super) fn empty(connection: &Connection) -> Result<bool> {
    let was_busy =
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, bool>(0))?;
    Ok(!was_busy)
}
