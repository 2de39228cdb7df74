//! The schema of the database file, its version, and the setup of connections.

use std::path::Path;
use std::time::Duration;

use madang_ids::Position;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::OpenError;
use super::acked::{self, Noted};
use super::admin::folder::Folder;
use super::admin::{damage, migrate};
use super::codec::number;
use super::{checksum, wal};

/// "MADN": distinguishes the file from databases of other programs.
const APPLICATION_ID: i64 = 0x4d41_444e;
/// The steps that bring a file from version `n` to `n + 1`. An applied step never changes.
pub(super) const MIGRATIONS: &[&str] = &[
    include_str!("schema_1.sql"),
    include_str!("schema_2.sql"),
    include_str!("schema_3.sql"),
    include_str!("schema_4.sql"),
    include_str!("schema_5.sql"),
    include_str!("schema_6.sql"),
    include_str!("schema_7.sql"),
    include_str!("schema_8.sql"),
    include_str!("schema_9.sql"),
    include_str!("schema_10.sql"),
    include_str!("schema_11.sql"),
    include_str!("schema_12.sql"),
    include_str!("schema_13.sql"),
    include_str!("schema_14.sql"),
    include_str!("schema_15.sql"),
    include_str!("schema_16.sql"),
];

/// Statements that a connection keeps prepared; above the number of different ones.
const STATEMENTS: usize = 128;
/// Page caches. They are resident memory, and the kernel caches the file as well.
pub(super) const WRITER_CACHE_KIB: i64 = 8 * 1024;
pub(super) const READER_CACHE_KIB: i64 = 2 * 1024;
/// A WAL that grew beyond this is cut after its checkpoint.
const WAL_LIMIT_BYTES: i64 = 64 * 1024 * 1024;
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The medium of the file. Tests use one that loses power.
#[derive(Debug, Clone, Copy)]
pub(super) struct Medium {
    /// The name of a SQLite VFS; the operating system's by default.
    pub(super) vfs: Option<&'static std::ffi::CStr>,
    /// `FULL`: a commit returns after its fsync.
    pub(super) synchronous: &'static str,
    /// Above this the writer waits for readers and restarts the write-ahead log.
    pub(super) wal_limit_bytes: u64,
    /// Above this the log's pages move to the database file.
    pub(super) checkpoint_pages: u64,
    /// The write-ahead log is emptied this time after a row's content was changed, since it holds the old content.
    pub(super) forget_after: Duration,
    /// The steps that bring a file from version `n` to `n + 1`.
    pub(super) migrations: &'static [&'static str],
}

impl Default for Medium {
    fn default() -> Self {
        Self {
            vfs: None,
            synchronous: "FULL",
            wal_limit_bytes: wal::LIMIT_BYTES,
            checkpoint_pages: wal::CHECKPOINT_PAGES,
            forget_after: wal::FORGET_AFTER,
            migrations: MIGRATIONS,
        }
    }
}

/// Opens the connection that writes, and brings the file to this program's version. A refusal leaves the files as they
/// were found, write-ahead log included.
pub(super) fn open_writer(
    folder: &Folder,
    file: &Path,
    medium: Medium,
    accepts_loss: bool,
) -> Result<Connection, OpenError> {
    let broken = OpenError::database(file);
    damage::check_header(file)?;
    let mut connection = open(file, OpenFlags::SQLITE_OPEN_READ_WRITE, medium).map_err(&broken)?;
    let found = check_file(folder, file, &connection, medium)?;
    check_acked(folder, file, &connection, found, accepts_loss)?;
    set_up_writer(&connection, medium).map_err(&broken)?;
    if wal::empty(&connection).map_err(&broken)? {
        damage::check_length(file)?;
    }
    migrate::bring_up_to_date(folder, file, &mut connection, medium.migrations)?;
    Ok(connection)
}

/// Opens a connection that reads.
pub(super) fn open_reader(file: &Path, medium: Medium) -> rusqlite::Result<Connection> {
    let connection = open(file, OpenFlags::SQLITE_OPEN_READ_ONLY, medium)?;
    connection.pragma_update(None, "cache_size", -READER_CACHE_KIB)?;
    Ok(connection)
}

fn open(file: &Path, access: OpenFlags, medium: Medium) -> rusqlite::Result<Connection> {
    let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = match medium.vfs {
        Some(vfs) => Connection::open_with_flags_and_vfs(file, flags, vfs)?,
        None => Connection::open_with_flags(file, flags)?,
    };
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    // The writer empties the log itself when it ends without a failure; after a failure no connection may write any more.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    // Plans do not depend on bound values. Otherwise SQLite compiles each statement with a bound `LIMIT` again for each call.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    checksum::register(&connection)?;
    Ok(connection)
}

/// Refuses a database of another program. Returns the version of the file; a new one has 0.
fn check_file(
    folder: &Folder,
    file: &Path,
    connection: &Connection,
    medium: Medium,
) -> Result<i64, OpenError> {
    let read = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    let application_id = read("application_id").map_err(OpenError::database(file))?;
    let found = read("user_version").map_err(OpenError::database(file))?;
    let tables =
        || connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0));
    let is_new = (application_id, found) == (0, 0) && tables().map_err(OpenError::database(file))? == 0;
    if application_id != APPLICATION_ID && !is_new {
        return Err(OpenError::Foreign { file: file.to_owned() });
    }
    check_version(folder, found, medium)?;
    Ok(found)
}

/// Refuses a file of a newer program.
pub(super) fn check_version(folder: &Folder, found: i64, medium: Medium) -> Result<(), OpenError> {
    let known = medium.migrations.len() as i64;
    if found <= known {
        return Ok(());
    }
    Err(OpenError::Newer { folder: folder.path().to_owned(), found, known })
}

/// Compares the position of the database with the last acknowledged one.
fn check_acked(
    folder: &Folder,
    file: &Path,
    connection: &Connection,
    version: i64,
    accepts_loss: bool,
) -> Result<(), OpenError> {
    let acked = match acked::read(folder.path()).map_err(OpenError::folder(folder.path()))? {
        Noted::Nothing if version == 0 => {
            tracing::info!(folder = %folder.path().display(), "created a new data folder");
            return Ok(());
        }
        Noted::Nothing => {
            tracing::warn!("the acked position is missing; a loss of rows cannot be detected");
            return Ok(());
        }
        Noted::Torn => {
            tracing::warn!("the acked position cannot be read; a loss of rows cannot be detected");
            return Ok(());
        }
        Noted::Position(acked) => acked,
    };
    let (acked, found) = if version == 0 {
        // The note proves that there was a database: one without tables is a loss, even if nothing was acknowledged.
        (acked.max(Position::new(1)), 0)
    } else {
        let found = connection.query_row("SELECT value FROM position", [], |row| number(row, 0));
        (acked, found.map_err(OpenError::database(file))?)
    };
    if found < acked.get() { refuse_loss(folder, acked, Position::new(found), accepts_loss) } else { Ok(()) }
}

/// The next epoch begins at `found`: cursors beyond it get a snapshot.
fn refuse_loss(
    folder: &Folder,
    acked: Position,
    found: Position,
    accepts_loss: bool,
) -> Result<(), OpenError> {
    if accepts_loss {
        let (acked, found) = (acked.get(), found.get());
        tracing::warn!(acked, found, "acked positions are lost, and the operator accepts the loss");
        return Ok(());
    }
    Err(OpenError::Lost { folder: folder.path().to_owned(), acked, found })
}

fn set_up_writer(connection: &Connection, medium: Medium) -> rusqlite::Result<()> {
    let application_id: i64 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    if application_id != APPLICATION_ID {
        connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    }
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", medium.synchronous)?;
    connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
    connection.pragma_update(None, "secure_delete", "ON")?;
    connection.pragma_update(None, "journal_size_limit", WAL_LIMIT_BYTES)
}
