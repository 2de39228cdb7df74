//! Presence: who is there, told to whom it concerns.
//!
//! Chat nodes report changes of their connections ([`Local`]), never heartbeats; [`core`] folds them into one state a
//! user and says who must hear of it; [`run`] drives it. Everything here may be lost: rows keep what must survive a
//! restart, and nodes send their full set again.
#![warn(missing_docs)]

mod api;
mod config;
pub mod core;
mod metrics;
mod rows;
mod service;

pub use api::{Departure, Local, NodeRun, States, Up, lease, local};
pub use config::PresenceConfig;
pub use core::{Notice, To};
pub use metrics::PresenceMetrics;
pub use service::{Service, run};
