//! Entries of a log, and the messages and changes inside them.

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
    /// The entry's place in its log.
    pub seq: Seq,
    /// Time of the append; never less than that of the entry before.
    pub at: Millis,
    /// What the entry records.
    #[serde(flatten)]
    pub content: Content,
}

/// What an entry records. A client that does not know a `kind` skips the entry and keeps its `seq`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Content {
    // Kinds in a channel's log.
    /// A user sent a message.
    Message(Box<Message>),
    /// A message was edited. Stored without `message`; on the wire it contains the message as it is now.
    Edited(Change),
    /// A message was deleted for everyone. Its row stays in the log without its body.
    Deleted(Change),
    /// The reactions to a message changed.
    Reactions(ReactionsChange),
    /// A message was pinned.
    Pinned {
        /// The `seq` of the message.
        target: Seq,
        /// The user who pinned it.
        by: UserId,
    },
    /// A message was unpinned.
    Unpinned {
        /// The `seq` of the message.
        target: Seq,
        /// The user who unpinned it.
        by: UserId,
    },
    /// The channel was created. This is its first entry.
    Created {
        /// The user who created it.
        by: UserId,
    },
    /// A user became a member.
    Joined {
        /// The new member.
        user_id: UserId,
        /// The user who added the member; the same as `user_id` if the user joined.
        by: UserId,
    },
    /// A member left or was removed.
    Left {
        /// The user who is no longer a member.
        user_id: UserId,
        /// The user who removed the member; the same as `user_id` if the member left.
        by: UserId,
    },
    /// The role of a member changed.
    RoleChanged {
        /// The member whose role changed.
        user_id: UserId,
        /// The role from here on.
        role: Role,
        /// The user who changed it.
        by: UserId,
    },
    /// The name of the channel changed.
    Renamed {
        /// The name from here on.
        name: String,
        /// The user who changed it.
        by: UserId,
    },
    /// The topic of the channel changed.
    TopicChanged {
        /// The topic from here on; empty means none.
        topic: String,
        /// The user who changed it.
        by: UserId,
    },
    /// The picture of the channel changed.
    AvatarChanged {
        /// The address of the picture from here on; empty means none.
        avatar: String,
        /// The user who changed it.
        by: UserId,
    },
    /// The interval of slow mode changed.
    SlowModeChanged {
        /// Seconds that a member must wait between two messages from here on; 0 means no wait.
        seconds: u32,
        /// The user who changed it.
        by: UserId,
    },
    /// The channel takes no messages until it is unarchived.
    Archived {
        /// The user who archived it.
        by: UserId,
    },
    /// The channel takes messages again.
    Unarchived {
        /// The user who unarchived it.
        by: UserId,
    },
    /// The channel was deleted. No entry follows.
    ChannelDeleted {
        /// The user who deleted it.
        by: UserId,
    },
    /// A user was banned. A banned member is no longer a member from here on.
    Banned {
        /// The banned user.
        user_id: UserId,
        /// The user who decided it.
        by: UserId,
        /// The end of the ban; absent means for ever.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<Millis>,
    },
    /// A user is no longer banned and may join again.
    Unbanned {
        /// The user whose ban ended.
        user_id: UserId,
        /// The user who decided it.
        by: UserId,
    },
    /// A member was muted: they may read, but not send.
    Muted {
        /// The muted member.
        user_id: UserId,
        /// The user who decided it.
        by: UserId,
        /// The end of the mute; absent means for ever.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<Millis>,
    },
    /// A member is no longer muted.
    Unmuted {
        /// The member who may send again.
        user_id: UserId,
        /// The user who decided it.
        by: UserId,
    },

    // Kinds in a user's own log.
    /// The user read a channel on one of their devices.
    Read {
        /// The channel that was read.
        channel_id: ChannelId,
        /// The new read marker. It is named `read_seq` because the entry itself has a `seq`.
        #[serde(rename = "read_seq")]
        seq: Seq,
        /// The ordinal at the read marker, for unread counts.
        ordinal: Ordinal,
        /// The mentions that are still unread. Absent in entries of earlier versions.
        #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
        left: Option<UnreadMentions>,
    },
    /// The user became a member of a channel.
    ChannelJoined {
        /// The channel.
        channel: ChannelCard,
        /// The first entry of this stay.
        from_seq: Seq,
        /// Whether the user was a member before. If so, what a client kept of earlier stays may be out of date.
        #[serde(default, skip_serializing_if = "is_false")]
        had_stays: bool,
        /// State of the channel for this user. Absent in entries of earlier versions.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        state: Option<Box<JoinedState>>,
    },
    /// The user is no longer a member of a channel.
    ChannelLeft {
        /// The channel.
        channel_id: ChannelId,
        /// The last entry that the user may read.
        until_seq: Seq,
    },
    /// A message in an open channel mentions the user, or answers a message of theirs.
    Mentioned {
        /// The channel.
        channel_id: ChannelId,
        /// The place of the message. It is named `message_seq` because the entry itself has a `seq`.
        #[serde(rename = "message_seq")]
        seq: Seq,
        /// The sender of the message.
        by: UserId,
        /// Whether it answers a message of the user.
        is_reply: bool,
    },
    /// The user changed their own settings of a channel.
    ChannelSettings {
        /// The channel.
        channel_id: ChannelId,
        /// The settings from here on.
        #[serde(flatten)]
        settings: ChannelSettings,
    },
    /// The user changed their own settings of the account.
    AccountSettings(AccountSettings),
    /// The user was invited to a group.
    Invited {
        /// The group.
        channel_id: ChannelId,
        /// Its name.
        name: String,
        /// Number of members at that time.
        member_count: u32,
        /// The user who invited.
        by: UserId,
    },
    /// An invitation ended without being accepted. Accepting is reported by `channel_joined` instead.
    InvitationRemoved {
        /// The group of the invitation.
        channel_id: ChannelId,
    },
    /// The user deleted a message for themselves only.
    MessageHidden {
        /// The channel.
        channel_id: ChannelId,
        /// The place of the message. It is named `message_seq` because the entry itself has a `seq`.
        #[serde(rename = "message_seq")]
        seq: Seq,
    },
    /// One of the user's devices was revoked.
    DeviceRevoked {
        /// The revoked device.
        device_id: DeviceId,
    },
    /// The user blocked another user.
    Blocked {
        /// The blocked user.
        user_id: UserId,
    },
    /// The user no longer blocks another user.
    Unblocked {
        /// The user who is no longer blocked.
        user_id: UserId,
    },
    /// Another user asked to be a contact of this user, or this user asked another one.
    ContactRequested {
        /// The other user.
        user_id: UserId,
        /// The user who asked.
        by: UserId,
    },
    /// The user and another user are contacts from here on.
    ContactAccepted {
        /// The other user.
        user_id: UserId,
    },
    /// The user and another user are no longer contacts, or a contact request was withdrawn or declined.
    ContactRemoved {
        /// The other user.
        user_id: UserId,
    },

    // Kinds in both logs.
    /// An entry that the server cannot read any more, because its disk altered it or an earlier version wrote it
    /// incorrectly. It keeps its place in the log. It is never appended: a store returns it in place of the row.
    Unreadable(Unreadable),

    /// A kind that was added after this version was built. No server sends it.
    #[serde(other)]
    #[cfg_attr(feature = "schema", schemars(skip))]
    Unknown,
}

impl Content {
    /// The message, if this is one.
    #[must_use]
    pub fn message(&self) -> Option<&Message> {
        match self {
            Self::Message(message) => Some(message),
            _ => None,
        }
    }

    /// The message that this changes, if it is a change of a message.
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

    /// The whole message that is sent with this content: the message itself, or the one that was edited or deleted.
    #[must_use]
    pub fn carried(&self) -> Option<&Message> {
        match self {
            Self::Message(message) => Some(message),
            Self::Edited(change) | Self::Deleted(change) => change.message.as_deref(),
            _ => None,
        }
    }

    /// The state of reactions that is sent with this content.
    #[must_use]
    pub fn reacted(&self) -> Option<&ReactedState> {
        match self {
            Self::Reactions(change) => change.state.as_deref(),
            _ => None,
        }
    }

    /// Puts the present state of the changed message into a change: the message itself, or of a change of reactions
    /// their state. `None` removes it. Other content stays unchanged.
    pub fn carry(&mut self, message: Option<&Message>) {
        match self {
            Self::Edited(change) | Self::Deleted(change) => change.message = message.cloned().map(Box::new),
            Self::Reactions(change) => change.state = message.and_then(ReactedState::of).map(Box::new),
            _ => {}
        }
    }

    /// Whether this is a change that contains the state of its message.
    #[must_use]
    pub fn is_carrying(&self) -> bool {
        self.reacted().is_some() || (self.message().is_none() && self.carried().is_some())
    }
}

/// Names the message that an entry changes.
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
    /// The sender, if the entry was a message. The sender and admins may delete it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender_id: Option<UserId>,
    /// The ordinal, if the entry was a message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ordinal: Option<Ordinal>,
    /// The version of the message. Deleting it produces a message with a greater version.
    pub version: u32,
}

/// A message and its present state.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Message {
    /// Time-sortable id; rises with `seq`.
    pub message_id: MessageId,
    /// Place among the messages of the channel.
    pub ordinal: Ordinal,
    /// The user who sent it.
    pub sender_id: UserId,
    /// The sender's retry key, unique for the sender in this channel.
    pub client_msg_id: ClientMsgId,
    /// The text and everything else that the sender wrote.
    #[serde(flatten)]
    pub body: Body,
    /// 1 at first; each change adds 1, reactions included. Of two copies the one with the greater version is newer.
    #[serde(default = "first_version", skip_serializing_if = "is_first_version")]
    pub version: u32,
    /// When the message was last edited, and which version that made; absent if it was never edited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edited: Option<EditMark>,
    /// When and by whom it was deleted. A deleted message has an empty body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted: Option<DeletionMark>,
    /// Whether the reader deleted it for themselves. Its body is empty then. Never stored.
    #[serde(default, skip_serializing_if = "is_false")]
    pub hidden: bool,
    /// Reactions, in the order in which the first of each kind was made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reactions: Vec<Reaction>,
}

impl Message {
    /// A message as it is first appended.
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

    /// The version that gave the message its present body.
    #[must_use]
    pub fn body_version(&self) -> u32 {
        self.edited.map_or(1, |edited| edited.version)
    }
}

/// Time and version of the last edit of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct EditMark {
    /// Time of the edit.
    pub at: Millis,
    /// The version that the edit made.
    pub version: u32,
}

/// Time and author of the deletion of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DeletionMark {
    /// Time of the deletion.
    pub at: Millis,
    /// The user who deleted it: the sender or an admin.
    pub by: UserId,
}

const fn first_version() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
const fn is_first_version(version: &u32) -> bool {
    *version == 1
}

/// What the sender of a message writes.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Body {
    /// The text: 1 to 100,000 characters and at most 400,000 bytes. It may be empty if there is `data`.
    #[serde(default)]
    pub text: String,
    /// Custom JSON of the application, at most 16 KiB. Kept and served exactly as it was written, without white space.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Data>,
    /// The `seq` of the message that this one answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(schema_with = "madang_ids::place_of_an_entry"))]
    pub reply_to: Option<Seq>,
    /// The users whom it mentions, at most 50. Users who are not members are not notified.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mentions: Vec<UserId>,
    /// Whether it mentions every member. In an open channel only admins may set it.
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
    /// The user who changed it.
    pub by: UserId,
    /// The message as it is now. Absent in the store, and for users who may not read the message itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<Box<Message>>,
}
