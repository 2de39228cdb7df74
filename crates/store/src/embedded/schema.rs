//! What lies in the file, in which version, and how connections to it are set up.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::OpenError;
use super::folder::Folder;
use super::wal;

/// "MADN": tells the file from other programs' databases.
const APPLICATION_ID: i64 = 0x4d41_444e;
/// One more with each entry of [`MIGRATIONS`].
const VERSION: i64 = MIGRATIONS.len() as i64;
/// What takes a file from version `n` to `n + 1`.
const MIGRATIONS: &[&str] =
    &[include_str!("schema_1.sql"), include_str!("schema_2.sql"), include_str!("schema_3.sql")];

/// Statements that a connection keeps prepared; above the count of different ones.
const STATEMENTS: usize = 128;
/// Page caches. They are resident memory, and the kernel caches the file as well.
const WRITER_CACHE_KIB: i64 = 8 * 1024;
const READER_CACHE_KIB: i64 = 2 * 1024;
/// Pages (of 4 KiB) in the write-ahead log before they move to the database file: each checkpoint costs two fsyncs
/// and one random write per page that differs.
const CHECKPOINT_PAGES: i64 = 4_000;
/// A WAL that grew beyond this is cut after its checkpoint.
const WAL_LIMIT_BYTES: i64 = 64 * 1024 * 1024;
const BUSY_TIMEOUT_MS: i64 = 5_000;

/// What the file lies on. Tests put something there that loses power.
#[derive(Debug, Clone, Copy)]
pub(super) struct Medium {
    /// The name of a SQLite VFS; the operating system's by default.
    pub(super) vfs: Option<&'static std::ffi::CStr>,
    /// `FULL`: a commit returns after its fsync.
    pub(super) synchronous: &'static str,
    /// Above this the write-ahead log begins again, readers or not.
    pub(super) wal_limit_bytes: u64,
}

impl Default for Medium {
    fn default() -> Self {
        Self { vfs: None, synchronous: "FULL", wal_limit_bytes: wal::LIMIT_BYTES }
    }
}

/// Opens the connection that writes, and brings the file to this program's version.
pub(super) fn open_writer(folder: &Folder, file: &Path, medium: Medium) -> Result<Connection, OpenError> {
    let broken =
        |error: rusqlite::Error| OpenError::Database { file: file.to_owned(), reason: error.to_string() };
    let mut connection = open(file, OpenFlags::SQLITE_OPEN_READ_WRITE, medium).map_err(broken)?;
    check_file(folder, file, &connection)?;
    set_up_writer(&connection, medium).map_err(broken)?;
    migrate(&mut connection).map_err(broken)?;
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
    connection.pragma_update(None, "busy_timeout", BUSY_TIMEOUT_MS)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    Ok(connection)
}

fn check_file(folder: &Folder, file: &Path, connection: &Connection) -> Result<(), OpenError> {
    let read = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    let foreign = |_| OpenError::Foreign { file: file.to_owned() };
    let application_id = read("application_id").map_err(foreign)?;
    let found = read("user_version").map_err(foreign)?;
    if application_id != APPLICATION_ID && (application_id, found) != (0, 0) {
        return Err(OpenError::Foreign { file: file.to_owned() });
    }
    if found > VERSION {
        return Err(OpenError::Newer { folder: folder.path().to_owned(), found, known: VERSION });
    }
    Ok(())
}

fn set_up_writer(connection: &Connection, medium: Medium) -> rusqlite::Result<()> {
    connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", medium.synchronous)?;
    connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.pragma_update(None, "journal_size_limit", WAL_LIMIT_BYTES)
}

fn migrate(connection: &mut Connection) -> rusqlite::Result<()> {
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let missing = usize::try_from(version).unwrap_or(0);
    for (index, migration) in MIGRATIONS.iter().enumerate().skip(missing) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(migration)?;
        transaction.pragma_update(None, "user_version", index as i64 + 1)?;
        transaction.commit()?;
    }
    Ok(())
}
