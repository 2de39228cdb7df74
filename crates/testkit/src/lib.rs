//! What tests stand on: nodes over either store with a clock in the test's hand, processes of the real binary, clients
//! that can misbehave, and the runner of `transcripts/`. Used from `tests/` only.
#![expect(clippy::unwrap_used, reason = "tests stand on it: what fails here fails the test, loudly")]

mod led;
mod model;
mod node;
mod process;
mod proxy;
mod raw;
mod rest;
mod socket;
mod tls;
pub mod transcript;

pub use led::{Led, ReadGate};
/// So that crates below the server can say what node they want.
pub use madang_chat_server::config::Config;
pub use madang_service::ManualClock;
pub use madang_store::model::Faults;
pub use node::{ModelStorage, Storage, TestNode, manual_clock};
pub use process::Server;
pub use proxy::{Fate, Proxy};
pub use raw::{CONTINUATION, PING, PONG, RawSocket, TEXT};
pub use rest::{Answer, Rest};
pub use socket::{Ended, Socket, Stream};
pub use tls::Certificate;

use std::time::Duration;

/// How long anything may take before a test fails. Far above what it takes: a bound for failure, no pace.
pub const PATIENCE: Duration = Duration::from_secs(30);
