//! Lines of `GET /v1/me/export`: what the server keeps about a user.

use madang_ids::{ChannelId, Millis, Seq, UserId};
use serde::{Deserialize, Serialize};

use super::{ChannelView, DeviceCard, Me, PushSubscription};
use crate::alerts::AlertSettings;
use crate::cards::UserCard;
use crate::entry::Entry;
use crate::presence::ContactCard;

/// One line of an export. The last one is `end`: a file without it is incomplete.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ExportLine {
    /// The first line: profile and settings.
    Profile(Me),
    /// A device that is signed in.
    Device(DeviceCard),
    /// Where the alerts of a device go.
    PushSubscription(PushSubscription),
    /// The user's settings of alerts.
    AlertSettings(AlertSettings),
    /// A contact, or a request in either direction.
    Contact(ContactCard),
    /// A user whom the exporting user has blocked.
    Block(UserCard),
    /// A channel of which the user is a member or that the user has left. The user's messages in it follow.
    Channel(Box<ExportedChannel>),
    /// A message that the user sent, as it is now.
    Message(Box<ChannelMessage>),
    /// A reaction of the user.
    Reaction(ExportedReaction),
    /// The last line.
    End(ExportEnd),
}

/// A channel in an export.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ExportedChannel {
    /// The channel as the user sees it.
    #[serde(flatten)]
    pub view: ChannelView,
    /// Stays of the user in the channel: the last 8.
    pub stays: Vec<Stay>,
}

/// A range of entries in which a user was a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Stay {
    /// The first entry of the stay.
    pub from_seq: Seq,
    /// The last entry of the stay; absent while it lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_seq: Option<Seq>,
}

/// A message, and the channel that it was sent to.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ChannelMessage {
    /// The channel that it was sent to.
    pub channel_id: ChannelId,
    /// The entry: a `message`, or `unreadable` if the server cannot read it any more.
    #[serde(flatten)]
    pub entry: Entry,
}

/// A reaction in an export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ExportedReaction {
    /// The channel of the message.
    pub channel_id: ChannelId,
    /// The `seq` of the message.
    pub target: Seq,
    /// The emoji or the short name.
    pub emoji: String,
}

/// The last line of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ExportEnd {
    /// The user whose data it is.
    pub user_id: UserId,
    /// The time at which the export ended.
    pub at: Millis,
    /// Number of lines before this one.
    pub lines: u64,
    /// Number of devices among them.
    pub devices: u64,
    /// Number of contacts among them.
    pub contacts: u64,
    /// Number of blocks among them.
    pub blocks: u64,
    /// Number of channels among them.
    pub channels: u64,
    /// Number of messages among them, including unreadable ones.
    pub messages: u64,
    /// Number of reactions among them.
    pub reactions: u64,
}
