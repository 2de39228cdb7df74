//! The commands that wait for the home, in order; bounded in commands and in bytes.

use std::collections::VecDeque;
use std::time::Duration;

use madang_proto::ErrorBody;

use crate::home::command::{Command, Origin, Ticket};
use crate::home::membership::Tries;
use crate::log::Row;
use crate::now::Now;

/// Commands that wait for one log. Above it, a command is refused with `unavailable`.
pub const QUEUE_COMMANDS: usize = 4096;
/// Bytes of commands that wait for one log, as the JSON of their entries: eight appends' worth. Above it, a command
/// is refused with `unavailable`.
pub const QUEUE_BYTES: usize = 8 * 1024 * 1024;
/// A command of a user that has not begun within this time, because the store is slow or this process was paused, is refused with
/// `unavailable`, so that its sender learns of it. The sender may have repeated it on another node meanwhile, and may have asked for
/// the opposite since: carried out late it would win.
pub const QUEUE_WAIT: Duration = Duration::from_secs(8);

/// A command that has not begun, or that begins again.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) ticket: Ticket,
    pub(super) command: Command,
    pub(super) size_bytes: usize,
    /// The steady time at which the command came; `None` if it may wait longer than [`QUEUE_WAIT`].
    pub(super) since: Option<Duration>,
    /// The rows of appends of unknown outcome. A send is found by its key, a note by these rows. An append of unknown outcome may
    /// still happen after a later one was rejected, so all attempts are kept: at most one for each try of a step.
    pub(super) attempts: Vec<Row>,
    /// The earlier attempts at a change of seats.
    pub(super) tries: Tries,
}

impl Waiting {
    pub(super) fn new(ticket: Ticket, command: Command) -> Self {
        let size_bytes = command.size_bytes();
        Self { ticket, command, size_bytes, since: None, attempts: Vec::new(), tries: Tries::default() }
    }

    /// A command that came now. It expires after [`QUEUE_WAIT`], except notes, which have no user who waits. (A change of seats that
    /// is half done is finished by the load that follows its refusal.)
    pub(super) fn since(ticket: Ticket, command: Command, now: Now) -> Self {
        let since = match command {
            Command::Send { .. } | Command::Change(_) | Command::Detail { .. } | Command::Seats(_) => {
                Some(now.elapsed)
            }
            // Reactions have a time of their own.
            Command::React(_) | Command::Note { .. } => None,
        };
        Self { since, ..Self::new(ticket, command) }
    }

    fn is_late(&self, now: Now) -> bool {
        self.since.is_some_and(|since| now.elapsed.saturating_sub(since) > QUEUE_WAIT)
    }

    pub(super) const fn origin(&self) -> Option<Origin> {
        self.command.origin()
    }
}

/// The kind of commands of which a step is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Commands of one row each: sends, changes, notes.
    Talk,
    /// Changes of seats, which take several writes one after the other.
    Seats,
}

impl Turn {
    const fn of(command: &Command) -> Self {
        match command {
            Command::Seats(_) => Self::Seats,
            _ => Self::Talk,
        }
    }
}

/// Two lanes: talk, and changes of seats. Turns follow the order in which commands came, so that a user who sends and then
/// leaves has sent. After a change of seats all waiting talk goes first, so that no message waits for more than one such change;
/// but talk does not overtake moderation: a message that came after a mute is refused.
#[derive(Debug, Default)]
pub(super) struct Queue {
    talk: VecDeque<Waiting>,
    seats: VecDeque<Waiting>,
    size_bytes: usize,
    /// The last turn was a change of seats.
    seats_went: bool,
    /// The value of `seats_went` before the present turn. It is restored if the turn's commands are put back: a load in between
    /// must not make talk lose or win a turn.
    seats_went_before: bool,
    /// The first ticket of the other lane: this turn ends before it.
    before: Option<Ticket>,
}

impl Queue {
    /// Refuses a command above the bounds. Commands that are put back were counted before and are not refused.
    pub(super) fn check_room(&self, next: &Waiting) -> Result<(), ErrorBody> {
        if self.talk.len() + self.seats.len() >= QUEUE_COMMANDS {
            let message = format!("the queue of this channel is full: {QUEUE_COMMANDS} requests");
            return Err(ErrorBody::unavailable(message, 500));
        }
        if self.size_bytes + next.size_bytes > QUEUE_BYTES {
            let message = format!("the queue of this channel is full: {QUEUE_BYTES} bytes");
            return Err(ErrorBody::unavailable(message, 500));
        }
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.talk.is_empty() && self.seats.is_empty()
    }

    /// The kind of the next step; `None` if nothing waits.
    pub(super) fn next_turn(&mut self) -> Option<Turn> {
        if self.is_empty() {
            self.seats_went = false;
            return None;
        }
        self.seats_went_before = self.seats_went;
        let talk = first(&self.talk);
        // Right after a change of seats only a moderation counts as a competitor: joins and leaves that came before the talk let
        // it pass once. Without that, 4096 waiting joins would delay the message behind them by 41 steps of three writes each.
        let seats = if self.seats_went { self.moderation() } else { first(&self.seats) };
        let is_talk = talk.is_some_and(|talk| seats.is_none_or(|seats| talk < seats));
        self.before = if is_talk { seats } else { talk };
        self.seats_went = !is_talk;
        Some(if is_talk { Turn::Talk } else { Turn::Seats })
    }

    fn moderation(&self) -> Option<Ticket> {
        let is_moderation = |waiting: &&Waiting| matches!(&waiting.command, Command::Seats(request) if request.is_moderation());
        self.seats.iter().find(is_moderation).map(|waiting| waiting.ticket)
    }

    const fn lane(&mut self, turn: Turn) -> &mut VecDeque<Waiting> {
        match turn {
            Turn::Talk => &mut self.talk,
            Turn::Seats => &mut self.seats,
        }
    }

    pub(super) fn push_back(&mut self, waiting: Waiting) {
        self.size_bytes += waiting.size_bytes;
        self.lane(Turn::of(&waiting.command)).push_back(waiting);
    }

    pub(super) fn push_front(&mut self, waiting: Waiting) {
        self.seats_went = self.seats_went_before;
        self.size_bytes += waiting.size_bytes;
        self.lane(Turn::of(&waiting.command)).push_front(waiting);
    }

    /// The next command of this turn; `None` where the turn ends.
    pub(super) fn front(&mut self, turn: Turn) -> Option<&Waiting> {
        let before = self.before;
        self.lane(turn).front().filter(|front| before.is_none_or(|before| front.ticket < before))
    }

    pub(super) fn pop_front(&mut self, turn: Turn) -> Option<Waiting> {
        let waiting = self.lane(turn).pop_front()?;
        self.size_bytes -= waiting.size_bytes;
        Some(waiting)
    }

    /// Takes expired commands from the front on.
    pub(super) fn take_late(&mut self, now: Now) -> Vec<Waiting> {
        let mut late = Vec::new();
        for turn in [Turn::Talk, Turn::Seats] {
            while self.lane(turn).front().is_some_and(|front| front.is_late(now)) {
                late.extend(self.pop_front(turn));
            }
        }
        late
    }

    /// Takes everything: the talk in its order, then the seats in theirs.
    pub(super) fn take(&mut self) -> VecDeque<Waiting> {
        let mut all = std::mem::take(&mut self.talk);
        all.append(&mut self.seats);
        // `seats_went` stays: most callers push the commands back at once.
        (self.size_bytes, self.before) = (0, None);
        all
    }
}

fn first(lane: &VecDeque<Waiting>) -> Option<Ticket> {
    lane.front().map(|front| front.ticket)
}

#[cfg(test)]
mod tests {
    use madang_ids::UserId;
    use madang_proto::Content;

    use super::*;
    use crate::home::command::SeatRequest;

    #[test]
    fn the_turn_outlives_a_load() {
        let user = UserId::from_raw(1);
        let seats = |ticket| Waiting::new(Ticket(ticket), Command::Seats(SeatRequest::by(user)));
        let talk = Waiting::new(Ticket(9), Command::Note { content: Content::Blocked { user_id: user } });
        let mut queue = Queue::default();
        queue.push_back(seats(1));
        assert_eq!(queue.next_turn(), Some(Turn::Seats));
        queue.pop_front(Turn::Seats).unwrap();
        // A second change of seats comes before the talk, and the load puts everything back.
        queue.push_back(seats(2));
        queue.push_back(talk);
        for waiting in queue.take() {
            queue.push_back(waiting);
        }
        assert_eq!(queue.next_turn(), Some(Turn::Talk), "talk goes first after a change of seats");
    }
}
