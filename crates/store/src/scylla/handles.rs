//! Handles: who holds one, and the list of them.
//!
//! A sign-up takes the handle, and then makes the user. Between the two its process may die. The handle is then free again a minute
//! later: the next sign-up that wants it makes the user of the first one, as a deleted user, so that the first can no longer be
//! finished; then it takes the handle over.

use madang_ids::{Millis, Snowflakes, UserId};

use super::Scylla;
use super::codec::{int, number};
use super::session::{Class, Statement};
use crate::accounts::{AccountStore, User, UserState};
use crate::error::StoreResult;

const TAKE: Statement = Statement {
    class: Class::Conditional,
    cql: "INSERT INTO handles (handle, user) VALUES (?, ?) IF NOT EXISTS",
};
const TAKE_KEPT: Statement = Statement {
    class: Class::Conditional,
    cql: "UPDATE handles SET user = ?, kept_until = null WHERE handle = ? IF kept_until = ?",
};
const TAKE_OVER: Statement =
    Statement { class: Class::Conditional, cql: "UPDATE handles SET user = ? WHERE handle = ? IF user = ?" };
const FREE: Statement =
    Statement { class: Class::Conditional, cql: "DELETE FROM handles WHERE handle = ? IF user = ?" };
const KEEP: Statement = Statement {
    class: Class::Conditional,
    cql: "UPDATE handles SET user = null, kept_until = ? WHERE handle = ? IF user = ?",
};
const HANDLE: Statement =
    Statement { class: Class::SerialRead, cql: "SELECT user, kept_until FROM handles WHERE handle = ?" };
/// The user of a sign-up that was not finished.
const GIVE_UP: Statement = Statement {
    class: Class::Conditional,
    cql: "INSERT INTO users (id, handle, display_name, created_at, avatar, rev, state, password_hash)
          VALUES (?, '', '', ?, '', 0, 'deleted', '') IF NOT EXISTS",
};
const PUT_GROUP: Statement =
    Statement { class: Class::Write, cql: "INSERT INTO handle_groups (shard, prefix) VALUES (0, ?)" };
const GROUPS: Statement =
    Statement { class: Class::Read, cql: "SELECT prefix FROM handle_groups WHERE shard = 0 AND prefix >= ?" };
const PUT_ORDERED: Statement = Statement {
    class: Class::Write,
    cql: "INSERT INTO handles_in_order (prefix, handle, user) VALUES (?, ?, ?)",
};
const REMOVE_ORDERED: Statement =
    Statement { class: Class::Write, cql: "DELETE FROM handles_in_order WHERE prefix = ? AND handle = ?" };
const ORDERED: Statement = Statement {
    class: Class::Read,
    cql: "SELECT handle, user FROM handles_in_order WHERE prefix = ? AND handle > ? LIMIT ?",
};

/// How long a sign-up may take from the id of its user on. All calls of a request together take less.
const SIGN_UP_MS: u64 = 60_000;
/// Rows of the ordered list that are read at once.
const PAGE: i32 = 500;

/// The partition of a handle in the ordered list.
fn prefix_of(handle: &str) -> String {
    handle.chars().take(2).collect()
}

impl Scylla {
    /// Whether the user holds the handle now.
    pub(super) async fn take_handle(&self, user: &User) -> StoreResult<bool> {
        let (handle, id) = (user.handle.as_str(), int(user.id.raw()));
        if self.cql.conditional(&TAKE, (handle, id)).await? {
            return Ok(true);
        }
        let found: Option<(Option<i64>, Option<i64>)> = self.cql.read_one(&HANDLE, (handle,)).await?;
        match found {
            Some((Some(holder), _)) if holder == id => Ok(true),
            Some((Some(holder), _))
                if self.give_up(UserId::from_raw(number(holder)), user.created_at).await? =>
            {
                self.cql.conditional(&TAKE_OVER, (id, handle, holder)).await
            }
            Some((None, Some(until))) if number(until) <= user.created_at.get() => {
                self.cql.conditional(&TAKE_KEPT, (id, handle, until)).await
            }
            Some(_) => Ok(false),
            // It was freed in between.
            None => self.cql.conditional(&TAKE, (handle, id)).await,
        }
    }

    /// Whether a holder that took the handle long ago has no user, and never will.
    async fn give_up(&self, holder: UserId, now: Millis) -> StoreResult<bool> {
        let begun = Snowflakes::time_of(holder.raw());
        if begun.get() + SIGN_UP_MS > now.get() {
            return Ok(false);
        }
        // A user that was deleted holds no handle: one that holds it was never finished.
        match self.found_user(holder).await? {
            Some(user) => Ok(user.state == UserState::Deleted && user.rev == 0),
            None => self.cql.conditional(&GIVE_UP, (int(holder.raw()), int(begun.get()))).await,
        }
    }

    /// Whether another sign-up has taken the handle over, so that the user cannot be made.
    pub(super) async fn was_given_up(&self, user: &User) -> StoreResult<bool> {
        let is_made = self.found_user(user.id).await?.is_some_and(|found| found.state != UserState::Deleted);
        if is_made {
            return Ok(false);
        }
        if let Some(holder) = self.holder(&user.handle).await? {
            self.list_handle(&user.handle, holder).await?;
        }
        Ok(true)
    }

    /// Frees a handle that this user holds.
    pub(super) async fn free_handle(&self, user: &User) -> StoreResult<()> {
        self.cql.conditional(&FREE, (user.handle.as_str(), int(user.id.raw()))).await.map(drop)
    }

    /// Keeps the handle of a user who is about to be deleted.
    pub(super) async fn keep_handle(&self, handle: &str, user: UserId, until: Millis) -> StoreResult<()> {
        self.cql.conditional(&KEEP, (int(until.get()), handle, int(user.raw()))).await?;
        self.cql.write(&REMOVE_ORDERED, (prefix_of(handle), handle)).await
    }

    pub(super) async fn holder(&self, handle: &str) -> StoreResult<Option<UserId>> {
        let found: Option<(Option<i64>, Option<i64>)> = self.cql.read_one(&HANDLE, (handle,)).await?;
        Ok(found.and_then(|(holder, _)| holder).map(|holder| UserId::from_raw(number(holder))))
    }

    /// Puts a handle into the ordered list.
    pub(super) async fn list_handle(&self, handle: &str, holder: UserId) -> StoreResult<()> {
        let prefix = prefix_of(handle);
        self.cql.write(&PUT_GROUP, (prefix.as_str(),)).await?;
        self.cql.write(&PUT_ORDERED, (prefix, handle, int(holder.raw()))).await
    }

    /// Users whose handles begin with `prefix`, behind `after`.
    pub(super) async fn in_order_of_handles(
        &self,
        prefix: &str,
        after: &str,
        limit: usize,
    ) -> StoreResult<Vec<User>> {
        let mut users = Vec::new();
        let begin = prefix_of(prefix.max(after));
        let groups: Vec<(String,)> = self.cql.read(&GROUPS, (begin,)).await?;
        for (group,) in groups {
            let is_wanted = group.starts_with(&prefix_of(prefix)) || prefix.starts_with(&group);
            if users.len() >= limit || !is_wanted {
                continue;
            }
            let mut after = after.to_owned();
            loop {
                let rows: Vec<(String, i64)> = self.cql.read(&ORDERED, (group.as_str(), after, PAGE)).await?;
                let Some((last, _)) = rows.last() else { break };
                after = last.clone();
                let ids = rows.iter().filter(|(handle, _)| handle.starts_with(prefix));
                let ids: Vec<UserId> = ids.map(|(_, id)| UserId::from_raw(number(*id))).collect();
                let found = self.users(&ids).await?;
                let is_there =
                    |user: &User| user.state != UserState::Deleted && user.handle.starts_with(prefix);
                users.extend(found.into_iter().flatten().filter(is_there));
                if rows.len() < PAGE as usize || users.len() >= limit {
                    break;
                }
            }
        }
        users.truncate(limit);
        Ok(users)
    }

    /// Takes a handle for a user that is never made, as a process does that dies meanwhile. For tests.
    ///
    /// # Errors
    /// Those of the cluster.
    #[cfg(feature = "conformance")]
    pub async fn take_handle_only(&self, user: &User) -> StoreResult<bool> {
        self.take_handle(user).await
    }
}
