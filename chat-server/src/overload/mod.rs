//! Overload: refuses the least important requests when work waits, and calls of a store that is full or does not answer.
//!
//! The rules are in `engine::overload`.

mod bulkhead;
mod probe;
mod shedding;

pub use bulkhead::{Bulkhead, Bulkheads, Shards};
pub use probe::probe;
pub use shedding::Shedding;
