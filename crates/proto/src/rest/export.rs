//! Lines of `GET /v1/me/export`: what the server keeps about a user.

use madang_ids::{ChannelId, Millis, Seq, UserId};
use serde::{Deserialize, Serialize};

use super::{ChannelView, DeviceCard, Me};
use crate::cards::UserCard;
use crate::entry::Entry;
use crate::presence::ContactCard;

/// One line of an export. The last one is `end`: a file without it is cut off.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ExportLine {
    /// The first line: profile and settings.
    Profile(Me),
    /// A device that is signed in.
    Device(DeviceCard),
    /// A contact, or a request in either direction.
    Contact(ContactCard),
    /// A user whom the user blocks.
    Block(UserCard),
    /// A channel that the user is in or has left. What the user sent there follows it.
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
    /// As the user sees it.
    #[serde(flatten)]
    pub view: ChannelView,
    /// When the user was a member; the last 8 times.
    pub stays: Vec<Stay>,
}

/// A time in which a user is a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Stay {
    /// Its first entry.
    pub from_seq: Seq,
    /// Its last entry; absent while it lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_seq: Option<Seq>,
}

/// A message, and the channel that it was sent to.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ChannelMessage {
    /// Where it was sent.
    pub channel_id: ChannelId,
    /// The entry: a `message`, or `unreadable` if the server cannot read it any more.
    #[serde(flatten)]
    pub entry: Entry,
}

/// A reaction in an export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ExportedReaction {
    /// Where.
    pub channel_id: ChannelId,
    /// The `seq` of the message.
    pub target: Seq,
    /// Which.
    pub emoji: String,
}

/// The last line of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ExportEnd {
    /// Whose export it is.
    pub user_id: UserId,
    /// When it ended.
    pub at: Millis,
    /// Lines before this one.
    pub lines: u64,
    /// Devices among them.
    pub devices: u64,
    /// Contacts among them.
    pub contacts: u64,
    /// Blocks among them.
    pub blocks: u64,
    /// Channels among them.
    pub channels: u64,
    /// Messages among them, unreadable ones included.
    pub messages: u64,
    /// Reactions among them.
    pub reactions: u64,
}
