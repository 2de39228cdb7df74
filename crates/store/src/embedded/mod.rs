//! The embedded store: SQLite with a write-ahead log, one writer thread that commits in groups, and a few readers
//! that it never blocks. One process, one data folder; a person can open the file with any SQLite tool.
//!
//! An append goes: encoded by its caller → the writer's bounded queue → one transaction with whatever else waits →
//! fsync → the feed of commits → the answer.

mod accounts;
mod channels;
mod codec;
mod commit_order;
mod contacts;
mod folder;
mod log;
mod open;
#[cfg(test)]
mod power_loss;
mod reactions;
mod readers;
mod schema;
mod wal;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::Connection;
use serde::Deserialize;

use crate::commit_order::CommitFeed;
use crate::error::StoreResult;
use folder::Folder;
use readers::Readers;
use schema::Medium;
use wal::WalFile;
use writer::{Transaction, Writer};

/// Where the store lies, and what it may use.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EmbeddedConfig {
    /// The data folder; made if it is not there. Default: `data`.
    pub path: PathBuf,
    /// Connections that read at once; each takes about 2 MiB when warm. Default: 4.
    pub readers: usize,
    /// Commits that wait in the feed before the writer waits for its reader. Default: 1024.
    pub feed_commits: usize,
}

impl Default for EmbeddedConfig {
    fn default() -> Self {
        Self { path: PathBuf::from("data"), readers: 4, feed_commits: 1024 }
    }
}

/// Why a data folder cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("the data folder {folder} is in use by another process{}", holder_text(.holder))]
    InUse {
        /// The folder.
        folder: PathBuf,
        /// What the lock file says about the holder.
        holder: Option<u32>,
    },
    /// A newer program wrote it.
    #[error(
        "the data folder {folder} has version {found}, and this program knows versions up to {known}: use the newer program"
    )]
    Newer {
        /// The folder.
        folder: PathBuf,
        /// Its version.
        found: i64,
        /// The last version that this program knows.
        known: i64,
    },
    /// The file is another program's.
    #[error("{file} is a database of another program")]
    Foreign {
        /// The file.
        file: PathBuf,
    },
    /// The folder or a file in it cannot be made or read.
    #[error("cannot use {path}: {source}")]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The database cannot be opened.
    #[error("cannot open the database {file}: {reason}")]
    Database {
        /// The file.
        file: PathBuf,
        /// Why.
        reason: String,
    },
}

fn holder_text(holder: &Option<u32>) -> String {
    holder.map(|pid| format!(" (process {pid})")).unwrap_or_default()
}

/// The store of one process. Dropping it finishes what is queued.
#[derive(Debug)]
pub struct Embedded {
    // Dropped in this order: the folder stays locked until the writer has ended.
    writer: Writer,
    readers: Arc<Readers>,
    feed: Mutex<Option<CommitFeed>>,
    _folder: Folder,
}

impl Embedded {
    /// Opens a data folder, and makes it if it is not there.
    ///
    /// # Errors
    /// Another process has it, a newer program wrote it, or it cannot be read.
    pub fn open(config: EmbeddedConfig) -> Result<Arc<Self>, OpenError> {
        Self::open_on(&config, Medium::default())
    }

    fn open_on(config: &EmbeddedConfig, medium: Medium) -> Result<Arc<Self>, OpenError> {
        let folder = Folder::open(&config.path)?;
        let file = folder.database_file()?;
        let connection = schema::open_writer(&folder, &file, medium)?;
        let readers = Readers::open(&file, config.readers.max(1), medium)
            .map_err(|error| OpenError::Database { file: file.clone(), reason: error.to_string() })?;
        let wal = WalFile::of(&connection, medium.wal_limit_bytes);
        let (writer, feed) = Writer::start(connection, wal, config.feed_commits.max(1))
            .map_err(|error| OpenError::Database { file, reason: error.to_string() })?;
        Ok(Arc::new(Self {
            writer,
            readers: Arc::new(readers),
            feed: Mutex::new(Some(feed)),
            _folder: folder,
        }))
    }

    /// Runs `job` in the writer's next transaction; answers when it is durable.
    async fn write<T, F>(&self, job: F) -> StoreResult<T>
    where
        T: Send + 'static,
        F: FnMut(&mut Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        self.writer.write(0, job).await
    }

    /// Runs `job` on a reader, as one consistent read.
    async fn read<T, F>(&self, job: F) -> StoreResult<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.readers.read(job).await
    }
}

#[cfg(test)]
mod tests;
