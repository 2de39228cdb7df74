//! The length of the write-ahead log. SQLite moves its pages to the database file by itself, but begins the log
//! again only at a moment when no reader stands in it; readers that overlap all day would let it grow for ever.

use std::path::PathBuf;

use rusqlite::Connection;

/// Twice what a log without readers reaches. Beyond it the writer waits for the readers once.
pub(super) const LIMIT_BYTES: u64 = 32 * 1024 * 1024;

/// The file of a write-ahead log.
pub(super) struct WalFile {
    path: Option<PathBuf>,
    limit_bytes: u64,
    next_try_bytes: u64,
}

impl WalFile {
    pub(super) fn of(connection: &Connection, limit_bytes: u64) -> Self {
        let path = connection.path().map(|path| PathBuf::from(format!("{path}-wal")));
        Self { path, limit_bytes, next_try_bytes: limit_bytes }
    }

    fn length_bytes(&self) -> u64 {
        self.path.as_ref().and_then(|path| path.metadata().ok()).map_or(0, |file| file.len())
    }

    /// Begins the log again if it is too long. New readers go past it meanwhile, and no read lasts longer than a
    /// page; so the wait is a few milliseconds. If it fails, the next try comes when the log has grown further.
    pub(super) fn keep_short(&mut self, connection: &Connection) {
        let length_bytes = self.length_bytes();
        if length_bytes <= self.next_try_bytes {
            return;
        }
        let was_busy =
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, bool>(0));
        if was_busy == Ok(false) {
            self.next_try_bytes = self.limit_bytes;
        } else {
            tracing::warn!(length_bytes, "the write-ahead log could not begin again");
            self.next_try_bytes = length_bytes + self.limit_bytes;
        }
    }
}
