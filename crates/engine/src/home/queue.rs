//! What waits for the home, in order; bounded in commands and in bytes.

use std::collections::VecDeque;

use madang_ids::Millis;
use madang_proto::ErrorBody;

use crate::home::command::{Command, Origin, Ticket};
use crate::home::membership::Tries;
use crate::log::Row;

/// Commands that wait for one log. Above it, a command is refused with `unavailable`.
pub const QUEUE_COMMANDS: usize = 4096;
/// Bytes of commands that wait for one log, as the JSON of their entries: eight appends' worth. Above it, a command
/// is refused with `unavailable`.
pub const QUEUE_BYTES: usize = 8 * 1024 * 1024;
/// A send or a change that has not begun after so many milliseconds, because the store is slow, is refused with
/// `unavailable`: its sender would rather know.
pub const QUEUE_MS: u64 = 8_000;

/// A command that has not begun, or begins again.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) ticket: Ticket,
    pub(super) command: Command,
    pub(super) size_bytes: usize,
    /// When it came; `None` if it waits as long as it takes.
    pub(super) since: Option<Millis>,
    /// The row of an append whose outcome is unknown. Sends are found by their keys, notes by this.
    pub(super) attempt: Option<Row>,
    /// Of a change of seats.
    pub(super) tries: Tries,
}

impl Waiting {
    pub(super) fn new(ticket: Ticket, command: Command) -> Self {
        let size_bytes = command.size_bytes();
        Self { ticket, command, size_bytes, since: None, attempt: None, tries: Tries::default() }
    }

    /// One that came now.
    pub(super) fn since(ticket: Ticket, command: Command, now: Millis) -> Self {
        let since = match command {
            Command::Send { .. } | Command::Change(_) | Command::Detail { .. } => Some(now),
            Command::React(_) | Command::Note { .. } | Command::Seats(_) => None,
        };
        Self { since, ..Self::new(ticket, command) }
    }

    fn is_late(&self, now: Millis) -> bool {
        self.since.is_some_and(|since| now.get().saturating_sub(since.get()) > QUEUE_MS)
    }

    pub(super) const fn origin(&self) -> Option<Origin> {
        self.command.origin()
    }
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: VecDeque<Waiting>,
    size_bytes: usize,
}

impl Queue {
    /// Why one more must wait elsewhere, if it must. What is put back in front was counted before.
    pub(super) fn check_room(&self, next: &Waiting) -> Result<(), ErrorBody> {
        if self.waiting.len() >= QUEUE_COMMANDS {
            let message = format!("the channel has {QUEUE_COMMANDS} requests waiting");
            return Err(ErrorBody::unavailable(message, 500));
        }
        if self.size_bytes + next.size_bytes > QUEUE_BYTES {
            let message = format!("the channel has requests of {QUEUE_BYTES} bytes waiting");
            return Err(ErrorBody::unavailable(message, 500));
        }
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn front(&self) -> Option<&Waiting> {
        self.waiting.front()
    }

    pub(super) fn push_back(&mut self, waiting: Waiting) {
        self.size_bytes += waiting.size_bytes;
        self.waiting.push_back(waiting);
    }

    pub(super) fn push_front(&mut self, waiting: Waiting) {
        self.size_bytes += waiting.size_bytes;
        self.waiting.push_front(waiting);
    }

    pub(super) fn pop_front(&mut self) -> Option<Waiting> {
        let waiting = self.waiting.pop_front()?;
        self.size_bytes -= waiting.size_bytes;
        Some(waiting)
    }

    /// What has waited too long, from the front on.
    pub(super) fn take_late(&mut self, now: Millis) -> Vec<Waiting> {
        let is_late = |queue: &Self| queue.front().is_some_and(|front| front.is_late(now));
        std::iter::from_fn(|| is_late(self).then(|| self.pop_front()).flatten()).collect()
    }

    /// Everything, in order.
    pub(super) fn take(&mut self) -> VecDeque<Waiting> {
        std::mem::take(self).waiting
    }
}
