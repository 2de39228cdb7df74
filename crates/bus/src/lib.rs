//! How appended rows reach the users whom they concern: the inbox (everything that concerns a user, in one order) and
//! the bus (transport between nodes).
//!
//! In one process both are [`local`]: the inbox reads the store's commit order, and nothing is written per member. In a
//! fleet they are `redis`.
#![warn(missing_docs)]

pub mod bounds;
mod bus;
mod config;
#[cfg(feature = "conformance")]
pub mod conformance;
mod inbox;
pub mod local;
mod peers;
#[cfg(feature = "redis")]
pub mod redis;
pub mod registry;
mod roster;

pub use bus::{Bus, Delivery, Envelope, Event, EventKind, Loss, OpenRows, Receivers, Recipient};
pub use config::{BusConfig, BusKind};
pub use inbox::{Inbox, InboxItem, InboxPage, InboxRead};
pub use peers::{Arrived, ForwardedCommand, HomeChannel, MemoryPeers, PeerFrame, Peers};
