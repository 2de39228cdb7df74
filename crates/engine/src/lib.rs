//! The cores: pure state machines that do no IO and own no clock. Shells drive them.
//!
//! [`home`] orders one log; [`sync`] is a session's cursor over its user's inbox, and [`subscriptions`] its places in open
//! channels; [`heat`] is how hot channels are; [`session`] is the protocol of one connection; [`bucket`] limits callers;
//! [`overload`] refuses work that a node or a backend cannot do in time; [`text`] and [`emoji`] apply the rules of Unicode to names and reactions. [`alerts`] is what users who are away have not been alerted of yet. [`log`], [`seats`], [`spans`] and [`consequences`] are types that they share with every store.
#![warn(missing_docs)]

pub mod alerts;
pub mod body;
pub mod bucket;
pub mod consequences;
pub mod emoji;
pub mod heat;
pub mod home;
pub mod log;
pub mod now;
pub mod overload;
pub mod seats;
pub mod session;
pub mod spans;
pub mod spread;
pub mod subscriptions;
pub mod sync;
pub mod text;
