//! Copies the database of a running store, page by page between the groups of the writer. The writer's own connection copies:
//! SQLite applies its changes to the copy too, so the copy never restarts (as a reader's would with each commit), and no read
//! transaction stays open that would let the write-ahead log grow.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};
use tokio::sync::{mpsc, oneshot};

use super::folder;
use crate::embedded::writer::{Thread, Work};
use crate::error::{StoreError, StoreResult};

/// Pages (of 4 KiB) a step: well below a millisecond.
const STEP_PAGES: i32 = 64;
/// Between two steps, unless there is work: at most 128 MB/s, so that the disk has room for commits.
const PAUSE: Duration = Duration::from_millis(2);

/// A request for a copy.
pub(in crate::embedded) struct CopyOrder {
    /// The path of the new file. It is neither durable nor checked when the answer comes.
    pub(in crate::embedded) target: PathBuf,
    pub(in crate::embedded) reply: oneshot::Sender<StoreResult<()>>,
}

/// Answers an order that comes while another is carried out.
pub(in crate::embedded) fn refuse(order: Option<CopyOrder>) {
    if let Some(order) = order {
        let refusal = StoreError::Unavailable("another backup is in progress".into());
        let _ = order.reply.send(Err(refusal));
    }
}

/// Carries an order out, and the queue's work meanwhile.
pub(in crate::embedded) fn run(
    thread: &mut Thread,
    connection: &Connection,
    order: CopyOrder,
    queue: &mut mpsc::Receiver<Work>,
) {
    let outcome = copy(thread, connection, &order, queue);
    // If the caller has dropped its future, a file remains whose name marks it as incomplete.
    let _ = order.reply.send(outcome);
}

fn copy(
    thread: &mut Thread,
    connection: &Connection,
    order: &CopyOrder,
    queue: &mut mpsc::Receiver<Work>,
) -> StoreResult<()> {
    let failed = |error: rusqlite::Error| StoreError::Unavailable(format!("the copy failed: {error}"));
    let mut target = open_target(&order.target)?;
    let backup = Backup::new(connection, &mut target).map_err(failed)?;
    loop {
        if backup.step(STEP_PAGES).map_err(failed)? == StepResult::Done {
            return Ok(());
        }
        if order.reply.is_closed() || thread.is_broken() {
            return Err(StoreError::Unavailable("the copy was cancelled".into()));
        }
        let waited = thread.runtime.block_on(async { tokio::time::timeout(PAUSE, queue.recv()).await });
        match waited {
            Ok(Some(work)) => thread.work(connection, work, queue),
            Ok(None) => return Err(StoreError::Unavailable("the store is closing".into())),
            Err(_) => thread.tend_log(connection),
        }
        refuse(thread.copy_asked.take());
    }
}

/// The file is removed if anything fails, so it needs no journal; the caller syncs it once at the end.
fn open_target(path: &Path) -> StoreResult<Connection> {
    let failed =
        |error: String| StoreError::Unavailable(format!("opening the file of the copy failed: {error}"));
    folder::private_file(path).map_err(|error| failed(error.to_string()))?;
    let connection = Connection::open(path).map_err(|error| failed(error.to_string()))?;
    let fast = "PRAGMA synchronous = OFF; PRAGMA journal_mode = OFF; PRAGMA cache_size = -2048;";
    connection.execute_batch(fast).map_err(|error| failed(error.to_string()))?;
    Ok(connection)
}

/// Writes the database anew into `target`, private, without free pages or gaps. Not yet durable.
pub(in crate::embedded) fn vacuum_into(connection: &Connection, target: &Path) -> rusqlite::Result<()> {
    let io = |error: std::io::Error| rusqlite::Error::ToSqlConversionFailure(error.into());
    folder::remove(target).map_err(io)?;
    folder::private_file(target).map_err(io)?;
    connection.execute("VACUUM INTO ?1", [target.to_string_lossy()])?;
    Ok(())
}
