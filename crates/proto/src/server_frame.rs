//! Frames that the server sends over the socket.

use std::borrow::Cow;

use madang_ids::{ChannelId, DeviceId, MessageId, Millis, Ordinal, SealedCursor, Seq, UserId};
use serde::{Deserialize, Serialize};

use crate::cards::UserCard;
use crate::client_frame::RequestId;
use crate::entry::Entry;
use crate::error::ErrorBody;
use crate::heat::Pacing;
use crate::presence::PresenceList;
use crate::rest::HistoryPage;

/// Frames that the server sends. `type` names the kind. A frame that answers a request contains its `id`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ServerFrame<'a> {
    /// The answer to `hello`.
    Welcome(Box<Welcome>),
    /// A message is durable.
    Ack(Ack),
    /// A change of a message is durable.
    Changed(Changed),
    /// Heads of open channels: the answer to `subscribe`, and what passive subscriptions deliver.
    Heads {
        /// The name of the request, if this is an answer.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<RequestId>,
        /// The heads of the channels.
        heads: Vec<ChannelHead>,
    },
    /// A user is typing. The client removes it after 6 s or at the next message of that user.
    Typing {
        /// The channel in which the user types.
        channel_id: ChannelId,
        /// The user who types.
        user_id: UserId,
    },
    /// The read marker of another member has moved.
    Receipt {
        /// The channel that was read.
        channel_id: ChannelId,
        /// The user who has read it.
        user_id: UserId,
        /// The last entry that the user has read.
        seq: Seq,
    },
    /// A request was carried out. The answer has no other content.
    Done {
        /// The name of the request.
        id: RequestId,
        /// Answers `auth`: the time at which the token that now counts expires; the later of the old and the new one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token_expires_at: Option<Millis>,
    },
    /// A request was refused, or a frame could not be read. The connection stays open.
    Error {
        /// The name of the request; absent if it could not be read.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<RequestId>,
        /// The error.
        #[serde(flatten)]
        error: ErrorBody,
    },
    /// Entries of one log, in order and without gaps.
    Entries {
        /// Whether the log is that of a channel or the user's own.
        log: LogKind,
        /// The channel; absent for the user's own log.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        channel_id: Option<ChannelId>,
        /// The entries.
        entries: Cow<'a, [Entry]>,
    },
    /// Everything before this frame was sent on this connection. The client stores the cursor and sends it in its next
    /// `hello`.
    Cursor {
        /// Opaque to clients.
        cursor: SealedCursor,
    },
    /// A page of a channel's log.
    History {
        /// The name of the request.
        id: RequestId,
        /// The page.
        #[serde(flatten)]
        page: HistoryPage,
    },
    /// The client reads too slowly, and the server has stopped queueing live entries. No entry is lost: the missed
    /// entries follow.
    Resync,
    /// The device is too far behind to catch up by entries. It takes the snapshot; new entries continue on this
    /// connection.
    SnapshotRequired {
        /// The reason.
        reason: SnapshotReason,
        /// Milliseconds to wait before the device takes it, because many devices need one at the same time.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        wait_ms: Option<u64>,
    },
    /// Presence of watched users, and the user's own settings of presence.
    Presence(PresenceList),
    /// The profile of a watched user, or of the user, has changed. The frame says nothing about whether that user is
    /// online.
    Profile {
        /// The new card. Of two cards of one user keep the one with the greater `rev`.
        user: UserCard,
    },
    /// The node shuts down.
    Reconnect {
        /// Milliseconds to wait before the client connects again.
        after_ms: u64,
        /// Addresses of sockets to connect to, or paths on this server, the best first; empty means as for the first
        /// connection.
        #[serde(default)]
        nodes: Vec<String>,
    },
    /// The answer to `heartbeat`.
    Heartbeat {
        /// The server's clock.
        at: Millis,
    },
}

/// The log from which a batch comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum LogKind {
    /// A channel's log.
    Channel,
    /// The user's own log.
    User,
}

/// The answer to `hello`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Welcome {
    /// The name of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<RequestId>,
    /// The user that the token names.
    pub user_id: UserId,
    /// The device that the token names.
    pub device_id: DeviceId,
    /// Milliseconds between two `heartbeat` frames of the client.
    pub heartbeat_interval_ms: u64,
    /// The time at which the token expires. The client sends `auth` before.
    pub token_expires_at: Millis,
    /// The server's clock.
    pub at: Millis,
    /// Whether the cursor of `hello` was accepted.
    #[serde(flatten)]
    pub resume: Resume,
}

/// Whether the cursor of a device was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "resume", rename_all = "snake_case")]
pub enum Resume {
    /// It was accepted. Everything after the cursor follows.
    Resumed,
    /// It was not accepted. The client takes the snapshot (`POST /v1/snapshot`); new entries are delivered on this
    /// connection meanwhile.
    SnapshotRequired {
        /// Why the cursor was not accepted.
        reason: SnapshotReason,
    },
}

/// Reasons for which a device must take a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum SnapshotReason {
    /// The device sent no cursor.
    NoCursor,
    /// The cursor was not given to this user by this server: it is damaged, of another server or user, of an older
    /// release, or from a time that a restored backup does not contain.
    ForeignCursor,
    /// The cursor lies beyond the last item of this store.
    BeyondStore,
    /// The device has missed more items than are kept: 10,000 in one process; in a fleet 512, or those of 7 days.
    TooFarBehind,
    /// The part of the server that remembers what devices have received has lost its memory, or a little of it.
    InboxReset,
    /// That part does not answer at present. Messages are kept and can be sent; until it answers, nothing is delivered.
    InboxUnavailable,
}

/// The head of an open channel's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ChannelHead {
    /// The channel.
    pub channel_id: ChannelId,
    /// The place of the last entry.
    pub seq: Seq,
    /// Number of messages so far. Unread messages: this number minus the ordinal of the caller's read marker.
    pub ordinal: Ordinal,
    /// Whether entries up to `seq` were skipped on this connection. The client reads them with `history`; the next
    /// entry follows `seq`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gap: bool,
    /// How the channel is paced from now on. Absent: as before; at the begin of a subscription, not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pacing: Option<Pacing>,
}

/// The answer to `edit`, `delete` and `react`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Changed {
    /// The name of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<RequestId>,
    /// The channel of the message.
    pub channel_id: ChannelId,
    /// The place of the message.
    pub target: Seq,
    /// The message's version after the change.
    pub version: u32,
    /// The place of the entry that records the change. Absent if the message was already in the requested state and
    /// that entry is too far back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<Seq>,
}

/// A message is durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Ack {
    /// The name of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<RequestId>,
    /// The channel of the message.
    pub channel_id: ChannelId,
    /// The id of the message.
    pub message_id: MessageId,
    /// The place of the message.
    pub seq: Seq,
    /// The time at which it was appended.
    pub at: Millis,
}

impl ServerFrame<'_> {
    /// The frame's JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Every key is a string and every value has a JSON form, so this cannot fail.
        serde_json::to_string(self).unwrap_or_else(|error| {
            debug_assert!(false, "a server frame cannot be written as JSON: {error}");
            String::new()
        })
    }
}
