//! What a client of the sandbox sees: correct requests are taken, each wrong one is refused for its reason, and faults happen.

#![expect(clippy::unwrap_used, reason = "a test; clippy exempts test functions only, not their helpers")]

mod apns;
mod apns_connection;
mod client;
mod config;
mod faults;
mod fcm;
mod web_push;
mod webhook;
