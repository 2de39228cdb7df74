//! Content of the entries of a user's own log, besides ids.

use madang_ids::{Ordinal, Seq};
use serde::{Deserialize, Serialize};

use crate::cards::Role;

/// Unread mentions, with the head up to which they were counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct UnreadMentions {
    /// Messages after the read marker, up to `head_seq`, that mention the user.
    pub mentions: u64,
    /// The channel's head when the mentions were counted.
    pub head_seq: Seq,
}

/// State of a channel for a user who has just joined it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct JoinedState {
    /// The user's role.
    pub role: Role,
    /// The last entry that this state includes. It may include later changes already; applying their entries again
    /// changes nothing.
    pub head_seq: Seq,
    /// Number of messages up to `head_seq`.
    pub head_ordinal: Ordinal,
    /// The user's read marker: joining sets it.
    pub read_seq: Seq,
    /// Number of messages after `read_seq`, up to `head_seq`.
    pub unread: u64,
    /// Seconds that a member must wait between two messages; 0 means no wait.
    pub slow_mode_seconds: u32,
    /// Pinned messages, the one pinned last first.
    pub pins: Vec<Seq>,
}
