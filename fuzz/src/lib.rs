//! What must hold for any input of each decoder. The tests replay the seeds; `cargo xtask fuzz` searches for an input
//! that breaks it, with this very code.
//!
//! A property panics when it does not hold. The reading path of sockets lies inside of the chat server
//! (`gateway/feed.rs`), so its seeds are replayed there.

#[path = "../../loadtest/src/corpus/irc.rs"]
mod irc;
mod log_lines;
mod requests;
mod seeds;
mod session;
mod texts;
mod tokens;

pub use seeds::{examples, kept};

/// A decoder and what must hold of it.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// Panics if something does not hold.
    pub check: fn(&[u8]),
}

/// All of them.
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
    Target { name: "socket", check: madang_chat_server::gateway::feed::check },
];

/// The target of this name.
#[must_use]
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().copied().find(|target| target.name == name)
}
