//! Overload: a node refuses work early, and the least important work first, instead of doing all of it late.
//!
//! ```text
//! request ─ Threshold (of Shed) ─ Fair ─ Breaker, Limit (of one backend) ─ call of the store, Redis or a push service
//!               ▲                  │                ▲                       │
//!               └── waits in queue ┘                └─ Outcome and latency ─┘
//! ```
//!
//! [`Shed`] judges by the waits in queue which classes of requests the node serves. [`Fair`] keeps a busy channel from delaying the
//! others before anything is refused. [`Limit`] keeps a backend from being called more often at once than it can answer, and
//! [`Breaker`] refuses at once what a backend would fail. All four are pure: no clock, no randomness, no IO, and bounded memory. Times
//! are of the steady clock. A refusal names a pause without jitter; the shell adds ± 25 %, since a core has no source of chance.

mod breaker;
mod fair;
mod limit;
mod shed;

pub use breaker::{Attempt, Breaker, BreakerConfig};
pub use fair::{Fair, FairConfig, Lane, Price};
pub use limit::{Limit, Permit};
pub use shed::{Class, Shed, Slot, Threshold, Wait};

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
