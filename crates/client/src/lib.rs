//! Rust client of Madang: connect, send, resume. The load tool and the tests stand on it.
//!
//! Two layers. [`Rest`] and [`Connection`] are the bare wire: one call, one socket, no memory. [`Client`] keeps what a
//! person expects of a chat client on top of them: it reconnects, keeps unsent messages and sends them again in order,
//! resumes from its cursor, drops what it has already, and fills and reports holes. Its memory is two pure cores that
//! do no IO: [`Outbox`] (what must still be acked) and [`Received`] (what has come, and up to which cursor).
#![warn(missing_docs)]

mod backoff;
mod client;
mod connection;
mod driver;
mod error;
mod event;
mod outbox;
mod received;
mod rest;

pub use backoff::Backoff;
pub use client::{Client, ClientOptions};
pub use connection::{Connection, Endpoint, Incoming, SocketOptions};
pub use error::ClientError;
pub use event::Event;
pub use outbox::{Answer, Full, Outbox, Outgoing, Settled};
pub use received::{Missing, Piece, Received};
pub use rest::{Rest, Tokens};
