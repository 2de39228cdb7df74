//! The client against a server that follows a script, and against a node behind a proxy that loses, replaces or cuts
//! frames.
#![expect(clippy::unwrap_used, reason = "a test; clippy exempts test functions only, not their helpers")]

mod changes;
mod fake;
mod gaps;
mod harness;
mod nodes;
mod open;
mod presence;
mod queue;
mod reconnect;
mod scripted;
mod snapshots;
mod tls;
mod tokens;
