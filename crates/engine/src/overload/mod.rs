//! Overload: a node refuses work early, and the least important work first, instead of doing all of it late.

mod breaker;
mod fair;
mod limit;

pub use breaker::{Attempt, Breaker, BreakerConfig};
pub use fair::{Fair, FairConfig, Lane};
pub use limit::{Limit, Permit};

use std::time::Duration;

/// The answer to a call that may not be made now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// The pause before another try.
    pub retry_after: Duration,
}

/// The end of a call of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The backend did its work. An answer such as "not found" or "this slot has moved" is one: the backend is well.
    Ok,
    /// The backend failed. Failures are often quick, so they are no measure of latency.
    Failed,
    /// No answer within the caller's time, or the backend said that it is overloaded.
    TimedOut,
    /// The call was not made, or the caller did not wait for its answer. It says nothing about the backend.
    Dropped,
}
