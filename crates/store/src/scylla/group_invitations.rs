//! Invitations of users to groups: one partition for each user, whose revision rises with each change. The indexes by inviter and
//! by group, and the list of due notes, are written before the change, so an entry may be out of date but none is missing.

use std::collections::BTreeMap;

use async_trait::async_trait;
use madang_ids::{ChannelId, Millis, UserId};
use scylla::DeserializeRow;
use scylla::value::CqlValue;

use super::Scylla;
use super::codec::{int, number, set};
use super::log::each;
use super::session::{Class, Statement, Values};
use crate::accounts::AccountStore;
use crate::channels::ChannelStore;
use crate::error::{StoreError, StoreResult};
use crate::group_invitations::{
    Ending, GroupInvitation, GroupInvitationLimits, GroupInvitationState, GroupInvitationStore,
    OpenInvitation,
};
use crate::group_invitations_of_user::OfUser;
use crate::log::ChannelState;

const ALL: Statement = Statement {
    class: Class::SerialRead,
    cql: "SELECT list_rev, channel, inviter, at, state, rev, is_recorded FROM group_invitations WHERE user = ?",
};
const FIRST: Statement = Statement {
    class: Class::Conditional,
    cql: "UPDATE group_invitations SET list_rev = 1 WHERE user = ? IF list_rev = null",
};
const NEXT: Statement = Statement {
    class: Class::Conditional,
    cql: "UPDATE group_invitations SET list_rev = ? WHERE user = ? IF list_rev = ?",
};
const PUT: Statement = Statement {
    class: Class::Conditional,
    cql: "INSERT INTO group_invitations (user, channel, inviter, at, state, rev, is_recorded) VALUES (?, ?, ?, ?, ?, ?, ?)",
};
const REMOVE: Statement = Statement {
    class: Class::Conditional,
    cql: "DELETE FROM group_invitations WHERE user = ? AND channel = ?",
};
const ONE: Statement = Statement {
    class: Class::Read,
    cql: "SELECT list_rev, channel, inviter, at, state, rev, is_recorded FROM group_invitations WHERE user = ? AND channel = ?",
};
const PUT_BY: Statement = Statement {
    class: Class::Write,
    cql: "INSERT INTO invitations_by_inviter (inviter, user, channel) VALUES (?, ?, ?)",
};
const BY: Statement = Statement {
    class: Class::Read,
    cql: "SELECT user, channel FROM invitations_by_inviter WHERE inviter = ?",
};
const REMOVE_BY: Statement = Statement {
    class: Class::Write,
    cql: "DELETE FROM invitations_by_inviter WHERE inviter = ? AND user = ? AND channel = ?",
};
const PUT_TO: Statement = Statement {
    class: Class::Write,
    cql: "INSERT INTO invitations_to_channel (channel, user) VALUES (?, ?)",
};
const TO: Statement =
    Statement { class: Class::Read, cql: "SELECT user FROM invitations_to_channel WHERE channel = ?" };
const REMOVE_TO: Statement = Statement {
    class: Class::Write,
    cql: "DELETE FROM invitations_to_channel WHERE channel = ? AND user = ?",
};
const PUT_DUE: Statement = Statement {
    class: Class::Write,
    cql: "INSERT INTO due_invitations (shard, user, channel) VALUES (0, ?, ?)",
};
const REMOVE_DUE: Statement = Statement {
    class: Class::Write,
    cql: "DELETE FROM due_invitations WHERE shard = 0 AND user = ? AND channel = ?",
};
const DUE: Statement = Statement {
    class: Class::Read,
    cql: "SELECT user, channel FROM due_invitations WHERE shard = 0 LIMIT ?",
};

/// Attempts of a compare-and-set whose value another call changes meanwhile.
const TRIES: usize = 64;

#[derive(Debug, DeserializeRow)]
struct Stored {
    list_rev: Option<i64>,
    /// `None`: the partition has its revision alone.
    channel: Option<i64>,
    inviter: Option<i64>,
    at: Option<i64>,
    state: Option<String>,
    rev: Option<i64>,
    is_recorded: Option<bool>,
}

fn state_text(state: GroupInvitationState) -> &'static str {
    match state {
        GroupInvitationState::Waiting => "waiting",
        GroupInvitationState::Declined => "declined",
        GroupInvitationState::Ended => "ended",
    }
}

impl Stored {
    fn invitation(&self, user_id: UserId) -> Option<GroupInvitation> {
        let state = match self.state.as_deref()? {
            "waiting" => GroupInvitationState::Waiting,
            "declined" => GroupInvitationState::Declined,
            _ => GroupInvitationState::Ended,
        };
        Some(GroupInvitation {
            user_id,
            channel_id: ChannelId::from_raw(number(self.channel?)),
            by: UserId::from_raw(number(self.inviter?)),
            at: Millis::new(number(self.at?)),
            state,
            rev: number(self.rev?),
            is_recorded: self.is_recorded?,
        })
    }
}

fn row(invitation: GroupInvitation) -> Values {
    let GroupInvitation { user_id, channel_id, by, at, state, rev, is_recorded } = invitation;
    vec![
        set(CqlValue::BigInt(int(user_id.raw()))),
        set(CqlValue::BigInt(int(channel_id.raw()))),
        set(CqlValue::BigInt(int(by.raw()))),
        set(CqlValue::BigInt(int(at.get()))),
        set(CqlValue::Text(state_text(state).to_owned())),
        set(CqlValue::BigInt(int(rev))),
        set(CqlValue::Boolean(is_recorded)),
    ]
}

impl Scylla {
    async fn invitations_of(&self, user: UserId) -> StoreResult<(Option<i64>, OfUser)> {
        let rows: Vec<Stored> = self.cql.read(&ALL, (int(user.raw()),)).await?;
        let rev = rows.first().and_then(|row| row.list_rev);
        let all = rows.iter().filter_map(|row| row.invitation(user));
        Ok((rev, OfUser(all.map(|found| (found.channel_id, found)).collect::<BTreeMap<_, _>>())))
    }

    /// Changes the invitations of one user by compare-and-set on their revision.
    pub(super) async fn change_invitations<T: Send>(
        &self,
        user: UserId,
        change: impl Fn(&mut OfUser) -> T + Send,
    ) -> StoreResult<T> {
        for _ in 0..TRIES {
            let (rev, before) = self.invitations_of(user).await?;
            let mut after = before.clone();
            let outcome = change(&mut after);
            if after == before {
                return Ok(outcome);
            }
            let id = || set(CqlValue::BigInt(int(user.raw())));
            let mut parts = vec![match rev {
                None => (&FIRST, vec![id()]),
                Some(rev) => (&NEXT, vec![set(CqlValue::BigInt(rev + 1)), id(), set(CqlValue::BigInt(rev))]),
            }];
            for (channel, found) in &after.0 {
                if before.0.get(channel) != Some(found) {
                    self.index_invitation(*found).await?;
                    parts.push((&PUT, row(*found)));
                }
            }
            let gone: Vec<GroupInvitation> = before
                .0
                .iter()
                .filter(|(channel, _)| !after.0.contains_key(channel))
                .map(|(_, it)| *it)
                .collect();
            parts.extend(
                gone.iter().map(|it| (&REMOVE, vec![id(), set(CqlValue::BigInt(int(it.channel_id.raw())))])),
            );
            if self.cql.conditional_batch(parts).await? {
                for it in gone {
                    self.forget_places(it).await?;
                }
                return Ok(outcome);
            }
        }
        Err(StoreError::Unavailable("too many changes of one user's invitations at once".into()))
    }

    async fn index_invitation(&self, it: GroupInvitation) -> StoreResult<()> {
        let (user, channel, by) = (int(it.user_id.raw()), int(it.channel_id.raw()), int(it.by.raw()));
        if it.state == GroupInvitationState::Waiting {
            self.cql.write(&PUT_BY, (by, user, channel)).await?;
            self.cql.write(&PUT_TO, (channel, user)).await?;
        }
        if !it.is_recorded {
            self.cql.write(&PUT_DUE, (user, channel)).await?;
        }
        Ok(())
    }

    async fn forget_places(&self, it: GroupInvitation) -> StoreResult<()> {
        let (user, channel, by) = (int(it.user_id.raw()), int(it.channel_id.raw()), int(it.by.raw()));
        self.cql.write(&REMOVE_BY, (by, user, channel)).await?;
        self.cql.write(&REMOVE_TO, (channel, user)).await?;
        self.cql.write(&REMOVE_DUE, (user, channel)).await
    }

    /// An open membership ends the invitation to its channel, in any state.
    pub(super) async fn end_by_joining(&self, user: UserId, channel: ChannelId) -> StoreResult<()> {
        if self.group_invitation(user, channel).await?.is_none() {
            return Ok(());
        }
        self.change_invitations(user, move |own| _ = own.0.remove(&channel)).await
    }
}

#[async_trait]
impl GroupInvitationStore for Scylla {
    async fn invite(
        &self,
        channel: ChannelId,
        by: UserId,
        users: &[UserId],
        at: Millis,
        limits: GroupInvitationLimits,
    ) -> StoreResult<Vec<GroupInvitation>> {
        let mut due = Vec::new();
        for (index, &user_id) in users.iter().enumerate() {
            let state = GroupInvitationState::Waiting;
            let new =
                GroupInvitation { user_id, channel_id: channel, by, at, state, rev: 1, is_recorded: false };
            let invited = async {
                let is_blocked = self.is_blocked(user_id, by).await?;
                self.change_invitations(user_id, |own| own.invite(new, limits, is_blocked)).await
            };
            match invited.await {
                Ok(changed) => due.extend(changed),
                Err(StoreError::Unavailable(why)) if index > 0 => return Err(StoreError::Unknown(why)),
                Err(error) => return Err(error),
            }
        }
        Ok(due)
    }

    async fn group_invitation(
        &self,
        user: UserId,
        channel: ChannelId,
    ) -> StoreResult<Option<GroupInvitation>> {
        let row: Option<Stored> = self.cql.read_one(&ONE, (int(user.raw()), int(channel.raw()))).await?;
        Ok(row.and_then(|row| row.invitation(user)))
    }

    async fn open_invitations(
        &self,
        user: UserId,
        after: Option<ChannelId>,
        limit: usize,
    ) -> StoreResult<Vec<OpenInvitation>> {
        let (_, all) = self.invitations_of(user).await?;
        let mut open = Vec::new();
        for invitation in all.0.into_values() {
            let id = invitation.channel_id;
            if invitation.state != GroupInvitationState::Waiting || Some(id) <= after || open.len() == limit {
                continue;
            }
            let Some(channel) = self.channel(id).await?.filter(|row| row.state == ChannelState::Active)
            else {
                continue;
            };
            let seating = self.seating_of(id, &[invitation.by, user]).await?;
            let is_open =
                |place: usize| seating.members[place].as_ref().filter(|member| member.spans.is_open());
            let may_add = is_open(0).is_some_and(|inviter| inviter.role.is_admin());
            if may_add && is_open(1).is_none() && seating.seats.rev > 0 {
                let name = channel.card.name.unwrap_or_default();
                open.push(OpenInvitation { invitation, name, members: seating.seats.count });
            }
        }
        Ok(open)
    }

    async fn decline_invitation(
        &self,
        user: UserId,
        channel: ChannelId,
        declined: u32,
    ) -> StoreResult<Option<GroupInvitation>> {
        let decline = move |own: &mut OfUser| match own.0.get(&channel).copied() {
            Some(found) if found.state == GroupInvitationState::Waiting => {
                let changed = own.change(found, GroupInvitationState::Declined);
                own.forget_declined(declined);
                Some(changed)
            }
            found => found.filter(|found| !found.is_recorded),
        };
        self.change_invitations(user, decline).await
    }

    async fn end_invitations(&self, which: Ending, limit: usize) -> StoreResult<Vec<GroupInvitation>> {
        let pair = |(user, channel): (i64, i64)| {
            (UserId::from_raw(number(user)), ChannelId::from_raw(number(channel)))
        };
        let places: Vec<(UserId, ChannelId)> = match which {
            Ending::One(user, channel) => vec![(user, channel)],
            Ending::Between { user, .. } => {
                let (_, own) = self.invitations_of(user).await?;
                own.0.into_keys().map(|channel| (user, channel)).collect()
            }
            Ending::By(by) => {
                let rows: Vec<(i64, i64)> = self.cql.read(&BY, (int(by.raw()),)).await?;
                rows.into_iter().map(pair).collect()
            }
            Ending::To(channel) => {
                let rows: Vec<(i64,)> = self.cql.read(&TO, (int(channel.raw()),)).await?;
                rows.into_iter().map(|(user,)| (UserId::from_raw(number(user)), channel)).collect()
            }
        };
        let is_it = move |found: &GroupInvitation| match which {
            Ending::One(..) | Ending::To(_) => true,
            Ending::Between { by, .. } | Ending::By(by) => found.by == by,
        };
        let mut ended = Vec::new();
        for (user, channel) in places {
            if ended.len() == limit {
                break;
            }
            let end = move |own: &mut OfUser| {
                let found = own.0.get(&channel).copied();
                let found = found.filter(|it| it.state == GroupInvitationState::Waiting && is_it(it))?;
                Some(own.change(found, GroupInvitationState::Ended))
            };
            ended.extend(self.change_invitations(user, end).await?);
        }
        Ok(ended)
    }

    async fn forget_group_invitations(&self, user: UserId) -> StoreResult<()> {
        self.change_invitations(user, |own| own.0.clear()).await
    }

    async fn settle_invitation(&self, user: UserId, channel: ChannelId, rev: u64) -> StoreResult<bool> {
        let settle = move |own: &mut OfUser| {
            let Some(found) = own.0.get_mut(&channel).filter(|found| found.rev == rev) else { return false };
            found.is_recorded = true;
            if found.state == GroupInvitationState::Ended {
                own.0.remove(&channel);
            }
            true
        };
        let is_settled = self.change_invitations(user, settle).await?;
        if is_settled {
            self.cql.write(&REMOVE_DUE, (int(user.raw()), int(channel.raw()))).await?;
        }
        Ok(is_settled)
    }

    async fn due_invitations(&self, limit: usize) -> StoreResult<Vec<GroupInvitation>> {
        let limit = i32::try_from(limit).unwrap_or(i32::MAX);
        let places: Vec<(i64, i64)> = self.cql.read(&DUE, (limit,)).await?;
        let read = |(user, channel): (i64, i64)| {
            self.group_invitation(UserId::from_raw(number(user)), ChannelId::from_raw(number(channel)))
        };
        let found = each(places, read).await?;
        Ok(found.into_iter().flatten().filter(|found| !found.is_recorded).collect())
    }
}
