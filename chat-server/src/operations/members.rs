//! Members: listed by pages, added, removed, gone by themselves.

use std::collections::HashMap;

use madang_engine::home::{Command, JoinRequest, Reply, SeatRequest};
use madang_ids::{ChannelId, UserId};
use madang_proto::rest::{AddMembers, MemberCard, Page, PageQuery};
use madang_proto::{ErrorBody, Role, limits};
use madang_store::Member;

use super::accounts::card;
use super::blocks::page_bounds;
use super::{Caller, Operations};
use crate::refusal::refusal;

impl Operations {
    /// The members of a channel of the caller's.
    ///
    /// # Errors
    /// `not_found` for a channel of other people.
    pub async fn members(
        &self,
        caller: Caller,
        channel: ChannelId,
        query: PageQuery,
    ) -> Result<Page<MemberCard>, ErrorBody> {
        self.check_is_member(caller, channel).await?;
        let (after, limit) = page_bounds::<UserId>(&query)?;
        let members = self.store.members(channel, after, limit).await.map_err(|error| refusal(&error))?;
        let next = (members.len() == limit)
            .then(|| members.last().map(|member| member.user_id.to_string()))
            .flatten();
        let ids: Vec<UserId> = members.iter().map(|member| member.user_id).collect();
        let users = self.store.users(&ids).await.map_err(|error| refusal(&error))?;
        let mut users: HashMap<UserId, _> =
            users.into_iter().flatten().map(|user| (user.id, card(user))).collect();
        let row = |member: Member| {
            let user = users.remove(&member.user_id)?;
            Some(MemberCard { user, role: member.role, joined_at: member.joined_at })
        };
        Ok(Page { items: members.into_iter().filter_map(row).collect(), next })
    }

    /// Adds people. Those who are members already are left as they are.
    ///
    /// # Errors
    /// `forbidden` without the right or across a block; `full` without a seat for all of them.
    pub async fn add_members(
        &self,
        caller: Caller,
        channel: ChannelId,
        request: AddMembers,
    ) -> Result<(), ErrorBody> {
        let max = limits::GROUP_MEMBERS_MAX as usize;
        if request.user_ids.is_empty() || request.user_ids.len() > max {
            let message = format!("user_ids has {} ids, it must be 1 to {max}", request.user_ids.len());
            return Err(ErrorBody::invalid("user_ids", message));
        }
        self.check_is_member(caller, channel).await?;
        self.check_users(&request.user_ids).await?;
        self.check_not_blocked(caller.user_id, &request.user_ids).await?;
        let joins = request.user_ids.into_iter().map(|user_id| JoinRequest { user_id, role: Role::Member });
        let channel = self.channel(channel).await?;
        let command = super::channels::seats(caller.user_id, joins.collect(), false);
        self.homes.ask(&channel, command).await.map(drop)
    }

    /// Removes a member, or lets the caller leave. The owner who leaves hands the channel on.
    ///
    /// # Errors
    /// `forbidden` without the right; `not_found` if she is no member.
    pub async fn remove_member(
        &self,
        caller: Caller,
        channel: ChannelId,
        user: UserId,
    ) -> Result<(), ErrorBody> {
        let own = self.check_is_member(caller, channel).await?;
        let promote = match own {
            Role::Owner if user == caller.user_id => self.successor(channel, user).await?,
            _ => None,
        };
        let request = SeatRequest {
            by: caller.user_id,
            joins: Vec::new(),
            leaves: vec![user],
            promote,
            is_creation: false,
        };
        let channel = self.channel(channel).await?;
        match self.homes.ask(&channel, Command::Seats(request)).await? {
            Reply::Seated { members } if members.is_empty() => Err(ErrorBody::not_found("member")),
            _ => Ok(()),
        }
    }

    /// Who owns a group after its owner: an admin before a member, the longest there first.
    async fn successor(&self, channel: ChannelId, owner: UserId) -> Result<Option<UserId>, ErrorBody> {
        let all = limits::GROUP_MEMBERS_MAX as usize;
        let members = self.store.members(channel, None, all).await.map_err(|error| refusal(&error))?;
        let others = members.into_iter().filter(|member| member.user_id != owner);
        let next = others.min_by_key(|member| (!member.role.is_admin(), member.joined_at, member.user_id));
        Ok(next.map(|member| member.user_id))
    }

    /// The caller's role. Who never was a member learns nothing; who has left is told so.
    pub(super) async fn check_is_member(
        &self,
        caller: Caller,
        channel: ChannelId,
    ) -> Result<Role, ErrorBody> {
        let membership =
            self.store.membership(caller.user_id, channel).await.map_err(|error| refusal(&error))?;
        let membership = membership.ok_or_else(|| ErrorBody::not_found("channel_id"))?;
        if membership.spans.is_open() {
            return Ok(membership.role);
        }
        Err(ErrorBody::forbidden("you are no longer a member of this channel"))
    }
}
