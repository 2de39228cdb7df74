//! Seats and members of a channel.

use madang_ids::{ChannelId, Millis, Seq, UserId};
use madang_proto::rest::Restriction;
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Who.
    pub user_id: UserId,
    /// What she may do.
    pub role: Role,
    /// Since when.
    pub joined_at: Millis,
    /// What she may read. She is a member now if they are open.
    pub spans: Spans,
    /// Whether the user came into this stay by themselves, or has written or read in it since. Somebody who was added and
    /// has done neither shows no presence here.
    pub has_accepted: bool,
    /// Whether and how long she may not speak.
    pub muted: Option<Restriction>,
    /// Whether and how long she may not be here. Who was never a member may be banned too.
    pub banned: Option<Restriction>,
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
    /// What changed.
    pub change: PendingChange,
    /// The log tells the change, and the spans are as it tells. Only rows in the member's own partitions are missing, which
    /// could not be written: nothing else waits for them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_told: bool,
}

impl Pending {
    /// Whether this is the same change, told or not.
    fn is_change_of(self, other: Self) -> bool {
        (self.by, self.place, self.change) == (other.by, other.place, other.change)
    }
}

/// What changed of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PendingChange {
    /// She came or went, as her spans say.
    Seat,
    /// Her role.
    Role,
    /// Whether she may speak.
    Mute,
    /// Whether she may be here; if she was a member, she went with it.
    Ban,
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
        self.pending.zip(settled.pending).is_some_and(|(own, settled)| own.is_change_of(settled))
    }

    /// The member with what is pending marked as told, or not.
    #[must_use]
    pub fn told(mut self, is_told: bool) -> Self {
        self.pending = self.pending.map(|pending| Pending { is_told, ..pending });
        self
    }

    /// Whether the log has still to tell a change.
    #[must_use]
    pub fn is_half_way(&self) -> bool {
        self.pending.is_some_and(|pending| !pending.is_told)
    }

    /// The entry that tells what is pending.
    #[must_use]
    pub fn pending_content(&self) -> Option<Content> {
        let (user_id, role, Pending { by, change, .. }) = (self.user_id, self.role, self.pending?);
        Some(match change {
            PendingChange::Role => Content::RoleChanged { user_id, role, by },
            PendingChange::Seat if self.spans.is_open() => Content::Joined { user_id, by },
            PendingChange::Seat => Content::Left { user_id, by },
            PendingChange::Mute => match self.muted {
                Some(Restriction { until }) => Content::Muted { user_id, by, until },
                None => Content::Unmuted { user_id, by },
            },
            PendingChange::Ban => match self.banned {
                Some(Restriction { until }) => Content::Banned { user_id, by, until },
                None => Content::Unbanned { user_id, by },
            },
        })
    }

    /// Whether what is pending began or ended a stay.
    #[must_use]
    pub fn is_moving(&self) -> bool {
        self.pending.is_some_and(|pending| match pending.change {
            PendingChange::Seat => true,
            // A ban of somebody who was no member leaves her stays as they were.
            PendingChange::Ban => !self.spans.is_open() && self.spans.edge() >= Some(pending.place),
            PendingChange::Role | PendingChange::Mute => false,
        })
    }

    /// Whether she may not speak at `now`.
    #[must_use]
    pub fn is_muted(&self, now: Millis) -> bool {
        lasts(self.muted, now)
    }

    /// Whether she may not be here at `now`.
    #[must_use]
    pub fn is_banned(&self, now: Millis) -> bool {
        lasts(self.banned, now)
    }
}

fn lasts(restriction: Option<Restriction>, now: Millis) -> bool {
    restriction.is_some_and(|restriction| restriction.until.is_none_or(|until| now < until))
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
    Moved,
}
