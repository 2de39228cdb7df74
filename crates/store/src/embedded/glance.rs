//! A look from outside, also beside a running server.

use std::path::Path;

use super::codec::number;
use super::damage;
use super::folder::DATABASE;
use super::open_error::OpenError;
use super::schema::{self, Medium};

/// What is seen of a database without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Glance {
    /// The size of its file.
    pub database_bytes: u64,
    /// The time of the last entry, in milliseconds since 1970; 0 if there is none.
    pub last_ms: u64,
}

/// Takes a look at a data folder. Takes no lock and changes nothing.
///
/// # Errors
/// It is not there, or damaged.
pub fn glance(folder: &Path) -> Result<Glance, OpenError> {
    let file = folder.join(DATABASE);
    let metadata = file.metadata().map_err(OpenError::folder(&file))?;
    damage::check_header(&file)?;
    let last = schema::open_reader(&file, Medium::default()).and_then(|db| {
        db.query_row(
            "SELECT max(coalesce((SELECT max(at_ms) FROM heads), 0), coalesce((SELECT max(at_ms) FROM user_heads), 0))",
            [],
            |row| number(row, 0),
        )
    });
    Ok(Glance { database_bytes: metadata.len(), last_ms: last.map_err(OpenError::database(&file))? })
}
