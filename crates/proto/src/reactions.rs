//! Reactions to a message, and the entry that tells of them: it has what changed and not the message again.

use madang_ids::{Seq, UserId};
use serde::{Deserialize, Serialize};

use crate::entry::Message;

/// Those who reacted to a message in one way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Reaction {
    /// In which: an emoji, or a short name.
    pub emoji: String,
    /// How many they are.
    pub count: u32,
    /// Their ids; of more than 50 the first 50.
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
    /// The last user who reacted.
    pub by: UserId,
    /// What the message has now. Absent in the store, once the message is deleted, and for users who may not read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<Box<ReactedState>>,
}

/// A message as it is now, without its body.
///
/// A reader may hold an older body: it has skipped an edit, which lies in a hole that it has not filled. With the
/// reactions alone it would take the version of a body that it does not have, and keep the old body for ever. So the
/// state names the body that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ReactedState {
    /// The message's version.
    pub version: u32,
    /// The version as which the message got its body: that of `edited`, or 1.
    pub body_version: u32,
    /// How people react, in the order of the first of each.
    pub reactions: Vec<Reaction>,
}

impl ReactedState {
    /// Of a message; `None` once it is deleted.
    #[must_use]
    pub fn of(message: &Message) -> Option<Self> {
        let (version, body_version) = (message.version, message.body_version());
        let state = || Self { version, body_version, reactions: message.reactions.clone() };
        message.deleted.is_none().then(state)
    }

    /// Brings a copy of the message up to date, as a client does. Returns whether it did: not if the copy is as late, nor
    /// if it has another body; then an `edited` entry brings the whole message.
    pub fn apply_to(&self, kept: &mut Message) -> bool {
        if kept.version >= self.version || kept.body_version() != self.body_version || kept.deleted.is_some()
        {
            return false;
        }
        (kept.version, kept.reactions) = (self.version, self.reactions.clone());
        true
    }
}
