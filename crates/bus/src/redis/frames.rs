//! What nodes send each other, as JSON with a version.
//!
//! There is one version so far. A release that changes it accepts the version before it too. A frame of an unknown version is
//! dropped, as if it had been lost on the way.

use std::sync::Arc;

use bytes::Bytes;
use madang_engine::log::Row;
use madang_engine::sync::Place;
use madang_ids::{ChannelId, LogId, NodeRun, Position, Seq, UserId};
use madang_proto::{UserCard, json};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::bus::{Event, EventKind, Recipient};

/// The version of the frames that this release sends.
const VERSION: u8 = 1;

/// The first line of a frame. Rows, which are encoded once for any number of frames, follow on the second line.
#[derive(Debug, Serialize, Deserialize)]
struct Versioned {
    v: u8,
    #[serde(flatten)]
    head: FrameHead,
}

/// What a node receives.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "t", rename_all = "snake_case")]
pub(super) enum FrameHead {
    /// Rows of a log, for users of the node.
    Rows { log: WireLog, epoch: u64, to: Vec<WireRecipient> },
    /// Rows of an open channel, for its subscribers.
    Open { channel: ChannelId },
    /// Rows for these users, which the sender does not have.
    Unread { to: Vec<UserId> },
    /// Rows of an open channel, which the sender does not have.
    UnreadOpen { channel: ChannelId },
    /// A transient event; no users: the subscribers of the channel.
    Event { channel: ChannelId, user: UserId, read: Option<Seq>, except: Vec<UserId>, to: Vec<UserId> },
    /// Of the homes of another node; its content follows on the second line.
    Peer { from: NodeRun },
    /// A changed profile.
    Profile { card: Box<UserCard>, to: Vec<UserId> },
}

/// The log of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum WireLog {
    Channel(ChannelId),
    User(UserId),
}

impl From<LogId> for WireLog {
    fn from(log: LogId) -> Self {
        match log {
            LogId::Channel(channel) => Self::Channel(channel),
            LogId::User(user) => Self::User(user),
        }
    }
}

impl From<WireLog> for LogId {
    fn from(log: WireLog) -> Self {
        match log {
            WireLog::Channel(channel) => Self::Channel(channel),
            WireLog::User(user) => Self::User(user),
        }
    }
}

/// A user, the position before, the position after, and whether the user may see all rows and none before them is new.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct WireRecipient(UserId, Position, Position, bool);

impl From<Recipient> for WireRecipient {
    fn from(recipient: Recipient) -> Self {
        let Recipient { user_id, place, sees_all } = recipient;
        Self(user_id, place.previous, place.last, sees_all)
    }
}

impl From<WireRecipient> for Recipient {
    fn from(WireRecipient(user_id, previous, last, sees_all): WireRecipient) -> Self {
        let first = Position::new(previous.get() + 1);
        Self { user_id, place: Place { previous, first, last }, sees_all }
    }
}

/// The second line of a frame: JSON.
pub(super) struct Content(Vec<u8>);

impl Content {
    pub(super) fn of(content: &(impl Serialize + ?Sized)) -> Self {
        // Every part has an encoding: no map has keys that are not texts.
        Self(serde_json::to_vec(content).unwrap_or_default())
    }

    /// The rows of a second line.
    pub(super) fn rows(content: &[u8]) -> Option<Arc<[Row]>> {
        Self::read::<Vec<Row>>(content).map(Arc::from)
    }

    /// The content of a second line. Custom data of messages is read by `madang_proto::json` only.
    pub(super) fn read<T: DeserializeOwned>(content: &[u8]) -> Option<T> {
        json::read(std::str::from_utf8(content).ok()?).ok()
    }

    pub(super) const fn none() -> Self {
        Self(Vec::new())
    }
}

impl FrameHead {
    pub(super) fn event(event: &Event, to: Vec<UserId>) -> Self {
        let &Event { channel_id, user_id, kind, ref except } = event;
        let read = match kind {
            EventKind::Typing => None,
            EventKind::Read(seq) => Some(seq),
        };
        Self::Event { channel: channel_id, user: user_id, read, except: except.clone(), to }
    }

    /// The bytes on the wire.
    pub(super) fn encode(self, content: &Content) -> Bytes {
        let mut frame = serde_json::to_vec(&Versioned { v: VERSION, head: self }).unwrap_or_default();
        frame.push(b'\n');
        frame.extend_from_slice(&content.0);
        frame.into()
    }

    /// The frame and its second line; `None` if it is of another version, or damaged.
    pub(super) fn decode(frame: &[u8]) -> Option<(Self, &[u8])> {
        let line = frame.iter().position(|byte| *byte == b'\n')?;
        let Versioned { v, head } = serde_json::from_slice(&frame[..line]).ok()?;
        (v == VERSION).then_some((head, &frame[line + 1..]))
    }
}
