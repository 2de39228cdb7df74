//! Seats and members of a channel.

use madang_ids::{ChannelId, Millis, UserId};
use madang_proto::Role;

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
    /// Her seat was taken or given back, but the log does not tell yet. Who finds it so finishes it.
    pub pending: bool,
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
