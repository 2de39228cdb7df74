//! The home of one log: checks commands, mints, appends one batch at a time, answers.
//!
//! Pure: commands and the outcomes of effects go in, [`Effect`]s come out, time is a parameter. The shell carries out
//! one effect of the store at a time and hands its outcome back. The home may be wrong, late or doubled: the store's
//! compare-and-set on the head alone decides, and [`AppendOutcome::Moved`] sends a batch back to *check*.
//!
//! Rooms: [`command`] what is asked and answered, [`plan`] what of it may be done, [`queue`] what waits, [`failing`] who is
//! refused with whom, [`gate`] whose retry is waited for, [`window`] the last sends in memory, [`roster`] who may speak,
//! [`pace`] when again, [`batch`] sends, [`changes`] edits, deletions and details, [`reactions`] and [`membership`] steps of
//! their own, this file the order of steps.

mod batch;
mod changes;
mod command;
mod failing;
mod gate;
mod membership;
mod pace;
mod plan;
mod queue;
mod reactions;
mod roster;
mod window;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use madang_ids::{LogId, Seq, Snowflakes, UserId};
use madang_proto::{ChannelKind, ErrorBody, Role};

pub use changes::deleted_channel;
pub use command::{
    ChangeRequest, Command, DetailChange, Effect, Failure, JoinRequest, Loaded, MessageChange, Origin,
    ReactRequest, Reply, RestrictRequest, RestrictionKind, SeatRequest, Sent, Ticket,
};
pub use queue::{QUEUE_BYTES, QUEUE_COMMANDS, QUEUE_WAIT};
pub use roster::{Between, Found, Lookup};

use crate::home::batch::Batch;
use crate::home::gate::Gate;
use crate::home::membership::{SeatStep, told_by};
use crate::home::pace::Pace;
use crate::home::queue::{Queue, Turn, Waiting};
use crate::home::reactions::{ReactStep, Reactions};
use crate::home::roster::Roster;
use crate::home::window::Window;
use crate::log::{AppendOutcome, Details, Head, MAX_APPEND_BYTES, Row, SendRecord, Tail};
use crate::now::Now;
use crate::seats::{Member, SeatOutcome};

/// Rows whose retry keys are in memory; exact, or the append misses.
pub const WINDOW_ROWS: usize = 256;
/// Bytes of messages that a step reads to judge what is to become of them; one message alone may be larger.
const FIND_BYTES: usize = 2 * MAX_APPEND_BYTES;
/// Outcomes in a row that nobody knows, after which a command is refused rather than tried again. Its caller may
/// try again himself; retry keys find what was done.
const UNKNOWN_IN_A_ROW: u32 = 4;

/// What the shell tells a home about its log when it makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// A user's own log: notes only.
    User,
    /// A channel.
    Channel {
        /// Its kind.
        kind: ChannelKind,
        /// Most members.
        capacity: u32,
        /// Who made it; becomes its owner.
        created_by: UserId,
    },
}

/// The home of one log.
#[derive(Debug)]
pub struct Home {
    log: LogId,
    scope: Scope,
    /// `None` until the tail was read, and again after an append that did not happen as expected.
    head: Option<Head>,
    /// As of the head.
    details: Details,
    window: Window,
    roster: Roster,
    pace: Pace,
    queue: Queue,
    reactions: Reactions,
    gate: Gate,
    flight: Flight,
    replies: VecDeque<Effect>,
    /// Members found half-way when the log was loaded; they go before any command.
    unfinished: Vec<(Member, bool)>,
    /// Outcomes that nobody knows, since the last that somebody knew.
    unknown: u32,
    /// Rows of ours may be there that no inbox was told of.
    may_owe_fanout: bool,
}

/// The one step that is under way.
#[derive(Debug)]
enum Flight {
    /// Nothing; the next command may begin.
    Idle,
    /// An effect is out; its outcome is awaited.
    Out(Step),
    /// The batch, or the change of seats, goes on as soon as the shell polls.
    Ready(Step),
}

#[derive(Debug)]
enum Step {
    Load,
    Batch(Batch),
    React(ReactStep),
    Seats(SeatStep),
}

impl Home {
    /// The home of `log`, which knows nothing of it yet.
    #[must_use]
    pub fn new(log: LogId, scope: Scope) -> Self {
        Self {
            log,
            scope,
            head: None,
            details: Details::default(),
            window: Window::default(),
            roster: Roster::default(),
            pace: Pace::default(),
            queue: Queue::default(),
            reactions: Reactions::default(),
            gate: Gate::default(),
            flight: Flight::Idle,
            replies: VecDeque::new(),
            unfinished: Vec::new(),
            unknown: 0,
            may_owe_fanout: false,
        }
    }

    /// Takes a command; the answer is an [`Effect::Reply`] with the same ticket.
    pub fn handle_command(&mut self, ticket: Ticket, command: Command, now: Now) {
        if let Command::Send { origin: Some(origin), key, .. } = &command
            && let Err(error) = self.gate.check(*origin, key.client_msg_id, now)
        {
            return self.reply(ticket, Reply::Refused(error));
        }
        if let Command::React(request) = command {
            if let Err(error) = self.reactions.push(ticket, request) {
                self.reply(ticket, Reply::Refused(error));
            }
            return;
        }
        let waiting = Waiting::since(ticket, command, now);
        match self.queue.check_room(&waiting) {
            Ok(()) => self.queue.push_back(waiting),
            Err(error) => self.refuse([waiting], &error, now),
        }
    }

    /// Forgets what is known of members, blocks and who may write; the next command looks again.
    pub fn forget_members(&mut self) {
        self.roster.forget();
    }

    /// Whether nothing waits and nothing is under way.
    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        let has_work = !self.queue.is_empty() || !self.replies.is_empty() || !self.unfinished.is_empty();
        !has_work && self.reactions.is_empty() && matches!(self.flight, Flight::Idle)
    }

    /// How long until there is something to do though nothing comes: reactions wait for their pace. `None` if there is
    /// nothing, or the outcome of an effect is awaited.
    #[must_use]
    pub fn due_in(&self, now: Now) -> Option<Duration> {
        matches!(self.flight, Flight::Idle).then(|| self.reactions.due_in(now)).flatten()
    }

    /// The next effect, or `None` while one of the store is out or nothing is left to do.
    pub fn poll(&mut self, now: Now, ids: &Snowflakes) -> Option<Effect> {
        loop {
            if let Some(reply) = self.replies.pop_front() {
                return Some(reply);
            }
            match std::mem::replace(&mut self.flight, Flight::Idle) {
                Flight::Out(step) => {
                    self.flight = Flight::Out(step);
                    return None;
                }
                Flight::Ready(step) => {
                    if let Some(effect) = self.advance(step, now, ids) {
                        return Some(effect);
                    }
                }
                Flight::Idle => match self.next_step(now) {
                    Some(step) => self.flight = Flight::Ready(step),
                    None if self.replies.is_empty() => return None,
                    None => {}
                },
            }
        }
    }

    fn next_step(&mut self, now: Now) -> Option<Step> {
        self.roster.begin_step();
        self.fail_late(now);
        if !self.unfinished.is_empty() {
            let members = std::mem::take(&mut self.unfinished);
            let founder =
                if self.head.is_some_and(|head| head.seq == Seq::ZERO) { self.created_by() } else { None };
            return Some(Step::Seats(SeatStep::finish(members, founder)));
        }
        if let Some(step) = self.reactions.take_due(now, !self.queue.is_empty()) {
            return Some(Step::React(step));
        }
        Some(match self.queue.next_turn()? {
            Turn::Talk => Step::Batch(Batch::take(&mut self.queue)),
            Turn::Seats => Step::Seats(SeatStep::take(&mut self.queue)),
        })
    }

    fn advance(&mut self, step: Step, now: Now, ids: &Snowflakes) -> Option<Effect> {
        let Some(head) = self.head else {
            // Loading comes first; the step waits in front of it as commands that were not begun.
            self.give_back(step);
            self.flight = Flight::Out(Step::Load);
            return Some(Effect::Load { log: self.log, rows: WINDOW_ROWS });
        };
        match step {
            Step::Load => None,
            Step::Batch(batch) => self.advance_batch(batch, head, now, ids),
            Step::React(step) => self.advance_reactions(step, head, now, ids),
            Step::Seats(step) => self.advance_seats(step, head, now, ids),
        }
    }

    /// What is known may be wrong: load, and begin the step again at *check*. What of it is there already is found.
    fn begin_again(&mut self, step: Step) {
        self.head = None;
        self.flight = Flight::Ready(step);
    }

    /// As [`Self::begin_again`], but not for ever.
    fn handle_unknown(&mut self, step: Step, error: &ErrorBody, now: Now) {
        self.head = None;
        self.may_owe_fanout = true;
        self.unknown += 1;
        if self.unknown < UNKNOWN_IN_A_ROW {
            self.begin_again(step);
        } else {
            self.unknown = 0;
            self.fail_step(step, error, now);
        }
    }

    const fn created_by(&self) -> Option<UserId> {
        match self.scope {
            Scope::Channel { created_by, .. } => Some(created_by),
            Scope::User => None,
        }
    }

    fn give_back(&mut self, step: Step) {
        match step {
            Step::Load => {}
            Step::Batch(batch) => batch.give_back(&mut self.queue),
            Step::React(step) => self.give_back_reactions(step),
            // What was found half-way is found again by the load that follows.
            Step::Seats(step) => {
                step.into_waiting().into_iter().rev().for_each(|waiting| self.queue.push_front(waiting))
            }
        }
    }

    fn reply(&mut self, ticket: Ticket, reply: Reply) {
        self.replies.push_back(Effect::Reply { ticket, reply });
    }

    /// The log was read.
    pub fn handle_loaded(&mut self, loaded: Result<Loaded, Failure>, now: Now) {
        let Flight::Out(Step::Load) = std::mem::replace(&mut self.flight, Flight::Idle) else { return };
        match loaded {
            Ok(Loaded { tail, seats, pending, details }) => {
                self.window.load(&tail);
                self.head = Some(tail.head);
                self.details = details;
                self.pace.note(&tail.rows, &self.details, now);
                self.roster.forget();
                self.roster.seats = seats;
                self.unfinished = pending.into_iter().map(|member| told_by(&tail, member)).collect();
                // In the order in which they were to be told, so that no place is below the planned one.
                self.unfinished.sort_by_key(|(member, _)| member.as_of());
                self.answer_attempts(&tail);
                if std::mem::take(&mut self.may_owe_fanout) && tail.head.seq > Seq::ZERO {
                    self.redrive(tail.head.seq);
                }
            }
            Err(failure) => self.fail_all(&failure.error(), now),
        }
    }

    /// Notes whose append had an unknown outcome are answered if their rows are there. To hide
    /// one, other homes would have to append a window of rows to one user's own log within one unknown outcome; it
    /// would then be told twice, not lost. Changes of seats do not rely on this: who appends behind an entry that
    /// tells of a member settles her first.
    fn answer_attempts(&mut self, tail: &Tail) {
        for mut waiting in self.queue.take() {
            match waiting.attempt.take().filter(|attempt| tail.rows.iter().any(|row| is_same(row, attempt))) {
                Some(row) => self.reply(waiting.ticket, Reply::Noted { seq: row.entry.seq }),
                None => self.queue.push_back(waiting),
            }
        }
    }

    /// Members were looked up.
    pub fn handle_found(&mut self, found: Result<Found, Failure>, now: Now) {
        let Flight::Out(step) = std::mem::replace(&mut self.flight, Flight::Idle) else { return };
        match found {
            Ok(found) if self.is_ahead(&found) => self.begin_again(step),
            Ok(found) => {
                self.roster.learn(found, now);
                self.flight = Flight::Ready(step);
            }
            Err(failure) => self.fail_step(step, &failure.error(), now),
        }
    }

    /// Whether somebody was found half-way, whom who finds her finishes first; or as she is behind the head that we
    /// know, since seats and log are not read at once.
    fn is_ahead(&self, found: &Found) -> bool {
        let head = self.head.map(|head| head.seq);
        found
            .members
            .iter()
            .flat_map(|(_, member)| member)
            .any(|member| member.pending.is_some() || member.spans.edge() > head)
    }

    /// Recorded sends of those who may not speak were looked up.
    pub fn handle_sends(&mut self, sends: Result<Vec<Option<SendRecord>>, Failure>, now: Now) {
        let Flight::Out(step) = std::mem::replace(&mut self.flight, Flight::Idle) else { return };
        match (sends, step) {
            (Ok(sends), Step::Batch(mut batch)) => {
                self.answer_refused(&mut batch, sends);
                self.flight = Flight::Ready(Step::Batch(batch));
            }
            (Err(failure), step) => self.fail_step(step, &failure.error(), now),
            (Ok(_), step) => self.flight = Flight::Ready(step),
        }
    }

    /// Single rows were read, in the order asked for.
    pub fn handle_rows(&mut self, rows: Result<Vec<(Seq, Option<Row>)>, Failure>, now: Now) {
        let Flight::Out(step) = std::mem::replace(&mut self.flight, Flight::Idle) else { return };
        match (rows, step) {
            (Ok(rows), Step::Batch(mut batch)) => {
                batch.targets = Some(rows.into_iter().collect());
                self.flight = Flight::Ready(Step::Batch(batch));
            }
            (Ok(rows), Step::React(mut step)) => {
                self.take_messages(&mut step, &rows.into_iter().collect());
                self.flight = Flight::Ready(Step::React(step));
            }
            (Ok(_), step) => self.flight = Flight::Ready(step),
            (Err(failure), step) => self.fail_step(step, &failure.error(), now),
        }
    }

    /// An append came back.
    pub fn handle_appended(&mut self, outcome: Result<AppendOutcome, Failure>, now: Now) {
        let Flight::Out(step) = std::mem::replace(&mut self.flight, Flight::Idle) else { return };
        match outcome {
            Ok(AppendOutcome::Appended) => {
                self.unknown = 0;
                self.finish_append(step, now);
            }
            Ok(AppendOutcome::SentBefore(sent)) => {
                self.unknown = 0;
                match step {
                    Step::Batch(batch) => self.learn_sent(batch, &sent),
                    step => self.begin_again(step),
                }
            }
            // Somebody else appended: the tail tells what.
            Ok(AppendOutcome::Moved { .. } | AppendOutcome::Stale { .. }) => self.begin_again(step),
            Err(Failure::Unknown(error)) => self.handle_unknown(step, &error, now),
            Err(Failure::Unavailable(error)) => self.fail_step(step, &error, now),
        }
    }

    /// A change of seats came back.
    pub fn handle_seated(&mut self, outcome: Result<SeatOutcome, Failure>, now: Now) {
        let Flight::Out(step) = std::mem::replace(&mut self.flight, Flight::Idle) else { return };
        let Step::Seats(mut step) = step else { return };
        match outcome {
            Ok(SeatOutcome::Changed(seats)) => {
                self.roster.seats = seats;
                self.answer_unchanged(&mut step);
                self.flight = Flight::Ready(Step::Seats(step.seated()));
            }
            // Somebody else changed them, and may have died half-way.
            Ok(SeatOutcome::Moved(_)) => self.begin_again(Step::Seats(step)),
            Err(Failure::Unknown(error)) => self.handle_unknown(Step::Seats(step.tried()), &error, now),
            Err(Failure::Unavailable(error)) => self.fail_step(Step::Seats(step), &error, now),
        }
    }

    /// Members were settled, and their own logs told them.
    pub fn handle_settled(&mut self, settled: Result<(), Failure>, now: Now) {
        let Flight::Out(Step::Seats(step)) = std::mem::replace(&mut self.flight, Flight::Idle) else {
            return;
        };
        match settled {
            Ok(()) => self.finish_seats(step),
            Err(failure) => self.fail_step(Step::Seats(step), &failure.error(), now),
        }
    }

    fn finish_append(&mut self, step: Step, now: Now) {
        match step {
            Step::Batch(batch) => self.finish_batch(batch, now),
            Step::React(step) => self.finish_reactions(step, now),
            Step::Seats(step) => self.finish_seat_rows(step, now),
            Step::Load => {}
        }
    }

    fn role_of(&self, user: UserId) -> Option<Role> {
        self.roster.role(user)
    }

    fn fanout(&mut self, rows: Arc<[Row]>) {
        self.replies.push_back(Effect::Fanout { log: self.log, rows });
    }

    fn redrive(&mut self, seq: Seq) {
        self.replies.push_back(Effect::Redrive { log: self.log, seq });
    }
}

/// Whether a row found in the log is the one that was to be appended.
fn is_same(found: &Row, attempt: &Row) -> bool {
    let json = |row: &Row| serde_json::to_string(&row.entry).ok();
    found.entry.seq == attempt.entry.seq && found.entry.at == attempt.entry.at && json(found) == json(attempt)
}

#[cfg(test)]
mod tests;
