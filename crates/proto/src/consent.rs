//! Settings that say which users may add a user to a group, and which may write to the user.

use madang_ids::{ChannelId, Millis};
use serde::{Deserialize, Serialize};

use crate::cards::UserCard;

/// The users from whom something is accepted without asking first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Audience {
    /// Any user.
    Everybody,
    /// Mutual contacts, and users who share a group with this user in which both have accepted.
    SharedChannel,
    /// Mutual contacts.
    Contacts,
}

/// A user's own settings of the account. They are synchronised to all devices of the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AccountSettings {
    /// Whether other users see how far this user has read.
    pub sends_receipts: bool,
    /// The users who may add this user to a group at once. Others can only invite.
    pub may_add: Audience,
    /// The users who may write to this user in a direct channel.
    pub may_write: Audience,
}

/// A row of `GET /v1/invitations`: what an invited user may know of a group before accepting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct InvitationCard {
    /// The group.
    pub channel_id: ChannelId,
    /// Its name.
    pub name: String,
    /// Present number of members.
    pub member_count: u32,
    /// The user who invited.
    pub by: UserCard,
    /// Time of the invitation.
    pub at: Millis,
}
