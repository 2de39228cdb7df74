//! What a home is asked, what it asks of its shell, and what it answers.

use std::sync::Arc;

use madang_ids::{ClientMsgId, ConnectionId, LogId, MessageId, Millis, Seq, UserId};
use madang_proto::{Body, Content, ErrorBody, Role};

use crate::body;
use crate::home::roster::Lookup;
use crate::log::{Append, Row, RowKey};
use crate::seats::{Member, SeatChange};

/// Names a command until it is answered. Unique within the shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// The connection whose sends are kept in order.
pub type Origin = ConnectionId;

/// What is asked of a home.
#[derive(Debug, Clone)]
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

    /// The most that the entry takes as JSON, for the bound of a batch.
    pub(super) fn size_bytes(&self) -> usize {
        /// Names, ids and times around a body.
        const AROUND_BYTES: usize = 320;
        /// The largest note holds a channel's name.
        const NOTE_BYTES: usize = 1_536;
        match self {
            Self::Send { body, .. } => body::json_bytes(body) + AROUND_BYTES,
            Self::Note { .. } | Self::Seats(_) => NOTE_BYTES,
        }
    }
}

/// Members come and go.
#[derive(Debug, Clone)]
pub struct SeatRequest {
    /// Who asks. She must be a member who may, unless she makes the channel or leaves it herself.
    pub by: UserId,
    /// Who comes. Those who are members already are left as they are.
    pub joins: Vec<JoinRequest>,
    /// Who goes. Those who are no members are left as they are.
    pub leaves: Vec<UserId>,
    /// Who becomes the owner if the owner is among those who go.
    pub promote: Option<UserId>,
    /// Whether the channel is being made: no role is asked for.
    pub is_creation: bool,
}

impl SeatRequest {
    /// Who comes or goes by herself, if the request changes nobody else.
    pub(super) fn own_change(&self) -> Option<UserId> {
        let is_own = match (&self.joins[..], &self.leaves[..]) {
            ([join], []) => join.user_id == self.by && join.role == Role::Member,
            ([], [user]) => *user == self.by,
            _ => false,
        };
        (is_own && self.promote.is_none() && !self.is_creation).then_some(self.by)
    }

    /// Everybody whom it names.
    pub(super) fn users(&self) -> impl Iterator<Item = UserId> + '_ {
        let joins = self.joins.iter().map(|join| join.user_id);
        joins.chain(self.leaves.iter().copied()).chain(self.promote).chain([self.by])
    }
}

/// Who comes, and as what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JoinRequest {
    /// Who.
    pub user_id: UserId,
    /// As what.
    pub role: Role,
}

/// A message that is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
#[derive(Debug, Clone)]
pub enum Reply {
    /// The message is durable.
    Sent(Sent),
    /// The note is durable.
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

/// What a home asks of its shell. `Load`, `Find`, `FindSends`, `Append`, `ChangeSeats` and `Settle` are answered by
/// the `handle_*` of that name; at most one of them is out. The others are carried out and forgotten.
#[derive(Debug, Clone)]
pub enum Effect {
    /// Read the log's tail, and of a channel the seats and the members found half-way.
    Load {
        /// Which.
        log: LogId,
        /// How many rows.
        rows: usize,
        /// Whether to read seats and members too.
        seats: bool,
    },
    /// Look up members, and in a direct channel whether one blocks the other.
    Find(Lookup),
    /// Look up recorded sends, of those who may not speak now: what they sent before was acked.
    FindSends {
        /// By these keys.
        keys: Vec<(UserId, ClientMsgId)>,
    },
    /// Append.
    Append(Append),
    /// Change seats, then write the memberships.
    ChangeSeats(SeatChange),
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
    /// Rows are durable: bring them to the inboxes.
    Fanout {
        /// Of which log.
        log: LogId,
        /// The rows.
        rows: Arc<[Row]>,
    },
    /// A retry found its row: bring it to the inboxes again, in case the first fan-out was lost.
    Redrive {
        /// Of which log.
        log: LogId,
        /// The row.
        seq: Seq,
    },
}
