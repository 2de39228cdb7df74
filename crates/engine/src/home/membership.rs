//! Joins and leaves: take the seats by compare-and-set, let the log tell, then settle.
//!
//! Seats and log are different partitions, so a crash may leave a member *pending*: seated, but the log does not tell.
//! Whoever loads the log next finishes her before anything else.
//!
//! People who come and go by themselves are taken many at a time: each is checked and answered on its own, behind those
//! before it, and one change of seats, one append and one settlement serve them all.
//!
//! Live delivery learns of members from the log, reads learn of them from their spans: so a span that begins does so
//! with the append that tells of it, and one that ends does so with its row, however late these come.

use std::collections::HashSet;
use std::sync::Arc;

use madang_ids::{LogId, Seq, Snowflakes, UserId};
use madang_proto::rest::Restriction;
use madang_proto::{Content, Entry};

use crate::home::command::{Command, Effect, Reply, SeatRequest, Ticket};
use crate::home::plan::Plan;
use crate::home::queue::{Queue, Turn, Waiting};
use crate::home::{Flight, Home, Step};
use crate::log::{Append, Head, MAX_APPEND_ROWS, Row, Tail};
use crate::now::Now;
use crate::seats::{Member, PendingChange, SeatChange};

#[derive(Debug)]
pub(super) struct SeatStep {
    source: Source,
    phase: Phase,
    /// The members that change, as they are after it, until the log tells of them.
    members: Vec<Member>,
    /// What the log has still to tell of them.
    contents: Vec<Content>,
    rows: Option<Arc<[Row]>>,
    settling: Vec<Member>,
    settled: Vec<Member>,
}

/// Own joins and own leaves of one step: a page of the store's writes, and less than one append.
const OWN_CHANGES: usize = 100;

#[derive(Debug)]
enum Source {
    /// One request, or several own joins and own leaves of different people.
    Commands(Vec<Asked>),
    /// Found half-way when the log was loaded.
    Unfinished,
}

#[derive(Debug)]
struct Asked {
    ticket: Ticket,
    request: SeatRequest,
    tries: Tries,
    /// Of one that changes nothing; true once the changes before it have happened.
    reply: Option<Reply>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Plan,
    Tell,
    Settle,
}

/// What happened to a change of seats before it began again.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tries {
    /// Everything that is known was read since it was asked. A change is proved by the compare-and-set; nothing but
    /// this proves a refusal.
    is_fresh: bool,
    /// Seats may have been changed: what is as it was to be is told as its work.
    was_tried: bool,
}

impl SeatStep {
    /// Takes the request in front of the queue, and if somebody comes or goes by herself, others behind it who do so
    /// too. Those who were refused once already are not made to wait for those who were not.
    pub(super) fn take(queue: &mut Queue) -> Self {
        let (mut asked, mut users): (Vec<Asked>, HashSet<UserId>) = (Vec::new(), HashSet::new());
        while let Some(Waiting { command: Command::Seats(request), tries, .. }) = queue.front(Turn::Seats) {
            let own = request.own_change();
            let goes_along = |first: &Asked| {
                asked.len() < OWN_CHANGES
                    && own.is_some_and(|user| !users.contains(&user))
                    && tries.is_fresh == first.tries.is_fresh
            };
            if !asked.first().is_none_or(goes_along) {
                break;
            }
            let Some(Waiting { ticket, command: Command::Seats(request), tries, .. }) =
                queue.pop_front(Turn::Seats)
            else {
                break;
            };
            asked.push(Asked { ticket, request, tries, reply: None });
            users.extend(own);
            if own.is_none() {
                break;
            }
        }
        Self::begin(Source::Commands(asked), Phase::Plan)
    }

    const fn begin(source: Source, phase: Phase) -> Self {
        Self {
            source,
            phase,
            members: Vec::new(),
            contents: Vec::new(),
            rows: None,
            settling: Vec::new(),
            settled: Vec::new(),
        }
    }

    /// Finishes members that were found half-way; the flag says of whom the log tells already.
    pub(super) fn finish(unfinished: Vec<(Member, bool)>, founder: Option<UserId>) -> Self {
        let mut step = Self::begin(Source::Unfinished, Phase::Tell);
        step.contents.extend(founder.map(|by| Content::Created { by }));
        for (member, is_told) in unfinished {
            step.contents.extend(member.pending_content().filter(|_| !is_told));
            step.members.push(member);
        }
        step
    }

    pub(super) fn seated(self) -> Self {
        Self { phase: Phase::Tell, ..self }.tried()
    }

    /// Seats may have been changed.
    pub(super) fn tried(mut self) -> Self {
        if let Source::Commands(asked) = &mut self.source {
            asked.iter_mut().for_each(|asked| asked.tries.was_tried = true);
        }
        self
    }

    /// Whether seats were changed of which the log does not tell yet.
    pub(super) fn is_half_way(&self) -> bool {
        self.phase != Phase::Plan
    }

    /// The commands as they were asked; none if the step finishes what was found half-way.
    pub(super) fn into_waiting(self) -> Vec<Waiting> {
        let Source::Commands(asked) = self.source else { return Vec::new() };
        let waiting = |Asked { ticket, request, tries, .. }| Waiting {
            tries,
            ..Waiting::new(ticket, Command::Seats(request))
        };
        asked.into_iter().map(waiting).collect()
    }

    /// Takes those who are answered already: what they were refused for has happened.
    pub(super) fn take_unchanged(&mut self) -> Vec<(Ticket, Reply)> {
        let Source::Commands(asked) = &mut self.source else { return Vec::new() };
        let unchanged = asked.extract_if(.., |asked| asked.reply.is_some());
        unchanged.filter_map(|asked| Some((asked.ticket, asked.reply?))).collect()
    }
}

/// A member who was found half-way, with the span that the log gives her, and whether it tells of her.
///
/// If the last rows do not, none does: members are settled after each append that tells of some, and who appends
/// behind a row that tells of a member loaded the log after it, and finished her before anything else.
pub(super) fn told_by(tail: &Tail, mut member: Member) -> (Member, bool) {
    if !member.is_half_way() {
        return (member, true);
    }
    let Some(row) = tail.rows.iter().rfind(|row| tells(row, &member)) else { return (member, false) };
    if !member.is_moving() {
        return (member, true);
    }
    member.spans.extend_until(row.entry.seq);
    // Rows of one append share their time, and only they do. If they reach beyond what was read, the plan holds.
    let first = tail.rows.iter().position(|other| other.entry.at == row.entry.at);
    if let Some(first) = first.filter(|&first| first > 0) {
        member.spans.begin_later(tail.rows[first].entry.seq);
    }
    (member, true)
}

/// Whether a row tells what is pending of a member.
fn tells(row: &Row, member: &Member) -> bool {
    let Some(pending) = member.pending.filter(|pending| row.entry.seq >= pending.place) else { return false };
    subject(&row.entry.content) == Some(member.user_id)
        && match row.entry.content {
            Content::RoleChanged { role, .. } => pending.change == PendingChange::Role && role == member.role,
            Content::Joined { .. } => pending.change == PendingChange::Seat && member.spans.is_open(),
            Content::Left { .. } => pending.change == PendingChange::Seat && !member.spans.is_open(),
            Content::Muted { until, .. } => {
                pending.change == PendingChange::Mute && member.muted == Some(Restriction { until })
            }
            Content::Unmuted { .. } => pending.change == PendingChange::Mute && member.muted.is_none(),
            Content::Banned { until, .. } => {
                pending.change == PendingChange::Ban && member.banned == Some(Restriction { until })
            }
            Content::Unbanned { .. } => pending.change == PendingChange::Ban && member.banned.is_none(),
            _ => false,
        }
}

impl SeatStep {
    /// The members of whom the log tells.
    fn take_told(&mut self) -> Vec<Member> {
        let untold: HashSet<UserId> = self.contents.iter().filter_map(subject).collect();
        let is_untold = |member: &Member| untold.contains(&member.user_id);
        let (untold, told) = std::mem::take(&mut self.members).into_iter().partition(is_untold);
        self.members = untold;
        told
    }

    /// What was told later than planned: who came reads from the append that told of it, who left up to her row.
    fn fit_spans(&mut self, rows: &[Row]) {
        let Some(first) = rows.first().map(|row| row.entry.seq) else { return };
        for row in rows {
            let told = subject(&row.entry.content);
            let member = self.members.iter_mut().find(|member| Some(member.user_id) == told);
            if let Some(member) = member.filter(|member| member.is_moving()) {
                member.spans.begin_later(first);
                member.spans.extend_until(row.entry.seq);
            }
        }
    }
}

/// The member of whom an entry tells.
const fn subject(content: &Content) -> Option<UserId> {
    match content {
        Content::Joined { user_id, .. }
        | Content::Left { user_id, .. }
        | Content::RoleChanged { user_id, .. }
        | Content::Muted { user_id, .. }
        | Content::Unmuted { user_id, .. }
        | Content::Banned { user_id, .. }
        | Content::Unbanned { user_id, .. } => Some(*user_id),
        _ => None,
    }
}

impl Home {
    pub(super) fn advance_seats(
        &mut self,
        mut step: SeatStep,
        head: Head,
        now: Now,
        ids: &Snowflakes,
    ) -> Option<Effect> {
        match step.phase {
            Phase::Plan => self.plan_seats(step, head, now),
            Phase::Tell if step.contents.is_empty() => {
                step.phase = Phase::Settle;
                self.flight = Flight::Ready(Step::Seats(step));
                None
            }
            Phase::Tell => {
                let next = &step.contents[..step.contents.len().min(MAX_APPEND_ROWS)];
                let rows = rows_of(next, head, now, ids);
                step.rows = Some(rows.clone());
                let records = self.window.leaving(rows.len());
                self.flight = Flight::Out(Step::Seats(step));
                Some(Effect::Append(Append { records, ..Append::of(self.log, head, rows) }))
            }
            Phase::Settle => {
                step.settling = step.take_told();
                let members = step.settling.clone();
                self.flight = Flight::Out(Step::Seats(step));
                Some(Effect::Settle { members })
            }
        }
    }

    fn plan_seats(&mut self, mut step: SeatStep, head: Head, now: Now) -> Option<Effect> {
        let (Source::Commands(asked), LogId::Channel(channel)) = (&mut step.source, self.log) else {
            return None;
        };
        let users = asked.iter().flat_map(|asked| asked.request.users());
        if let Some(lookup) = self.roster.missing(users, false, now) {
            self.flight = Flight::Out(Step::Seats(step));
            return Some(Effect::Find(lookup));
        }
        let Plan { members, contents, count } = self.plan(asked, head, now);
        if asked.iter().any(|asked| asked.reply.is_some() && !asked.tries.is_fresh) {
            asked.iter_mut().for_each(|asked| asked.tries.is_fresh = true);
            self.begin_again(Step::Seats(step));
            return None;
        }
        if members.is_empty() {
            self.answer_unchanged(&mut step);
            return None;
        }
        let if_rev = self.roster.seats.rev;
        step.members.clone_from(&members);
        step.contents = contents;
        self.flight = Flight::Out(Step::Seats(step));
        Some(Effect::ChangeSeats(SeatChange { channel, if_rev, count, members }))
    }

    /// Answers those whose requests change nothing.
    pub(super) fn answer_unchanged(&mut self, step: &mut SeatStep) {
        for (ticket, reply) in step.take_unchanged() {
            self.reply(ticket, reply);
        }
    }

    /// *Check*, and what follows from it, of one request after the other. One that changes nothing gets its reply.
    fn plan(&self, asked: &mut [Asked], head: Head, now: Now) -> Plan {
        let count = self.roster.seats.count;
        let mut plan = Plan { members: Vec::new(), contents: Vec::new(), count };
        for Asked { request, tries, reply, .. } in asked {
            let before = (plan.members.len(), plan.contents.len(), plan.count);
            let outcome = self.plan_request(request, &mut plan, head, now.at);
            if outcome.is_ok() && plan.members.len() > before.0 {
                *reply = None;
                continue;
            }
            plan.members.truncate(before.0);
            plan.contents.truncate(before.1);
            plan.count = before.2;
            // What an earlier try has done may refuse this one: who left has no right to leave.
            let members = if tries.was_tried { self.as_asked(request) } else { Vec::new() };
            *reply = Some(match outcome {
                Err(error) if members.is_empty() => Reply::Refused(error),
                _ => Reply::Seated { members },
            });
        }
        plan
    }

    /// The log tells: those whom it tells of can be settled.
    pub(super) fn finish_seat_rows(&mut self, mut step: SeatStep, now: Now) {
        let Some(rows) = step.rows.take() else { return };
        self.take_rows(&rows, now);
        step.fit_spans(&rows);
        step.contents.drain(..rows.len());
        self.fanout(rows, &[]);
        step.phase = Phase::Settle;
        self.flight = Flight::Ready(Step::Seats(step));
    }

    /// Members are settled, except those whose own partitions could not be written; the log goes on to tell of the others.
    pub(super) fn finish_seats(&mut self, mut step: SeatStep, unsettled: &[UserId], now: Now) {
        for member in std::mem::take(&mut step.settling) {
            let member = if unsettled.contains(&member.user_id) {
                let member = member.told(true);
                self.unsettled.push(member.clone(), now);
                member
            } else {
                Member { pending: None, ..member }
            };
            self.roster.put(member.user_id, Some(member.clone()));
            step.settled.push(member);
        }
        if !step.contents.is_empty() {
            step.phase = Phase::Tell;
            self.flight = Flight::Ready(Step::Seats(step));
            return;
        }
        let Source::Commands(asked) = step.source else { return };
        for Asked { ticket, request, .. } in asked {
            let is_hers = |member: &&Member| request.own_change().is_none_or(|user| user == member.user_id);
            let members = step.settled.iter().filter(is_hers).cloned().collect();
            self.reply(ticket, Reply::Seated { members });
        }
    }
}

fn rows_of(contents: &[Content], head: Head, now: Now, ids: &Snowflakes) -> Arc<[Row]> {
    let at = ids.mint(now.at, head.at.next(), 1).at;
    let row = |(seq, content): (u64, &Content)| Row {
        entry: Entry { seq: Seq::new(seq), at, content: content.clone() },
        ordinal: head.ordinal,
        key: None,
    };
    (head.seq.get() + 1..).zip(contents).map(row).collect()
}
