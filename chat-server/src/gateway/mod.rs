//! Sockets: accepted, registered, fed, drained.
//!
//! [`listen`] takes connections ([`addresses`] counts them, [`proxies`] says whose they are), [`accept`] upgrades them,
//! [`pipe`] carries their bytes, [`connection`] is the task of one socket (the shell of
//! `engine::session`), [`socket`] its way in, [`outbound`] its way out (and its cursor, `engine::sync`) with the
//! [`queue`] of what waits, [`lane`] who writes it, [`registry`] who is here, [`deliver`] brings envelopes to them, [`open`]
//! those of open channels to their subscribers, [`presence`] says who is here and brings what others are told of it,
//! [`drain`] sends them away politely.

pub mod accept;
mod addresses;
mod catch_up;
mod connection;
pub mod deliver;
pub mod drain;
mod echo;
pub mod encode;
#[cfg(any(test, fuzzing))]
pub mod feed;
mod lane;
pub mod listen;
pub mod open;
mod outbound;
mod pipe;
mod presence;
pub mod proxies;
mod queue;
mod registry;
mod requests;
mod socket;
pub mod sweep;
mod write_timeout;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use madang_engine::session::{Now, SessionConfig};
use madang_service::Tasks;

use crate::operations::Operations;
use crate::tls::Tls;

use addresses::Addresses;
use lane::Lanes;
use open::Subscribers;
pub use registry::Registry;

/// What every connection shares.
pub struct Gateway {
    /// The use cases.
    pub operations: Arc<Operations>,
    /// Who is here.
    pub registry: Registry,
    /// The tasks of connections.
    pub tasks: Tasks,
    subscribers: Subscribers,
    /// TLS, if there is a certificate.
    pub tls: Option<Arc<Tls>>,
    addresses: Addresses,
    session: SessionConfig,
    lanes: Lanes,
    next_number: AtomicU64,
}

impl Gateway {
    /// A gateway without connections.
    #[must_use]
    pub fn new(operations: Arc<Operations>, tasks: Tasks, tls: Option<Arc<Tls>>) -> Self {
        let session = operations.config.session();
        let registry = Registry::new(operations.config.gateway.connections_per_device);
        let subscribers = Subscribers::new(Arc::clone(&operations.inbox));
        let (lanes, addresses) = (Lanes::new(), Addresses::default());
        let next_number = AtomicU64::new(1);
        Self { operations, registry, tasks, subscribers, tls, addresses, session, lanes, next_number }
    }

    /// The tasks that write to connections; each runs for ever.
    pub fn writers(&self) -> impl Iterator<Item = impl Future<Output = ()> + Send + use<>> {
        let metrics = &self.operations.metrics;
        self.lanes.iter().map(|lane| lane::run(Arc::clone(lane), metrics.clone()))
    }

    fn now(&self) -> Now {
        Now { at: self.operations.clock.raw_ms(), elapsed: self.operations.clock.elapsed() }
    }

    fn next_number(&self) -> u64 {
        self.next_number.fetch_add(1, Ordering::Relaxed)
    }
}
