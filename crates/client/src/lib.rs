//! Rust client of Madang: connect, send, resume. The load tool and the tests are built on it.
//!
//! It has two layers. [`Rest`] and [`Connection`] are the bare wire: one call, one socket, no state. [`Client`] adds
//! what users expect of a chat client: it reconnects, keeps unacked messages and sends them again in order, resumes
//! from its cursor, drops entries that it already has, and fills and reports gaps. Before each connection it asks a server
//! of the fleet which node accepts it, and it follows a node that drains to another one. Its state is in two pure cores
//! without IO: [`Outbox`] (messages that are not acked yet) and [`Received`] (which entries have been received, and the
//! cursor).
#![warn(missing_docs)]

mod backoff;
mod client;
mod connection;
mod driver;
mod endpoint;
mod error;
mod event;
mod outbox;
mod received;
mod rest;
mod trust;

pub use backoff::Backoff;
pub use client::{Client, ClientOptions};
pub use connection::{Connection, Incoming, SocketOptions};
pub use endpoint::Endpoint;
pub use error::ClientError;
pub use event::Event;
pub use outbox::{Answer, Full, Outbox, Outgoing, Settled};
pub use received::{Missing, Piece, Received};
pub use rest::{Assigned, Rest, Tokens};
pub use trust::Trust;
