//! Connections that read. Each sees one consistent snapshot per read and never waits for the writer.

use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::codec::store_error;
use super::schema::{self, Medium};
use crate::error::{StoreError, StoreResult};

/// A few connections; who finds none free waits.
#[derive(Debug)]
pub(super) struct Readers {
    connections: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
}

impl Readers {
    pub(super) fn open(file: &Path, count: usize, medium: Medium) -> rusqlite::Result<Self> {
        let connections =
            (0..count).map(|_| schema::open_reader(file, medium)).collect::<rusqlite::Result<Vec<_>>>()?;
        Ok(Self { connections: Mutex::new(connections), permits: Arc::new(Semaphore::new(count)) })
    }

    /// Runs `job` inside one read transaction on a thread that may block.
    pub(super) async fn read<T, F>(self: &Arc<Self>, job: F) -> StoreResult<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(stopped)?;
        let readers = Arc::clone(self);
        let task = tokio::task::spawn_blocking(move || {
            // Kept until the connection is back, also if the caller has gone.
            let _permit = permit;
            let lent = Lent::take(&readers)?;
            lent.read(job).map_err(|error| store_error(&error))
        });
        task.await.map_err(stopped)?
    }
}

fn stopped(error: impl std::fmt::Display) -> StoreError {
    StoreError::Unavailable(format!("the reader stopped: {error}"))
}

/// A connection on loan; goes back also when the read panics.
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
