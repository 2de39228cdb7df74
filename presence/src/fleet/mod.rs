//! Presence in a fleet: chat nodes and presence processes that send each other frames.
//!
//! ```text
//!  chat node                                             presence process
//!  Presence ─ reports ─► Node ── Reported, Question ──► Process ─► Core ──┐ Peer, Leaving
//!  gateway ◄─ notices ── Node ◄──── Told, Answer ────── Process ◄─ Core ◄─┘ (other processes)
//! ```
//!
//! [`node`] and [`process`] are both sides without IO, [`wire`] is what passes between them, [`post`] brings it to the other
//! process, or to the other role of this one. [`run_node`] and [`run_process`] drive the two. Nobody waits for anybody.
//!
//! Both sides follow [`LiveProcesses`]. They may learn of a change at different times: see [`crate::core`] for what holds then.

mod lanes;
mod node;
mod post;
mod process;
mod questions;
pub mod registration;
mod run;
#[cfg(feature = "redis")]
pub mod streams;
#[cfg(test)]
mod tests;
mod wire;

pub use post::{CoreInbox, NodeInbox, Post, Transport};
pub use run::{Live, ProcessParts, Remote, remote, run_node, run_process};

use crate::core::{ProcessRun, View};

/// The live processes of a fleet, as far as presence needs them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LiveProcesses {
    /// This process, with the epoch that it has now. A lost lease gives it another one.
    pub me: ProcessRun,
    /// The presence processes that are alive and do not drain. If every chat process has a presence core, these are the chat nodes
    /// that do not drain.
    pub processes: Vec<ProcessRun>,
    /// The chat nodes that are alive, also those that drain.
    pub nodes: Vec<ProcessRun>,
}

impl LiveProcesses {
    pub(crate) fn view(&self) -> View {
        View::of(&self.processes.iter().map(|run| run.process).collect::<Vec<_>>())
    }
}
