//! Contacts and presence: whether users are online, and who may see it.

use madang_ids::{Millis, UserId};
use serde::{Deserialize, Serialize};

use crate::cards::{UserCard, first_rev, is_first_rev};

/// State of a contact, as seen by the user whose contact it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ContactState {
    /// The user asked, and the other has not answered.
    Requested,
    /// The other user asked, and this user has not answered.
    Asked,
    /// Both agreed.
    Mutual,
}

impl ContactState {
    /// The same state as seen by the other user.
    #[must_use]
    pub const fn mirrored(self) -> Self {
        match self {
            Self::Requested => Self::Asked,
            Self::Asked => Self::Requested,
            Self::Mutual => Self::Mutual,
        }
    }
}

/// A row of `GET /v1/contacts`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ContactCard {
    /// The other user.
    #[serde(flatten)]
    pub user: UserCard,
    /// The state of the contact, as seen by the caller.
    pub state: ContactState,
    /// Time of the last change of the state.
    pub since: Millis,
}

/// Whether a user is online.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Availability {
    /// Connected, and at least one connection is not idle.
    Online,
    /// Connected, and every connection is idle.
    Away,
    /// Not connected, or invisible.
    #[default]
    Offline,
}

/// What a client sets about its user. Absent fields stay unchanged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SetPresence {
    /// Whether the user has not used this client for some time. Holds for this connection only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle: Option<bool>,
    /// Whether other users see this user as offline. Stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invisible: Option<bool>,
    /// Free text, at most 128 characters; an empty text removes it. Stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
}

/// Presence of one user, as the receiver may see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct UserPresence {
    /// The user.
    pub user_id: UserId,
    /// Whether the user is online.
    pub state: Availability,
    /// The time at which the user was last active, if it is known and the user is away or offline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_active_at: Option<Millis>,
    /// The user's free text. Never present for a user who is offline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// The `rev` of the card of a user who is not offline. 1, and absent, before the first change. If it is greater
    /// than that of the card you have, fetch the card again (`GET /v1/users/lookup`).
    #[serde(default = "first_rev", skip_serializing_if = "is_first_rev")]
    pub rev: u64,
    /// Only in the user's own presence: whether other users see this user as offline.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub invisible: bool,
}

impl UserPresence {
    /// A user of whom nothing is known but that they are offline.
    #[must_use]
    pub const fn offline(user_id: UserId) -> Self {
        let (state, last_active_at) = (Availability::Offline, None);
        Self { user_id, state, last_active_at, status: None, rev: 1, invisible: false }
    }
}

/// Presence of several users.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PresenceList {
    /// The users.
    pub users: Vec<UserPresence>,
    /// Whether the list replaces everything before: users named earlier and not in this list no longer count as named.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub anew: bool,
    /// Whether users who are not named are offline. The server does not claim this in the first seconds after its
    /// start, while clients reconnect.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub complete: bool,
}

/// `?user_ids=1,2,3`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PresenceQuery {
    /// Ids with commas between them, at most 100.
    pub user_ids: String,
}

/// `GET /v1/channels/{id}/presence`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PresenceCounts {
    /// Members who are online.
    pub online: u32,
    /// Members who are away.
    pub away: u32,
    /// Members who were counted: all of them, or the first 10,000.
    pub counted: u32,
}
