//! Bodies about accounts, devices, users and the server.

use std::collections::BTreeMap;

use madang_ids::{DeviceId, Millis, SealedCursor};
use serde::{Deserialize, Serialize};

use crate::cards::UserCard;
use crate::consent::Audience;

/// `POST /v1/accounts`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SignUp {
    /// Unique name: `[a-z0-9_.-]{2,32}`. Capital letters are converted to lower case.
    pub handle: String,
    /// Name that is shown to people, 1 to 64 characters.
    pub display_name: String,
    /// The password: 8 characters to 256 bytes.
    pub password: String,
    /// Name of this device, at most 64 characters.
    #[serde(default)]
    pub device_name: String,
    /// An invitation code from the operator, where sign-up requires one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invitation: Option<String>,
}

/// `POST /v1/sessions`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Login {
    /// The handle of the user.
    pub handle: String,
    /// The user's password.
    pub password: String,
    /// Name of the device.
    #[serde(default)]
    pub device_name: String,
    /// A device of the user that logs in again. If absent, a new device is created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_id: Option<DeviceId>,
}

/// `POST /v1/tokens`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Refresh {
    /// The last refresh token. It can be used once.
    pub refresh_token: String,
}

/// Answer to sign-up, login, refresh, and a further device.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SignedIn {
    /// The user.
    pub user: UserCard,
    /// The device that is signed in.
    pub device_id: DeviceId,
    /// Access token for `hello` and `Authorization: Bearer`.
    pub access_token: String,
    /// The time at which the access token expires.
    pub access_expires_at: Millis,
    /// Refresh token for the next access token.
    pub refresh_token: String,
}

/// `POST /v1/devices`: another device of the caller, such as a bot or a paired phone.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NewDevice {
    /// Name of the device.
    #[serde(default)]
    pub device_name: String,
}

/// `PATCH /v1/me`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ProfileChange {
    /// Name that is shown to people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// The address of a picture, at most 512 bytes; empty removes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub avatar: Option<String>,
    /// Whether other users see how far this user has read; default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sends_receipts: Option<bool>,
    /// The users who may add this user to a group at once. Others can only invite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub may_add: Option<Audience>,
    /// The users who may write to this user in a direct channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub may_write: Option<Audience>,
}

/// `GET /v1/me`: the caller with their own settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Me {
    /// The caller's card, as all users see it.
    #[serde(flatten)]
    pub user: UserCard,
    /// The time at which the account was created.
    pub created_at: Millis,
    /// Whether other users see how far the caller has read.
    pub sends_receipts: bool,
    /// The users who may add the caller to a group at once. Others can only invite.
    pub may_add: Audience,
    /// The users who may write to the caller in a direct channel.
    pub may_write: Audience,
    /// Whether other users see the caller as offline.
    pub invisible: bool,
    /// The status text, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
}

/// `POST /v1/me/password`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PasswordChange {
    /// The present password.
    pub old_password: String,
    /// The new password: 8 characters to 256 bytes.
    pub new_password: String,
    /// Whether the other devices stay signed in. Default false: they are revoked.
    #[serde(default)]
    pub keep_devices: bool,
}

/// `POST /v1/me/deletion`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Deletion {
    /// The password, so that nobody else can delete the account from an unattended device.
    pub password: String,
}

/// `PATCH /v1/devices/{id}`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DeviceChange {
    /// The new name, at most 64 characters.
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
    /// Prefix of a handle, or of a word of a name: 1 to 64 characters, ignoring case.
    pub prefix: String,
}

/// `GET /v1/server`: what a client needs to know before sign-in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ServerInfo {
    /// The version of the server.
    pub version: String,
    /// The subprotocols of the socket.
    pub subprotocols: Vec<String>,
    /// Sign-up policy: `open`, `invitation`, `operator` or `off`.
    pub sign_up: String,
    /// Limits by name: those that differ between servers, and those that a client checks before it sends.
    pub limits: BTreeMap<String, u64>,
}

/// A row of `GET /v1/devices`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DeviceCard {
    /// The device's id.
    pub id: DeviceId,
    /// Name of the device.
    pub name: String,
    /// The time at which the device was added.
    pub created_at: Millis,
    /// The last cursor that it reported in `received`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub received: Option<SealedCursor>,
    /// The time at which it must log in again unless it refreshes its token before. The device that has been unused for
    /// the longest time has the earliest one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_in_until: Option<Millis>,
    /// Whether it is the device that makes this call.
    pub is_this: bool,
}
