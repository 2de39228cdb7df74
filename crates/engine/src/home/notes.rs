//! Which notes of a user's own log are the same note.
//!
//! A note has no retry key. A node that writes it again after a crash writes the same content for the same cause. So the content
//! is the key, for kinds of notes that happen once. A note that can happen again with the same content (a block, a contact
//! request) has no key: the last note in the log is the valid one.

use madang_ids::{ChannelId, DeviceId, Seq};
use madang_proto::Content;

/// The identity of a note, taken from what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum NoteId {
    Mentioned(ChannelId, Seq),
    MessageHidden(ChannelId, Seq),
    DeviceRevoked(DeviceId),
    ChannelJoined(ChannelId, Seq),
    ChannelLeft(ChannelId, Seq),
    ChannelSettings(ChannelId, u64),
}

impl NoteId {
    /// `None` for a note that may be written twice, and for an entry that is none.
    pub(super) const fn of(content: &Content) -> Option<Self> {
        match content {
            Content::Mentioned { channel_id, seq, .. } => Some(Self::Mentioned(*channel_id, *seq)),
            Content::MessageHidden { channel_id, seq } => Some(Self::MessageHidden(*channel_id, *seq)),
            Content::DeviceRevoked { device_id } => Some(Self::DeviceRevoked(*device_id)),
            Content::ChannelJoined { channel, from_seq, .. } => {
                Some(Self::ChannelJoined(channel.id, *from_seq))
            }
            Content::ChannelLeft { channel_id, until_seq } => {
                Some(Self::ChannelLeft(*channel_id, *until_seq))
            }
            Content::ChannelSettings { channel_id, settings } => {
                Some(Self::ChannelSettings(*channel_id, settings.rev))
            }
            _ => None,
        }
    }
}
