//! Connections that read. Each sees one consistent snapshot per read and never waits for the writer.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::codec::store_error;
use super::schema::{self, Medium};
use crate::error::{StoreError, StoreResult};
use crate::lane;
use crate::waits::Waits;

/// Connections that only [`crate::urgently`] may use.
pub(super) const URGENT: usize = 2;

/// The connections for reads. A read without a free connection waits; urgent reads have a queue and connections of their own.
#[derive(Debug)]
pub(super) struct Readers {
    connections: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
    urgent: Arc<Semaphore>,
    waits: Waits,
}

impl Readers {
    /// Opens the connections. The waits of common reads are noted.
    pub(super) fn open(file: &Path, count: usize, medium: Medium, waits: Waits) -> rusqlite::Result<Self> {
        let connections = (0..count + URGENT)
            .map(|_| schema::open_reader(file, medium))
            .collect::<rusqlite::Result<Vec<_>>>()?;
        let (permits, urgent) = (Arc::new(Semaphore::new(count)), Arc::new(Semaphore::new(URGENT)));
        Ok(Self { connections: Mutex::new(connections), permits, urgent, waits })
    }

    /// Runs `job` inside one read transaction on a thread that may block.
    pub(super) async fn read<T, F>(self: &Arc<Self>, job: F) -> StoreResult<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let permit = self.permit().await?;
        let readers = Arc::clone(self);
        let task = tokio::task::spawn_blocking(move || {
            // Kept until the connection is given back, also if the caller has dropped its future.
            let _permit = permit;
            let lent = Lent::take(&readers)?;
            lent.read(job).map_err(|error| store_error(&error))
        });
        task.await.map_err(stopped)?
    }

    /// An urgent read takes a reserved connection, else a free common one, else waits for the next reserved one.
    async fn permit(&self) -> StoreResult<OwnedSemaphorePermit> {
        if !lane::is_urgent() {
            let called_at = Instant::now();
            let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(stopped);
            self.waits.note_read(called_at.elapsed());
            return permit;
        }
        for line in [&self.urgent, &self.permits] {
            if let Ok(permit) = Arc::clone(line).try_acquire_owned() {
                return Ok(permit);
            }
        }
        Arc::clone(&self.urgent).acquire_owned().await.map_err(stopped)
    }
}

fn stopped(error: impl std::fmt::Display) -> StoreError {
    StoreError::Unavailable(format!("the reader stopped: {error}"))
}

/// A borrowed connection; given back also when the read panics.
struct Lent<'a> {
    readers: &'a Readers,
    connection: Option<Connection>,
}

impl<'a> Lent<'a> {
    fn take(readers: &'a Readers) -> StoreResult<Self> {
        let connection = readers.connections.lock().pop();
        if connection.is_none() {
            return Err(StoreError::Unavailable("no reader is free".into()));
        }
        Ok(Self { readers, connection })
    }

    fn read<T>(&self, job: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        let connection = self.connection.as_ref().ok_or(rusqlite::Error::InvalidQuery)?;
        let transaction = connection.unchecked_transaction()?;
        let result = job(&transaction)?;
        transaction.commit()?;
        Ok(result)
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.readers.connections.lock().push(connection);
        }
    }
}
