//! How what was appended reaches the people it concerns: the inbox (everything that concerns a user, in one order)
//! and the bus (node-to-node transport).
//!
//! In one process both are [`local`]: the inbox is a read of the store's commit order, and nothing is written per
//! member. In a fleet they will be Redis.
#![warn(missing_docs)]

#[cfg(feature = "conformance")]
pub mod conformance;
mod inbox;
pub mod local;
mod roster;

pub use inbox::{
    Delivery, Envelope, Event, EventKind, Inbox, InboxItem, InboxPage, InboxRead, OpenRows, Recipient, Told,
};
