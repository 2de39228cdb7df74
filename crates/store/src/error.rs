//! The errors of a store.

/// The reason why an operation of the store has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It was certainly not done, and may be tried again.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// It may have been done or not (a timeout). Read again before anything else.
    #[error("the outcome of the write is unknown: {0}")]
    Unknown(String),
    /// The store holds data that it should not. A fault of the program or of the disk.
    #[error("the store is damaged: {0}")]
    Corrupt(String),
}

/// The result of an operation of the store.
pub type StoreResult<T> = Result<T, StoreError>;
