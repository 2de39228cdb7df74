//! Presence settings and the last activity of users.

use madang_ids::{Millis, UserId};
use scylla::value::MaybeUnset;

use super::Scylla;
use super::codec::{int, number};
use super::log::each;
use super::session::{Class, Statement};
use crate::contacts::{PresenceChange, PresenceRow};
use crate::error::StoreResult;

const PRESENCE: Statement = Statement {
    class: Class::Read,
    cql: "SELECT invisible, status, last_active_at FROM presence WHERE user = ?",
};
const SET_PRESENCE: Statement =
    Statement { class: Class::Write, cql: "UPDATE presence SET invisible = ?, status = ? WHERE user = ?" };
const SET_ACTIVE: Statement = Statement {
    class: Class::Write,
    cql: "UPDATE presence USING TIMESTAMP ? SET last_active_at = ? WHERE user = ?",
};
const FORGET: Statement = Statement {
    class: Class::Write,
    cql: "DELETE invisible, status, last_active_at FROM presence WHERE user = ?",
};

impl Scylla {
    pub(super) async fn put_presence(&self, user: UserId, change: &PresenceChange) -> StoreResult<()> {
        let PresenceChange { invisible, status } = change.clone();
        if invisible.is_none() && status.is_none() {
            return Ok(());
        }
        let invisible = invisible.map_or(MaybeUnset::Unset, MaybeUnset::Set);
        let status = status.map_or(MaybeUnset::Unset, MaybeUnset::Set);
        self.cql.write(&SET_PRESENCE, (invisible, status, int(user.raw()))).await
    }

    pub(super) async fn presence_rows(&self, users: &[UserId]) -> StoreResult<Vec<PresenceRow>> {
        let read = |user: UserId| async move {
            let row: Option<(Option<bool>, Option<String>, Option<i64>)> =
                self.cql.read_one(&PRESENCE, (int(user.raw()),)).await?;
            let (invisible, status, last_active_at) = row.unwrap_or_default();
            Ok(PresenceRow {
                invisible: invisible.unwrap_or(false),
                status,
                last_active_at: last_active_at.map(|at| Millis::new(number(at))),
            })
        };
        each(users.to_vec(), read).await
    }

    pub(super) async fn put_last_active(&self, marks: &[(UserId, Millis)]) -> StoreResult<()> {
        let put = |(user, at): (UserId, Millis)| async move {
            let at = int(at.get());
            self.cql.write(&SET_ACTIVE, (at, at, int(user.raw()))).await
        };
        each(marks.to_vec(), put).await.map(drop)
    }

    pub(super) async fn forget_presence(&self, user: UserId) -> StoreResult<()> {
        self.cql.write(&FORGET, (int(user.raw()),)).await
    }
}
