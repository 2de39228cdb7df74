//! What a home is asked, what it asks of its shell, and what it answers.

use std::ops::RangeInclusive;
use std::sync::Arc;

use madang_ids::{ClientMsgId, LogId, MessageId, Millis, Seq, UserId};
use madang_proto::rest::Restriction;
use madang_proto::{Body, Content, ErrorBody, Role};
use serde::{Deserialize, Serialize};

use crate::body;
use crate::consequences::Consequences;
use crate::home::roster::Lookup;
use crate::log::{Append, ChannelState, Details, ReactionChange, Row, RowKey, Tail};
use crate::seats::{Member, SeatChange, Seats};

/// Names a command until it is answered. Unique within the shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// The connection whose sends are kept in order.
pub use madang_ids::Origin;

/// What is asked of a home.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Command {
    /// A message.
    Send {
        /// The connection that it came on; REST has none.
        origin: Option<Origin>,
        /// Who, her retry key, and the body's hash.
        key: RowKey,
        /// What.
        body: Body,
    },
    /// A message is edited or deleted.
    Change(ChangeRequest),
    /// Somebody reacts to a message, or takes it back.
    React(ReactRequest),
    /// Something of the channel's details changes.
    Detail {
        /// Who asks.
        by: UserId,
        /// What.
        change: DetailChange,
    },
    /// An entry that needs no check, such as those of a user's own log.
    Note {
        /// What happened.
        content: Content,
    },
    /// Members come and go.
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

    /// Whose rights it takes.
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

    /// Whether what comes behind it may be refused because of it: it ends its batch.
    pub(super) const fn changes_state(&self) -> bool {
        matches!(self, Self::Detail { change: DetailChange::State(_), .. })
    }

    /// The message without which it cannot be judged.
    pub(super) const fn target(&self) -> Option<Seq> {
        match self {
            Self::Change(request) => Some(request.target),
            Self::Detail { change: DetailChange::Pin(target), .. } => Some(*target),
            _ => None,
        }
    }

    /// The most that the entry takes as JSON, for the bound of a batch.
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

/// A message is to be edited or deleted. Repeating it is harmless.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ChangeRequest {
    /// Who asks.
    pub by: UserId,
    /// Which message.
    pub target: Seq,
    /// What becomes of it.
    pub change: MessageChange,
}

/// What becomes of a message.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum MessageChange {
    /// It says something else.
    Edit {
        /// What. Its `reply_to` must be absent or as it was.
        body: Body,
        /// The version that was edited: a later edit of somebody else's makes a conflict.
        if_version: Option<u32>,
    },
    /// It says nothing any more.
    Delete,
}

/// Somebody reacts to a message, or takes that back. Repeating it is harmless.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReactRequest {
    /// To which message.
    pub target: Seq,
    /// Who, how, and whether it is there from now on.
    pub change: ReactionChange,
}

/// What of a channel's details changes. Repeating it is harmless.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "detail", content = "to", rename_all = "snake_case")]
pub enum DetailChange {
    /// The name.
    Name(String),
    /// The topic; empty means none.
    Topic(String),
    /// The address of the picture; empty means none.
    Avatar(String),
    /// Seconds that a member waits between two messages.
    SlowMode(u32),
    /// A message is pinned.
    Pin(Seq),
    /// A message is pinned no longer.
    Unpin(Seq),
    /// The channel is archived, active again, or deleted.
    State(ChannelState),
}

/// Members come and go, or are others.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SeatRequest {
    /// Who asks. She must be a member who may, unless she makes the channel or leaves it herself.
    pub by: UserId,
    /// Who comes. Those who are members already are left as they are.
    pub joins: Vec<JoinRequest>,
    /// Who goes. Those who are no members are left as they are.
    pub leaves: Vec<UserId>,
    /// Who becomes the owner if the owner is among those who go.
    pub promote: Option<UserId>,
    /// Who has another role from now on. A new owner takes the place of the old one.
    pub role: Option<JoinRequest>,
    /// Whose restrictions change.
    pub restrict: Option<RestrictRequest>,
    /// Whether the channel is being made: no role is asked for.
    pub is_creation: bool,
    /// Whether the right to add people is asked for, though perhaps nobody comes: they may be invited instead.
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

    /// Who comes or goes by herself, if the request changes nobody else.
    pub(super) fn own_change(&self) -> Option<UserId> {
        let is_own = match (&self.joins[..], &self.leaves[..]) {
            ([join], []) => join.user_id == self.by && join.role == Role::Member,
            ([], [user]) => *user == self.by,
            _ => false,
        };
        let others = self.promote.is_some() || self.role.is_some() || self.restrict.is_some();
        (is_own && !others && !self.is_creation && !self.adds).then_some(self.by)
    }

    /// Whether it may change what somebody else may say.
    pub(super) fn is_moderation(&self) -> bool {
        let removes = self.leaves.iter().any(|user| *user != self.by);
        removes || self.role.is_some() || self.restrict.is_some()
    }

    /// Everybody whom it names.
    pub(super) fn users(&self) -> impl Iterator<Item = UserId> + '_ {
        let joins = self.joins.iter().map(|join| join.user_id);
        let others = self.promote.into_iter().chain(self.role.map(|role| role.user_id));
        let others = others.chain(self.restrict.map(|restrict| restrict.user_id));
        joins.chain(self.leaves.iter().copied()).chain(others).chain(self.invited_by).chain([self.by])
    }
}

/// Somebody may not speak, or not be here; or may again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestrictRequest {
    /// Who.
    pub user_id: UserId,
    /// Which of the two.
    pub kind: RestrictionKind,
    /// How long; `None` lifts it.
    pub restriction: Option<Restriction>,
}

/// What somebody may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestrictionKind {
    /// Speak.
    Mute,
    /// Be here.
    Ban,
}

/// Who comes, and as what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// Who.
    pub user_id: UserId,
    /// As what.
    pub role: Role,
    /// Whether the user is taken to have accepted. Somebody who comes by themselves always has.
    pub accepts: bool,
}

impl JoinRequest {
    /// Somebody who comes, or is given a role.
    #[must_use]
    pub const fn of(user_id: UserId, role: Role) -> Self {
        Self { user_id, role, accepts: false }
    }
}

/// A message that is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// Its id.
    pub message_id: MessageId,
    /// Its place.
    pub seq: Seq,
    /// When it was appended.
    pub at: Millis,
    /// Whether an earlier try had appended it.
    pub by_retry: bool,
}

/// The answer to a command.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// The message is durable.
    Sent(Sent),
    /// The message is changed, durably.
    Changed {
        /// Which message.
        target: Seq,
        /// Its version from now on.
        version: u32,
        /// The place of the entry that tells it; `None` if the message was so already, and that entry lies far back.
        seq: Option<Seq>,
        /// About the bytes that this change wrote, and sends to each reader: those of its entry, and of reactions the message,
        /// which is written anew. 0 if it wrote none.
        caused_bytes: usize,
    },
    /// The note, or the detail, is durable.
    Noted {
        /// Its place.
        seq: Seq,
    },
    /// Members came and went; those in the list really did, perhaps in an earlier try of the same command.
    Seated {
        /// Who, as she is now.
        members: Vec<Member>,
    },
    /// It was not done.
    Refused(ErrorBody),
}

/// How an effect of the store failed.
#[derive(Debug, Clone)]
pub enum Failure {
    /// It was certainly not done.
    Unavailable(ErrorBody),
    /// It may have been done.
    Unknown(ErrorBody),
}

impl Failure {
    pub(super) fn error(self) -> ErrorBody {
        match self {
            Self::Unavailable(error) | Self::Unknown(error) => error,
        }
    }
}

/// What a home learns of its log when it begins, and again after an append that did not happen as expected. The tail is
/// read first.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// The tail.
    pub tail: Tail,
    /// Of a channel, its seats.
    pub seats: Seats,
    /// Of a channel, the members found half-way.
    pub pending: Vec<Member>,
    /// Of a channel, what members may change of it.
    pub details: Details,
}

/// What a home asks of its shell. `Load`, `Find`, `FindSends`, `FindRows`, `React`, `Append`, `ChangeSeats` and `Settle`
/// are answered by the `handle_*` of that name; at most one of them is out. The others are carried out and forgotten.
#[derive(Debug, Clone)]
pub enum Effect {
    /// Read what [`Loaded`] says.
    Load {
        /// Which.
        log: LogId,
        /// How many rows.
        rows: usize,
    },
    /// Look up members, and what stands between the two people of a direct channel.
    Find(Lookup),
    /// Look up recorded sends, of those who may not speak now: what they sent before was acked.
    FindSends {
        /// By these keys.
        keys: Vec<(UserId, ClientMsgId)>,
    },
    /// Read single rows. The answer may lack the last ones.
    FindRows {
        /// Where.
        seqs: Vec<Seq>,
        /// The most bytes of entries, though at least one row.
        max_bytes: usize,
    },
    /// Change reactions, and answer with all of each message, in the order asked for.
    React {
        /// To which messages, and how.
        changes: Vec<(Seq, Vec<ReactionChange>)>,
    },
    /// Append.
    Append(Append),
    /// Change seats, then write the memberships.
    ChangeSeats(SeatChange),
    /// Note that a member has accepted the stay, which is true whether that succeeds or not.
    Accept {
        /// Who.
        user_id: UserId,
    },
    /// Write the memberships, tell the members in their own logs, then clear `pending`.
    Settle {
        /// The members as they are now.
        members: Vec<Member>,
    },
    /// Answer a command.
    Reply {
        /// Which.
        ticket: Ticket,
        /// How.
        reply: Reply,
    },
    /// Rows are durable and acknowledged: bring them to the inboxes and apply their consequences. Those of one log in the
    /// order in which they come.
    Fanout {
        /// Of which log.
        log: LogId,
        /// The rows.
        rows: Arc<[Row]>,
        /// What follows from them outside the log's partition.
        consequences: Consequences,
    },
    /// Rows are durable whose fan-out or consequences may be lost: a retry found its row, or the home begins on the log.
    /// Both are repeated, which is harmless.
    Redrive {
        /// Of which log.
        log: LogId,
        /// Where the rows are; at most [`WINDOW_ROWS`](super::WINDOW_ROWS).
        range: RangeInclusive<Seq>,
    },
}
