//! Reactions to a message, and the entry that records a change of them. The entry contains the reactions, not the
//! message.

use madang_ids::{Seq, UserId};
use serde::{Deserialize, Serialize};

use crate::entry::Message;

/// The users who reacted to a message with one emoji.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Reaction {
    /// The emoji, or a short name.
    pub emoji: String,
    /// The number of users who reacted with it.
    pub count: u32,
    /// Their ids: the first 50 of them.
    pub users: Vec<UserId>,
}

/// A change of the reactions to a message.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ReactionsChange {
    /// The `seq` of the message.
    pub target: Seq,
    /// The message's version after the change.
    pub version: u32,
    /// The user who reacted last.
    pub by: UserId,
    /// The reactions as they are now. Absent in the store, once the message is deleted, and for users who may not read
    /// it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<Box<ReactedState>>,
}

/// Reactions and version of a message as it is now, without its body.
///
/// A reader may hold an older body: it skipped an edit that lies in a gap which it has not filled. If it applied only
/// the reactions, it would take over the version of a body that it does not have and would keep the old body for ever.
/// So the state names the version of the body that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ReactedState {
    /// The message's version.
    pub version: u32,
    /// The version that gave the message its body: that of `edited`, or 1.
    pub body_version: u32,
    /// Reactions, in the order in which the first of each kind was made.
    pub reactions: Vec<Reaction>,
}

impl ReactedState {
    /// The state of a message; `None` once it is deleted.
    #[must_use]
    pub fn of(message: &Message) -> Option<Self> {
        let (version, body_version) = (message.version, message.body_version());
        let state = || Self { version, body_version, reactions: message.reactions.clone() };
        message.deleted.is_none().then(state)
    }

    /// Updates a copy of the message, as a client does. Returns `false` and changes nothing if the copy is not older,
    /// if it is deleted, or if it has another body; in the last case an `edited` entry brings the whole message.
    pub fn apply_to(&self, kept: &mut Message) -> bool {
        if kept.version >= self.version || kept.body_version() != self.body_version || kept.deleted.is_some()
        {
            return false;
        }
        (kept.version, kept.reactions) = (self.version, self.reactions.clone());
        true
    }
}
