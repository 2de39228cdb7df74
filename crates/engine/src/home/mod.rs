//! The home of one log: checks commands, mints, appends one batch at a time, answers.
//!
//! Pure: commands and the outcomes of effects go in, [`Effect`]s come out, time is a parameter. The shell carries out
//! one effect of the store at a time and hands its outcome back. The home may be wrong, late or one of two: the store's
//! compare-and-set on the head alone decides, and [`AppendOutcome::Moved`] sends a batch back to *check*.
//!
//! Modules: [`command`] holds requests, effects and replies; [`queue`] the waiting commands; [`failing`] refuses commands together
//! with those behind them; [`gate`] holds a connection back until its refused send is retried; [`window`] keeps the retry keys
//! of the last rows; [`member_cache`] knows who may write; [`pace`] is slow mode; [`backoff`] the pauses after `Moved`.
//! Steps: [`batch`] appends sends, notes and [`changes`] (edits, deletions, details), minted in [`draft`]; [`reactions`] and
//! [`membership`] (planned in [`plan`]) have steps of their own; [`outcomes`] continues a step with the store's answer. This
//! file orders the steps.

mod backoff;
mod batch;
mod changes;
mod command;
mod draft;
mod failing;
mod gate;
mod member_cache;
mod membership;
mod notes;
mod outcomes;
mod pace;
mod plan;
mod queue;
mod reactions;
mod unsettled;
mod window;

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use madang_ids::{LogId, Seq, Snowflakes, UserId};
use madang_proto::{ChannelKind, ErrorBody, Role};

pub use changes::deleted_channel;
pub use command::{
    ChangeRequest, Command, DetailChange, Effect, Failure, JoinRequest, Loaded, MessageChange, Origin,
    ReactRequest, Reply, RestrictRequest, RestrictionKind, SeatRequest, Sent, Ticket,
};
pub use member_cache::{Between, Found, Lookup};
pub use queue::{QUEUE_BYTES, QUEUE_COMMANDS, QUEUE_WAIT};

use crate::consequences::{Consequences, Deleted};
use crate::home::backoff::Backoff;
use crate::home::batch::Batch;
use crate::home::gate::Gate;
use crate::home::member_cache::MemberCache;
use crate::home::membership::SeatStep;
use crate::home::pace::Pace;
use crate::home::queue::{Queue, Turn, Waiting};
use crate::home::reactions::{ReactStep, Reactions};
use crate::home::unsettled::Unsettled;
use crate::home::window::Window;
use crate::log::{Details, Head, MAX_APPEND_BYTES, Row};
use crate::now::Now;
use crate::seats::Member;

/// Rows whose retry keys are in memory. The window is exact: if it is not, the head has moved and the append fails.
pub const WINDOW_ROWS: usize = 256;
/// Bytes of messages that a step reads to judge its commands; one message alone may be larger.
const FIND_BYTES: usize = 2 * MAX_APPEND_BYTES;
/// Unknown outcomes in a row after which a command is refused instead of tried again. The caller may retry; the retry key finds
/// what was done.
const UNKNOWN_IN_A_ROW: u32 = 4;

/// The properties of a log that never change. The shell passes them when it makes the home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// A user's own log: notes only.
    User,
    /// A channel.
    Channel {
        /// Direct, group or open.
        kind: ChannelKind,
        /// The most members.
        capacity: u32,
        /// The user who made the channel, and its first owner.
        created_by: UserId,
    },
}

/// The home of one log.
///
/// # How it is driven
/// There are three groups of methods. *Commands*, [`handle_command`](Home::handle_command) and
/// [`forget_members`](Home::forget_members), may be called at any time and do no work. *Outcomes*, the other `handle_*`, are
/// called once for each effect of the store, by the name of the effect; at most one such effect is out.
/// [`poll`](Home::poll) returns what is to be carried out next: call it after each command or outcome, until it returns `None`.
/// Then wait for a command, for the outcome of the effect that is out, or for [`due_in`](Home::due_in), whichever comes first. The
/// steady clock may stand still but must not go back.
///
/// Effects come in two classes. `Load`, `Find`, `FindSends`, `FindRows`, `React`, `Append`, `ChangeSeats` and `Settle` are
/// exclusive: carry them out one at a time. `Reply`, `Fanout`, `Redrive` and `Accept` have no outcome and hold up nothing: carry
/// out replies at once and in their order, fan-outs and redrives in their order and behind the replies, on a lane of their own.
/// A home that is dropped in the middle loses nothing that was acknowledged: the next one loads the log and finds what was done.
#[derive(Debug)]
pub struct Home {
    log: LogId,
    scope: Scope,
    /// `None` until the tail was read, and again after an append that did not happen as expected.
    head: Option<Head>,
    /// As of the head.
    details: Details,
    window: Window,
    members: MemberCache,
    pace: Pace,
    /// The slow mode of a hot channel; zero if it is not hot.
    hot_slow_mode_seconds: u32,
    queue: Queue,
    reactions: Reactions,
    gate: Gate,
    flight: Flight,
    backoff: Backoff,
    /// Effects without an outcome, which `poll` returns first.
    effects: VecDeque<Effect>,
    /// Members found half-way when the log was loaded, and whether the log has their entry. They are finished before any command.
    unfinished: Vec<(Member, bool)>,
    /// Members whose entry is in the log and whose own partitions could not be written.
    unsettled: Unsettled,
    /// Unknown outcomes since the last known one.
    unknown: u32,
    /// Rows may be durable whose fan-out or consequences were lost: those of a home that died before this one, and those of
    /// an append whose outcome was unknown.
    must_redrive: bool,
}

/// The one step that is under way.
#[derive(Debug)]
enum Flight {
    /// No step; the next command may begin.
    Idle,
    /// The effect of this step is out, and its outcome is awaited.
    Out(Step),
    /// The step continues at the next poll that is not within a back-off.
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
    /// The home of `log`, before anything of the log is loaded.
    #[must_use]
    pub fn new(log: LogId, scope: Scope) -> Self {
        Self {
            log,
            scope,
            head: None,
            details: Details::default(),
            window: Window::default(),
            members: MemberCache::default(),
            pace: Pace::default(),
            hot_slow_mode_seconds: 0,
            queue: Queue::default(),
            reactions: Reactions::default(),
            gate: Gate::default(),
            flight: Flight::Idle,
            backoff: Backoff::default(),
            effects: VecDeque::new(),
            unfinished: Vec::new(),
            unsettled: Unsettled::default(),
            unknown: 0,
            must_redrive: true,
        }
    }

    /// Enqueues a command, or refuses it; the answer is an [`Effect::Reply`] with the same ticket.
    pub fn handle_command(&mut self, ticket: Ticket, command: Command, now: Now) {
        if let Command::Send { origin: Some(origin), key, .. } = &command
            && let Err(error) = self.gate.check(*origin, key.client_msg_id, now)
        {
            return self.reply(ticket, Reply::Refused(error));
        }
        if matches!(self.flight, Flight::Out(Step::Load)) {
            self.members.handle_late_command();
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

    /// Slows members down, because the channel is hot: at least these seconds are between two messages of one. Zero: the channel's own
    /// slow mode alone holds.
    pub const fn slow_down(&mut self, seconds: u32) {
        self.hot_slow_mode_seconds = seconds;
    }

    fn slow_mode_seconds(&self) -> u32 {
        self.details.slow_mode_seconds.max(self.hot_slow_mode_seconds)
    }

    /// Drops what is cached of members, blocks and rules for writing; the next command looks them up again.
    pub fn forget_members(&mut self) {
        self.members.forget();
    }

    /// Whether no command waits and no step is under way.
    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        let has_work = !self.queue.is_empty() || !self.effects.is_empty() || !self.unfinished.is_empty();
        !has_work && self.reactions.is_empty() && matches!(self.flight, Flight::Idle)
    }

    /// Time until the next poll that has work although no command comes: reactions wait for their pace, unsettled members for
    /// their retry, and a step whose log moved for its pause. `None` if there is no work, or the outcome of an effect is awaited.
    #[must_use]
    pub fn due_in(&self, now: Now) -> Option<Duration> {
        match self.flight {
            Flight::Idle => self.reactions.due_in(now).into_iter().chain(self.unsettled.due_in(now)).min(),
            Flight::Ready(_) => Some(self.backoff.due_in(now)),
            Flight::Out(_) => None,
        }
    }

    /// The next effect, or `None` while one of the store is out or nothing is left to do.
    pub fn poll(&mut self, now: Now, ids: &Snowflakes) -> Option<Effect> {
        loop {
            if let Some(effect) = self.effects.pop_front() {
                return Some(effect);
            }
            match std::mem::replace(&mut self.flight, Flight::Idle) {
                Flight::Out(step) => {
                    self.flight = Flight::Out(step);
                    return None;
                }
                Flight::Ready(step) if !self.backoff.due_in(now).is_zero() => {
                    self.flight = Flight::Ready(step);
                    return None;
                }
                Flight::Ready(step) => {
                    if let Some(effect) = self.advance(step, now, ids) {
                        return Some(effect);
                    }
                }
                Flight::Idle => match self.next_step(now) {
                    Some(step) => self.flight = Flight::Ready(step),
                    None if self.effects.is_empty() => return None,
                    None => {}
                },
            }
        }
    }

    fn next_step(&mut self, now: Now) -> Option<Step> {
        self.members.begin_step();
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
        // Unsettled members come last. Their partitions may be unavailable for long, and a retry of them before the commands would
        // delay every command of the channel.
        Some(match self.queue.next_turn() {
            Some(Turn::Talk) => Step::Batch(Batch::take(&mut self.queue)),
            Some(Turn::Seats) => Step::Seats(SeatStep::take(&mut self.queue)),
            None => {
                let recorded = self.unsettled.take_due(now)?.into_iter().map(|member| (member, true));
                Step::Seats(SeatStep::finish(recorded.collect(), None))
            }
        })
    }

    fn advance(&mut self, mut step: Step, now: Now, ids: &Snowflakes) -> Option<Effect> {
        let Some(head) = self.head else {
            // Loading comes first. The step goes back to the front of the queue: what the load finds (a row of an append of unknown
            // outcome, members of another home) may answer its commands or change what they may do.
            let lookup = self.lookup_of(&step);
            if let Step::Seats(step) = &mut step {
                step.loading();
            }
            self.give_back(step);
            self.flight = Flight::Out(Step::Load);
            return Some(Effect::Load { log: self.log, rows: WINDOW_ROWS, lookup });
        };
        match step {
            Step::Load => None,
            Step::Batch(batch) => self.advance_batch(batch, head, now, ids),
            Step::React(step) => self.advance_reactions(step, head, now, ids),
            Step::Seats(step) => self.advance_seats(step, head, now, ids),
        }
    }

    /// What the commands of a step will have to look up. Of commands that ask for what only admins may, the step looks up again.
    fn lookup_of(&mut self, step: &Step) -> Lookup {
        let Scope::Channel { kind, .. } = self.scope else { return Lookup::default() };
        let is_direct = kind == ChannelKind::Direct;
        match step {
            Step::Load => Lookup::default(),
            Step::Batch(batch) => self.members.look_up_with_load(batch.actors(), is_direct),
            Step::React(step) => self.members.look_up_with_load(step.users(), is_direct),
            Step::Seats(step) => self.members.look_up_with_load(step.users(), false),
        }
    }

    /// The cached state may be wrong: load, and begin the step again at *check*. Retry keys, versions and notes find what an
    /// earlier attempt has done already.
    fn begin_again(&mut self, step: Step) {
        self.head = None;
        self.flight = Flight::Ready(step);
    }

    /// Another home appended first: as [`Self::begin_again`], with growing pauses and a bound.
    fn handle_moved(&mut self, mut step: Step, now: Now) {
        if let Step::Batch(batch) = &mut step {
            // The store has rejected these rows. Kept as an attempt, they could match an equal note that another home appended.
            batch.forget_rows();
        }
        if self.backoff.miss(now) {
            self.begin_again(step);
        } else {
            let error = ErrorBody::unavailable("other nodes write to this channel; try again", 1_000);
            self.head = None;
            self.fail_step(step, &error, now);
        }
    }

    /// As [`Self::begin_again`], at most [`UNKNOWN_IN_A_ROW`] times.
    fn handle_unknown(&mut self, step: Step, error: &ErrorBody, now: Now) {
        self.head = None;
        // The rows may be durable. If the load finds them, their commands are answered as retries, without a fan-out of their own.
        self.must_redrive = true;
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
            // A step that finishes members has no commands: the load that follows finds the members again.
            Step::Seats(step) => {
                step.into_waiting().into_iter().rev().for_each(|waiting| self.queue.push_front(waiting))
            }
        }
    }

    fn reply(&mut self, ticket: Ticket, reply: Reply) {
        // A step may end without an append, so an answer counts as progress too: the next miss is the first one of another step.
        self.backoff.clear();
        self.effects.push_back(Effect::Reply { ticket, reply });
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
        self.members.role(user)
    }

    /// Rows are durable and their commands are answered. `deleted` describes the messages that the rows delete.
    fn fanout(&mut self, rows: Arc<[Row]>, deleted: &[Deleted]) {
        let consequences = match self.log {
            LogId::Channel(_) => Consequences::of(&rows).knowing(deleted),
            LogId::User(_) => Consequences::default(),
        };
        self.effects.push_back(Effect::Fanout { log: self.log, rows, consequences });
    }

    fn redrive(&mut self, range: RangeInclusive<Seq>) {
        self.effects.push_back(Effect::Redrive { log: self.log, range });
    }
}

#[cfg(test)]
mod tests;
