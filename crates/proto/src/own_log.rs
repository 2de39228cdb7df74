//! What entries of a user's own log hold besides ids.

use madang_ids::{Ordinal, Seq};
use serde::{Deserialize, Serialize};

use crate::cards::Role;

/// Unread mentions, with the place up to which they were counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct UnreadMentions {
    /// Messages after the marker up to `head_seq` that mention the user.
    pub mentions: u64,
    /// The channel's head when they were counted.
    pub head_seq: Seq,
}

/// How a channel stands for somebody who has joined it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct JoinedState {
    /// The user's role.
    pub role: Role,
    /// The last entry of which this tells. Later entries may be told already: applied again they change nothing.
    pub head_seq: Seq,
    /// Messages up to `head_seq`.
    pub head_ordinal: Ordinal,
    /// How far the user has read: joining sets the marker.
    pub read_seq: Seq,
    /// Messages after that, up to `head_seq`.
    pub unread: u64,
    /// Seconds that a member waits between two messages; 0 means no wait.
    pub slow_mode_seconds: u32,
    /// Messages that are pinned, the last one first.
    pub pins: Vec<Seq>,
}
