//! The store of accounts, in memory.

use async_trait::async_trait;
use madang_ids::{Millis, UserId};
use madang_proto::Audience;

use super::{Model, Mutant, State};
use crate::accounts::{AccountStore, Claim, Claimed, Created, Credentials, Profile, User, UserState};
use crate::error::StoreResult;

#[async_trait]
impl AccountStore for Model {
    async fn create_user(
        &self,
        user: &User,
        password_hash: &str,
        invitation: Option<&[u8; 32]>,
    ) -> StoreResult<Created> {
        let _call = self.journal.begin("create_user");
        let is_blind = self.is_mutant(Mutant::HandleTakenTwice);
        let ignores_kept = self.is_mutant(Mutant::HandleFreeAtOnce);
        let holder = self
            .write(|state| {
                let kept = state.kept_handles.get(&user.handle).copied();
                if kept.is_some_and(|until| until > user.created_at) && !ignores_kept {
                    return None;
                }
                Some(*state.handles.entry(user.handle.clone()).or_insert(user.id))
            })
            .await?;
        if holder != Some(user.id) && !is_blind {
            return Ok(Created::Taken);
        }
        // The handle and the invitation are other partitions: the handle may be taken and the invitation used while the
        // user does not exist yet.
        if let Some(invitation) = invitation {
            let counts_twice = self.is_mutant(Mutant::InvitationsUncounted);
            let take = |state: &mut State| state.take_use(invitation, user, counts_twice);
            if !self.write(take).await? {
                self.write(|state| state.give_back(user)).await?;
                return Ok(Created::NotInvited);
            }
        }
        self.write(|state| {
            state.users.entry(user.id).or_insert_with(|| (user.clone(), password_hash.to_owned()));
        })
        .await?;
        Ok(Created::Created)
    }

    async fn users(&self, ids: &[UserId]) -> StoreResult<Vec<Option<User>>> {
        let _call = self.journal.begin("users");
        self.read(|state| ids.iter().map(|id| state.users.get(id).map(|(user, _)| user.clone())).collect())
            .await
    }

    async fn user_by_handle(&self, handle: &str) -> StoreResult<Option<User>> {
        let _call = self.journal.begin("user_by_handle");
        self.read(|state| state.users.get(state.handles.get(handle)?).map(|(user, _)| user.clone())).await
    }

    async fn users_by_handle(&self, prefix: &str, after: &str, limit: usize) -> StoreResult<Vec<User>> {
        let _call = self.journal.begin("users_by_handle");
        self.read(|state| {
            let found = state
                .handles
                .iter()
                .filter(|(handle, _)| handle.starts_with(prefix) && handle.as_str() > after);
            let users = found.filter_map(|(_, id)| state.users.get(id).map(|(user, _)| user.clone()));
            users.take(limit).collect()
        })
        .await
    }

    async fn set_profile(&self, user: UserId, profile: &Profile) -> StoreResult<()> {
        let _call = self.journal.begin("set_profile");
        self.write(|state| {
            let Some(user) = state.active(user) else { return };
            let before = (user.display_name.clone(), user.avatar.clone());
            if let Some(name) = &profile.display_name {
                name.clone_into(&mut user.display_name);
            }
            if let Some(avatar) = &profile.avatar {
                avatar.clone_into(&mut user.avatar);
            }
            user.rev += u64::from(before != (user.display_name.clone(), user.avatar.clone()));
        })
        .await
    }

    async fn set_sends_receipts(&self, user: UserId, sends_receipts: bool) -> StoreResult<()> {
        let _call = self.journal.begin("set_sends_receipts");
        self.write(|state| {
            if let Some((user, _)) = state.users.get_mut(&user) {
                user.sends_receipts = sends_receipts;
            }
        })
        .await
    }

    async fn set_audiences(
        &self,
        user: UserId,
        may_add: Option<Audience>,
        may_write: Option<Audience>,
    ) -> StoreResult<()> {
        let _call = self.journal.begin("set_audiences");
        self.write(|state| {
            if let Some((user, _)) = state.users.get_mut(&user) {
                user.may_add = may_add.or(user.may_add);
                user.may_write = may_write.or(user.may_write);
            }
        })
        .await
    }

    async fn credentials(&self, user: UserId) -> StoreResult<Option<Credentials>> {
        let _call = self.journal.begin("credentials");
        let credentials =
            |(user, hash): &(User, String)| Credentials { password_hash: hash.clone(), state: user.state };
        self.read(|state| state.users.get(&user).map(credentials)).await
    }

    async fn set_password_hash(&self, user: UserId, hash: &str, expected: Option<&str>) -> StoreResult<bool> {
        let _call = self.journal.begin("set_password_hash");
        let is_blind = self.is_mutant(Mutant::PasswordIgnoresExpected);
        self.write(|state| {
            let found = state.users.get_mut(&user).filter(|(user, _)| user.state != UserState::Deleted);
            let Some((_, present)) = found else { return false };
            if expected.is_some_and(|expected| present != expected && present != hash) && !is_blind {
                return false;
            }
            hash.clone_into(present);
            true
        })
        .await
    }

    async fn set_disabled(&self, user: UserId, is_disabled: bool) -> StoreResult<bool> {
        let _call = self.journal.begin("set_disabled");
        self.write(|state| {
            let Some(user) = state.active(user) else { return false };
            user.state = if is_disabled { UserState::Disabled } else { UserState::Active };
            true
        })
        .await
    }

    async fn delete_user(&self, user: UserId, handle_until: Millis) -> StoreResult<()> {
        let _call = self.journal.begin("delete_user");
        // This is written first, so that upkeep repeats the rest if this call stops half-way.
        self.write(|state| state.deletions.insert(user)).await?;
        self.write(|state| {
            if let Some(handle) = state.active(user).map(|user| user.handle.clone()) {
                state.handles.remove(&handle);
                state.kept_handles.insert(handle, handle_until);
            }
        })
        .await?;
        self.write(|state| {
            state.presence.remove(&user);
            if let Some((user, hash)) = state.users.get_mut(&user) {
                let (handle, name) = (String::new(), String::new());
                let rev = user.rev + u64::from(user.state != UserState::Deleted);
                let gone = User::new(user.id, handle, name, user.created_at);
                let User { sends_receipts, may_add, may_write, .. } = *user;
                *user = User { state: UserState::Deleted, rev, sends_receipts, may_add, may_write, ..gone };
                hash.clear();
            }
        })
        .await
    }

    async fn deletions(&self, limit: usize) -> StoreResult<Vec<UserId>> {
        let _call = self.journal.begin("deletions");
        self.read(|state| state.deletions.iter().copied().take(limit).collect()).await
    }

    async fn settle_deletion(&self, user: UserId) -> StoreResult<()> {
        let _call = self.journal.begin("settle_deletion");
        self.write(|state| {
            state.deletions.remove(&user);
        })
        .await
    }

    async fn block(&self, user: UserId, other: UserId, _at: Millis) -> StoreResult<bool> {
        let _call = self.journal.begin("block");
        self.write(|state| state.blocks.insert((user, other))).await
    }

    async fn unblock(&self, user: UserId, other: UserId) -> StoreResult<bool> {
        let _call = self.journal.begin("unblock");
        self.write(|state| state.blocks.remove(&(user, other))).await
    }

    async fn blocks(&self, user: UserId, after: Option<UserId>, limit: usize) -> StoreResult<Vec<UserId>> {
        let _call = self.journal.begin("blocks");
        self.read(|state| {
            let blocked = state.blocks.iter().filter(|(who, other)| *who == user && Some(*other) > after);
            blocked.map(|(_, other)| *other).take(limit).collect()
        })
        .await
    }

    async fn apart_from(&self, user: UserId, limit: usize) -> StoreResult<Vec<UserId>> {
        let _call = self.journal.begin("apart_from");
        self.read(|state| {
            let other = |(one, other): &(UserId, UserId)| match (*one == user, *other == user) {
                (true, _) => Some(*other),
                (_, true) => Some(*one),
                _ => None,
            };
            let apart: std::collections::BTreeSet<UserId> = state.blocks.iter().filter_map(other).collect();
            apart.into_iter().take(limit).collect()
        })
        .await
    }

    async fn who_block(&self, user: UserId, others: &[UserId]) -> StoreResult<Vec<UserId>> {
        let _call = self.journal.begin("who_block");
        self.read(|state| {
            others.iter().copied().filter(|other| state.blocks.contains(&(*other, user))).collect()
        })
        .await
    }

    async fn is_blocked(&self, one: UserId, other: UserId) -> StoreResult<bool> {
        let _call = self.journal.begin("is_blocked");
        self.read(|state| state.blocks.contains(&(one, other)) || state.blocks.contains(&(other, one))).await
    }

    async fn claim(&self, scope: &str, key: &str, claim: Claim) -> StoreResult<Claimed> {
        let _call = self.journal.begin("claim");
        let is_blind = self.is_mutant(Mutant::ClaimAlwaysFirst);
        self.write(|state| {
            let key = (scope.to_owned(), key.to_owned());
            match state.claims.get(&key) {
                Some(before) if !is_blind => Claimed::Before(*before),
                _ => {
                    state.claims.insert(key, claim);
                    Claimed::First
                }
            }
        })
        .await
    }
}

impl State {
    /// The user, unless deleted.
    fn active(&mut self, user: UserId) -> Option<&mut User> {
        let (user, _) = self.users.get_mut(&user)?;
        Some(user).filter(|user| user.state != UserState::Deleted)
    }

    fn take_use(&mut self, invitation: &[u8; 32], user: &User, counts_twice: bool) -> bool {
        let Some((invitation, users)) = self.invitations.get_mut(invitation) else { return false };
        if users.contains(&user.id) {
            return true;
        }
        let is_free = users.len() < invitation.uses as usize || counts_twice;
        is_free && invitation.ends_at > user.created_at && users.insert(user.id)
    }

    /// Frees the handle again, unless its holder exists.
    fn give_back(&mut self, user: &User) {
        if self.handles.get(&user.handle) == Some(&user.id) && !self.users.contains_key(&user.id) {
            self.handles.remove(&user.handle);
        }
    }
}
