//! Checks a request about members and plans its changes. Changes no state.

use madang_ids::{Millis, Seq, UserId};
use madang_proto::rest::Restriction;
use madang_proto::{ChannelKind, Content, ErrorBody, ErrorCode, Role};

use crate::home::command::{JoinRequest, RestrictRequest, RestrictionKind, SeatRequest};
use crate::home::{Home, Scope};
use crate::log::{ChannelState, Head, MAX_APPEND_ROWS};
use crate::seats::{Member, Pending, PendingChange};
use crate::spans::Spans;

/// The members after the change, the entries about it, and the count of seats.
pub(super) struct Plan {
    pub(super) members: Vec<Member>,
    pub(super) contents: Vec<Content>,
    pub(super) count: u32,
}

impl Plan {
    /// The place of the next planned entry, if no other home appends before.
    const fn next_place(&self, head: Head) -> Seq {
        head.seq.plus(self.contents.len() as u64 + 1)
    }

    /// Adds a member as of after the change, marked as pending, and its entry.
    fn add(&mut self, mut member: Member, by: UserId, head: Head, change: PendingChange) {
        member.pending = Some(Pending { by, place: self.next_place(head), change, is_recorded: false });
        self.contents.extend(member.pending_content());
        self.members.push(member);
    }
}

impl Home {
    /// The members who are already as the request wants them.
    pub(super) fn as_asked(&self, request: &SeatRequest) -> Vec<Member> {
        let came = request.joins.iter().map(|join| (join.user_id, true));
        let asked = came.chain(request.leaves.iter().map(|&user| (user, false)));
        let is_so =
            |(user, is_open)| self.members.member(user).filter(|member| member.spans.is_open() == is_open);
        let role = request
            .role
            .and_then(|role| self.members.member(role.user_id).filter(|member| member.role == role.role));
        let restricted = request.restrict.and_then(|restrict| {
            let member = self.members.member(restrict.user_id);
            member.filter(|member| restrict.kind.of(member) == restrict.restriction)
        });
        asked.filter_map(is_so).chain(role).chain(restricted).cloned().collect()
    }

    /// Adds a request to the plan. After an error the plan holds a part of it.
    pub(super) fn plan_request(
        &self,
        request: &SeatRequest,
        plan: &mut Plan,
        head: Head,
        now: Millis,
    ) -> Result<(), ErrorBody> {
        let Scope::Channel { kind, capacity, created_by } = self.scope else {
            return Err(ErrorBody::not_found("channel_id"));
        };
        self.check_right(request, kind)?;
        let (count, first) = (plan.count, plan.members.len());
        if head.seq == Seq::ZERO && plan.contents.is_empty() {
            plan.contents.push(Content::Created { by: created_by });
        }
        for join in &request.joins {
            // A present member keeps role and spans, so a repeated join changes nothing. A planned one takes one seat, not two.
            let is_planned = plan.members.iter().any(|member| member.user_id == join.user_id);
            if self.role_of(join.user_id).is_some() || is_planned {
                continue;
            }
            let was = self.members.member(join.user_id);
            if was.is_some_and(|was| was.is_banned(now)) {
                return Err(banned(request.by, join.user_id));
            }
            let mut spans = was.map_or_else(Spans::default, |was| was.spans.clone());
            // Users who come in one append see all of it, since live delivery sends the append as a whole: the span begins with the
            // append's first row. Founders see the log from its beginning, also if their entries take several appends, and so does the
            // second member of a direct channel, which was made for both.
            let told_before = plan.contents.len() - plan.contents.len() % MAX_APPEND_ROWS;
            let is_from_begin = head.seq == Seq::ZERO || kind == ChannelKind::Direct;
            spans.open(if is_from_begin { Seq::new(1) } else { head.seq.plus(told_before as u64 + 1) });
            // The first user in an empty open channel becomes its owner; otherwise it would have none for ever.
            let is_founder = kind == ChannelKind::Open && plan.count == 0;
            let role = if is_founder { Role::Owner } else { join.role };
            plan.count += 1;
            let muted = was.and_then(|was| was.muted).filter(|_| !is_founder);
            let has_accepted = join.accepts || join.user_id == request.by;
            let member = Member { role, muted, has_accepted, ..newcomer(join.user_id, spans, now) };
            plan.add(member, request.by, head, PendingChange::Seat);
        }
        for &user_id in &request.leaves {
            let is_planned = plan.members.iter().any(|member| member.user_id == user_id);
            let was = self.members.member(user_id).filter(|member| member.spans.is_open() && !is_planned);
            let Some(was) = was else { continue };
            let mut member = was.clone();
            member.spans.close(plan.next_place(head));
            plan.count = plan.count.saturating_sub(1);
            plan.add(member, request.by, head, PendingChange::Seat);
        }
        self.plan_successor(request, plan, first, head)?;
        self.plan_role(request, plan, head)?;
        self.plan_restriction(request, plan, head, now)?;
        if plan.count > capacity && plan.count > count {
            let message = format!("the channel is full: {count} of {capacity} seats are taken");
            return Err(ErrorBody::new(ErrorCode::Full, message));
        }
        Ok(())
    }

    /// Makes `promote` the owner if the owner leaves. `first` is the index of the request's first member in the plan.
    fn plan_successor(
        &self,
        request: &SeatRequest,
        plan: &mut Plan,
        first: usize,
        head: Head,
    ) -> Result<(), ErrorBody> {
        // The caller chose the successor by roles that may have changed since: compare with the roles of now.
        let planned = &plan.members[first..];
        let is_owner_leaving =
            planned.iter().any(|member| member.role == Role::Owner && !member.spans.is_open());
        let Some(user_id) = request.promote.filter(|user| !request.leaves.contains(user)) else {
            if is_owner_leaving && plan.count > 0 {
                let message = "the user who leaves has become the owner meanwhile; try again";
                return Err(ErrorBody::unavailable(message, 100));
            }
            return Ok(());
        };
        let Some(was) = self.members.member(user_id).filter(|member| member.spans.is_open()) else {
            // Refused, since a group without an owner could never change its members again. The retry chooses another successor.
            return Err(ErrorBody::unavailable("the next owner has left meanwhile; try again", 100));
        };
        if is_owner_leaving {
            plan.add(with_role(was, Role::Owner), request.by, head, PendingChange::Role);
        }
        Ok(())
    }

    /// Changes a role. An owner who hands the channel over becomes an admin in the same change of seats, so that a crash never
    /// leaves two owners or none.
    fn plan_role(&self, request: &SeatRequest, plan: &mut Plan, head: Head) -> Result<(), ErrorBody> {
        let Some(JoinRequest { user_id, role, .. }) = request.role else { return Ok(()) };
        let Some(was) = self.members.member(user_id).filter(|member| member.spans.is_open()) else {
            return Err(ErrorBody::not_found("member"));
        };
        if was.role == role {
            return Ok(());
        }
        if role == Role::Owner
            && let Some(owner) = self.members.member(request.by)
        {
            plan.add(with_role(owner, Role::Admin), request.by, head, PendingChange::Role);
        }
        plan.add(with_role(was, role), request.by, head, PendingChange::Role);
        Ok(())
    }

    /// Mutes or bans a user, or lifts that.
    fn plan_restriction(
        &self,
        request: &SeatRequest,
        plan: &mut Plan,
        head: Head,
        now: Millis,
    ) -> Result<(), ErrorBody> {
        let Some(RestrictRequest { user_id, kind, restriction }) = request.restrict else { return Ok(()) };
        let was = self.members.member(user_id).cloned();
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
                    // A banned admin does not come back as an admin.
                    member.role = Role::Member;
                }
                plan.add(member, request.by, head, PendingChange::Ban);
            }
        }
        Ok(())
    }

    fn check_right(&self, request: &SeatRequest, kind: ChannelKind) -> Result<(), ErrorBody> {
        self.check_not_deleted()?;
        if request.is_creation {
            return Ok(());
        }
        let adds = !request.joins.is_empty() || request.adds;
        if adds && self.details.state == ChannelState::Archived {
            return Err(ErrorBody::forbidden("the channel is archived: users cannot join it"));
        }
        let is_own_join = request.own_change().is_some() && !request.joins.is_empty();
        let is_invited = kind == ChannelKind::Group && request.invited_by.is_some_and(|by| self.may_add(by));
        if is_own_join && (kind == ChannelKind::Open || is_invited) {
            return Ok(());
        }
        let Some(role) = self.role_of(request.by) else {
            // A former member asks to leave: an earlier request was done, and its answer was lost. So this one succeeds too.
            let was_here =
                self.members.member(request.by).is_some_and(|member| member.spans.last().is_some());
            if was_here && request.leaves == [request.by] && request.own_change().is_some() {
                return Ok(());
            }
            return Err(refuse_stranger(kind));
        };
        if kind == ChannelKind::Open && adds {
            return Err(ErrorBody::forbidden(
                "users cannot be added to an open channel: they join by themselves",
            ));
        }
        if kind == ChannelKind::Direct {
            return Err(ErrorBody::forbidden("a direct channel keeps its two members"));
        }
        let is_own_leave = !adds && request.leaves.iter().all(|&user| user == request.by);
        let is_moderation = request.role.is_some() || request.restrict.is_some();
        if !role.is_admin() && (!is_own_leave || is_moderation) {
            return Err(ErrorBody::forbidden("only the owner and admins may do this"));
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
                "the owner cannot be removed or restricted, and an admin only by the owner",
            ));
        }
        if restricted == Some(request.by) {
            return Err(ErrorBody::invalid("user_id", "user_id is your own"));
        }
        match request.role {
            // The former owner, an admin now, repeats the hand-over whose answer was lost.
            Some(JoinRequest { user_id, role: Role::Owner, .. })
                if role == Role::Admin && self.role_of(user_id) == Some(Role::Owner) =>
            {
                Ok(())
            }
            Some(_) if role != Role::Owner => Err(ErrorBody::forbidden("only the owner can change roles")),
            Some(given) if given.user_id == request.by => {
                let message = "user_id is your own; make another member the owner instead";
                Err(ErrorBody::invalid("user_id", message))
            }
            _ => Ok(()),
        }
    }
}

impl Home {
    fn may_add(&self, user: UserId) -> bool {
        self.role_of(user).is_some_and(Role::is_admin)
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

/// A member in another role. An owner is unmuted: nobody could ever lift that mute.
fn with_role(was: &Member, role: Role) -> Member {
    let muted = was.muted.filter(|_| role != Role::Owner);
    Member { role, muted, ..was.clone() }
}

fn newcomer(user_id: UserId, spans: Spans, joined_at: Millis) -> Member {
    Member {
        user_id,
        role: Role::Member,
        joined_at,
        spans,
        has_accepted: false,
        muted: None,
        banned: None,
        pending: None,
    }
}

fn banned(by: UserId, user: UserId) -> ErrorBody {
    if by == user {
        return ErrorBody::forbidden("you are banned from this channel");
    }
    ErrorBody::forbidden(format!("user {user} is banned from this channel"))
}

/// The refusal of a user who never was a member. It hides that a direct channel or a group exists; an open channel is public.
pub(super) fn refuse_stranger(kind: ChannelKind) -> ErrorBody {
    match kind {
        ChannelKind::Open => ErrorBody::forbidden("not a member of this open channel: join it first"),
        ChannelKind::Direct | ChannelKind::Group => ErrorBody::not_found("channel_id"),
    }
}
