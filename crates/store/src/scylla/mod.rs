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
//!
//! The timeouts of the last class are above the server's timeout of contention (1 s), so that an append is not given up while its
//! round still runs. An error of a conditional statement is never taken for "not done", whatever it says: `Unavailable` may come
//! from the commit phase. Sure is only an answer that it was not applied, and that a statement is invalid, which is a fault of
//! this program. An answer "not applied" is never parsed further, because servers differ in what they return: read again.

mod accounts;
mod channels;
mod codec;
mod contacts;
mod details;
mod devices;
mod directory;
mod erasure;
mod group_invitations;
mod invitations;
mod log;
mod members;
mod overviews;
mod presence;
mod session;
mod settings;
mod trim;

use std::sync::Arc;

#[cfg(feature = "conformance")]
pub use session::fresh_keyspace;
pub use session::{ScyllaConfig, connect};

use session::Cql;

/// The store of a fleet.
#[derive(Debug)]
pub struct Scylla {
    cql: Arc<Cql>,
}
