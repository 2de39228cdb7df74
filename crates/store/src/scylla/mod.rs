//! The store over Cassandra or ScyllaDB.
//!
//! Tables are in [`schema.cql`](../../../../../schema.cql). A statement belongs to one of four classes, which decide everything
//! about how it is executed:
//!
//! | class | consistency | retry | timeout | idempotent | an error means |
//! |---|---|---|---|---|---|
//! | read | LOCAL_QUORUM | the driver's default | 2 s | yes | unavailable |
//! | serial read | LOCAL_SERIAL | the driver's default | 3 s | yes | unavailable |
//! | write | LOCAL_QUORUM | the driver's default | 2 s | yes | unknown |
//! | conditional | LOCAL_QUORUM, serial LOCAL_SERIAL | none | 3 s | no | unknown |
//! | preparing any of them | | none | 3 s | yes | unavailable |
//!
//! Only nodes of the local data center are asked, replicas of the partition first. A connection that answers nothing, not even a
//! keep-alive, is closed after 10 s, and a node is connected again in the background. An overloaded node, a lost connection and
//! a node that is down are errors of the class: the caller answers `unavailable` with a time to retry, after it has read again
//! what is unknown.
//!
//! The timeouts of the last class are above the server's timeout of contention (1 s), so that an append is not given up while its
//! round still runs. An error of a conditional statement is never taken for "not done", whatever it says: `Unavailable` may come
//! from the commit phase. Sure is only an answer that it was not applied, and that a statement is invalid, which is a fault of
//! this program. An answer "not applied" is never parsed further, because servers differ in what they return: read again.
//!
//! [`connect`] leads to a store, [`schema`] makes the tables, `workers.rs` leases numbers of nodes, `trim.rs` says what is removed
//! where.

mod accounts;
mod acts;
mod channels;
mod cluster;
mod codec;
mod connect;
mod contacts;
mod details;
mod devices;
mod directory;
mod enter;
mod erasure;
mod group_invitations;
mod handles;
mod invitations;
mod log;
mod members;
mod metrics;
mod overviews;
mod presence;
mod push;
mod revocations;
pub mod schema;
mod session;
mod settings;
mod strength;
mod trim;
mod workers;

use std::sync::Arc;

pub use cluster::Product;
pub use connect::{ConnectError, connect};
pub use enter::{EnterError, enter};
pub use metrics::ScyllaMetrics;
pub use strength::Weakness;
pub use workers::{LeaseError, Namesake, WorkerLease};

use session::Cql;

/// The store of a fleet.
#[derive(Debug)]
pub struct Scylla {
    cql: Arc<Cql>,
    last_bucket: acts::LastBucket,
}

impl Scylla {
    /// The metrics of the statements.
    #[must_use]
    pub fn metrics(&self) -> &ScyllaMetrics {
        &self.cql.metrics
    }
}
