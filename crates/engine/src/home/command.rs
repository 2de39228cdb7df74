//! The commands of a home, its effects, and its replies.

use std::ops::RangeInclusive;
use std::sync::Arc;

use madang_ids::{ClientMsgId, LogId, MessageId, Millis, Seq, UserId};
use madang_proto::rest::Restriction;
use madang_proto::{Body, Content, ErrorBody, Role};
use serde::{Deserialize, Serialize};

use crate::body;
use crate::consequences::Consequences;
use crate::home::member_cache::{Found, Lookup};
use crate::log::{Append, ChannelState, Details, ReactionChange, Row, RowKey, Tail};
use crate::seats::{Member, SeatChange, Seats};

/// Names a command until it is answered. Unique within the shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// The connection whose sends are kept in order.
pub use madang_ids::Origin;

/// A request to a home.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Command {
    /// Append a message.
    Send {
        /// The connection on which it came; `None` for REST.
        origin: Option<Origin>,
        /// The sender, the retry key, and the body's hash.
        key: RowKey,
        /// The body of the message.
        body: Body,
    },
    /// Edit or delete a message.
    Change(ChangeRequest),
    /// Add or remove a reaction.
    React(ReactRequest),
    /// Change the channel's details.
    Detail {
        /// The user who requests it.
        by: UserId,
        /// The new value of one detail.
        change: DetailChange,
    },
    /// Append an entry that needs no check, such as those of a user's own log.
    Note {
        /// The content of the entry.
        content: Content,
    },
    /// Change members.
    Seats(SeatRequest),
}

impl Command {
    pub(super) const fn origin(&self) -> Option<Origin> {
        match self {
            Self::Send { origin, .. } => *origin,
            _ => None,
        }
    }

    pub(super) const fn key(&self) -> Option<RowKey> {
        match self {
            Self::Send { key, .. } => Some(*key),
            _ => None,
        }
    }

    /// The user whose rights are checked; `None` for a note.
    pub const fn by(&self) -> Option<UserId> {
        match self {
            Self::Send { key, .. } => Some(key.sender),
            Self::Change(request) => Some(request.by),
            Self::React(request) => Some(request.change.user_id),
            Self::Detail { by, .. } => Some(*by),
            Self::Seats(request) => Some(request.by),
            Self::Note { .. } => None,
        }
    }

    /// Whether commands behind it may be refused because of it: it ends its batch.
    pub(super) const fn changes_state(&self) -> bool {
        matches!(self, Self::Detail { change: DetailChange::State(_), .. })
    }

    /// The message that must be read to judge the command.
    pub(super) const fn target(&self) -> Option<Seq> {
        match self {
            Self::Change(request) => Some(request.target),
            Self::Detail { change: DetailChange::Pin(target), .. } => Some(*target),
            _ => None,
        }
    }

    /// An upper bound of the entry's bytes as JSON, for the bound of a batch.
    pub(super) fn size_bytes(&self) -> usize {
        /// Names, ids and times around a body.
        const AROUND_BYTES: usize = 320;
        /// The largest note holds a channel's card: 600 characters and an address.
        const NOTE_BYTES: usize = 4_096;
        match self {
            Self::Send { body, .. }
            | Self::Change(ChangeRequest { change: MessageChange::Edit { body, .. }, .. }) => {
                body::json_bytes(body) + AROUND_BYTES
            }
            Self::Change(_) | Self::React(_) | Self::Detail { .. } | Self::Note { .. } | Self::Seats(_) => {
                NOTE_BYTES
            }
        }
    }
}

/// A request to edit or delete a message. Repeating it is harmless.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ChangeRequest {
    /// The user who requests it.
    pub by: UserId,
    /// The place of the message.
    pub target: Seq,
    /// The edit or the deletion.
    pub change: MessageChange,
}

/// A change of a message.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum MessageChange {
    /// Replace the body.
    Edit {
        /// The new body. Its `reply_to` must be absent or unchanged.
        body: Body,
        /// The version that the client edited; a later version makes the edit a conflict.
        if_version: Option<u32>,
    },
    /// Remove body and reactions, and mark the message as deleted.
    Delete,
}

/// A request to add or remove a reaction. Repeating it is harmless.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReactRequest {
    /// The place of the message.
    pub target: Seq,
    /// The user, the reaction, and whether it is there from now on.
    pub change: ReactionChange,
}

/// The new value of one detail of a channel. Repeating the change is harmless.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "detail", content = "to", rename_all = "snake_case")]
pub enum DetailChange {
    /// The name of the channel.
    Name(String),
    /// The topic; empty means none.
    Topic(String),
    /// The address of the picture; empty means none.
    Avatar(String),
    /// Seconds that a member waits between two messages; 0 means no slow mode.
    SlowMode(u32),
    /// Pin the message at this place.
    Pin(Seq),
    /// Unpin the message at this place.
    Unpin(Seq),
    /// Archive the channel, make it active again, or delete it.
    State(ChannelState),
}

/// A request to change members, their roles or their restrictions.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SeatRequest {
    /// The user who requests it: a member with the right to do so, unless this user makes the channel or leaves it.
    pub by: UserId,
    /// Users to add. Present members stay as they are.
    pub joins: Vec<JoinRequest>,
    /// Users to remove. Users who are no members stay as they are.
    pub leaves: Vec<UserId>,
    /// The next owner, if the owner is among `leaves`.
    pub promote: Option<UserId>,
    /// A member's new role. A new owner takes the place of the old one.
    pub role: Option<JoinRequest>,
    /// A new restriction of a user, or its end.
    pub restrict: Option<RestrictRequest>,
    /// Whether the channel is being made: then no role is required.
    pub is_creation: bool,
    /// Whether to check the right to add users although `joins` may be empty: the caller invites them instead.
    pub adds: bool,
    /// The inviter of `by`, who joins a group by themselves. The invitation holds only while the inviter is an admin.
    pub invited_by: Option<UserId>,
}

impl SeatRequest {
    /// A request of `by` that changes nothing yet.
    #[must_use]
    pub const fn by(by: UserId) -> Self {
        Self {
            by,
            joins: Vec::new(),
            leaves: Vec::new(),
            promote: None,
            role: None,
            restrict: None,
            is_creation: false,
            adds: false,
            invited_by: None,
        }
    }

    /// The user who joins or leaves, if the request changes only the user who made it.
    pub(super) fn own_change(&self) -> Option<UserId> {
        let is_own = match (&self.joins[..], &self.leaves[..]) {
            ([join], []) => join.user_id == self.by && join.role == Role::Member,
            ([], [user]) => *user == self.by,
            _ => false,
        };
        let others = self.promote.is_some() || self.role.is_some() || self.restrict.is_some();
        (is_own && !others && !self.is_creation && !self.adds).then_some(self.by)
    }

    /// Whether it may restrict another user.
    pub(super) fn is_moderation(&self) -> bool {
        let removes = self.leaves.iter().any(|user| *user != self.by);
        removes || self.role.is_some() || self.restrict.is_some()
    }

    /// All users whose membership must be known to plan it; some may come twice.
    pub(super) fn users(&self) -> impl Iterator<Item = UserId> + '_ {
        let joins = self.joins.iter().map(|join| join.user_id);
        let others = self.promote.into_iter().chain(self.role.map(|role| role.user_id));
        let others = others.chain(self.restrict.map(|restrict| restrict.user_id));
        joins.chain(self.leaves.iter().copied()).chain(others).chain(self.invited_by).chain([self.by])
    }
}

/// A request to mute or ban a user, or to lift that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestrictRequest {
    /// The user to restrict.
    pub user_id: UserId,
    /// Mute or ban.
    pub kind: RestrictionKind,
    /// The end of the restriction; `None` lifts it.
    pub restriction: Option<Restriction>,
}

/// The right that a restriction takes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestrictionKind {
    /// The user may not write.
    Mute,
    /// The user may not be a member.
    Ban,
}

/// A user to add, or a member's new role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// The user to add.
    pub user_id: UserId,
    /// The role from now on.
    pub role: Role,
    /// Whether the membership counts as accepted. An own join always does.
    pub accepts: bool,
}

impl JoinRequest {
    /// A user to add, or a member's new role; not accepted yet.
    #[must_use]
    pub const fn of(user_id: UserId, role: Role) -> Self {
        Self { user_id, role, accepts: false }
    }
}

/// A message that is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// The id of the message.
    pub message_id: MessageId,
    /// The place in the log.
    pub seq: Seq,
    /// The time of the append.
    pub at: Millis,
    /// Whether an earlier attempt appended it.
    pub by_retry: bool,
}

/// The answer to a command.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// The message is durable.
    Sent(Sent),
    /// The change of the message is durable.
    Changed {
        /// The place of the message.
        target: Seq,
        /// The version of the message from now on.
        version: u32,
        /// The place of the entry; `None` if the message was as requested already, and its entry has left the window.
        seq: Option<Seq>,
        /// About the bytes that this change wrote and sends to each reader: its entry, and for reactions also the message, which
        /// is written anew. 0 if it wrote nothing.
        caused_bytes: usize,
    },
    /// The note, or the detail, is durable.
    Noted {
        /// The place in the log.
        seq: Seq,
    },
    /// The change of members is durable.
    Seated {
        /// The members that really changed, perhaps in an earlier attempt of the same command, as they are now.
        members: Vec<Member>,
    },
    /// The command was not carried out.
    Refused(ErrorBody),
}

/// How an effect of the store failed.
#[derive(Debug, Clone)]
pub enum Failure {
    /// The effect certainly did not happen, and will not.
    Unavailable(ErrorBody),
    /// The effect may have happened, or may happen yet.
    Unknown(ErrorBody),
}

impl Failure {
    pub(super) fn error(self) -> ErrorBody {
        match self {
            Self::Unavailable(error) | Self::Unknown(error) => error,
        }
    }
}

/// The state of a log, which a home loads when it begins, and again after an append that did not happen as expected. The tail
/// is read first; everything else is read at once behind it.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// The head and the last rows.
    pub tail: Tail,
    /// Count and revision of a channel's seats.
    pub seats: Seats,
    /// The members of a channel that are half-way or not settled.
    pub pending: Vec<Member>,
    /// Name, topic, pins and the like of a channel.
    pub details: Details,
    /// What the commands that wait need of members and blocks, so that they need not look it up behind the load.
    pub found: Found,
}

/// What the shell carries out for a home. `Load`, `Find`, `FindSends`, `FindRows`, `React`, `Append`, `ChangeSeats` and `Settle`
/// are answered by the `handle_*` of that name; at most one of them is out. The others have no outcome.
#[derive(Debug, Clone)]
pub enum Effect {
    /// Read the state of the log ([`Loaded`]).
    Load {
        /// The log of this home.
        log: LogId,
        /// The number of last rows.
        rows: usize,
        /// Members and blocks for the commands that wait. Empty for a user's own log.
        lookup: Lookup,
    },
    /// Look up members, and the blocks between the two users of a direct channel.
    Find(Lookup),
    /// Look up the records of sends whose users may not write now: those that were appended before are acknowledged again.
    FindSends {
        /// Sender and retry key of each send.
        keys: Vec<(UserId, ClientMsgId)>,
    },
    /// Read single rows. The answer may lack the last ones.
    FindRows {
        /// The places of the rows.
        seqs: Vec<Seq>,
        /// The most bytes of entries, but at least one row.
        max_bytes: usize,
    },
    /// Change sets of reactions, and answer with the whole set of each message, in the order of `changes`.
    React {
        /// The place of each message, and the changes of its set.
        changes: Vec<(Seq, Vec<ReactionChange>)>,
    },
    /// Append rows.
    Append(Append),
    /// Change seats, then write the memberships.
    ChangeSeats(SeatChange),
    /// Record that a member has accepted the membership. A failure loses only this record: it is written again
    /// with a message after the cache of members was dropped.
    Accept {
        /// The member.
        user_id: UserId,
    },
    /// Write the memberships, append notes to the members' own logs, then clear `pending`.
    Settle {
        /// The members as they are now.
        members: Vec<Member>,
    },
    /// Answer a command.
    Reply {
        /// The ticket of the command.
        ticket: Ticket,
        /// The answer.
        reply: Reply,
    },
    /// Rows are durable and acknowledged: bring them to the inboxes and apply their consequences, for each log in the order of
    /// these effects.
    Fanout {
        /// The log of the rows.
        log: LogId,
        /// The appended rows.
        rows: Arc<[Row]>,
        /// The writes that follow from the rows outside the log's partition.
        consequences: Consequences,
    },
    /// Rows are durable whose fan-out or consequences may be lost: a retry found its row, or the home begins on the log.
    /// Both are repeated, which is harmless.
    Redrive {
        /// The log of the rows.
        log: LogId,
        /// The places of the rows; at most [`WINDOW_ROWS`](super::WINDOW_ROWS).
        range: RangeInclusive<Seq>,
    },
}
