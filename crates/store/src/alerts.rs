//! The queue of alerts, and how messages get into it.

use async_trait::async_trait;
use madang_engine::alerts::{Fold, Held, Job, Outstanding, Shown};
use madang_engine::spans::Spans;
use madang_ids::{ChannelId, Cursor, LogId, Millis, Position, Seq, UserId};

use crate::error::StoreResult;

/// A change of one record. It is made only if the record is as the caller has read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutstandingChange {
    /// The user.
    pub user: UserId,
    /// The channel.
    pub channel: ChannelId,
    /// If set, the fresh messages must be exactly these, and are removed. Otherwise they are not looked at.
    pub takes: Option<Job>,
    /// What workers had written.
    pub before: Held,
    /// What is to be there.
    pub after: Held,
}

impl OutstandingChange {
    /// From a record as it was read to what [`Outstanding`]'s methods made of it.
    #[must_use]
    pub fn between(before: &Outstanding, after: &Outstanding) -> Self {
        let takes = before.fresh.clone().filter(|_| after.fresh.is_none());
        let Outstanding { user, channel, ref held, .. } = *before;
        Self { user, channel, takes, before: held.clone(), after: after.held.clone() }
    }

    /// Makes the change. `None` if the record is another one by now.
    #[must_use]
    pub fn apply(&self, found: &Outstanding) -> Option<Outstanding> {
        if found.held != self.before || (self.takes.is_some() && found.fresh != self.takes) {
            return None;
        }
        let fresh = found.fresh.clone().filter(|_| self.takes.is_none());
        let Self { user, channel, .. } = *self;
        Some(Outstanding { user, channel, fresh, held: self.after.clone() })
    }
}

/// The queue of alerts: one record for each user and channel, ordered by the time at which a worker has to look at it.
///
/// # Guarantees
/// Every write is durable when it returns. A change is made at most once: a worker that is not answered reads the record again.
#[async_trait]
pub trait AlertQueue: Send + Sync + 'static {
    /// Up to `limit` records that are due at `now`, the longest due first. No other worker gets them before `until`, unless
    /// something happens to them meanwhile.
    async fn take_due(&self, now: Millis, until: Millis, limit: usize) -> StoreResult<Vec<Outstanding>>;
    /// A record; an empty one if there is none.
    async fn outstanding(&self, user: UserId, channel: ChannelId) -> StoreResult<Outstanding>;
    /// Alerts that devices of a user show although the user has read them elsewhere, of at most `limit` channels.
    async fn shown_and_read(&self, user: UserId, limit: usize) -> StoreResult<Vec<(ChannelId, Shown)>>;
    /// Changes a record. `false` if it was changed since it was read.
    async fn change_outstanding(&self, change: &OutstandingChange) -> StoreResult<bool>;
    /// Takes in what happened.
    async fn fold_alerts(&self, folds: &[Fold]) -> StoreResult<()>;
    /// A subscription of the user was written: from now on messages for the user are taken in.
    async fn subscribed(&self, _user: UserId) -> StoreResult<()> {
        Ok(())
    }
    /// A worker has found no subscription of the user: messages need not be taken in until one is written.
    async fn unsubscribed(&self, _user: UserId) -> StoreResult<()> {
        Ok(())
    }
    /// Whether the queue may lack its last writes, because it has begun anew a short time ago: then what became of an alert is looked up
    /// in the notes.
    async fn may_lack_writes(&self) -> StoreResult<bool> {
        Ok(false)
    }
    /// A position that a device has received, in the terms of [`Job`]'s positions.
    fn comparable(&self, received: Cursor) -> Cursor {
        received
    }
}

/// Rows of a log of which no alerts were made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unmade {
    /// The log.
    pub log: LogId,
    /// The rows up to here were looked at.
    pub upto: Seq,
    /// What they say.
    pub events: Vec<AlertEvent>,
    /// The members of the channel who have a subscription, with the entries that they may read; of a user's own log the user.
    pub users: Vec<(UserId, Spans)>,
}

/// What a row says to the queue of alerts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlertEvent {
    /// A message in a direct channel or a group.
    Message {
        /// The message.
        seq: Seq,
        /// The position of its row.
        position: Position,
        /// When it was appended.
        at: Millis,
        /// Its sender.
        sender: UserId,
    },
    /// A row of a user's own log: a message in an open channel mentions the user or replies to one of the user's messages.
    Mentioned {
        /// The open channel.
        channel: ChannelId,
        /// The message.
        seq: Seq,
        /// The position of the row in the own log.
        position: Position,
        /// When that row was appended.
        at: Millis,
    },
    /// A row of a user's own log: the user has read a channel up to here.
    Read {
        /// The channel.
        channel: ChannelId,
        /// The last message that was read.
        seq: Seq,
        /// When that row was appended.
        at: Millis,
    },
}

/// Rows from which alerts are made, in a store with a commit order. The store notes each log whose rows may be worth an alert in the
/// transaction that appends them, so the sender pays one small write, and a crash loses no alert and makes none twice. In a fleet the
/// script that brings rows to an inbox does both.
#[async_trait]
pub trait AlertOutbox: AlertQueue {
    /// From now on rows are noted. Before, nothing is: a server without push has no cost.
    fn begin_alerts(&self);
    /// Waits until there may be something to make. Cancel safe.
    async fn alerts_waiting(&self);
    /// Up to `limit` logs with rows of which no alerts were made, after `after`, and at most 64 rows of each.
    async fn unmade(&self, after: Option<LogId>, limit: usize) -> StoreResult<Vec<Unmade>>;
    /// Takes in what happened in the rows of a log up to `upto`, and forgets those rows, in one transaction.
    async fn make(&self, log: LogId, upto: Seq, folds: Vec<Fold>) -> StoreResult<()>;
}
