//! Decides whether the guarantees held, from the raw frames: before any client drops what it has already.
//!
//! [`frame`] reads of a frame only what is judged. A [`book`] per channel holds what was said, acked and seen by
//! anybody, and in [`fates`] what was done to it later; a [`record`] per device and channel holds what came to that
//! device, and the [`state`] of each changed message there. [`verdict`] compares all with the history from REST at the
//! end, less what an [`absence`] excuses. What broke goes to [`faults`], by channel and seq.

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
