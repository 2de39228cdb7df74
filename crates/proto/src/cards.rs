//! Short descriptions of channels and users.

use madang_ids::{ChannelId, UserId};
use serde::{Deserialize, Serialize};

/// Kinds of channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ChannelKind {
    /// Two users; one channel per pair.
    Direct,
    /// Invited users, at most 500.
    Group,
    /// Any user may find and join it; at most 100,000 members.
    Open,
}

/// Role of a member in a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// May do everything. A group or an open channel has one owner.
    Owner,
    /// Moderates: adds and removes members, bans, mutes, pins, deletes messages of others.
    Admin,
    /// Reads and sends.
    Member,
}

impl Role {
    /// Whether this role may add and remove members.
    #[must_use]
    pub const fn is_admin(self) -> bool {
        matches!(self, Self::Owner | Self::Admin)
    }
}

/// Short description of a channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ChannelCard {
    /// The channel's id.
    pub id: ChannelId,
    /// Its kind.
    pub kind: ChannelKind,
    /// The name. Direct channels have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What the channel is about; empty if there is no topic.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub topic: String,
    /// The address of its picture; empty if there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub avatar: String,
    /// The two users of a direct channel, in the same order for everybody.
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

/// Short description of a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct UserCard {
    /// The user's id.
    pub id: UserId,
    /// Unique name, in lower case.
    pub handle: String,
    /// Name that is shown to people.
    pub display_name: String,
    /// The address of a picture; empty if there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub avatar: String,
    /// Rises with each change of name and picture. 1, and absent, before the first change.
    #[serde(default = "first_rev", skip_serializing_if = "is_first_rev")]
    pub rev: u64,
    /// Present and true if the account was deleted. The handle is empty then, and the user's messages stay.
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
