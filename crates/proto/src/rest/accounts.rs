//! Bodies about accounts, devices, people and the server.

use std::collections::BTreeMap;

use madang_ids::{DeviceId, Millis, SealedCursor};
use serde::{Deserialize, Serialize};

use crate::cards::UserCard;
use crate::consent::Audience;

/// `POST /v1/accounts`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SignUp {
    /// Unique name: `[a-z0-9_.-]{2,32}`; capitals are folded.
    pub handle: String,
    /// Name for people, 1 to 64 characters.
    pub display_name: String,
    /// 8 characters to 256 bytes.
    pub password: String,
    /// What this device is called, at most 64 characters.
    #[serde(default)]
    pub device_name: String,
    /// A code of the operator's, where sign-up is by invitation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invitation: Option<String>,
}

/// `POST /v1/sessions`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Login {
    /// Whose.
    pub handle: String,
    /// Her password.
    pub password: String,
    /// What the device is called.
    #[serde(default)]
    pub device_name: String,
    /// A device of hers that logs in again; absent makes a new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_id: Option<DeviceId>,
}

/// `POST /v1/tokens`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Refresh {
    /// The last refresh token; it serves once.
    pub refresh_token: String,
}

/// Answer to sign-up, login, refresh, and a further device.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SignedIn {
    /// Who.
    pub user: UserCard,
    /// On which device.
    pub device_id: DeviceId,
    /// For `hello` and `Authorization: Bearer`.
    pub access_token: String,
    /// When it ends.
    pub access_expires_at: Millis,
    /// For the next access token.
    pub refresh_token: String,
}

/// `POST /v1/devices`: a further device of the caller, such as a bot's or a paired phone.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NewDevice {
    /// What it is called.
    #[serde(default)]
    pub device_name: String,
}

/// `PATCH /v1/me`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ProfileChange {
    /// Name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// The address of a picture, at most 512 bytes; empty takes it away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub avatar: Option<String>,
    /// Whether others are told how far she has read; default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sends_receipts: Option<bool>,
    /// The people who may add the user to a group at once; others invite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub may_add: Option<Audience>,
    /// The people who may write to the user in a direct channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub may_write: Option<Audience>,
}

/// `GET /v1/me`: the caller, with the caller's own settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Me {
    /// As everybody sees the caller.
    #[serde(flatten)]
    pub user: UserCard,
    /// Since when the account exists.
    pub created_at: Millis,
    /// Whether others are told how far the caller has read.
    pub sends_receipts: bool,
    /// The people who may add the caller to a group at once; others invite.
    pub may_add: Audience,
    /// The people who may write to the caller in a direct channel.
    pub may_write: Audience,
    /// Whether others see the caller as offline.
    pub invisible: bool,
    /// The status text, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
}

/// `POST /v1/me/password`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PasswordChange {
    /// The present one.
    pub old_password: String,
    /// The next one: 8 characters to 256 bytes.
    pub new_password: String,
    /// Whether the other devices stay signed in; default false: they are revoked.
    #[serde(default)]
    pub keep_devices: bool,
}

/// `POST /v1/me/deletion`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Deletion {
    /// The password, so that nobody else deletes the account on a device that was left open.
    pub password: String,
}

/// `PATCH /v1/devices/{id}`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DeviceChange {
    /// What it is called from now on, at most 64 characters.
    pub name: String,
}

/// `DELETE /v1/devices?keep_this=true`
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RevokeAll {
    /// Whether the calling device stays signed in; default false.
    #[serde(default)]
    pub keep_this: bool,
}

/// `GET /v1/users/lookup?ids=1,2,3`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct UserIds {
    /// Up to 100 ids with commas between them.
    pub ids: String,
}

/// `GET /v1/users/search?prefix=ad`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct UserSearch {
    /// How a handle, or a word of a name, begins: 1 to 64 characters, in any case.
    pub prefix: String,
}

/// `GET /v1/server`: what a client needs to know before anybody has signed in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ServerInfo {
    /// The version of the server.
    pub version: String,
    /// The subprotocols of the socket.
    pub subprotocols: Vec<String>,
    /// Who may sign up: `open`, `invitation`, `operator` or `off`.
    pub sign_up: String,
    /// The limits that differ between servers, or that a client checks before it sends; by name.
    pub limits: BTreeMap<String, u64>,
}

/// A row of `GET /v1/devices`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DeviceCard {
    /// Which.
    pub id: DeviceId,
    /// What it is called.
    pub name: String,
    /// Since when.
    pub created_at: Millis,
    /// How far it has received, as it says in `received`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub received: Option<SealedCursor>,
    /// When it must log in again, unless it refreshes its token before: the device that was unused longest comes first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_in_until: Option<Millis>,
    /// Whether it is the one that asks.
    pub is_this: bool,
}
