//! Contacts and presence: who is there, and who may know.

use madang_ids::{Millis, UserId};
use serde::{Deserialize, Serialize};

use crate::cards::{UserCard, first_rev, is_first_rev};

/// How things stand between a user and a contact of hers, as she sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ContactState {
    /// She asked, and waits for the answer.
    Requested,
    /// She was asked.
    Asked,
    /// Both agreed.
    Mutual,
}

impl ContactState {
    /// The same as the other one sees it.
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
    /// Who.
    #[serde(flatten)]
    pub user: UserCard,
    /// How things stand.
    pub state: ContactState,
    /// Since when.
    pub since: Millis,
}

/// Whether a user is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Availability {
    /// On at least one connection that is not idle.
    Online,
    /// Connected, and idle on every connection.
    Away,
    /// Not connected, or invisible.
    #[default]
    Offline,
}

/// What a client says of its user. What is left out stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SetPresence {
    /// Whether nobody has touched this client for a while. Of this connection alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle: Option<bool>,
    /// Whether others see the user as offline. Kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invisible: Option<bool>,
    /// Free text, at most 128 characters; an empty one takes it away. Kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
}

/// One user as the one who is told may see her.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct UserPresence {
    /// Who.
    pub user_id: UserId,
    /// Whether she is there.
    pub state: Availability,
    /// Of who is away or offline: when she was last active, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_active_at: Option<Millis>,
    /// Her free text; never of who is offline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// The `rev` of the user's card, of somebody who is not offline; 1, and left out, before the first change. Take the card
    /// again (`GET /v1/users/lookup`) if it is greater than that of the card you have.
    #[serde(default = "first_rev", skip_serializing_if = "is_first_rev")]
    pub rev: u64,
    /// Only of oneself: others see me as offline.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub invisible: bool,
}

impl UserPresence {
    /// Somebody of whom there is nothing more to say.
    #[must_use]
    pub const fn offline(user_id: UserId) -> Self {
        let (state, last_active_at) = (Availability::Offline, None);
        Self { user_id, state, last_active_at, status: None, rev: 1, invisible: false }
    }
}

/// How some users are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PresenceList {
    /// These.
    pub users: Vec<UserPresence>,
    /// Whether a list begins anew: who was named before counts as not named.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub anew: bool,
    /// Whether those who are not named are offline. The server does not say so in the seconds after its start, when
    /// clients are on their way back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub complete: bool,
}

/// `?user_ids=1,2,3`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PresenceQuery {
    /// At most 100.
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
    /// Members who were looked at: all of them, or the first 10,000.
    pub counted: u32,
}
