//! The reasons why a data folder cannot be opened, each in one sentence that says what to do.

use std::path::{Path, PathBuf};

use madang_ids::Position;
use rusqlite::ErrorCode;

use super::admin::damage;

/// The reason why a data folder cannot be opened. In every case the files stay as they were found.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process holds its lock.
    #[error("the data folder {folder} is in use by another process{}", holder_text(.holder))]
    InUse {
        /// The folder.
        folder: PathBuf,
        /// What the lock file says about the holder.
        holder: Option<u32>,
    },
    /// A newer program wrote it.
    #[error(
        "the data folder {folder} has version {found}, and this program supports versions up to {known}: use the \
         newer program"
    )]
    Newer {
        /// The folder.
        folder: PathBuf,
        /// Its version.
        found: i64,
        /// The last version that this program knows.
        known: i64,
    },
    /// An older program wrote it, and the command that opens it is not the server.
    #[error(
        "the data folder {folder} has version {found}, and this program needs version {known}: only the server \
         migrates it, when it starts; use the older program, or start the server"
    )]
    Older {
        /// The folder.
        folder: PathBuf,
        /// Its version.
        found: i64,
        /// The version that it would get.
        known: i64,
    },
    /// Root opens it and another user owns it, who could not use the files that root would leave in it.
    #[error(
        "the data folder {folder} belongs to the user with id {owner}: run this as that user (`sudo -u '#{owner}' madang …`)"
    )]
    NotOwner {
        /// The folder.
        folder: PathBuf,
        /// The user id of the owner.
        owner: u32,
    },
    /// The file is another program's.
    #[error("{file} is a database of another program")]
    Foreign {
        /// The file.
        file: PathBuf,
    },
    /// The file is not what was written.
    #[error(
        "{file} is damaged: {what}; restore a backup (`madang restore --from BACKUP --data NEW_FOLDER`); \
         `madang check --data FOLDER` shows more"
    )]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// There was a database, and there is none or an empty file.
    #[error(
        "{file} is missing or empty, but positions up to {} were acked: put it back next to its `madang.db-wal`, \
         which contains the last writes, or restore a backup (`madang restore --from BACKUP --data NEW_FOLDER`)",
        .acked.get()
    )]
    Gone {
        /// The file.
        file: PathBuf,
        /// The position in the note; zero if the note cannot be read.
        acked: Position,
    },
    /// Acknowledged rows are missing.
    #[error(
        "the database in {folder} ends at position {}, but positions up to {} were acked: {} are lost (the \
         write-ahead log is damaged, or an older file replaced the database); restore a backup (`madang restore \
         --from BACKUP --data NEW_FOLDER`), or continue without them (`madang check --data {folder} --accept-loss`, \
         then start the server): devices that received them then take a snapshot",
        .found.get(), .acked.get(), .acked.get().saturating_sub(.found.get())
    )]
    Lost {
        /// The folder.
        folder: PathBuf,
        /// The position in the note.
        acked: Position,
        /// The position of the database.
        found: Position,
    },
    /// There is no room for the copy that is made before the file is changed.
    #[error(
        "the migration of {folder} to version {version} needs {needed_bytes} bytes of free space, but only \
         {free_bytes} are free: free some space, then start again"
    )]
    NoRoom {
        /// The folder.
        folder: PathBuf,
        /// The version that it would get.
        version: usize,
        /// The bytes that the copy and the steps need.
        needed_bytes: u64,
        /// The free bytes of the disk.
        free_bytes: u64,
    },
    /// The folder or a file in it cannot be made or read.
    #[error("cannot use {path}: {error}")]
    Folder {
        /// The folder or file.
        path: PathBuf,
        /// The error of the operating system.
        error: std::io::Error,
    },
    /// The database cannot be opened.
    #[error("cannot open the database {file}: {reason}")]
    Database {
        /// The file.
        file: PathBuf,
        /// The error of SQLite.
        reason: String,
    },
}

fn holder_text(holder: &Option<u32>) -> String {
    holder.map(|pid| format!(" (process {pid})")).unwrap_or_default()
}

impl OpenError {
    /// Whether only an operator can end it: a restart does not help.
    #[must_use]
    pub const fn is_lasting(&self) -> bool {
        match self {
            Self::Newer { .. }
            | Self::Older { .. }
            | Self::NotOwner { .. }
            | Self::Foreign { .. }
            | Self::Damaged { .. }
            | Self::Gone { .. }
            | Self::Lost { .. } => true,
            Self::InUse { .. } | Self::NoRoom { .. } | Self::Folder { .. } | Self::Database { .. } => false,
        }
    }

    pub(super) fn folder(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |error| Self::Folder { path, error }
    }

    /// Converts an error of SQLite on `file`.
    pub(super) fn database(file: &Path) -> impl Fn(rusqlite::Error) -> Self {
        let file = file.to_owned();
        move |error| match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                let what = damage::of_length(&file).unwrap_or_else(|| error.to_string());
                Self::Damaged { file: file.clone(), what }
            }
            _ => Self::Database { file: file.clone(), reason: error.to_string() },
        }
    }
}
