//! What clients send over the socket.

use std::fmt;

use madang_ids::{ChannelId, ClientMsgId, SealedCursor, Seq};
use serde::{Deserialize, Serialize};

mod parse;

pub use parse::{KINDS, ParseError};

use crate::entry::Body;
use crate::presence::SetPresence;

/// The client's name for a request; its answer repeats it. At most 64 characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(extend("maxLength" = 64)))]
#[serde(transparent)]
pub struct RequestId(pub String);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A frame and the name that its answer repeats. Frames that want no answer may leave the name out. It is read by
/// [`Request::parse`].
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Request {
    /// The name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<RequestId>,
    /// What is asked.
    #[serde(flatten)]
    pub frame: ClientFrame,
}

/// What is asked.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ClientFrame {
    /// The first frame: who is there, and how far she has received.
    Hello(Hello),
    /// A message.
    Send(Box<Send>),
    /// Another body for a message of the caller's.
    Edit(Box<Edit>),
    /// Deletes a message for everyone: the caller's own, or as an admin anybody's.
    Delete {
        /// Where.
        channel_id: ChannelId,
        /// Which message.
        seq: Seq,
    },
    /// The caller reacts to a message, or takes that back.
    React {
        /// Where.
        channel_id: ChannelId,
        /// To which message.
        seq: Seq,
        /// How: an emoji or a short name, 1 to 64 bytes without white space.
        emoji: String,
        /// `false` takes it back.
        #[serde(default = "yes", skip_serializing_if = "is_yes")]
        on: bool,
    },
    /// The caller is writing. Told to others, kept nowhere; wants no answer.
    Typing {
        /// Where.
        channel_id: ChannelId,
    },
    /// This connection wants what happens in an open channel. Replaces its earlier subscription to that channel.
    Subscribe {
        /// Which.
        channel_id: ChannelId,
        /// The last entry that the client has. Without it, entries come from now on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after_seq: Option<Seq>,
        /// Everything, or heads alone.
        #[serde(default)]
        mode: Mode,
    },
    /// Ends a subscription.
    Unsubscribe {
        /// To which channel.
        channel_id: ChannelId,
    },
    /// The user has read a channel up to here.
    Read {
        /// Which channel.
        channel_id: ChannelId,
        /// Up to here.
        #[cfg_attr(feature = "schema", schemars(schema_with = "madang_ids::place_of_an_entry"))]
        seq: Seq,
    },
    /// A page of a channel's log.
    History {
        /// Which channel.
        channel_id: ChannelId,
        /// Where.
        #[serde(flatten)]
        page: crate::rest::HistoryQuery,
    },
    /// Alive; answered by the same.
    Heartbeat,
    /// The device keeps everything up to this cursor.
    Received {
        /// From a `cursor` frame.
        cursor: SealedCursor,
    },
    /// Whether the user is there, and what she says of herself.
    Presence(SetPresence),
    /// A new token for the same device, before the old one ends.
    Auth {
        /// An access token.
        token: String,
    },
}

/// The first frame.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Hello {
    /// An access token; it names user and device.
    pub token: String,
    /// How far this device has received; absent if it has nothing yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<SealedCursor>,
}

/// A message to be appended.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Send {
    /// Where.
    pub channel_id: ChannelId,
    /// The sender's retry key in this channel.
    pub client_msg_id: ClientMsgId,
    /// What.
    pub body: Body,
}

/// Another body for a message.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Edit {
    /// Where.
    pub channel_id: ChannelId,
    /// Which message.
    pub seq: Seq,
    /// The version that the client edited. If the body was changed since, the edit is refused as `conflict`; without
    /// it the last edit wins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// What it says from now on. Its `reply_to` must be absent or as it was.
    pub body: Body,
}

/// What a subscription brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Every entry, or an explicit gap.
    #[default]
    Active,
    /// One `heads` frame a second at most.
    Passive,
}

const fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
const fn is_yes(on: &bool) -> bool {
    *on
}
