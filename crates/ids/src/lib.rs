//! Typed identifiers and the generator that mints them from a clock. Every other crate depends on this one.
//!
//! Madang has no bare `u64` or `String` ids. 64-bit ids are strings in JSON, because a JavaScript number cannot hold
//! them. Places in a log ([`Seq`], [`Ordinal`]) are small dense numbers and stay numbers.

mod client_msg_id;
mod cursor;
mod node;
mod numeric;
pub mod rendezvous;
#[cfg(feature = "schema")]
mod schema;
mod snowflake;

pub use client_msg_id::ClientMsgId;
pub use cursor::{Cursor, Epoch, Position, SealedCursor};
pub use node::{NodeEpoch, NodeId, NodeRun, Origin};
pub use numeric::{
    ChannelId, ConnectionId, DeviceId, IdError, LogId, MessageId, Millis, Ordinal, Seq, UserId,
};
#[cfg(feature = "schema")]
pub use schema::place_of_an_entry;
pub use snowflake::{EPOCH_MS, LeaseOver, MintedIds, Snowflakes, WorkerError};
