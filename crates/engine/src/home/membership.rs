//! Joins and leaves: change the seats by compare-and-set, append the entries, then settle.
//!
//! Seats and log are different partitions, so a crash may leave a member *pending* (half-way): seated, without an entry in the log.
//! The home that loads the log next finishes the member before any command.
//!
//! Up to [`OWN_CHANGES`] users who join or leave by themselves share one step: each request is checked behind those before it and
//! answered separately; one change of seats, one append and one settlement serve all of them.
//!
//! Live delivery takes memberships from the log, reads take them from the spans. So that both agree, a span begins with the
//! append that has the entry, and ends with the row of the entry, also if the append comes later than planned.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

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
    phase: SeatPhase,
    /// The members that change, as they are after the change. A member is removed once its entry is appended.
    members: Vec<Member>,
    /// The entries that are not appended yet.
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
    Commands(Vec<SeatCommand>),
    /// No request: members that were found half-way when the log was loaded.
    Unfinished,
}

#[derive(Debug)]
struct SeatCommand {
    ticket: Ticket,
    request: SeatRequest,
    since: Option<Duration>,
    tries: Tries,
    /// The reply to a request that changes nothing. It is valid once the changes of the requests before it have happened.
    reply: Option<Reply>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SeatPhase {
    Plan,
    Append,
    Settle,
}

/// What happened to a change of seats before it began again.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tries {
    /// Members and seats were loaded after the request came. A change is verified by the compare-and-set; a refusal writes
    /// nothing, so only a fresh load verifies it.
    is_fresh: bool,
    /// An earlier attempt may have changed seats. Members who are already as requested are then reported as changed by it.
    was_tried: bool,
}

impl SeatStep {
    /// Takes the request in front of the queue. If a user joins or leaves alone, takes also the own joins and leaves of other
    /// users behind it. Requests whose refusal is already verified (`is_fresh`) and others are not mixed: one that is not fresh
    /// would send all of them back to a load.
    pub(super) fn take(queue: &mut Queue) -> Self {
        let (mut asked, mut users): (Vec<SeatCommand>, HashSet<UserId>) = (Vec::new(), HashSet::new());
        while let Some(Waiting { command: Command::Seats(request), tries, .. }) = queue.front(Turn::Seats) {
            let own = request.own_change();
            // One change for each user: the plan of a user's second request would have to begin from the first one's result.
            let goes_along = |first: &SeatCommand| {
                asked.len() < OWN_CHANGES
                    && own.is_some_and(|user| !users.contains(&user))
                    && tries.is_fresh == first.tries.is_fresh
            };
            if !asked.first().is_none_or(goes_along) {
                break;
            }
            let Some(Waiting { ticket, command: Command::Seats(request), since, tries, .. }) =
                queue.pop_front(Turn::Seats)
            else {
                break;
            };
            asked.push(SeatCommand { ticket, request, since, tries, reply: None });
            users.extend(own);
            if own.is_none() {
                break;
            }
        }
        Self::begin(Source::Commands(asked), SeatPhase::Plan)
    }

    const fn begin(source: Source, phase: SeatPhase) -> Self {
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

    /// Finishes members that were found half-way; the flag says whether the log has the member's entry.
    pub(super) fn finish(unfinished: Vec<(Member, bool)>, founder: Option<UserId>) -> Self {
        let mut step = Self::begin(Source::Unfinished, SeatPhase::Append);
        step.contents.extend(founder.map(|by| Content::Created { by }));
        for (member, has_entry) in unfinished {
            step.contents.extend(member.pending_content().filter(|_| !has_entry));
            step.members.push(member);
        }
        step
    }

    /// The seats are changed; the entries are next.
    pub(super) fn seated(self) -> Self {
        Self { phase: SeatPhase::Append, ..self }.tried()
    }

    /// Records that seats may have been changed.
    pub(super) fn tried(mut self) -> Self {
        if let Source::Commands(asked) = &mut self.source {
            asked.iter_mut().for_each(|asked| asked.tries.was_tried = true);
        }
        self
    }

    /// A load begins after the requests came.
    pub(super) fn loading(&mut self) {
        if let Source::Commands(asked) = &mut self.source {
            asked.iter_mut().for_each(|asked| asked.tries.is_fresh = true);
        }
    }

    /// Whether seats were changed that are not settled yet.
    pub(super) fn is_half_way(&self) -> bool {
        self.phase != SeatPhase::Plan
    }

    /// The users that the requests name, and those who sent them. Empty if the step finishes members that were found
    /// half-way.
    pub(super) fn users(&self) -> impl Iterator<Item = UserId> + '_ {
        let asked = match &self.source {
            Source::Commands(asked) => &asked[..],
            Source::Unfinished => &[],
        };
        asked.iter().flat_map(|asked| asked.request.users())
    }

    /// The commands as they were enqueued; none if the step finishes members that were found half-way.
    pub(super) fn into_waiting(self) -> Vec<Waiting> {
        let Source::Commands(asked) = self.source else { return Vec::new() };
        let waiting = |SeatCommand { ticket, request, since, tries, .. }| Waiting {
            since,
            tries,
            ..Waiting::new(ticket, Command::Seats(request))
        };
        asked.into_iter().map(waiting).collect()
    }

    /// Takes the requests that change nothing: the changes on which their replies depend have happened.
    pub(super) fn take_unchanged(&mut self) -> Vec<(Ticket, Reply)> {
        let Source::Commands(asked) = &mut self.source else { return Vec::new() };
        let unchanged = asked.extract_if(.., |asked| asked.reply.is_some());
        unchanged.filter_map(|asked| Some((asked.ticket, asked.reply?))).collect()
    }
}

/// A member that was found half-way, with the span according to the log, and whether the log has the member's entry.
///
/// If the entry is not in the tail, it is nowhere in the log. Members are settled, or marked as recorded, after each append with
/// entries about them, and a home that appends behind such an entry has loaded the log after it, and has done so first.
pub(super) fn recorded_by(tail: &Tail, mut member: Member) -> (Member, bool) {
    if !member.is_half_way() {
        return (member, true);
    }
    let Some(row) = tail.rows.iter().rfind(|row| is_entry_of(row, &member)) else { return (member, false) };
    if !member.is_moving() {
        return (member, true);
    }
    // Between the change of seats and the append another home may have appended, so the entry lies behind its planned place. A
    // planned end would hide rows that live delivery has sent to the member; a planned begin would show earlier rows.
    member.spans.extend_until(row.entry.seq);
    // A span begins with the first row of the append. Rows of one append share their time, and no other rows have it. If the append
    // begins before the tail, its first row is unknown, and the planned begin remains.
    let first = tail.rows.iter().position(|other| other.entry.at == row.entry.at);
    if let Some(first) = first.filter(|&first| first > 0) {
        member.spans.begin_later(tail.rows[first].entry.seq);
    }
    (member, true)
}

/// Whether a row is the entry of a member's pending change.
fn is_entry_of(row: &Row, member: &Member) -> bool {
    // A row before the planned place is about an earlier change: a user who left and joins again has an older equal entry.
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
    /// Takes the members whose entries are appended.
    fn take_recorded(&mut self) -> Vec<Member> {
        let waiting: HashSet<UserId> = self.contents.iter().filter_map(subject).collect();
        let is_waiting = |member: &Member| waiting.contains(&member.user_id);
        let (waiting, recorded) = std::mem::take(&mut self.members).into_iter().partition(is_waiting);
        self.members = waiting;
        recorded
    }

    /// Fits spans to an append that came later than planned: a new member reads from the first row of the append, a member who
    /// left reads up to the row of the entry.
    fn fit_spans(&mut self, rows: &[Row]) {
        let Some(first) = rows.first().map(|row| row.entry.seq) else { return };
        for row in rows {
            let concerned = subject(&row.entry.content);
            let member = self.members.iter_mut().find(|member| Some(member.user_id) == concerned);
            if let Some(member) = member.filter(|member| member.is_moving()) {
                member.spans.begin_later(first);
                member.spans.extend_until(row.entry.seq);
            }
        }
    }
}

/// The member that an entry is about.
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
            SeatPhase::Plan => self.plan_seats(step, head, now),
            SeatPhase::Append if step.contents.is_empty() => {
                step.phase = SeatPhase::Settle;
                self.flight = Flight::Ready(Step::Seats(step));
                None
            }
            // A change with more entries than fit into one append repeats `Append` and `Settle`. Each append is settled before the
            // next one: `recorded_by` relies on it when another home takes over in between.
            SeatPhase::Append => {
                let next = &step.contents[..step.contents.len().min(MAX_APPEND_ROWS)];
                let rows = rows_of(next, head, now, ids);
                step.rows = Some(rows.clone());
                let records = self.window.leaving(rows.len());
                self.flight = Flight::Out(Step::Seats(step));
                Some(Effect::Append(Append { records, ..Append::of(self.log, head, rows) }))
            }
            SeatPhase::Settle => {
                step.settling = step.take_recorded();
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
        if let Some(lookup) = self.members.missing(users, false, now) {
            self.flight = Flight::Out(Step::Seats(step));
            return Some(Effect::Find(lookup));
        }
        let Plan { members, contents, count } = self.plan(asked, head, now);
        // A request that changes nothing writes nothing, so no compare-and-set shows that the cache is stale: another home may
        // have seated or unseated the user since. Load once before such a reply; the second time it is verified.
        if asked.iter().any(|asked| asked.reply.is_some() && !asked.tries.is_fresh) {
            self.begin_again(Step::Seats(step));
            return None;
        }
        if members.is_empty() {
            self.answer_unchanged(&mut step);
            return None;
        }
        let if_rev = self.members.seats.rev;
        step.members.clone_from(&members);
        step.contents = contents;
        self.flight = Flight::Out(Step::Seats(step));
        Some(Effect::ChangeSeats(SeatChange { channel, if_rev, count, members }))
    }

    /// Answers the requests that change nothing.
    pub(super) fn answer_unchanged(&mut self, step: &mut SeatStep) {
        for (ticket, reply) in step.take_unchanged() {
            self.reply(ticket, reply);
        }
    }

    /// Checks and plans one request after the other. A request that changes nothing gets its reply.
    fn plan(&self, asked: &mut [SeatCommand], head: Head, now: Now) -> Plan {
        let count = self.members.seats.count;
        let mut plan = Plan { members: Vec::new(), contents: Vec::new(), count };
        for SeatCommand { request, tries, reply, .. } in asked {
            let before = (plan.members.len(), plan.contents.len(), plan.count);
            let outcome = self.plan_request(request, &mut plan, head, now.at);
            if outcome.is_ok() && plan.members.len() > before.0 {
                *reply = None;
                continue;
            }
            // A refused request may have planned a part of its changes; the requests behind it must not see them.
            plan.members.truncate(before.0);
            plan.contents.truncate(before.1);
            plan.count = before.2;
            // An attempt of unknown outcome may have been done, and now refuses itself: a user who has left has no right to leave.
            // So a request that was tried and whose result is there is answered as done.
            let members = if tries.was_tried { self.as_asked(request) } else { Vec::new() };
            *reply = Some(match outcome {
                Err(error) if members.is_empty() => Reply::Refused(error),
                _ => Reply::Seated { members },
            });
        }
        plan
    }

    /// The entries are appended: their members can be settled.
    pub(super) fn finish_seat_rows(&mut self, mut step: SeatStep, now: Now) {
        let Some(rows) = step.rows.take() else { return };
        self.take_rows(&rows, now);
        step.fit_spans(&rows);
        step.contents.drain(..rows.len());
        // Before the settlement: a member's unavailable partition must not delay live delivery to the others.
        self.fanout(rows, &[]);
        step.phase = SeatPhase::Settle;
        self.flight = Flight::Ready(Step::Seats(step));
    }

    /// Members are settled, except those whose own partitions could not be written. The rest of the entries follows.
    pub(super) fn finish_seats(&mut self, mut step: SeatStep, unsettled: &[UserId], now: Now) {
        for member in std::mem::take(&mut step.settling) {
            let member = if unsettled.contains(&member.user_id) {
                // Marked as appended, so that the next home does not append the entry again when it finds the member.
                let member = member.recorded(true);
                self.unsettled.push(member.clone(), now);
                member
            } else {
                Member { pending: None, ..member }
            };
            self.members.put(member.user_id, Some(member.clone()));
            step.settled.push(member);
        }
        if !step.contents.is_empty() {
            step.phase = SeatPhase::Append;
            self.flight = Flight::Ready(Step::Seats(step));
            return;
        }
        let Source::Commands(asked) = step.source else { return };
        for SeatCommand { ticket, request, .. } in asked {
            let concerns = |member: &&Member| request.own_change().is_none_or(|user| user == member.user_id);
            let members = step.settled.iter().filter(concerns).cloned().collect();
            self.reply(ticket, Reply::Seated { members });
        }
    }
}

fn rows_of(contents: &[Content], head: Head, now: Now, ids: &Snowflakes) -> Arc<[Row]> {
    let at = ids.time(now.at, head.at.next());
    let row = |(seq, content): (u64, &Content)| Row {
        entry: Entry { seq: Seq::new(seq), at, content: content.clone() },
        ordinal: head.ordinal,
        key: None,
    };
    (head.seq.get() + 1..).zip(contents).map(row).collect()
}
