//! The failures of the disk that end the store.

use rusqlite::{Error, ErrorCode, ffi};

/// Whether the content of the file is unknown after this error. A write that was refused (no space, a file system that became
/// read-only, no memory for the index of the log) leaves it as it was: the transaction has no end mark, and the next one
/// takes its place. A failed sync does not.
pub(super) fn is_fatal(error: &Error) -> bool {
    error.sqlite_error().is_some_and(|error| {
        error.code == ErrorCode::SystemIoFailure
            && !matches!(
                error.extended_code,
                ffi::SQLITE_IOERR_WRITE
                    | ffi::SQLITE_IOERR_READ
                    | ffi::SQLITE_IOERR_LOCK
                    | ffi::SQLITE_IOERR_SHMSIZE
                    | ffi::SQLITE_IOERR_SHMMAP
                    | ffi::SQLITE_IOERR_SHMOPEN
                    | ffi::SQLITE_IOERR_NOMEM
            )
    })
}

/// The same for a commit, where every error is fatal that is not known to be harmless.
pub(super) fn is_fatal_commit(error: &Error) -> bool {
    let is_known = matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::DiskFull
                | ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::ReadOnly
                | ErrorCode::OutOfMemory
                | ErrorCode::SystemIoFailure
        )
    );
    !is_known || is_fatal(error)
}
