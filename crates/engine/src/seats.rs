//! Seats and members of a channel.

use madang_ids::{ChannelId, Millis, Seq, UserId};
use madang_proto::rest::Restriction;
use madang_proto::{Content, Role};
use serde::{Deserialize, Serialize};

use crate::spans::Spans;

/// The seats of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seats {
    /// The number of present members.
    pub count: u32,
    /// Rises with each change of seats; the compare-and-set compares it.
    pub rev: u64,
}

/// A present or former member, keyed by channel. The row is kept after the member left, with the spans.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The user who is or was the member.
    pub user_id: UserId,
    /// The role, also the last one of a former member.
    pub role: Role,
    /// The time of the last join.
    pub joined_at: Millis,
    /// The entries that the member may read. The user is a member now if the spans are open.
    pub spans: Spans,
    /// Whether the user joined without being added, or has written or read since. A user who was added and has done neither
    /// shows no presence here.
    pub has_accepted: bool,
    /// Present while the member may not write, with the end.
    pub muted: Option<Restriction>,
    /// Present while the user may not be a member, with the end. Users who never were members may be banned too.
    pub banned: Option<Restriction>,
    /// A change that has happened and is not finished. The home that finds it finishes it.
    pub pending: Option<Pending>,
}

/// A change of a member whose entry is not in the log yet, or that is not settled. Differs from one change of a member to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// The user who requested the change.
    pub by: UserId,
    /// The planned place of its entry. The entry is there or later.
    pub place: Seq,
    /// The kind of the change.
    pub change: PendingChange,
    /// The entry is in the log, and the spans agree with it. Only rows in the member's own partitions are missing, which could
    /// not be written: nothing else waits for them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_recorded: bool,
}

impl Pending {
    /// Whether this is the same change, with or without its entry.
    fn is_change_of(self, other: Self) -> bool {
        (self.by, self.place, self.change) == (other.by, other.place, other.change)
    }
}

/// The kind of a member's change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PendingChange {
    /// The user joined or left, as the spans say.
    Seat,
    /// The role changed.
    Role,
    /// The member was muted or unmuted.
    Mute,
    /// The user was banned or unbanned; a ban of a member also ends the membership.
    Ban,
}

impl Member {
    /// Rises with each change of the member, and with a settlement that moves its entry behind the planned place: the planned
    /// place of the pending change, or the place of the last join or leave, whichever is later. Two states of a member with one
    /// version have the same role and spans.
    #[must_use]
    pub fn version(&self) -> Seq {
        let place = self.pending.map(|pending| pending.place);
        place.max(self.spans.edge()).unwrap_or_default()
    }

    /// Whether `settled`, whose entry is in the log, is the change that is pending here, and not an earlier change that another one
    /// has overtaken.
    #[must_use]
    pub fn is_settled_by(&self, settled: &Self) -> bool {
        self.pending.zip(settled.pending).is_some_and(|(own, settled)| own.is_change_of(settled))
    }

    /// The member with the pending change marked as having its entry in the log, or not.
    #[must_use]
    pub fn recorded(mut self, is_recorded: bool) -> Self {
        self.pending = self.pending.map(|pending| Pending { is_recorded, ..pending });
        self
    }

    /// Whether a change has no entry in the log yet.
    #[must_use]
    pub fn is_half_way(&self) -> bool {
        self.pending.is_some_and(|pending| !pending.is_recorded)
    }

    /// The entry of the pending change.
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

    /// Whether the pending change began or ended a stay.
    #[must_use]
    pub fn is_moving(&self) -> bool {
        self.pending.is_some_and(|pending| match pending.change {
            PendingChange::Seat => true,
            // A ban of a user who is no member leaves the spans unchanged.
            PendingChange::Ban => !self.spans.is_open() && self.spans.edge() >= Some(pending.place),
            PendingChange::Role | PendingChange::Mute => false,
        })
    }

    /// Whether the member may not write at `now`.
    #[must_use]
    pub fn is_muted(&self, now: Millis) -> bool {
        lasts(self.muted, now)
    }

    /// Whether the user may not be a member at `now`.
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
    /// The channel of the seats.
    pub channel: ChannelId,
    /// The revision that the writer saw.
    pub if_rev: u64,
    /// Members after the change.
    pub count: u32,
    /// The members that change, as they are after it.
    pub members: Vec<Member>,
}

/// The result of a change of seats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeatOutcome {
    /// The seats after the change.
    Changed(Seats),
    /// Nothing was changed: the revision is not `if_rev`.
    Moved,
}
