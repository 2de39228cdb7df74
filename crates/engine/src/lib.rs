//! The cores: pure state machines that do no IO and own no clock. Shells drive them.
//!
//! [`home`] orders one log; [`sync`] is a session's cursor over its user's inbox, and [`subscriptions`]
//! what it wants of open channels; [`session`] is the protocol of one
//! connection; [`bucket`] paces callers; [`text`] and [`emoji`] are what Unicode says of names and reactions. [`log`], [`seats`] and [`spans`] are the nouns that they share with every
//! store.
#![warn(missing_docs)]

pub mod body;
pub mod bucket;
pub mod consequences;
pub mod emoji;
pub mod home;
pub mod log;
pub mod now;
pub mod seats;
pub mod session;
pub mod spans;
pub mod subscriptions;
pub mod sync;
pub mod text;
