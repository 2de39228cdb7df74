//! The consequences of an append outside the partition of its log.
//!
//! An append is one conditional write of one partition. Its consequences are in partitions of the senders and of the mentioned
//! users, so they are written behind the ack, and written again by the next home that begins on the log. Each part is
//! idempotent: markers are max-registers, notes and deletions are sets.

use madang_ids::{Millis, Ordinal, Seq, UserId};
use madang_proto::{Content, Message};

use crate::log::Row;

/// The read marker of a user in a channel. Of two markers the one with the greater `seq` counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Marker {
    /// The last entry that was read.
    pub seq: Seq,
    /// The ordinal at that entry: messages behind it are unread.
    pub ordinal: Ordinal,
}

/// The consequences of rows of one channel.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Consequences {
    /// A sender has read up to the last message sent: one marker for each sender.
    pub markers: Vec<(UserId, Marker)>,
    /// Messages that mention users.
    pub mentions: Vec<Mentions>,
    /// Messages that were deleted: the reactions to them and the notes of their mentions end.
    pub deleted: Vec<Deleted>,
}

/// A message and the users that it mentions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mentions {
    /// The message.
    pub seq: Seq,
    /// The time of the message: mentions of a user are listed by time.
    pub at: Millis,
    /// The sender of the message.
    pub sender: UserId,
    /// The mentioned users; `None` is everybody.
    pub users: Vec<Option<UserId>>,
}

/// A message that was deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deleted {
    /// The message.
    pub target: Seq,
    /// The users that it mentioned, so that a store keyed by user finds the notes. Empty where they are unknown (when a dead home's
    /// rows are repeated): the notes then count until their users read the channel.
    pub mentioned: Vec<Option<UserId>>,
}

impl Consequences {
    /// The consequences of `rows`.
    #[must_use]
    pub fn of(rows: &[Row]) -> Self {
        let mut all = Self::default();
        for row in rows {
            let (seq, at) = (row.entry.seq, row.entry.at);
            match &row.entry.content {
                Content::Message(message) => {
                    all.raise(message.sender_id, Marker { seq, ordinal: row.ordinal });
                    let users: Vec<_> = mentioned(message).collect();
                    if !users.is_empty() {
                        all.mentions.push(Mentions { seq, at, sender: message.sender_id, users });
                    }
                }
                Content::Deleted(change) => {
                    all.deleted.push(Deleted { target: change.target, mentioned: Vec::new() });
                }
                _ => {}
            }
        }
        all
    }

    /// Adds those of later rows of the same channel.
    pub fn append(&mut self, later: Self) {
        later.markers.into_iter().for_each(|(sender, marker)| self.raise(sender, marker));
        self.mentions.extend(later.mentions);
        self.deleted.extend(later.deleted);
    }

    fn raise(&mut self, sender: UserId, marker: Marker) {
        match self.markers.iter_mut().find(|(known, _)| *known == sender) {
            Some((_, last)) => *last = marker,
            None => self.markers.push((sender, marker)),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.markers.is_empty() && self.mentions.is_empty() && self.deleted.is_empty()
    }

    /// About the bytes that they take in memory.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let users = self.mentions.iter().map(|mentions| mentions.users.len());
        let users = users.chain(self.deleted.iter().map(|deleted| deleted.mentioned.len()));
        let users: usize = users.sum();
        (self.markers.len() + self.mentions.len() + self.deleted.len()) * 48 + users * 16
    }

    /// Adds the users that the deleted messages mentioned, as far as `known` has them.
    #[must_use]
    pub fn knowing(mut self, known: &[Deleted]) -> Self {
        for deleted in &mut self.deleted {
            if let Some(known) = known.iter().find(|known| known.target == deleted.target) {
                deleted.mentioned.clone_from(&known.mentioned);
            }
        }
        self
    }
}

/// The users that a message mentions; `None` is everybody.
pub fn mentioned(message: &Message) -> impl Iterator<Item = Option<UserId>> + '_ {
    let everybody = message.body.mentions_everyone.then_some(None);
    everybody.into_iter().chain(message.body.mentions.iter().copied().map(Some))
}
