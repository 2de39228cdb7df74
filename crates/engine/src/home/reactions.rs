//! Reactions: those to one message that come within a second share one entry.
//!
//! The set of reactions is changed first, then the message's row, then the entry is appended. A crash may come in between, or another
//! home may append first. The next reaction finds the row behind the set, or no entry about the row among the last ones, and does
//! what is missing.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use madang_ids::{Seq, Snowflakes, UserId};
use madang_proto::{
    ChannelKind, Content, Entry, ErrorBody, ErrorCode, Message, ReactedState, Reaction, ReactionsChange,
    limits,
};

use crate::body;
use crate::home::command::{Command, Effect, Failure, ReactRequest, Reply, Ticket};
use crate::home::queue::{QUEUE_COMMANDS, Waiting};
use crate::home::{FIND_BYTES, Flight, Home, Scope, Step};
use crate::log::{Append, Head, MAX_APPEND_BYTES, ReactionChange, Row, RowChange};
use crate::now::Now;

/// The shortest time between two entries about the reactions to one message.
const PACE: Duration = Duration::from_secs(1);
/// Messages whose reactions are changed in one step.
const TARGETS: usize = 64;

/// Reactions that wait, by message.
#[derive(Debug, Default)]
pub(super) struct Reactions {
    waiting: BTreeMap<Seq, Vec<WaitingReaction>>,
    count: usize,
    /// The steady times of the entries that were appended within the last second, by message.
    appended: HashMap<Seq, Duration>,
    /// The next step is one of the queue if anything waits there, so that reactions never hold up messages.
    is_others_turn: bool,
}

#[derive(Debug)]
pub(super) struct WaitingReaction {
    ticket: Ticket,
    request: ReactRequest,
}

impl Reactions {
    pub(super) fn push(&mut self, ticket: Ticket, request: ReactRequest) -> Result<(), ErrorBody> {
        if self.count >= QUEUE_COMMANDS {
            let message = format!("the queue of this channel is full: {QUEUE_COMMANDS} reactions");
            return Err(ErrorBody::unavailable(message, 500));
        }
        self.count += 1;
        self.waiting.entry(request.target).or_default().push(WaitingReaction { ticket, request });
        Ok(())
    }

    #[cfg(test)]
    pub(super) const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Time until the next step; `None` while nothing waits.
    pub(super) fn due_in(&self, now: Now) -> Option<Duration> {
        self.waiting.keys().map(|target| self.left(*target, now)).min()
    }

    fn left(&self, target: Seq, now: Now) -> Duration {
        let passed = |at: &Duration| now.elapsed.saturating_sub(*at);
        self.appended.get(&target).map_or(Duration::ZERO, |at| PACE.saturating_sub(passed(at)))
    }

    /// The reactions that are due, unless it is the turn of the queue and something waits there.
    pub(super) fn take_due(&mut self, now: Now, others_wait: bool) -> Option<ReactStep> {
        if std::mem::take(&mut self.is_others_turn) && others_wait {
            return None;
        }
        let due: Vec<Seq> = self
            .waiting
            .keys()
            .copied()
            .filter(|target| self.left(*target, now).is_zero())
            .take(TARGETS)
            .collect();
        if due.is_empty() {
            return None;
        }
        self.is_others_turn = true;
        let asked: BTreeMap<Seq, Vec<WaitingReaction>> =
            due.into_iter().filter_map(|target| self.waiting.remove_entry(&target)).collect();
        self.count -= asked.values().map(Vec::len).sum::<usize>();
        Some(ReactStep { asked, ..ReactStep::default() })
    }

    fn give_back(&mut self, asked: BTreeMap<Seq, Vec<WaitingReaction>>) {
        for (target, mut first) in asked {
            self.count += first.len();
            let waiting = self.waiting.entry(target).or_default();
            first.append(waiting);
            *waiting = first;
        }
    }

    fn note(&mut self, targets: impl Iterator<Item = Seq>, now: Now) {
        self.appended.retain(|_, at| now.elapsed.saturating_sub(*at) < PACE);
        self.appended.extend(targets.map(|target| (target, now.elapsed)));
    }

    /// Takes everything that waits.
    pub(super) fn take_all(&mut self) -> ReactStep {
        self.count = 0;
        ReactStep { asked: std::mem::take(&mut self.waiting), ..ReactStep::default() }
    }
}

/// Reactions that are being carried out.
#[derive(Debug, Default)]
pub(super) struct ReactStep {
    asked: BTreeMap<Seq, Vec<WaitingReaction>>,
    /// The messages as they are in the store.
    messages: Option<BTreeMap<Seq, Message>>,
    /// The whole set of reactions to each message, once the sets are changed.
    reacted: Option<Vec<Vec<Reaction>>>,
    /// The rows that are out to be appended.
    rows: Option<Arc<[Row]>>,
    /// Bytes of each message that is written anew with the rows.
    anew_bytes: Vec<usize>,
}

impl ReactStep {
    fn take_reacted(&mut self, reacted: Vec<Vec<Reaction>>) {
        self.reacted = Some(reacted);
    }

    pub(super) fn into_waiting(self) -> Vec<Waiting> {
        let asked = self.asked.into_values().flatten();
        asked
            .map(|WaitingReaction { ticket, request }| Waiting::new(ticket, Command::React(request)))
            .collect()
    }

    pub(super) fn users(&self) -> impl Iterator<Item = UserId> + '_ {
        self.asked.values().flatten().map(|asked| asked.request.change.user_id)
    }

    fn changes(&self) -> Vec<(Seq, Vec<ReactionChange>)> {
        let of =
            |asked: &Vec<WaitingReaction>| asked.iter().map(|asked| asked.request.change.clone()).collect();
        self.asked.iter().map(|(target, asked)| (*target, of(asked))).collect()
    }
}

impl Home {
    /// The sets of reactions were changed: the whole set of each message, in the order of the effect. Repeating a change is
    /// harmless, so a change of unknown outcome begins again.
    pub fn handle_reacted(&mut self, reacted: Result<Vec<Vec<Reaction>>, Failure>, now: Now) {
        let Flight::Out(Step::React(mut step)) = std::mem::replace(&mut self.flight, Flight::Idle) else {
            return;
        };
        match reacted {
            Ok(reactions) => {
                step.take_reacted(reactions);
                self.flight = Flight::Ready(Step::React(step));
            }
            Err(Failure::Unknown(error)) => self.handle_unknown(Step::React(step), &error, now),
            Err(Failure::Unavailable(error)) => self.fail_step(Step::React(step), &error, now),
        }
    }

    pub(super) fn give_back_reactions(&mut self, step: ReactStep) {
        self.reactions.give_back(step.asked);
    }

    pub(super) fn advance_reactions(
        &mut self,
        mut step: ReactStep,
        head: Head,
        now: Now,
        ids: &Snowflakes,
    ) -> Option<Effect> {
        if let Some(reacted) = step.reacted.take() {
            return self.append_reactions(step, reacted, head, now, ids);
        }
        let Scope::Channel { kind, .. } = self.scope else { return None };
        let wants_between = kind == ChannelKind::Direct;
        if let Some(lookup) = self.members.missing(step.users(), wants_between, now) {
            self.flight = Flight::Out(Step::React(step));
            return Some(Effect::Find(lookup));
        }
        if step.messages.is_none() {
            // Also those beyond the head that this home knows: another one may have appended them, and a refusal moves no head.
            let seqs = step.asked.keys().copied().collect();
            self.flight = Flight::Out(Step::React(step));
            return Some(Effect::FindRows { seqs, max_bytes: FIND_BYTES });
        }
        self.check_reactions(&mut step, kind, now);
        if step.asked.is_empty() {
            return None;
        }
        let changes = step.changes();
        self.flight = Flight::Out(Step::React(step));
        Some(Effect::React { changes })
    }

    /// The messages were read. Those that do not fit into one append wait for the next one.
    pub(super) fn take_messages(&mut self, step: &mut ReactStep, rows: &HashMap<Seq, Option<Row>>) {
        let mut messages = BTreeMap::new();
        let (mut bytes, mut later) = (0, BTreeMap::new());
        for target in step.asked.keys().copied().collect::<Vec<_>>() {
            let found =
                rows.get(&target).and_then(Option::as_ref).and_then(|row| row.entry.content.message());
            let is_unread = !rows.contains_key(&target);
            let size = found.map_or(0, |message| body::json_bytes(&message.body) + REACTIONS_BYTES);
            if is_unread || (bytes + size > MAX_APPEND_BYTES && !messages.is_empty()) {
                later.extend(step.asked.remove_entry(&target));
                continue;
            }
            bytes += size;
            messages.extend(found.map(|message| (target, message.clone())));
        }
        self.reactions.give_back(later);
        step.messages = Some(messages);
    }

    /// Refuses users who may not react, and reactions to what is no message.
    fn check_reactions(&mut self, step: &mut ReactStep, kind: ChannelKind, now: Now) {
        for (target, asked) in std::mem::take(&mut step.asked) {
            let message = step.messages.as_ref().and_then(|messages| messages.get(&target));
            let mut room = Room::of(message);
            let mut kept = Vec::with_capacity(asked.len());
            for asked in asked {
                let change = &asked.request.change;
                let allowed = self.check_speaks(change.user_id, kind, now.at).and_then(|_| {
                    let may_read = |member: &crate::seats::Member| {
                        kind == ChannelKind::Open || member.spans.contains(target)
                    };
                    let is_readable = self.members.member(change.user_id).is_some_and(may_read);
                    check_target(target, message.filter(|_| is_readable))?;
                    room.check(change)
                });
                match allowed {
                    Ok(()) => kept.push(asked),
                    Err(error) => self.reply(asked.ticket, Reply::Refused(error)),
                }
            }
            if !kept.is_empty() {
                step.asked.insert(target, kept);
            }
        }
    }

    /// The sets were changed: rows that are behind them are brought up to date, each with an entry.
    fn append_reactions(
        &mut self,
        mut step: ReactStep,
        reacted: Vec<Vec<Reaction>>,
        head: Head,
        now: Now,
        ids: &Snowflakes,
    ) -> Option<Effect> {
        let at = ids.time(now.at, head.at.next());
        let (mut rows, mut changes): (Vec<Row>, Vec<RowChange>) = (Vec::new(), Vec::new());
        let mut messages = step.messages.take().unwrap_or_default();
        step.anew_bytes.clear();
        for ((target, asked), present) in std::mem::take(&mut step.asked).into_iter().zip(reacted) {
            let Some(mut message) = messages.remove(&target) else { continue };
            let present = in_order(&message.reactions, present);
            let if_version = message.version;
            let is_behind = present != message.reactions;
            if is_behind {
                (message.reactions, message.version) = (present, if_version + 1);
            } else if let Some(reply) = self.unchanged_by_reactions(target, &message) {
                for WaitingReaction { ticket, .. } in asked {
                    self.reply(ticket, reply.clone());
                }
                continue;
            }
            let by = asked.last().map_or(message.sender_id, |asked| asked.request.change.user_id);
            let state = ReactedState::of(&message).map(Box::new);
            let change = ReactionsChange { target, version: message.version, by, state };
            let content = Content::Message(Box::new(message));
            step.anew_bytes.push(if is_behind { body::entry_bytes(&content) } else { 0 });
            if is_behind {
                changes.push(RowChange { target, if_version, content });
            }
            let seq = head.seq.plus(rows.len() as u64 + 1);
            let entry = Entry { seq, at, content: Content::Reactions(change) };
            rows.push(Row { entry, ordinal: head.ordinal, key: None });
            step.asked.insert(target, asked);
        }
        if rows.is_empty() {
            return None;
        }
        let rows: Arc<[Row]> = rows.into();
        step.rows = Some(rows.clone());
        let records = self.window.leaving(rows.len());
        self.flight = Flight::Out(Step::React(step));
        Some(Effect::Append(Append { changes, records, ..Append::of(self.log, head, rows) }))
    }

    /// The answer for a message whose row has the set, unless the row was changed for its reactions and none of the last entries is
    /// about that. An entry that has left the window is appended again, which tells readers nothing new; a missing one would never
    /// reach them.
    fn unchanged_by_reactions(&self, target: Seq, message: &Message) -> Option<Reply> {
        let version = message.version;
        let seq = self.window.change_at(target, version);
        let is_of_edit = message.edited.is_some_and(|mark| mark.version == version);
        (seq.is_some() || version == 1 || is_of_edit).then_some(Reply::Changed {
            target,
            version,
            seq,
            caused_bytes: 0,
        })
    }

    pub(super) fn finish_reactions(&mut self, step: ReactStep, now: Now) {
        let Some(rows) = step.rows else { return };
        self.take_rows(&rows, now);
        self.reactions.note(step.asked.keys().copied(), now);
        for ((row, anew_bytes), (target, asked)) in rows.iter().zip(step.anew_bytes).zip(step.asked) {
            let version = row.entry.content.change().map_or(1, |change| change.version);
            // Reactions that share an entry share the bytes that it writes and sends.
            let caused_bytes = (body::entry_bytes(&row.entry.content) + anew_bytes) / asked.len().max(1);
            for WaitingReaction { ticket, .. } in asked {
                let seq = Some(row.entry.seq);
                self.reply(ticket, Reply::Changed { target, version, seq, caused_bytes });
            }
        }
        self.fanout(rows, &[]);
    }
}

/// The most that the reactions of a message take as JSON.
const REACTIONS_BYTES: usize = limits::REACTIONS * (limits::REACTION_USERS * 22 + limits::EMOJI_BYTES + 64);

fn check_target(target: Seq, message: Option<&Message>) -> Result<(), ErrorBody> {
    match message {
        Some(message) if message.deleted.is_some() => Err(ErrorBody::forbidden("the message is deleted")),
        Some(_) => Ok(()),
        None => {
            let error = format!("seq {target} is not a message of this channel that you may read");
            Err(ErrorBody::field(ErrorCode::NotFound, "seq", error))
        }
    }
}

/// Which different reactions a message has, and whether it takes more.
struct Room<'a> {
    known: HashSet<&'a str>,
    new: HashSet<String>,
}

impl<'a> Room<'a> {
    fn of(message: Option<&'a Message>) -> Self {
        let reactions = message.into_iter().flat_map(|message| &message.reactions);
        Self { known: reactions.map(|reaction| reaction.emoji.as_str()).collect(), new: HashSet::new() }
    }

    fn check(&mut self, change: &ReactionChange) -> Result<(), ErrorBody> {
        if !change.on || self.known.contains(change.emoji.as_str()) {
            return Ok(());
        }
        if !self.new.contains(&change.emoji) && self.known.len() + self.new.len() >= limits::REACTIONS {
            let error = format!("the message has {} different reactions, the limit", limits::REACTIONS);
            return Err(ErrorBody::field(ErrorCode::Full, "emoji", error));
        }
        self.new.insert(change.emoji.clone());
        Ok(())
    }
}

/// The reactions that were there before in their order, then the new ones.
fn in_order(before: &[Reaction], mut present: Vec<Reaction>) -> Vec<Reaction> {
    let place = |reaction: &Reaction| {
        before.iter().position(|other| other.emoji == reaction.emoji).unwrap_or(before.len())
    };
    present.sort_by_key(place);
    present
}
