//! Frames that clients send over the socket.

use std::fmt;

use madang_ids::{ChannelId, ClientMsgId, SealedCursor, Seq};
use serde::{Deserialize, Serialize};

mod parse;

pub use parse::{KINDS, ParseError};

use crate::entry::Body;
use crate::presence::SetPresence;

/// The client's name for a request, at most 64 characters. The answer contains the same name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(extend("maxLength" = 64)))]
#[serde(transparent)]
pub struct RequestId(pub String);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A frame and the name of the request. The name may be absent for frames that need no answer. Read it with
/// [`Request::parse`].
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Request {
    /// The name of the request. The answer repeats it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<RequestId>,
    /// The request itself.
    #[serde(flatten)]
    pub frame: ClientFrame,
}

/// Frames that a client sends. `type` names the kind.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ClientFrame {
    /// The first frame of a connection: who connects, and up to which cursor this device has received.
    Hello(Hello),
    /// Sends a message.
    Send(Box<Send>),
    /// Replaces the body of one of the caller's messages.
    Edit(Box<Edit>),
    /// Deletes a message for everyone: one of the caller's own, or, for an admin, any message.
    Delete {
        /// The channel of the message.
        channel_id: ChannelId,
        /// The place of the message.
        seq: Seq,
    },
    /// Adds or removes a reaction of the caller to a message.
    React {
        /// The channel of the message.
        channel_id: ChannelId,
        /// The place of the message.
        seq: Seq,
        /// An emoji or a short name, 1 to 64 bytes without white space.
        emoji: String,
        /// Whether to add the reaction; `false` removes it.
        #[serde(default = "yes", skip_serializing_if = "is_yes")]
        on: bool,
    },
    /// The user is typing. Delivered to others, never stored. It needs no answer.
    Typing {
        /// The channel in which the user types.
        channel_id: ChannelId,
    },
    /// Subscribes this connection to an open channel. Replaces its earlier subscription to that channel.
    Subscribe {
        /// The open channel.
        channel_id: ChannelId,
        /// The last entry that the client has. If absent, only new entries are delivered.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after_seq: Option<Seq>,
        /// Whether entries are delivered, or only heads.
        #[serde(default)]
        mode: Mode,
    },
    /// Ends a subscription.
    Unsubscribe {
        /// The open channel.
        channel_id: ChannelId,
    },
    /// Sets the user's read marker of a channel.
    Read {
        /// The channel that was read.
        channel_id: ChannelId,
        /// The last entry that the user has read.
        #[cfg_attr(feature = "schema", schemars(schema_with = "madang_ids::place_of_an_entry"))]
        seq: Seq,
    },
    /// Requests a page of a channel's log.
    History {
        /// The channel.
        channel_id: ChannelId,
        /// The part of the log, and the size of the page.
        #[serde(flatten)]
        page: crate::rest::HistoryQuery,
    },
    /// Keeps the connection open. The server answers with `heartbeat`.
    Heartbeat,
    /// The device has stored everything up to this cursor.
    Received {
        /// The cursor of a `cursor` frame.
        cursor: SealedCursor,
    },
    /// Sets the user's presence and status text.
    Presence(SetPresence),
    /// Replaces the token of the connection before it expires. The new token must name the same device.
    Auth {
        /// An access token.
        token: String,
    },
}

/// The first frame of a connection.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Hello {
    /// An access token. It names the user and the device.
    pub token: String,
    /// The last cursor that this device has stored; absent if it has none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<SealedCursor>,
}

/// A message to be appended.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Send {
    /// The channel.
    pub channel_id: ChannelId,
    /// The sender's retry key, unique for the sender in this channel.
    pub client_msg_id: ClientMsgId,
    /// The content of the message.
    pub body: Body,
}

/// A new body for a message.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Edit {
    /// The channel of the message.
    pub channel_id: ChannelId,
    /// The place of the message.
    pub seq: Seq,
    /// The version that the client edited. If the body was changed after that version, the edit is refused as
    /// `conflict`. If absent, the last edit wins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// The new body. Its `reply_to` must be absent or unchanged.
    pub body: Body,
}

/// What a subscription delivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Every entry, or an explicit gap.
    #[default]
    Active,
    /// At most one `heads` frame per second.
    Passive,
}

const fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
const fn is_yes(on: &bool) -> bool {
    *on
}
