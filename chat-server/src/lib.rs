//! The chat server: the gateway (sockets), REST, and the composition root.
//!
//! The rooms follow the way of a message: [`gateway`] (accept, connection, outbound, registry, drain) →
//! [`operations`] (one use case a file: *check*, then *apply*; the socket and REST both call it) → [`home`] (the shell
//! that drives `engine::home`) → the inbox of `crates/bus`, and back to the gateway's registry. Beside them [`rest`]
//! (one resource a file), [`cli`] (one command a file), [`compose`] (the one place that picks backends), [`tls`] (certificates).

pub mod bounds;
pub mod cli;
pub mod compose;
pub mod config;
pub mod consent;
#[cfg(feature = "fleet")]
pub(crate) mod fleet;
pub mod gateway;
pub mod heat;
pub mod home;
pub mod metrics;
pub mod operations;
pub mod operators;
pub mod overload;
#[cfg(feature = "plant")]
mod plant;
pub mod private;
pub mod refusal;
pub mod rest;
pub mod tls;
