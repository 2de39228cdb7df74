//! Users, handles, blocks and idempotency keys.

use async_trait::async_trait;
use futures_util::future::try_join;
use madang_ids::{Millis, UserId};
use madang_proto::Audience;
use scylla::DeserializeRow;
use scylla::value::MaybeUnset;

use super::Scylla;
use super::codec::{int, json, number};
use super::log::each;
use super::session::{Class, Statement};
use crate::accounts::{AccountStore, Claim, Claimed, Created, Credentials, Profile, User, UserState};
use crate::error::{StoreError, StoreResult};

const USER: Statement = Statement {
    class: Class::Read,
    cql: "SELECT id, handle, display_name, created_at, sends_receipts, may_add, may_write, avatar, rev, state, password_hash
          FROM users WHERE id = ?",
};
const CREATE_USER: Statement = Statement {
    class: Class::Conditional,
    cql: "INSERT INTO users (id, handle, display_name, created_at, sends_receipts, may_add, may_write, avatar, rev, state,
          password_hash) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) IF NOT EXISTS",
};
const SET_PROFILE: Statement = Statement {
    class: Class::Conditional,
    cql: "UPDATE users SET display_name = ?, avatar = ?, rev = ? WHERE id = ? IF rev = ? AND state IN ('active', 'disabled')",
};
const SET_RECEIPTS: Statement = Statement {
    class: Class::Conditional,
    cql: "UPDATE users SET sends_receipts = ? WHERE id = ? IF EXISTS",
};
const SET_AUDIENCES: Statement = Statement {
    class: Class::Conditional,
    cql: "UPDATE users SET may_add = ?, may_write = ? WHERE id = ? IF EXISTS",
};
const SET_PASSWORD: Statement = Statement {
    class: Class::Conditional,
    cql: "UPDATE users SET password_hash = ? WHERE id = ? IF state IN ('active', 'disabled')",
};
const SET_PASSWORD_IF: Statement = Statement {
    class: Class::Conditional,
    cql: "UPDATE users SET password_hash = ? WHERE id = ? IF password_hash IN (?, ?) AND state IN ('active', 'disabled')",
};
const SET_STATE: Statement = Statement {
    class: Class::Conditional,
    cql: "UPDATE users SET state = ? WHERE id = ? IF state IN ('active', 'disabled')",
};
const DELETE_USER: Statement = Statement {
    class: Class::Conditional,
    cql: "UPDATE users SET handle = '', display_name = '', avatar = '', password_hash = '', state = 'deleted', rev = ?
          WHERE id = ? IF rev = ?",
};
const PUT_DELETION: Statement =
    Statement { class: Class::Write, cql: "INSERT INTO deletions (shard, user) VALUES (0, ?)" };
const END_DELETION: Statement =
    Statement { class: Class::Write, cql: "DELETE FROM deletions WHERE shard = 0 AND user = ?" };
const DELETIONS: Statement =
    Statement { class: Class::Read, cql: "SELECT user FROM deletions WHERE shard = 0 LIMIT ?" };
const BLOCK: Statement = Statement {
    class: Class::Conditional,
    cql: "INSERT INTO blocks (user, other, at) VALUES (?, ?, ?) IF NOT EXISTS",
};
const UNBLOCK: Statement =
    Statement { class: Class::Conditional, cql: "DELETE FROM blocks WHERE user = ? AND other = ? IF EXISTS" };
const PUT_BLOCKED: Statement =
    Statement { class: Class::Write, cql: "INSERT INTO blocked_by (user, other) VALUES (?, ?)" };
const REMOVE_BLOCKED: Statement =
    Statement { class: Class::Write, cql: "DELETE FROM blocked_by WHERE user = ? AND other = ?" };
const BLOCKS: Statement =
    Statement { class: Class::Read, cql: "SELECT other FROM blocks WHERE user = ? AND other > ? LIMIT ?" };
const BLOCKED_BY: Statement = Statement {
    class: Class::Read,
    cql: "SELECT other FROM blocked_by WHERE user = ? AND other > ? LIMIT ?",
};
const BLOCKED_AMONG: Statement =
    Statement { class: Class::Read, cql: "SELECT other FROM blocked_by WHERE user = ? AND other IN ?" };
const BLOCKS_AMONG: Statement =
    Statement { class: Class::Read, cql: "SELECT other FROM blocks WHERE user = ? AND other IN ?" };
const IS_BLOCKED: Statement =
    Statement { class: Class::Read, cql: "SELECT other FROM blocks WHERE user = ? AND other = ?" };
const CLAIM: Statement = Statement {
    class: Class::Conditional,
    cql: "INSERT INTO claims (scope, key, id, request_hash, at) VALUES (?, ?, ?, ?, ?) IF NOT EXISTS",
};
const CLAIMED: Statement = Statement {
    class: Class::SerialRead,
    cql: "SELECT id, request_hash, at FROM claims WHERE scope = ? AND key = ?",
};
/// Attempts of a compare-and-set whose value another call changes meanwhile.
pub(super) const TRIES: u32 = 32;

#[derive(Debug, DeserializeRow)]
struct StoredUser {
    id: i64,
    handle: Option<String>,
    display_name: Option<String>,
    created_at: i64,
    sends_receipts: Option<bool>,
    may_add: Option<String>,
    may_write: Option<String>,
    avatar: Option<String>,
    rev: i64,
    state: String,
    password_hash: Option<String>,
}

fn state_of(text: &str) -> StoreResult<UserState> {
    match text {
        "active" => Ok(UserState::Active),
        "disabled" => Ok(UserState::Disabled),
        "deleted" => Ok(UserState::Deleted),
        other => Err(StoreError::Corrupt(format!("a user in the state {other}"))),
    }
}

fn audience(text: Option<String>) -> StoreResult<Option<Audience>> {
    text.map(|text| serde_json::from_str(&text))
        .transpose()
        .map_err(|error| StoreError::Corrupt(format!("an audience: {error}")))
}

impl StoredUser {
    fn user(self) -> StoreResult<User> {
        Ok(User {
            id: UserId::from_raw(number(self.id)),
            handle: self.handle.unwrap_or_default(),
            display_name: self.display_name.unwrap_or_default(),
            created_at: Millis::new(number(self.created_at)),
            sends_receipts: self.sends_receipts.unwrap_or(true),
            may_add: audience(self.may_add)?,
            may_write: audience(self.may_write)?,
            avatar: self.avatar.unwrap_or_default(),
            rev: number(self.rev),
            state: state_of(&self.state)?,
        })
    }
}

impl Scylla {
    async fn stored_user(&self, id: UserId) -> StoreResult<Option<StoredUser>> {
        self.cql.read_one(&USER, (int(id.raw()),)).await
    }

    /// A user, also one that is deleted.
    pub(super) async fn found_user(&self, id: UserId) -> StoreResult<Option<User>> {
        self.stored_user(id).await?.map(StoredUser::user).transpose()
    }
}

#[async_trait]
impl AccountStore for Scylla {
    async fn create_user(
        &self,
        user: &User,
        password_hash: &str,
        invitation: Option<&[u8; 32]>,
    ) -> StoreResult<Created> {
        if !self.take_handle(user).await? {
            return Ok(Created::Taken);
        }
        let id = int(user.id.raw());
        if let Some(invitation) = invitation
            && !self.take_use(invitation, user).await?
        {
            if self.stored_user(user.id).await?.is_none() {
                self.free_handle(user).await?;
            }
            return Ok(Created::NotInvited);
        }
        self.list_handle(&user.handle, user.id).await?;
        let values = (
            id,
            user.handle.as_str(),
            user.display_name.as_str(),
            int(user.created_at.get()),
            user.sends_receipts,
            user.may_add.as_ref().map(json).transpose()?,
            user.may_write.as_ref().map(json).transpose()?,
            user.avatar.as_str(),
            int(user.rev),
            "active",
            password_hash,
        );
        if self.cql.conditional(&CREATE_USER, values).await? || !self.was_given_up(user).await? {
            return Ok(Created::Created);
        }
        Ok(Created::Taken)
    }

    async fn users(&self, ids: &[UserId]) -> StoreResult<Vec<Option<User>>> {
        let users = each(ids.to_vec(), |id| self.stored_user(id)).await?;
        users.into_iter().map(|user| user.map(StoredUser::user).transpose()).collect()
    }

    async fn user_by_handle(&self, handle: &str) -> StoreResult<Option<User>> {
        match self.holder(handle).await? {
            Some(holder) => self.found_user(holder).await,
            None => Ok(None),
        }
    }

    async fn users_by_handle(&self, prefix: &str, after: &str, limit: usize) -> StoreResult<Vec<User>> {
        self.in_order_of_handles(prefix, after, limit).await
    }

    async fn set_profile(&self, user: UserId, profile: &Profile) -> StoreResult<()> {
        for _ in 0..TRIES {
            let Some(stored) = self.stored_user(user).await? else { return Ok(()) };
            let found = stored.user()?;
            let name = profile.display_name.as_ref().unwrap_or(&found.display_name);
            let avatar = profile.avatar.as_ref().unwrap_or(&found.avatar);
            if found.state == UserState::Deleted || (name == &found.display_name && avatar == &found.avatar) {
                return Ok(());
            }
            let values =
                (name.as_str(), avatar.as_str(), int(found.rev + 1), int(user.raw()), int(found.rev));
            if self.cql.conditional(&SET_PROFILE, values).await? {
                return Ok(());
            }
        }
        Err(StoreError::Unavailable("too many changes of one profile at once".into()))
    }

    async fn set_sends_receipts(&self, user: UserId, sends_receipts: bool) -> StoreResult<()> {
        self.cql.conditional(&SET_RECEIPTS, (sends_receipts, int(user.raw()))).await.map(drop)
    }

    async fn set_audiences(
        &self,
        user: UserId,
        may_add: Option<Audience>,
        may_write: Option<Audience>,
    ) -> StoreResult<()> {
        let text = |audience: Option<Audience>| -> StoreResult<MaybeUnset<String>> {
            Ok(match audience {
                Some(audience) => MaybeUnset::Set(json(&audience)?),
                None => MaybeUnset::Unset,
            })
        };
        if may_add.is_none() && may_write.is_none() {
            return Ok(());
        }
        let values = (text(may_add)?, text(may_write)?, int(user.raw()));
        self.cql.conditional(&SET_AUDIENCES, values).await.map(drop)
    }

    async fn credentials(&self, user: UserId) -> StoreResult<Option<Credentials>> {
        let Some(stored) = self.stored_user(user).await? else { return Ok(None) };
        let state = state_of(&stored.state)?;
        Ok(Some(Credentials { password_hash: stored.password_hash.unwrap_or_default(), state }))
    }

    async fn set_password_hash(&self, user: UserId, hash: &str, expected: Option<&str>) -> StoreResult<bool> {
        let id = int(user.raw());
        match expected {
            Some(expected) => self.cql.conditional(&SET_PASSWORD_IF, (hash, id, expected, hash)).await,
            None => self.cql.conditional(&SET_PASSWORD, (hash, id)).await,
        }
    }

    async fn set_disabled(&self, user: UserId, is_disabled: bool) -> StoreResult<bool> {
        let state = if is_disabled { "disabled" } else { "active" };
        self.cql.conditional(&SET_STATE, (state, int(user.raw()))).await
    }

    async fn delete_user(&self, user: UserId, handle_until: Millis) -> StoreResult<()> {
        let id = int(user.raw());
        // This is written first, so that upkeep repeats the rest if this call stops half-way.
        self.cql.write(&PUT_DELETION, (id,)).await?;
        for _ in 0..TRIES {
            let Some(stored) = self.stored_user(user).await? else { return Ok(()) };
            let found = stored.user()?;
            if found.state == UserState::Deleted {
                return Ok(());
            }
            let handle = found.handle.as_str();
            self.keep_handle(handle, user, handle_until).await?;
            self.forget_presence(user).await?;
            if self.cql.conditional(&DELETE_USER, (int(found.rev + 1), id, int(found.rev))).await? {
                return Ok(());
            }
        }
        Err(StoreError::Unavailable("too many changes of one user at once".into()))
    }

    async fn deletions(&self, limit: usize) -> StoreResult<Vec<UserId>> {
        let limit = i32::try_from(limit).unwrap_or(i32::MAX);
        let rows: Vec<(i64,)> = self.cql.read(&DELETIONS, (limit,)).await?;
        Ok(rows.into_iter().map(|(user,)| UserId::from_raw(number(user))).collect())
    }

    async fn settle_deletion(&self, user: UserId) -> StoreResult<()> {
        self.cql.write(&END_DELETION, (int(user.raw()),)).await
    }

    async fn block(&self, user: UserId, other: UserId, at: Millis) -> StoreResult<bool> {
        let (user, other) = (int(user.raw()), int(other.raw()));
        // The list of the other user first: a call that is repeated writes it again.
        self.cql.write(&PUT_BLOCKED, (other, user)).await?;
        self.cql.conditional(&BLOCK, (user, other, int(at.get()))).await
    }

    async fn unblock(&self, user: UserId, other: UserId) -> StoreResult<bool> {
        let (user, other) = (int(user.raw()), int(other.raw()));
        let was_there = self.cql.conditional(&UNBLOCK, (user, other)).await?;
        self.cql.write(&REMOVE_BLOCKED, (other, user)).await?;
        Ok(was_there)
    }

    async fn blocks(&self, user: UserId, after: Option<UserId>, limit: usize) -> StoreResult<Vec<UserId>> {
        self.list(&BLOCKS, user, after, limit).await
    }

    async fn apart_from(&self, user: UserId, limit: usize) -> StoreResult<Vec<UserId>> {
        let (mut all, by) =
            try_join(self.list(&BLOCKS, user, None, limit), self.list(&BLOCKED_BY, user, None, limit))
                .await?;
        all.extend(by);
        all.sort_unstable();
        all.dedup();
        all.truncate(limit);
        Ok(all)
    }

    async fn who_block(&self, user: UserId, others: &[UserId]) -> StoreResult<Vec<UserId>> {
        let ids: Vec<i64> = others.iter().map(|other| int(other.raw())).collect();
        let found: Vec<(i64,)> = self.cql.read(&BLOCKED_AMONG, (int(user.raw()), ids)).await?;
        Ok(others.iter().copied().filter(|other| found.contains(&(int(other.raw()),))).collect())
    }

    async fn is_blocked(&self, one: UserId, other: UserId) -> StoreResult<bool> {
        let (one, other) = (int(one.raw()), int(other.raw()));
        let read = |pair| self.cql.read_one::<(i64,)>(&IS_BLOCKED, pair);
        let (there, back) = try_join(read((one, other)), read((other, one))).await?;
        Ok(there.is_some() || back.is_some())
    }

    async fn claim(&self, scope: &str, key: &str, claim: Claim) -> StoreResult<Claimed> {
        let Claim { id, request_hash, at } = claim;
        let values = (scope, key, int(id), request_hash.to_vec(), int(at.get()));
        if self.cql.conditional(&CLAIM, values).await? {
            return Ok(Claimed::First);
        }
        let row: Option<(i64, Vec<u8>, i64)> = self.cql.read_one(&CLAIMED, (scope, key)).await?;
        let before = row.and_then(|(id, hash, at)| {
            let request_hash = hash.try_into().ok()?;
            Some(Claim { id: number(id), request_hash, at: Millis::new(number(at)) })
        });
        before
            .map(Claimed::Before)
            .ok_or_else(|| StoreError::Unknown("a claim is there and cannot be read".into()))
    }
}

impl Scylla {
    /// The users among `others` that this user blocks.
    pub(super) async fn blocked_among(&self, user: UserId, others: &[UserId]) -> StoreResult<Vec<UserId>> {
        let ids: Vec<i64> = others.iter().map(|other| int(other.raw())).collect();
        let found: Vec<(i64,)> = self.cql.read(&BLOCKS_AMONG, (int(user.raw()), ids)).await?;
        Ok(found.into_iter().map(|(other,)| UserId::from_raw(number(other))).collect())
    }

    async fn list(
        &self,
        statement: &Statement,
        user: UserId,
        after: Option<UserId>,
        limit: usize,
    ) -> StoreResult<Vec<UserId>> {
        let after = after.map_or(-1, |after| int(after.raw()));
        let limit = i32::try_from(limit).unwrap_or(i32::MAX);
        let rows: Vec<(i64,)> = self.cql.read(statement, (int(user.raw()), after, limit)).await?;
        Ok(rows.into_iter().map(|(other,)| UserId::from_raw(number(other))).collect())
    }
}
