//! Sockets: accepted, registered, fed, drained.
//!
//! [`listen`] takes connections, [`accept`] upgrades them, [`connection`] is the task of one socket (the shell of `engine::session`), [`outbound`] what
//! waits to be written on it (and its cursor, `engine::sync`), [`registry`] who is here, [`deliver`] brings envelopes
//! to them, [`drain`] sends them away politely.

pub mod accept;
mod catch_up;
mod connection;
pub mod deliver;
pub mod drain;
pub mod encode;
pub mod listen;
mod outbound;
mod registry;
mod requests;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use madang_engine::session::SessionConfig;
use madang_service::Tasks;

use crate::operations::Operations;

pub use registry::Registry;

/// What every connection shares.
pub struct Gateway {
    /// The use cases.
    pub operations: Arc<Operations>,
    /// Who is here.
    pub registry: Registry,
    /// The tasks of connections.
    pub tasks: Tasks,
    session: SessionConfig,
    next_connection: AtomicU64,
}

impl Gateway {
    /// A gateway without connections.
    #[must_use]
    pub fn new(operations: Arc<Operations>, tasks: Tasks) -> Self {
        let session = operations.config.session();
        let registry = Registry::new(operations.config.gateway.connections_per_device);
        Self { operations, registry, tasks, session, next_connection: AtomicU64::new(1) }
    }
}
