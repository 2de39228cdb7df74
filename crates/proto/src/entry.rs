//! What a log holds: entries, and the messages and changes inside them.

use madang_ids::{ChannelId, ClientMsgId, DeviceId, MessageId, Millis, Ordinal, Seq, UserId};
use serde::{Deserialize, Serialize};

use crate::cards::{ChannelCard, Role};
use crate::channel_settings::ChannelSettings;
use crate::consent::AccountSettings;
use crate::json::Data;
use crate::own_log::{JoinedState, UnreadMentions};
use crate::reactions::{ReactedState, Reaction, ReactionsChange};

/// One row of a log, as clients see it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Content {
    // In a channel's log.
    /// Somebody said something.
    Message(Box<Message>),
    /// A message was changed. On disk without `message`; on the wire with the target's present content.
    Edited(Change),
    /// A message was deleted for everyone. Its row keeps its place.
    Deleted(Change),
    /// The reactions to a message are now others.
    Reactions(ReactionsChange),
    /// A message was pinned.
    Pinned {
        /// The `seq` of the message.
        target: Seq,
        /// Who did it.
        by: UserId,
    },
    /// A message is pinned no longer.
    Unpinned {
        /// The `seq` of the message.
        target: Seq,
        /// Who did it.
        by: UserId,
    },
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
    /// The channel has another topic.
    TopicChanged {
        /// The topic from here on; empty means none.
        topic: String,
        /// Who changed it.
        by: UserId,
    },
    /// The channel has another picture.
    AvatarChanged {
        /// The address of the picture from here on; empty means none.
        avatar: String,
        /// Who changed it.
        by: UserId,
    },
    /// Members must wait longer, or less long, between two messages.
    SlowModeChanged {
        /// Seconds between two messages of a member from here on; 0 means no wait.
        seconds: u32,
        /// Who changed it.
        by: UserId,
    },
    /// The channel takes no messages until it is unarchived.
    Archived {
        /// Who did it.
        by: UserId,
    },
    /// The channel takes messages again.
    Unarchived {
        /// Who did it.
        by: UserId,
    },
    /// The channel is deleted. No entry comes after this one.
    ChannelDeleted {
        /// Who did it.
        by: UserId,
    },
    /// Somebody may not be here. If she was a member, she is none from here on.
    Banned {
        /// Who.
        user_id: UserId,
        /// Who decided it.
        by: UserId,
        /// Until when; for ever if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<Millis>,
    },
    /// Somebody may join again.
    Unbanned {
        /// Who.
        user_id: UserId,
        /// Who decided it.
        by: UserId,
    },
    /// A member may read, but not speak.
    Muted {
        /// Who.
        user_id: UserId,
        /// Who decided it.
        by: UserId,
        /// Until when; for ever if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<Millis>,
    },
    /// A member may speak again.
    Unmuted {
        /// Who.
        user_id: UserId,
        /// Who decided it.
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
        /// How many mentions are left. Absent in entries of earlier versions.
        #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
        left: Option<UnreadMentions>,
    },
    /// She is a member of a channel from here on.
    ChannelJoined {
        /// Which.
        channel: ChannelCard,
        /// The first entry of this stay.
        from_seq: Seq,
        /// Whether she was a member before: what a client keeps of earlier stays may be out of date.
        #[serde(default, skip_serializing_if = "is_false")]
        had_stays: bool,
        /// How the channel stands for her. Absent in entries of earlier versions.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        state: Option<Box<JoinedState>>,
    },
    /// She is no longer a member of a channel.
    ChannelLeft {
        /// Which.
        channel_id: ChannelId,
        /// The last entry that she may read.
        until_seq: Seq,
    },
    /// She was mentioned, or answered, in an open channel.
    Mentioned {
        /// Where.
        channel_id: ChannelId,
        /// The message. The entry itself has a `seq` beside it.
        #[serde(rename = "message_seq")]
        seq: Seq,
        /// Who wrote it.
        by: UserId,
        /// Whether it answers a message of hers.
        is_reply: bool,
    },
    /// The user changed their own settings of a channel.
    ChannelSettings {
        /// Which channel.
        channel_id: ChannelId,
        /// The settings from here on.
        #[serde(flatten)]
        settings: ChannelSettings,
    },
    /// The user changed their own settings of the account.
    AccountSettings(AccountSettings),
    /// The user is invited to a group.
    Invited {
        /// Which.
        channel_id: ChannelId,
        /// Its name.
        name: String,
        /// Members then.
        member_count: u32,
        /// The inviter.
        by: UserId,
    },
    /// An invitation is no more, and was not accepted: that is told by `channel_joined`.
    InvitationRemoved {
        /// To which group.
        channel_id: ChannelId,
    },
    /// The user deleted a message for themselves only.
    MessageHidden {
        /// Which channel.
        channel_id: ChannelId,
        /// The message. The entry itself has a `seq` beside it.
        #[serde(rename = "message_seq")]
        seq: Seq,
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

    // In both.
    /// What the server cannot read any more: its disk altered it, or an earlier version wrote it wrongly. It keeps its
    /// place. Never appended: a store puts it where a row should be.
    Unreadable(Unreadable),

    /// A kind that came after this version was built. No server makes one.
    #[serde(other)]
    #[cfg_attr(feature = "schema", schemars(skip))]
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

    /// Which message it changes, if it is the change of one.
    #[must_use]
    pub const fn change(&self) -> Option<ChangeOf> {
        match self {
            Self::Edited(Change { target, version, .. })
            | Self::Deleted(Change { target, version, .. })
            | Self::Reactions(ReactionsChange { target, version, .. }) => {
                Some(ChangeOf { target: *target, version: *version })
            }
            _ => None,
        }
    }

    /// The whole message that goes over the wire with it: itself, or the one that was edited or deleted.
    #[must_use]
    pub fn carried(&self) -> Option<&Message> {
        match self {
            Self::Message(message) => Some(message),
            Self::Edited(change) | Self::Deleted(change) => change.message.as_deref(),
            _ => None,
        }
    }

    /// What goes over the wire with reactions.
    #[must_use]
    pub fn reacted(&self) -> Option<&ReactedState> {
        match self {
            Self::Reactions(change) => change.state.as_deref(),
            _ => None,
        }
    }

    /// Puts what a reader gets of the changed message into a change: the message as it is now, or of reactions their
    /// state. `None` takes it out. Other content stays as it is.
    pub fn carry(&mut self, message: Option<&Message>) {
        match self {
            Self::Edited(change) | Self::Deleted(change) => change.message = message.cloned().map(Box::new),
            Self::Reactions(change) => change.state = message.and_then(ReactedState::of).map(Box::new),
            _ => {}
        }
    }

    /// Whether it is a change that carries something of its message.
    #[must_use]
    pub fn is_carrying(&self) -> bool {
        self.reacted().is_some() || (self.message().is_none() && self.carried().is_some())
    }
}

/// Which message an entry changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChangeOf {
    /// The `seq` of the message.
    pub target: Seq,
    /// The message's version after the change.
    pub version: u32,
}

/// What is known of an entry that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Unreadable {
    /// The sender, if it was a message. The sender and admins may delete it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender_id: Option<UserId>,
    /// Its place among the channel's messages, if it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ordinal: Option<Ordinal>,
    /// Its version; once it is deleted there is a message with a greater one.
    pub version: u32,
}

/// A message.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
    /// 1, and one more with each change, reactions included. Of two copies the greater is the later.
    #[serde(default = "first_version", skip_serializing_if = "is_first_version")]
    pub version: u32,
    /// When and as which version it got its present body, if that is not the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edited: Option<EditMark>,
    /// Since when it is deleted; its body is empty then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted: Option<DeletionMark>,
    /// Whether the reader deleted it for themselves; its body is empty then. Never stored.
    #[serde(default, skip_serializing_if = "is_false")]
    pub hidden: bool,
    /// How people reacted, in the order of the first of each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reactions: Vec<Reaction>,
}

impl Message {
    /// A message as it is appended.
    #[must_use]
    pub const fn new(
        message_id: MessageId,
        ordinal: Ordinal,
        sender_id: UserId,
        client_msg_id: ClientMsgId,
        body: Body,
    ) -> Self {
        Self {
            message_id,
            ordinal,
            sender_id,
            client_msg_id,
            body,
            version: 1,
            edited: None,
            deleted: None,
            hidden: false,
            reactions: Vec::new(),
        }
    }

    /// The version as which it got the body that it has.
    #[must_use]
    pub fn body_version(&self) -> u32 {
        self.edited.map_or(1, |edited| edited.version)
    }
}

/// The last edit of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct EditMark {
    /// When.
    pub at: Millis,
    /// The version that it made.
    pub version: u32,
}

/// The end of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DeletionMark {
    /// When.
    pub at: Millis,
    /// Who deleted it: its sender, or an admin.
    pub by: UserId,
}

const fn first_version() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
const fn is_first_version(version: &u32) -> bool {
    *version == 1
}

/// What a sender writes.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Body {
    /// The text: 1 to 100,000 characters and at most 400,000 bytes. May be empty when there is `data`.
    #[serde(default)]
    pub text: String,
    /// Custom JSON of the application, at most 16 KiB. Kept and served as it was spelt, less white space.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Data>,
    /// The `seq` of the message that this one answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(schema_with = "madang_ids::place_of_an_entry"))]
    pub reply_to: Option<Seq>,
    /// The people whom it mentions, at most 50. Those who are no members are not told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mentions: Vec<UserId>,
    /// Whether it mentions every member. In an open channel only admins may.
    #[serde(default, skip_serializing_if = "is_false")]
    pub mentions_everyone: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
const fn is_false(value: &bool) -> bool {
    !*value
}

/// An edit or a deletion of a message.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Change {
    /// The `seq` of the message that was changed.
    pub target: Seq,
    /// The message's version after the change.
    pub version: u32,
    /// Who changed it.
    pub by: UserId,
    /// The message as it is now. Absent in the store, and for who may not read the message itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<Box<Message>>,
}
