//! What a log holds: entries, and the messages and changes inside them.

use madang_ids::{ChannelId, ClientMsgId, DeviceId, MessageId, Millis, Ordinal, Seq, UserId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One row of a log, as clients see it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Entry {
    /// Its place in the log.
    pub seq: Seq,
    /// When it was appended; rises with `seq`.
    pub at: Millis,
    /// What happened.
    #[serde(flatten)]
    pub content: Content,
}

/// What happened. A client that does not know a `kind` skips the entry and keeps its `seq`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Content {
    // In a channel's log.
    /// Somebody said something.
    Message(Box<Message>),
    /// A message was changed. On disk without `message`; on the wire with the target's present content.
    Edited(Edited),
    /// A message was deleted for everyone. Its row keeps its place.
    Deleted(Edited),
    /// The reactions to a message are now others.
    Reactions(Edited),
    /// The channel begins.
    Created {
        /// Who made it.
        by: UserId,
    },
    /// A member came.
    Joined {
        /// Who came.
        user_id: UserId,
        /// Who added her; herself if she joined.
        by: UserId,
    },
    /// A member went.
    Left {
        /// Who went.
        user_id: UserId,
        /// Who removed her; herself if she left.
        by: UserId,
    },
    /// A member has another role.
    RoleChanged {
        /// Whose.
        user_id: UserId,
        /// Her role from here on.
        role: Role,
        /// Who changed it.
        by: UserId,
    },
    /// The channel has another name.
    Renamed {
        /// The name from here on.
        name: String,
        /// Who changed it.
        by: UserId,
    },

    // In a user's own log.
    /// She read a channel on one of her devices.
    Read {
        /// Which channel.
        channel_id: ChannelId,
        /// Up to here. The entry itself has a `seq` beside it.
        #[serde(rename = "read_seq")]
        seq: Seq,
        /// The ordinal there, for unread counts.
        ordinal: Ordinal,
    },
    /// She is a member of a channel from here on.
    ChannelJoined {
        /// Which.
        channel: ChannelCard,
        /// The first entry that she may read.
        from_seq: Seq,
    },
    /// She is no longer a member of a channel.
    ChannelLeft {
        /// Which.
        channel_id: ChannelId,
        /// The last entry that she may read.
        until_seq: Seq,
    },
    /// One of her devices was revoked.
    DeviceRevoked {
        /// Which.
        device_id: DeviceId,
    },
    /// She blocked somebody.
    Blocked {
        /// Whom.
        user_id: UserId,
    },
    /// She blocks somebody no longer.
    Unblocked {
        /// Whom.
        user_id: UserId,
    },
    /// Somebody wants to be her contact, or she asked somebody.
    ContactRequested {
        /// The other one.
        user_id: UserId,
        /// Who asked.
        by: UserId,
    },
    /// She and somebody are contacts from here on.
    ContactAccepted {
        /// The other one.
        user_id: UserId,
    },
    /// She and somebody are nothing to each other any more; also a request that was taken back or declined.
    ContactRemoved {
        /// The other one.
        user_id: UserId,
    },

    /// A kind that came after this version was built. No server makes one.
    #[serde(other)]
    Unknown,
}

impl Content {
    /// The message in it, if it is one.
    #[must_use]
    pub fn message(&self) -> Option<&Message> {
        match self {
            Self::Message(message) => Some(message),
            _ => None,
        }
    }
}

/// A message.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Message {
    /// Time-sortable id, rising with `seq`.
    pub message_id: MessageId,
    /// Its place among the channel's messages.
    pub ordinal: Ordinal,
    /// Who said it.
    pub sender_id: UserId,
    /// The sender's retry key.
    pub client_msg_id: ClientMsgId,
    /// What was said.
    #[serde(flatten)]
    pub body: Body,
    /// 1, and one more with each change.
    #[serde(default = "first_version", skip_serializing_if = "is_first_version")]
    pub version: u32,
}

const fn first_version() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
const fn is_first_version(version: &u32) -> bool {
    *version == 1
}

/// What a sender writes.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Body {
    /// The text: 1 to 100,000 characters and at most 400,000 bytes. May be empty when there is `data`.
    #[serde(default)]
    pub text: String,
    /// Custom JSON of the application, at most 16 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
    /// The `seq` of the message that this one answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<Seq>,
}

/// A change of a message.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Edited {
    /// The `seq` of the message that was changed.
    pub target: Seq,
    /// The message's version after the change.
    pub version: u32,
    /// Who changed it.
    pub by: UserId,
    /// The message as it is now; absent in the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<Box<Message>>,
}

/// Kinds of channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChannelKind {
    /// Two people; one per pair.
    Direct,
    /// Invited people, at most 500.
    Group,
    /// Anyone may find and join, at most 100,000.
    Open,
}

/// What a member may do in a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Everything; one per group.
    Owner,
    /// Adds and removes members.
    Admin,
    /// Speaks.
    Member,
}

impl Role {
    /// Whether this role adds and removes others.
    #[must_use]
    pub const fn is_admin(self) -> bool {
        matches!(self, Self::Owner | Self::Admin)
    }
}

/// A channel in a few words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelCard {
    /// Which.
    pub id: ChannelId,
    /// Its kind.
    pub kind: ChannelKind,
    /// Its name; direct channels have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// In a direct channel: the two people, as everyone sees them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub between: Option<[UserId; 2]>,
}

/// A user in a few words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserCard {
    /// Who.
    pub id: UserId,
    /// Unique name, in lower case.
    pub handle: String,
    /// Name for people.
    pub display_name: String,
}
