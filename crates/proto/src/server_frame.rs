//! What the server sends over the socket.

use std::borrow::Cow;

use madang_ids::{ChannelId, DeviceId, MessageId, Millis, Ordinal, SealedCursor, Seq, UserId};
use serde::{Deserialize, Serialize};

use crate::cards::UserCard;
use crate::client_frame::RequestId;
use crate::entry::Entry;
use crate::error::ErrorBody;
use crate::presence::PresenceList;
use crate::rest::HistoryPage;

/// A frame of the server. Frames that answer a request carry its `id`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ServerFrame<'a> {
    /// The answer to `hello`.
    Welcome(Box<Welcome>),
    /// A message is durable.
    Ack(Ack),
    /// A message is changed, durably.
    Changed(Changed),
    /// Where open channels stand: the answer to `subscribe`, and what passive subscriptions bring.
    Heads {
        /// Which request, if it answers one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<RequestId>,
        /// The channels.
        heads: Vec<ChannelHead>,
    },
    /// Somebody is writing. Forget it after six seconds, or with her next message.
    Typing {
        /// Where.
        channel_id: ChannelId,
        /// Who.
        user_id: UserId,
    },
    /// Somebody has read a channel up to here.
    Receipt {
        /// Which channel.
        channel_id: ChannelId,
        /// Who.
        user_id: UserId,
        /// Up to here.
        seq: Seq,
    },
    /// A request was carried out, and there is nothing more to say.
    Done {
        /// Which request.
        id: RequestId,
        /// Answers `auth`: when the token that counts from now on ends, the later of the two.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token_expires_at: Option<Millis>,
    },
    /// A request, or a frame that could not be read, was refused. The connection goes on.
    Error {
        /// Which request; absent if it could not be read.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<RequestId>,
        /// Why.
        #[serde(flatten)]
        error: ErrorBody,
    },
    /// A batch of one log, in order and without a hole inside.
    Entries {
        /// Whose log.
        log: LogKind,
        /// Which channel, if it is a channel's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        channel_id: Option<ChannelId>,
        /// The entries.
        entries: Cow<'a, [Entry]>,
    },
    /// Everything up to here was sent on this connection. Keep it; give it in the next `hello`.
    Cursor {
        /// Opaque to clients.
        cursor: SealedCursor,
    },
    /// A page of a channel's log.
    History {
        /// Which request.
        id: RequestId,
        /// The page.
        #[serde(flatten)]
        page: HistoryPage,
    },
    /// The connection took its frames too slowly. Nothing is lost: entries go on from the last cursor.
    Resync,
    /// The device is too far behind to be caught up with. Take the snapshot; entries go on from now.
    SnapshotRequired {
        /// Why.
        reason: SnapshotReason,
    },
    /// How watched users are; also what the user's own settings are.
    Presence(PresenceList),
    /// The profile of somebody whom the user watches, or of the user, is another one now. It says nothing of whether they
    /// are there.
    Profile {
        /// The card from now on. Of two cards of a user keep the one with the greater `rev`.
        user: UserCard,
    },
    /// The node leaves.
    Reconnect {
        /// Wait so long, then connect again.
        after_ms: u64,
        /// Where; empty means the same address.
        #[serde(default)]
        nodes: Vec<String>,
    },
    /// The answer to `heartbeat`.
    Heartbeat {
        /// The server's clock.
        at: Millis,
    },
}

/// Whose log a batch is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum LogKind {
    /// A channel's.
    Channel,
    /// The user's own.
    User,
}

/// The answer to `hello`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Welcome {
    /// Which request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<RequestId>,
    /// Who the token says you are.
    pub user_id: UserId,
    /// Which device the token names.
    pub device_id: DeviceId,
    /// How often to send `heartbeat`.
    pub heartbeat_interval_ms: u64,
    /// When the token ends; send `auth` before.
    pub token_expires_at: Millis,
    /// The server's clock.
    pub at: Millis,
    /// The verdict on the cursor of `hello`.
    #[serde(flatten)]
    pub resume: Resume,
}

/// The verdict on the cursor that a device came with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "resume", rename_all = "snake_case")]
pub enum Resume {
    /// Everything after the cursor follows.
    Resumed,
    /// Take the snapshot (`POST /v1/snapshot`); entries from now on follow on this connection meanwhile.
    SnapshotRequired {
        /// Why the cursor did not serve.
        reason: SnapshotReason,
    },
}

/// Why a device must take a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum SnapshotReason {
    /// It came without a cursor.
    NoCursor,
    /// Not a cursor that this server gave to this user: damaged, another server's or user's, of an older release, or from
    /// a time that a restored backup does not know.
    ForeignCursor,
    /// The cursor lies beyond what this store holds.
    BeyondStore,
    /// More than 10,000 items were missed.
    TooFarBehind,
}

/// The end of an open channel's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ChannelHead {
    /// Which channel.
    pub channel_id: ChannelId,
    /// The last entry's place.
    pub seq: Seq,
    /// Messages so far. Unread messages are those after the caller's read marker: this less the marker's ordinal.
    pub ordinal: Ordinal,
    /// Whether entries up to `seq` are left out on this connection: history has them. What follows comes after `seq`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gap: bool,
}

/// The answer to `edit`, `delete` and `react`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Changed {
    /// Which request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<RequestId>,
    /// In which channel.
    pub channel_id: ChannelId,
    /// Which message.
    pub target: Seq,
    /// Its version from now on.
    pub version: u32,
    /// The place of the entry that tells it; absent if the message was so already, and that entry lies far back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<Seq>,
}

/// A message is durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Ack {
    /// Which request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<RequestId>,
    /// In which channel.
    pub channel_id: ChannelId,
    /// Its id.
    pub message_id: MessageId,
    /// Its place.
    pub seq: Seq,
    /// When it was appended.
    pub at: Millis,
}

impl ServerFrame<'_> {
    /// The frame's JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Every key is a string and every value has a JSON form, so this cannot fail.
        serde_json::to_string(self).unwrap_or_else(|error| {
            debug_assert!(false, "a server frame has no JSON form: {error}");
            String::new()
        })
    }
}
