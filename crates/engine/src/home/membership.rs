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
use madang_proto::rest::Restriction;
use madang_proto::{ChannelKind, Content, Entry, ErrorBody, ErrorCode, Role};

use crate::home::command::{
    Command, Effect, JoinRequest, Reply, RestrictRequest, RestrictionKind, SeatRequest, Ticket,
};
use crate::home::queue::Waiting;
use crate::home::{Flight, Home, Scope, Step};
use crate::log::{Append, Head, MAX_APPEND_ROWS, Row, Tail};
use crate::seats::{Member, Pending, PendingChange, SeatChange};
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
    fn add(&mut self, mut member: Member, by: UserId, head: Head, change: PendingChange) {
        member.pending = Some(Pending { by, place: self.next_place(head), change });
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
        let others = request.promote.into_iter();
        let others = others.chain(request.role.map(|role| role.user_id));
        let others = others.chain(request.restrict.map(|restrict| restrict.user_id));
        let users = joins.chain(request.leaves.iter().copied()).chain(others).chain([request.by]);
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
        let role = request
            .role
            .and_then(|role| self.roster.member(role.user_id).filter(|member| member.role == role.role));
        let restricted = request.restrict.and_then(|restrict| {
            let member = self.roster.member(restrict.user_id);
            member.filter(|member| restrict.kind.of(member) == restrict.restriction)
        });
        asked.filter_map(is_so).chain(role).chain(restricted).cloned().collect()
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
            let was = self.roster.member(join.user_id);
            if was.is_some_and(|was| was.is_banned(now)) {
                return Err(banned(request.by, join.user_id));
            }
            let mut spans = was.map_or_else(Spans::default, |was| was.spans.clone());
            // Everybody who comes in one append sees it whole.
            let told_before = plan.contents.len() - plan.contents.len() % MAX_APPEND_ROWS;
            spans.open(head.seq.plus(told_before as u64 + 1));
            plan.count += 1;
            let member = Member {
                role: join.role,
                muted: was.and_then(|was| was.muted),
                ..newcomer(join.user_id, spans, now)
            };
            plan.add(member, request.by, head, PendingChange::Seat);
        }
        for &user_id in &request.leaves {
            let is_planned = plan.members.iter().any(|member| member.user_id == user_id);
            let was = self.roster.member(user_id).filter(|member| member.spans.is_open() && !is_planned);
            let Some(was) = was else { continue };
            let mut member = was.clone();
            member.spans.close(plan.next_place(head));
            plan.count = plan.count.saturating_sub(1);
            plan.add(member, request.by, head, PendingChange::Seat);
        }
        self.plan_successor(request, &mut plan, head)?;
        self.plan_role(request, &mut plan, head)?;
        self.plan_restriction(request, &mut plan, head, now)?;
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
            plan.add(Member { role: Role::Owner, ..was.clone() }, request.by, head, PendingChange::Role);
        }
        Ok(())
    }

    /// Another role. Who makes somebody the owner becomes an admin.
    fn plan_role(&self, request: &SeatRequest, plan: &mut Plan, head: Head) -> Result<(), ErrorBody> {
        let Some(JoinRequest { user_id, role }) = request.role else { return Ok(()) };
        let Some(was) = self.roster.member(user_id).filter(|member| member.spans.is_open()) else {
            return Err(ErrorBody::not_found("member"));
        };
        if was.role == role {
            return Ok(());
        }
        if role == Role::Owner
            && let Some(owner) = self.roster.member(request.by)
        {
            let owner = Member { role: Role::Admin, ..owner.clone() };
            plan.add(owner, request.by, head, PendingChange::Role);
        }
        plan.add(Member { role, ..was.clone() }, request.by, head, PendingChange::Role);
        Ok(())
    }

    /// Somebody may not speak, or not be here; or may again.
    fn plan_restriction(
        &self,
        request: &SeatRequest,
        plan: &mut Plan,
        head: Head,
        now: Millis,
    ) -> Result<(), ErrorBody> {
        let Some(RestrictRequest { user_id, kind, restriction }) = request.restrict else { return Ok(()) };
        let was = self.roster.member(user_id).cloned();
        let is_member = was.as_ref().is_some_and(|was| was.spans.is_open());
        if kind == RestrictionKind::Mute && restriction.is_some() && !is_member {
            return Err(ErrorBody::not_found("member"));
        }
        let mut member = was.unwrap_or_else(|| newcomer(user_id, Spans::default(), now));
        if kind.of(&member) == restriction {
            return Ok(());
        }
        match kind {
            RestrictionKind::Mute => {
                member.muted = restriction;
                plan.add(member, request.by, head, PendingChange::Mute);
            }
            RestrictionKind::Ban => {
                member.banned = restriction;
                if is_member && restriction.is_some() {
                    member.spans.close(plan.next_place(head));
                    plan.count = plan.count.saturating_sub(1);
                    // Who comes back begins anew.
                    member.role = Role::Member;
                }
                plan.add(member, request.by, head, PendingChange::Ban);
            }
        }
        Ok(())
    }

    fn check_right(&self, request: &SeatRequest, kind: ChannelKind) -> Result<(), ErrorBody> {
        if request.is_creation {
            return Ok(());
        }
        if kind == ChannelKind::Open && request.is_own_join() {
            return Ok(());
        }
        let Some(role) = self.role_of(request.by) else {
            return Err(ErrorBody::not_found("channel_id"));
        };
        if kind == ChannelKind::Direct {
            return Err(ErrorBody::forbidden("a direct channel keeps its two members"));
        }
        let is_own_leave = request.joins.is_empty() && request.leaves.iter().all(|&user| user == request.by);
        let is_moderation = request.role.is_some() || request.restrict.is_some();
        if !role.is_admin() && (!is_own_leave || is_moderation) {
            return Err(ErrorBody::forbidden("only the owner and admins may do this"));
        }
        if kind == ChannelKind::Open && !request.joins.is_empty() {
            return Err(ErrorBody::forbidden("nobody is added to an open channel; people join it"));
        }
        let is_above = |user: UserId| match self.role_of(user) {
            _ if user == request.by => false,
            Some(Role::Owner) => true,
            Some(Role::Admin) => role != Role::Owner,
            _ => false,
        };
        let restricted = request.restrict.map(|restrict| restrict.user_id);
        if request.leaves.iter().copied().chain(restricted).any(is_above) {
            return Err(ErrorBody::forbidden(
                "the owner, and for admins other admins, cannot be removed or restricted",
            ));
        }
        if restricted == Some(request.by) {
            return Err(ErrorBody::invalid("user_id", "user_id is your own"));
        }
        match request.role {
            Some(_) if role != Role::Owner => Err(ErrorBody::forbidden("only the owner gives roles")),
            Some(given) if given.user_id == request.by => {
                let message = "user_id is your own; make somebody else the owner instead";
                Err(ErrorBody::invalid("user_id", message))
            }
            _ => Ok(()),
        }
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

impl RestrictionKind {
    const fn of(self, member: &Member) -> Option<Restriction> {
        match self {
            Self::Mute => member.muted,
            Self::Ban => member.banned,
        }
    }
}

fn newcomer(user_id: UserId, spans: Spans, joined_at: Millis) -> Member {
    Member { user_id, role: Role::Member, joined_at, spans, muted: None, banned: None, pending: None }
}

fn banned(by: UserId, user: UserId) -> ErrorBody {
    if by == user {
        return ErrorBody::forbidden("you are banned from this channel");
    }
    ErrorBody::forbidden(format!("user {user} is banned from this channel"))
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
