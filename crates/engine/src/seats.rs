//! Seats and members of a channel.

use madang_ids::{ChannelId, Millis, Seq, UserId};
use madang_proto::{Content, Role};
use serde::{Deserialize, Serialize};

use crate::spans::Spans;

/// The seats of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seats {
    /// Members now.
    pub count: u32,
    /// Counts the changes; the compare-and-set compares it.
    pub rev: u64,
}

/// A member, keyed by channel. Kept after she left, with her spans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub user_id: UserId,
    /// What she may do.
    pub role: Role,
    /// Since when.
    pub joined_at: Millis,
    /// What she may read. She is a member now if they are open.
    pub spans: Spans,
    /// What the log does not tell yet, though it has happened. Who finds it so finishes it.
    pub pending: Option<Pending>,
}

/// What the log has still to tell of a member. Different for each change of her.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// Who asked for the change.
    pub by: UserId,
    /// Where the log was to tell it. It does so there or later.
    pub place: Seq,
    /// Whether her role changed; otherwise she came or went, as her spans say.
    pub is_role: bool,
}

impl Member {
    /// The place of her last change as it was planned; of one that is settled, of her last coming or going.
    #[must_use]
    pub fn as_of(&self) -> Seq {
        self.pending.map(|pending| pending.place).or_else(|| self.spans.edge()).unwrap_or_default()
    }

    /// Whether `settled`, which the log tells, is the change that is pending here: not an earlier one that another
    /// has overtaken.
    #[must_use]
    pub fn is_settled_by(&self, settled: &Self) -> bool {
        self.pending.is_some() && self.pending == settled.pending
    }

    /// The entry that tells what is pending.
    #[must_use]
    pub fn pending_content(&self) -> Option<Content> {
        let (user_id, role, Pending { by, is_role, .. }) = (self.user_id, self.role, self.pending?);
        Some(match (is_role, self.spans.is_open()) {
            (true, _) => Content::RoleChanged { user_id, role, by },
            (false, true) => Content::Joined { user_id, by },
            (false, false) => Content::Left { user_id, by },
        })
    }
}

/// One change of seats: several joins and leaves at once.
#[derive(Debug, Clone)]
pub struct SeatChange {
    /// In which channel.
    pub channel: ChannelId,
    /// The revision that the writer saw.
    pub if_rev: u64,
    /// Members after the change.
    pub count: u32,
    /// The members that change, as they are after it.
    pub members: Vec<Member>,
}

/// What became of a change of seats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeatOutcome {
    /// Done; these are the seats now.
    Changed(Seats),
    /// Nothing was changed: the revision is another.
    Moved(Seats),
}
