//! Rights of members: roles, bans, mutes.

use std::collections::HashMap;

use madang_engine::home::{Command, JoinRequest, RestrictRequest, RestrictionKind, SeatRequest};
use madang_ids::{ChannelId, UserId};
use madang_proto::rest::{BanCard, Page, PageQuery, Restrict, Restriction};
use madang_proto::{ErrorBody, Role};
use madang_store::{Ending, Member};

use crate::operations::accounts::card;
use crate::operations::costs::Cost;
use crate::operations::{Caller, Operations, pages};
use crate::refusal::Result;

/// The longest restriction: 365 days.
const RESTRICTION_SECONDS: u32 = 31_536_000;

impl Operations {
    /// Gives a member a role. A new owner takes the place of the caller, who becomes an admin.
    ///
    /// # Errors
    /// `forbidden` if the caller is not the owner; `not_found` if the user is not a member.
    pub async fn give_role(
        &self,
        caller: Caller,
        channel: ChannelId,
        user_id: UserId,
        role: Role,
    ) -> Result<()> {
        let role = Some(JoinRequest::of(user_id, role));
        self.ask_seats(caller, channel, SeatRequest { role, ..SeatRequest::by(caller.user_id) }).await
    }

    /// Bans or mutes a user, or lifts that (`None`). Repeating a restriction starts its time again.
    ///
    /// # Errors
    /// `forbidden` without the right; `not_found` for an unknown user, or for a mute of a user who is not a member.
    pub async fn restrict(
        &self,
        caller: Caller,
        channel: ChannelId,
        user_id: UserId,
        kind: RestrictionKind,
        restrict: Option<Restrict>,
    ) -> Result<()> {
        let restriction = restrict.map(|restrict| self.restriction(restrict)).transpose()?;
        if kind == RestrictionKind::Ban && restriction.is_some() {
            self.user(user_id).await?;
        }
        let restrict = Some(RestrictRequest { user_id, kind, restriction });
        let request = SeatRequest { restrict, ..SeatRequest::by(caller.user_id) };
        self.ask_seats(caller, channel, request).await?;
        if kind == RestrictionKind::Ban && restriction.is_some() {
            self.end_invitations(Ending::One(user_id, channel)).await?;
        }
        Ok(())
    }

    fn restriction(&self, Restrict { seconds }: Restrict) -> Result<Restriction, ErrorBody> {
        let Some(seconds) = seconds else { return Ok(Restriction { until: None }) };
        if !(1..=RESTRICTION_SECONDS).contains(&seconds) {
            let message = format!("seconds is {seconds}, it must be 1 to {RESTRICTION_SECONDS}, or absent");
            return Err(ErrorBody::invalid("seconds", message));
        }
        Ok(Restriction { until: Some(self.clock.raw_ms().plus(u64::from(seconds) * 1_000)) })
    }

    /// The users who are banned at the moment.
    ///
    /// # Errors
    /// `forbidden` without the right; `after` or `limit` out of bounds.
    pub async fn bans(&self, caller: Caller, channel: ChannelId, query: PageQuery) -> Result<Page<BanCard>> {
        if !self.check_is_member(caller, channel).await?.is_admin() {
            return Err(ErrorBody::forbidden("only the owner and admins can list bans").into());
        }
        let (after, limit) = pages::bounds::<UserId>(&query)?;
        let banned = self.store.banned(channel, after, limit).await?;
        self.callers.charge(caller.user_id, Cost::rows(banned.len()));
        let next = pages::next(&banned, limit, |member| member.user_id);
        let now = self.clock.raw_ms();
        let banned: Vec<Member> = banned.into_iter().filter(|member| member.is_banned(now)).collect();
        let ids: Vec<UserId> = banned.iter().map(|member| member.user_id).collect();
        let users = self.store.users(&ids).await?;
        let mut users: HashMap<UserId, _> =
            users.into_iter().flatten().map(|user| (user.id, card(user))).collect();
        let row = |member: Member| {
            Some(BanCard { user: users.remove(&member.user_id)?, restriction: member.banned? })
        };
        Ok(Page { items: banned.into_iter().filter_map(row).collect(), next })
    }

    async fn ask_seats(&self, caller: Caller, channel: ChannelId, request: SeatRequest) -> Result<()> {
        self.check_is_member(caller, channel).await?;
        let channel = self.channel(channel).await?;
        self.homes.ask(&channel, Command::Seats(request)).await?;
        Ok(())
    }
}
