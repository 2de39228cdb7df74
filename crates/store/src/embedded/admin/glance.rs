//! A quick look at a data folder, also while a server uses it.

use std::path::Path;

use madang_ids::{Millis, Snowflakes};
use rusqlite::{Connection, Result};

use super::damage;
use super::folder::DATABASE;
use crate::embedded::Embedded;
use crate::embedded::codec::{number, optional_number};
use crate::embedded::open_error::OpenError;
use crate::embedded::schema::{self, Medium};
use crate::error::StoreResult;

/// The facts about a database that need no full read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Glance {
    /// The size of the database file.
    pub database_bytes: u64,
    /// The time of the last entry, in milliseconds since 1970; 0 if there is none.
    pub last_ms: u64,
}

/// Takes a look at a data folder. Takes no lock and changes nothing.
///
/// # Errors
/// It is not there, or damaged.
pub fn glance(folder: &Path) -> std::result::Result<Glance, OpenError> {
    let file = folder.join(DATABASE);
    let metadata = file.metadata().map_err(OpenError::folder(&file))?;
    damage::check_header(&file)?;
    let last = schema::open_reader(&file, Medium::default()).and_then(|db| last_entry(&db));
    Ok(Glance { database_bytes: metadata.len(), last_ms: last.map_err(OpenError::database(&file))?.get() })
}

/// Refuses a folder that a start of the server would migrate: a command must not do that as a side effect. A folder without a
/// database passes.
///
/// # Errors
/// It is older, or cannot be read.
pub fn check_is_current(folder: &Path) -> std::result::Result<(), OpenError> {
    let file = folder.join(DATABASE);
    if !file.try_exists().map_err(OpenError::folder(&file))? {
        return Ok(());
    }
    damage::check_header(&file)?;
    let version = schema::open_reader(&file, Medium::default())
        .and_then(|db| db.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0)));
    let (found, known) = (version.map_err(OpenError::database(&file))?, schema::MIGRATIONS.len() as i64);
    if (1..known).contains(&found) {
        return Err(OpenError::Older { folder: folder.to_owned(), found, known });
    }
    Ok(())
}

fn last_entry(db: &Connection) -> Result<Millis> {
    let channels = db.query_row("SELECT coalesce(max(at_ms), 0) FROM heads", [], |row| number(row, 0))?;
    let users = db.query_row("SELECT coalesce(max(at_ms), 0) FROM user_heads", [], |row| number(row, 0))?;
    Ok(Millis::new(channels.max(users)))
}

impl Embedded {
    /// The latest time of an entry or an id. Ids that are minted above it are new, whatever the clock says.
    ///
    /// # Errors
    /// An error of the store.
    pub async fn latest(&self) -> StoreResult<Millis> {
        self.read(|db| {
            let mut latest = last_entry(db)?;
            for table in ["users", "devices", "channels", "claims"] {
                let sql = format!("SELECT max(id) FROM {table}");
                let id = db.query_row(&sql, [], |row| optional_number(row, 0))?;
                latest = latest.max(id.map_or(Millis::ZERO, Snowflakes::time_of));
            }
            Ok(latest)
        })
        .await
    }
}
