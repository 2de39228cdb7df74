//! Properties that hold for any input of each decoder. The tests replay the seeds; `cargo xtask fuzz` searches for an
//! input that violates a property, with this same code.
//!
//! A property panics if it does not hold. The code that reads sockets is inside the chat server (`gateway/feed.rs`), so
//! its seeds are replayed there.

#[path = "../../loadtest/src/corpus/irc.rs"]
mod irc;
mod log_lines;
mod requests;
mod seeds;
mod session;
mod texts;
mod tokens;

pub use seeds::{examples, kept};

/// A decoder and its property.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// Panics if the property does not hold.
    pub check: fn(&[u8]),
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "client_frame", check: requests::check_frame },
    Target { name: "rest_body", check: requests::check_rest },
    Target { name: "body", check: texts::check_body },
    Target { name: "ids", check: texts::check_ids },
    Target { name: "entry", check: texts::check_entry },
    Target { name: "session", check: session::check },
    Target { name: "token", check: tokens::check },
    Target { name: "irc", check: log_lines::check },
    #[cfg(fuzzing)]
    Target { name: "socket", check: madang_chat_server::gateway::socket::chunk_fuzz::check },
];

/// The target with this name.
#[must_use]
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().copied().find(|target| target.name == name)
}
