//! What users who are away have not been alerted of yet: the state behind push, one record for each user and channel.
//!
//! Messages fold into a [`Job`] as they arrive. A worker of push takes a record that is due, decides, writes what it is about to do
//! ([`Outstanding::begin`]), calls the providers, and writes what came of it ([`Outstanding::finish`]). A store compares each
//! record with what the worker has read. So a call is made only by the worker that wrote it down, and the calls of a worker that died
//! are found, counted as unknown, and not repeated (G9).

mod job;
mod outstanding;

pub use job::{Job, MARKS, Mark, Target};
pub use outstanding::{CallEnd, Calls, Fold, Folded, Held, Outstanding, Shown, Taking, withdrawn_at};
