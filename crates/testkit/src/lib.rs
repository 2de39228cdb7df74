//! Support for tests: nodes over either store with a clock that the test controls, processes of the real binary,
//! clients that can violate the protocol, and the runner of `transcripts/`. Used from `tests/` only.
#![expect(clippy::unwrap_used, reason = "only tests use it: a failure here fails the test")]

pub mod alerted;
#[cfg(feature = "fleet")]
mod fleet;
mod led;
mod model;
mod node;
mod process;
mod proxy;
mod push;
mod raw;
mod rest;
mod socket;
mod tls;
pub mod transcript;

#[cfg(feature = "fleet")]
pub use fleet::{FleetNodes, FleetPlace, PushProcess};
pub use led::{Gate, Gates, Led};
/// Re-exported so that crates below the server can configure a node.
pub use madang_chat_server::config::Config;
pub use madang_service::ManualClock;
pub use madang_store::model::{Call, Faults};
pub use node::{ModelStorage, Storage, TestNode, manual_clock};
pub use process::Server;
pub use proxy::{Fate, Proxy};
pub use push::PushServices;
pub use raw::{CONTINUATION, PING, PONG, RawSocket, TEXT};
pub use rest::{Answer, Rest};
pub use socket::{Ended, Socket, Stream};
pub use tls::Certificate;

use std::time::Duration;

/// Time limit for every wait in a test. It is far above the expected time: it bounds failures and sets no pace.
pub const PATIENCE: Duration = Duration::from_secs(30);
