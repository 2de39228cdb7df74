//! Presence: whether users are online, and notices of changes to the users who watch them.
//!
//! Chat nodes report changes of their connections ([`Presence`]), never heartbeats. [`core`] folds them into one state for each user
//! and decides who is notified; [`run`] drives it. Nothing here must survive: rows keep what a restart needs, and nodes send
//! their full set again.
#![warn(missing_docs)]

mod api;
mod config;
pub mod core;
pub mod fleet;
mod metrics;
mod role;
mod rows;
mod service;

pub use api::{Departure, NodeRun, Presence, States, Up, lease, local};
pub use config::{Placement, PresenceConfig};
pub use core::{Notice, NoticeTarget};
pub use metrics::{FleetMetrics, PresenceMetrics};
pub use role::{FleetParts, PresenceRole, RoleParts, RoleTasks};
pub use service::{Service, run};
