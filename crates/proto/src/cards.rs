//! Channels and people in a few words.

use madang_ids::{ChannelId, UserId};
use serde::{Deserialize, Serialize};

/// Kinds of channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ChannelKind {
    /// Two people; one per pair.
    Direct,
    /// Invited people, at most 500.
    Group,
    /// Anyone may find and join, at most 100,000.
    Open,
}

/// What a member may do in a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Everything; one per group or open channel.
    Owner,
    /// Moderates: adds and removes members, bans, mutes, pins, deletes what others wrote.
    Admin,
    /// Speaks.
    Member,
}

impl Role {
    /// Whether this role adds and removes others.
    #[must_use]
    pub const fn is_admin(self) -> bool {
        matches!(self, Self::Owner | Self::Admin)
    }
}

/// A channel in a few words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ChannelCard {
    /// Which.
    pub id: ChannelId,
    /// Its kind.
    pub kind: ChannelKind,
    /// Its name; direct channels have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What it is about.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub topic: String,
    /// The address of its picture.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub avatar: String,
    /// In a direct channel: the two people, as everyone sees them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub between: Option<[UserId; 2]>,
}

impl ChannelCard {
    /// A channel without topic and picture.
    #[must_use]
    pub const fn new(
        id: ChannelId,
        kind: ChannelKind,
        name: Option<String>,
        between: Option<[UserId; 2]>,
    ) -> Self {
        Self { id, kind, name, topic: String::new(), avatar: String::new(), between }
    }
}

/// A user in a few words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct UserCard {
    /// Who.
    pub id: UserId,
    /// Unique name, in lower case.
    pub handle: String,
    /// Name for people.
    pub display_name: String,
    /// The address of a picture, if there is one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub avatar: String,
    /// Rises with each change of name and picture; 1, and left out, before the first.
    #[serde(default = "first_rev", skip_serializing_if = "is_first_rev")]
    pub rev: u64,
    /// Present and true if the account was deleted: the handle is empty, and what the user wrote stays.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
}

pub(crate) const fn first_rev() -> u64 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
pub(crate) const fn is_first_rev(rev: &u64) -> bool {
    *rev <= 1
}
