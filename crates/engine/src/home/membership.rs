//! Joins and leaves: take the seats by compare-and-set, let the log tell, then settle.
//!
//! Seats and log are different partitions, so a crash may leave a member *pending*: seated, but the log does not tell.
//! Whoever loads the log next finishes her before anything else.
//!
//! Live delivery learns of members from the log, reads learn of them from their spans: so a span that begins does so
//! with the append that tells of it, and one that ends does so with its row, however late these come.

use std::collections::HashSet;
use std::sync::Arc;

use madang_ids::{LogId, Millis, Seq, Snowflakes, UserId};
use madang_proto::{ChannelKind, Content, Entry, ErrorBody, ErrorCode, Role};

use crate::home::command::{Command, Effect, Reply, SeatRequest, Ticket};
use crate::home::queue::Waiting;
use crate::home::{Flight, Home, Scope, Step};
use crate::log::{Append, Head, MAX_APPEND_ROWS, Row, Tail};
use crate::seats::{Member, Pending, SeatChange};
use crate::spans::Spans;

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

#[derive(Debug)]
enum Source {
    Command {
        ticket: Ticket,
        request: SeatRequest,
        tries: Tries,
    },
    /// Found half-way when the log was loaded.
    Unfinished,
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

/// A plan: the members after the change, what the log tells, and the count of seats.
struct Plan {
    members: Vec<Member>,
    contents: Vec<Content>,
    count: u32,
}

impl Plan {
    /// Where the log tells what is planned next.
    const fn next_place(&self, head: Head) -> Seq {
        head.seq.plus(self.contents.len() as u64 + 1)
    }

    /// A member as she is after the change, and the entry that tells it.
    fn add(&mut self, mut member: Member, by: UserId, head: Head, is_role: bool) {
        member.pending = Some(Pending { by, place: self.next_place(head), is_role });
        self.contents.extend(member.pending_content());
        self.members.push(member);
    }
}

impl SeatStep {
    pub(super) const fn new(ticket: Ticket, request: SeatRequest, tries: Tries) -> Self {
        Self::begin(Source::Command { ticket, request, tries }, Phase::Plan)
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
    pub(super) const fn tried(mut self) -> Self {
        if let Source::Command { tries, .. } = &mut self.source {
            tries.was_tried = true;
        }
        self
    }

    /// Whether seats were changed of which the log does not tell yet.
    pub(super) fn is_half_way(&self) -> bool {
        self.phase != Phase::Plan
    }

    /// The command as it was asked, or nothing if the step finishes what was found half-way.
    pub(super) fn into_waiting(self) -> Option<Waiting> {
        match self.source {
            Source::Command { ticket, request, tries } => {
                Some(Waiting { tries, ..Waiting::new(ticket, Command::Seats(request)) })
            }
            Source::Unfinished => None,
        }
    }
}

/// A member who was found half-way, with the span that the log gives her, and whether it tells of her.
///
/// If the last rows do not, none does: members are settled after each append that tells of some, and who appends
/// behind a row that tells of a member loaded the log after it, and finished her before anything else.
pub(super) fn told_by(tail: &Tail, mut member: Member) -> (Member, bool) {
    let Some(row) = tail.rows.iter().rfind(|row| tells(row, &member)) else { return (member, false) };
    if matches!(row.entry.content, Content::RoleChanged { .. }) {
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
            Content::RoleChanged { role, .. } => pending.is_role && role == member.role,
            Content::Joined { .. } => !pending.is_role && member.spans.is_open(),
            Content::Left { .. } => !pending.is_role && !member.spans.is_open(),
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
            if let Some(member) = member.filter(|member| member.pending.is_some_and(|it| !it.is_role)) {
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
        | Content::RoleChanged { user_id, .. } => Some(*user_id),
        _ => None,
    }
}

impl Home {
    pub(super) fn advance_seats(
        &mut self,
        mut step: SeatStep,
        head: Head,
        now: Millis,
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

    fn plan_seats(&mut self, mut step: SeatStep, head: Head, now: Millis) -> Option<Effect> {
        let (Source::Command { ticket, request, tries }, LogId::Channel(channel)) =
            (&mut step.source, self.log)
        else {
            return None;
        };
        let joins = request.joins.iter().map(|join| join.user_id);
        let users = joins.chain(request.leaves.iter().copied()).chain(request.promote).chain([request.by]);
        if let Some(lookup) = self.roster.missing(users, false, now) {
            self.flight = Flight::Out(Step::Seats(step));
            return Some(Effect::Find(lookup));
        }
        match self.plan(request, head, now) {
            Ok(plan) if !plan.members.is_empty() => {
                let Plan { members, contents, count } = plan;
                let if_rev = self.roster.seats.rev;
                step.members.clone_from(&members);
                step.contents = contents;
                self.flight = Flight::Out(Step::Seats(step));
                return Some(Effect::ChangeSeats(SeatChange { channel, if_rev, count, members }));
            }
            _ if !tries.is_fresh => {
                tries.is_fresh = true;
                self.begin_again(Step::Seats(step));
            }
            outcome => {
                // What an earlier try has done may refuse this one: who left has no right to leave.
                let members = if tries.was_tried { self.as_asked(request) } else { Vec::new() };
                let reply = match outcome {
                    Err(error) if members.is_empty() => Reply::Refused(error),
                    _ => Reply::Seated { members },
                };
                self.reply(*ticket, reply);
            }
        }
        None
    }

    /// The members who are as the request wants them.
    fn as_asked(&self, request: &SeatRequest) -> Vec<Member> {
        let came = request.joins.iter().map(|join| (join.user_id, true));
        let asked = came.chain(request.leaves.iter().map(|&user| (user, false)));
        let is_so =
            |(user, is_open)| self.roster.member(user).filter(|member| member.spans.is_open() == is_open);
        asked.filter_map(is_so).cloned().collect()
    }

    /// *Check*, and what follows from it. Changes nothing.
    fn plan(&self, request: &SeatRequest, head: Head, now: Millis) -> Result<Plan, ErrorBody> {
        let Scope::Channel { kind, capacity, created_by } = self.scope else {
            return Err(ErrorBody::not_found("channel_id"));
        };
        self.check_right(request, kind)?;
        let mut plan = Plan { members: Vec::new(), contents: Vec::new(), count: self.roster.seats.count };
        if head.seq == Seq::ZERO {
            plan.contents.push(Content::Created { by: created_by });
        }
        for join in &request.joins {
            let is_planned = plan.members.iter().any(|member| member.user_id == join.user_id);
            if self.role_of(join.user_id).is_some() || is_planned {
                continue;
            }
            let mut spans =
                self.roster.member(join.user_id).map_or_else(Spans::default, |was| was.spans.clone());
            // Everybody who comes in one append sees it whole.
            let told_before = plan.contents.len() - plan.contents.len() % MAX_APPEND_ROWS;
            spans.open(head.seq.plus(told_before as u64 + 1));
            plan.count += 1;
            let (user_id, role) = (join.user_id, join.role);
            plan.add(Member { user_id, role, joined_at: now, spans, pending: None }, request.by, head, false);
        }
        for &user_id in &request.leaves {
            let is_planned = plan.members.iter().any(|member| member.user_id == user_id);
            let was = self.roster.member(user_id).filter(|member| member.spans.is_open() && !is_planned);
            let Some(was) = was else { continue };
            let mut member = was.clone();
            member.spans.close(plan.next_place(head));
            plan.count = plan.count.saturating_sub(1);
            plan.add(member, request.by, head, false);
        }
        self.plan_successor(request, &mut plan, head)?;
        if plan.count > capacity && plan.count > self.roster.seats.count {
            let message =
                format!("the channel has {capacity} seats and {} are taken", self.roster.seats.count);
            return Err(ErrorBody::new(ErrorCode::Full, message));
        }
        Ok(plan)
    }

    fn plan_successor(&self, request: &SeatRequest, plan: &mut Plan, head: Head) -> Result<(), ErrorBody> {
        // Who asked may have known the roles as they were before the last change.
        let is_owner_leaving =
            plan.members.iter().any(|member| member.role == Role::Owner && !member.spans.is_open());
        let Some(user_id) = request.promote.filter(|user| !request.leaves.contains(user)) else {
            if is_owner_leaving && plan.count > 0 {
                let message = "who leaves has become the owner meanwhile; try again";
                return Err(ErrorBody::unavailable(message, 100));
            }
            return Ok(());
        };
        let Some(was) = self.roster.member(user_id).filter(|member| member.spans.is_open()) else {
            // A group without an owner could never change its members again.
            return Err(ErrorBody::unavailable("who was to own the channel left meanwhile; try again", 100));
        };
        if is_owner_leaving {
            plan.add(Member { role: Role::Owner, ..was.clone() }, request.by, head, true);
        }
        Ok(())
    }

    fn check_right(&self, request: &SeatRequest, kind: ChannelKind) -> Result<(), ErrorBody> {
        if request.is_creation {
            return Ok(());
        }
        let Some(role) = self.role_of(request.by) else {
            return Err(ErrorBody::not_found("channel_id"));
        };
        if kind == ChannelKind::Direct {
            return Err(ErrorBody::forbidden("a direct channel keeps its two members"));
        }
        let is_own_leave = request.joins.is_empty() && request.leaves.iter().all(|&user| user == request.by);
        if !is_own_leave && !role.is_admin() {
            return Err(ErrorBody::forbidden("only the owner and admins add and remove members"));
        }
        let touches_owner = |&user: &UserId| user != request.by && self.role_of(user) == Some(Role::Owner);
        if request.leaves.iter().any(touches_owner) {
            return Err(ErrorBody::forbidden("the owner cannot be removed"));
        }
        Ok(())
    }

    /// The log tells: those whom it tells of can be settled.
    pub(super) fn finish_seat_rows(&mut self, mut step: SeatStep) {
        let Some(rows) = step.rows.take() else { return };
        self.take_rows(&rows);
        step.fit_spans(&rows);
        step.contents.drain(..rows.len());
        step.phase = Phase::Settle;
        self.flight = Flight::Ready(Step::Seats(step));
    }

    /// Members are settled; the log goes on to tell of the others.
    pub(super) fn finish_seats(&mut self, mut step: SeatStep) {
        for member in std::mem::take(&mut step.settling) {
            let member = Member { pending: None, ..member };
            self.roster.put(member.user_id, Some(member.clone()));
            step.settled.push(member);
        }
        if !step.contents.is_empty() {
            step.phase = Phase::Tell;
            self.flight = Flight::Ready(Step::Seats(step));
            return;
        }
        let members = step.settled;
        if let Source::Command { ticket, .. } = step.source {
            self.reply(ticket, Reply::Seated { members });
        }
    }
}

fn rows_of(contents: &[Content], head: Head, now: Millis, ids: &Snowflakes) -> Arc<[Row]> {
    let at = ids.mint(now, head.at.next(), 1).at;
    let row = |(seq, content): (u64, &Content)| Row {
        entry: Entry { seq: Seq::new(seq), at, content: content.clone() },
        ordinal: head.ordinal,
        key: None,
    };
    (head.seq.get() + 1..).zip(contents).map(row).collect()
}
