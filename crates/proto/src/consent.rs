//! The people who may add a user to a group, and those who may write to the user.

use madang_ids::{ChannelId, Millis};
use serde::{Deserialize, Serialize};

use crate::cards::UserCard;

/// Of whom a user takes something without being asked first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Audience {
    /// Of anybody.
    Everybody,
    /// Of mutual contacts, and of people who share a group with the user in which both have accepted.
    SharedChannel,
    /// Of mutual contacts.
    Contacts,
}

/// A user's own settings of the account, as all their devices learn of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AccountSettings {
    /// Whether others are told how far the user has read.
    pub sends_receipts: bool,
    /// The people who may add the user to a group at once; others invite.
    pub may_add: Audience,
    /// The people who may write to the user in a direct channel.
    pub may_write: Audience,
}

/// A row of `GET /v1/invitations`: what somebody may know of a group before they accept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct InvitationCard {
    /// The group.
    pub channel_id: ChannelId,
    /// Its name.
    pub name: String,
    /// Members now.
    pub member_count: u32,
    /// The inviter.
    pub by: UserCard,
    /// Since when.
    pub at: Millis,
}
