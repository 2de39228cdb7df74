//! Decides whether the guarantees held, from the raw frames, before a client drops repeated entries.
//!
//! [`frame`] parses only those parts of a frame that are judged. A [`book`] per channel records what was said, acked
//! and received by any device, and in [`fates`] what was done to it later. A [`record`] per device and channel records
//! what that device received, and the [`state`] of each changed message there. [`verdict`] compares everything with the
//! history from REST at the end, except what an [`absence`] excuses. Broken guarantees are reported to [`faults`] with
//! channel and seq.

pub(crate) mod absence;
pub(crate) mod book;
pub(crate) mod fates;
pub(crate) mod faults;
pub(crate) mod frame;
pub(crate) mod record;
pub(crate) mod spans;
pub(crate) mod state;
pub(crate) mod verdict;

#[cfg(test)]
mod tests;
