//! The embedded store: SQLite with a write-ahead log, one writer thread that commits in groups, and a few readers
//! that it never blocks. One process, one data folder; a person can open the file with any SQLite tool.
//!
//! The path of an append: encoded by its caller → the writer's bounded queue → one transaction with all other waiting jobs →
//! fsync → the answer → the feed of commits.
//!
//! `tables/` has the statements by table, `admin/` what serves operators, `schema/` the migrations; the files here are the writer,
//! the readers and what both share.

mod acked;
mod admin;
mod checksum;
mod codec;
mod commit;
mod commit_order;
mod disk;
mod job;
mod linger;
mod log_limit;
mod metrics;
mod open_error;
#[cfg(test)]
mod power_loss;
mod readable;
mod readers;
mod schema;
mod tables;
mod unreadable;
mod wal;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use rusqlite::Connection;
use serde::Deserialize;

use crate::commit_order::CommitFeed;
use crate::error::{StoreError, StoreResult};
use crate::waits::Waits;
use acked::Noting;
use admin::folder::Folder;
use job::Transaction;
use readers::Readers;
use schema::Medium;
use tables::alerts::Alerts;
use unreadable::Unreadables;
use wal::WalFile;
use writer::Writer;

pub use admin::backup::{BackedUp, BackupError, restore};
pub use admin::check::{Finding, Report, check};
pub use admin::glance::{Glance, check_is_current, glance};
pub use metrics::StoreMetrics;
pub use open_error::OpenError;

/// Default number of readers for reads without an ack behind them.
const READERS: usize = 4;
/// Page caches of the writer and of the readers, by default.
pub const CACHE_BYTES: u64 = (schema::WRITER_CACHE_KIB.cast_unsigned()
    + schema::READER_CACHE_KIB.cast_unsigned() * (READERS + readers::URGENT) as u64)
    * 1024;
/// Rows of jobs that wait for the writer.
pub const QUEUE_BYTES: u64 = writer::QUEUE_KIB as u64 * 1024;
/// Rows in the feed, and those that its reader has taken and the gateway has not delivered.
pub const FEED_BYTES: u64 = writer::FEED_KIB as u64 * 1024;

/// The folder of the store, and its resources.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EmbeddedConfig {
    /// The data folder; made if it is not there. Default: `data`.
    pub path: PathBuf,
    /// Connections that read at once, besides two for reads that an ack waits for; each takes about 2 MiB when warm.
    /// Default: 4.
    pub readers: usize,
    /// Commits that wait in the feed before the writer waits for its reader; their rows have 32 MiB at most, with those
    /// that the reader has not yet delivered. Default: 1024.
    pub feed_commits: usize,
    /// Open the store although acknowledged positions are lost; the next epoch begins at the end of the database, which must
    /// exist. Default: no.
    pub accept_loss: bool,
}

impl Default for EmbeddedConfig {
    fn default() -> Self {
        Self { path: PathBuf::from("data"), readers: READERS, feed_commits: 1024, accept_loss: false }
    }
}

/// The store of one process. Dropping it finishes what is queued.
#[derive(Debug)]
pub struct Embedded {
    // Dropped in this order: the last position is written to the note after the writer has ended, and the folder stays locked
    // until then.
    writer: Writer,
    readers: Arc<Readers>,
    feed: Mutex<Option<CommitFeed>>,
    metrics: StoreMetrics,
    unreadables: Unreadables,
    alerts: Alerts,
    waits: Waits,
    _noting: Noting,
    folder: Folder,
}

impl Embedded {
    /// Opens a data folder, and makes it if it is not there.
    ///
    /// # Errors
    /// See [`OpenError`]. A refusal leaves the files as they were found.
    pub fn open(config: EmbeddedConfig) -> Result<Arc<Self>, OpenError> {
        Self::open_on(&config, Medium::default())
    }

    fn open_on(config: &EmbeddedConfig, medium: Medium) -> Result<Arc<Self>, OpenError> {
        let open_folder = if config.accept_loss { Folder::open_existing } else { Folder::open };
        let folder = open_folder(&config.path)?;
        let file = folder.database_file()?;
        let broken = OpenError::database(&file);
        let mut connection = schema::open_writer(&folder, &file, medium, config.accept_loss)?;
        let waits = Waits::default();
        let readers = Readers::open(&file, config.readers.max(1), medium, waits.clone()).map_err(&broken)?;
        let alerts = Alerts::default();
        let has_subscriptions = tables::push::has_subscriptions(&connection).map_err(&broken)?;
        alerts.has_subscriptions.store(has_subscriptions, Ordering::SeqCst);
        let wal = WalFile::of(&mut connection, medium).map_err(&broken)?;
        let metrics = StoreMetrics::default();
        let (writer, feed) =
            Writer::start(connection, wal, config.feed_commits.max(1), metrics.clone(), waits.clone())
                .map_err(|error| OpenError::Database { file: file.clone(), reason: error.to_string() })?;
        let noting = Noting::start(folder.path().to_owned(), writer.position_reader())
            .map_err(OpenError::folder(folder.path()))?;
        Ok(Arc::new(Self {
            writer,
            readers: Arc::new(readers),
            feed: Mutex::new(Some(feed)),
            unreadables: Unreadables::new(metrics.damaged.clone()),
            alerts,
            metrics,
            waits,
            _noting: noting,
            folder,
        }))
    }

    /// The metrics of this store.
    pub const fn metrics(&self) -> &StoreMetrics {
        &self.metrics
    }

    /// How long calls wait for the writer and for readers.
    pub fn waits(&self) -> Waits {
        self.waits.clone()
    }

    /// Waits until a commit of the writer has failed at the disk. The content of the file is then unknown until it is opened
    /// again, so nothing more is written, and the process should end. Cancel safe.
    pub async fn broken(&self) {
        self.writer.broken().await;
    }

    /// Runs `job` in the writer's next transaction; answers when it is durable.
    async fn write<T, F>(&self, job: F) -> StoreResult<T>
    where
        T: Send + 'static,
        F: FnMut(&mut Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        self.writer.write(0, job).await
    }

    /// Counts damage on its way to the caller.
    fn counted<T>(&self, result: StoreResult<T>) -> StoreResult<T> {
        if let Err(StoreError::Corrupt(_)) = &result {
            self.metrics.damaged.inc();
        }
        result
    }

    /// Runs `job` on a reader, as one consistent read.
    async fn read<T, F>(&self, job: F) -> StoreResult<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.counted(self.readers.read(job).await)
    }
}

#[cfg(test)]
mod tests;
