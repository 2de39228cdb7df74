//! Decides whether the guarantees held, from the raw frames: before any client drops what it has already.
//!
//! [`frame`] reads of a frame only what is judged. A [`book`] per channel holds what was said, acked and seen by
//! anybody; a [`record`] per device and channel holds what came to that device. [`verdict`] compares both with the
//! history from REST at the end. What broke goes to [`faults`], by channel and seq.

pub(crate) mod book;
pub(crate) mod faults;
pub(crate) mod frame;
pub(crate) mod record;
pub(crate) mod spans;
pub(crate) mod verdict;

#[cfg(test)]
mod tests;
