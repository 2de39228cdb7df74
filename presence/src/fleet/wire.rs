//! What presence sends between processes, as frames: one byte with the version, then JSON.
//!
//! Within a version, fields and kinds may be added: a reader ignores fields that it does not know, and fields that a former writer
//! does not know have defaults. A reader drops a frame whose kind or version it does not know, which costs what a lost frame costs.
//! A new version is for everything else. A writer uses it only when every process of a fleet can read it, one release later.

use madang_ids::UserId;
use madang_proto::{PresenceList, UserPresence};
use serde::{Deserialize, Serialize};

use crate::api::{NodeReport, NodeRun, Up};
use crate::core::{Leaving, Message, NoticeTarget, ProcessRun};

/// The version that is written, and the only one that can be read.
const VERSION: u8 = 1;
/// A frame is at most this long. Larger ones are neither sent nor read; the bounds on the parts of a frame exclude them.
pub(crate) const FRAME_BYTES: usize = 2 * 1024 * 1024;
/// Connections in a part of a set (about 110 bytes each).
pub(crate) const PART: usize = 500;
/// Reports in a frame (at most 110 bytes each).
pub(crate) const REPORTS: usize = 256;
/// Users in a question; the answer has at most 0.9 KB for each.
pub(crate) const ASKED: usize = 250;
/// Cards in a frame to a node (at most 0.9 KB each), beyond which it takes no further notice; a notice has at most as many.
pub(crate) const CARDS: usize = madang_proto::limits::PRESENCE_USERS;
/// Receivers in a frame to a node (22 bytes each), beyond which it takes no further notice; a notice is split to have at most as many.
pub(crate) const RECEIVERS: usize = 1_000;

/// A frame for one process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Frame {
    /// For its chat node.
    Node(ToNode),
    /// For its presence core.
    Core(ToCore),
}

/// For a presence core.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ToCore {
    /// From a node.
    Reported(Reported),
    /// The presence of some users, asked by a process.
    Question { from: ProcessRun, id: u64, asker: Option<UserId>, users: Vec<UserId> },
    /// From another core.
    Peer(Message),
    /// From the former owner of these users.
    Leaving { connections: Vec<Leaving> },
}

/// Reports of a node, in their order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Reported {
    pub(crate) from: NodeRun,
    /// The frames of a node to a core are numbered from 0, again for each set.
    pub(crate) number: u64,
    /// A part of the set, at its beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) part: Option<Part>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) reports: Vec<NodeReport>,
}

/// A part of a node's full set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Part {
    /// The view by which the node has chosen the users.
    pub(crate) view: Vec<u16>,
    pub(crate) connections: Vec<Up>,
    pub(crate) is_last: bool,
    /// Reports about rows may have been lost on the node, so the rows of these users must be read again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) rereads: bool,
}

/// For a chat node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ToNode {
    /// From a core, in its order.
    Told(Told),
    /// The answer to a question.
    Answer { id: u64, users: Vec<Option<UserPresence>>, is_settled: bool },
}

/// What a core sends a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Told {
    pub(crate) from: ProcessRun,
    pub(crate) to: ProcessRun,
    /// The frames of a core to a node are numbered from 0.
    pub(crate) number: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) notices: Vec<(NoticeTarget, PresenceList)>,
    /// The node must send its full set.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) asks_set: bool,
    /// The answer to a renewal: what has been taken of the node's frames.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) taken: Option<Taken>,
}

/// The frames below `next` of this set of the node have been taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Taken {
    pub(crate) set: u64,
    pub(crate) next: u64,
}

/// Why a frame cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error("version {0} is not known")]
    Version(u8),
    #[error("{0} bytes are too long, or too short")]
    Length(usize),
    #[error("{0}")]
    Content(#[from] serde_json::Error),
}

impl Frame {
    /// About the bytes that a frame takes in memory.
    pub(crate) fn weight(&self) -> usize {
        const FIXED: usize = 256;
        const ID: usize = 8;
        const ENTRY: usize = 64;
        const CARD: usize = 256;
        let parts = match self {
            Self::Core(ToCore::Reported(reported)) => {
                let part = reported.part.as_ref().map_or(0, |part| part.connections.len());
                (part + reported.reports.len()) * ENTRY
            }
            Self::Core(ToCore::Question { users, .. }) => users.len() * ID,
            Self::Core(ToCore::Leaving { connections }) => connections.len() * ENTRY,
            Self::Core(ToCore::Peer(Message::Ack(_))) => 0,
            Self::Core(ToCore::Peer(Message::Batch(batch))) => {
                let circles = batch.states.iter().map(|state| state.watches.as_ref().map_or(0, Vec::len));
                let ids = batch.begins.len() + batch.ends.len() + 2 * batch.doubts.len();
                batch.states.len() * CARD + (circles.sum::<usize>() + ids) * ID
            }
            Self::Node(ToNode::Told(told)) => {
                let of = |(to, list): &(NoticeTarget, PresenceList)| {
                    let receivers = if let NoticeTarget::Users(users) = to { users.len() } else { 1 };
                    ENTRY + receivers * ID + list.users.len() * CARD
                };
                told.notices.iter().map(of).sum()
            }
            Self::Node(ToNode::Answer { users, .. }) => users.len() * CARD,
        };
        FIXED + parts
    }

    /// The bytes of a frame. `None` if it would be too long.
    pub(crate) fn encode(&self) -> Option<Vec<u8>> {
        let mut bytes = vec![VERSION];
        serde_json::to_writer(&mut bytes, self).ok()?;
        (bytes.len() <= FRAME_BYTES).then_some(bytes)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        match bytes.split_first() {
            Some((_, text)) if text.len() >= FRAME_BYTES => Err(Unreadable::Length(bytes.len())),
            Some((&VERSION, text)) => Ok(serde_json::from_slice(text)?),
            Some((version, _)) => Err(Unreadable::Version(*version)),
            None => Err(Unreadable::Length(0)),
        }
    }
}
