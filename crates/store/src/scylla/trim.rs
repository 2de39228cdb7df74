//! Removal of what only a deleted user read.

use async_trait::async_trait;
use madang_ids::{LogId, Seq, UserId};

use super::Scylla;
use super::codec::{int, log_key};
use super::log::{bucket_of, first_of};
use super::session::{Class, Statement};
use crate::accounts::AccountStore;
use crate::channels::{ChannelStore, Membership};
use crate::error::StoreResult;
use crate::trim::TrimStore;

const OWN_ROWS: Statement = Statement {
    class: Class::Read,
    cql: "SELECT seq FROM log WHERE kind = ? AND id = ? AND bucket = ? AND part = 0 AND seq < ?
          ORDER BY part DESC, seq ASC, key DESC LIMIT ?",
};
const FORGET_ROW: Statement = Statement {
    class: Class::Conditional,
    cql: "DELETE FROM log WHERE kind = ? AND id = ? AND bucket = ? AND part = 0 AND seq = ? AND key = 0x IF EXISTS",
};
const FORGET_MEMBER: Statement = Statement {
    class: Class::Conditional,
    cql: "DELETE FROM members WHERE channel = ? AND part = 0 AND user = ? IF pending = null",
};
/// A later membership has a greater version, and is not removed.
const FORGET_MEMBERSHIP: Statement = Statement {
    class: Class::Write,
    cql: "DELETE FROM memberships USING TIMESTAMP ? WHERE user = ? AND channel = ?",
};
const FORGET_MARKER: Statement = Statement {
    class: Class::Write,
    cql: "DELETE FROM markers USING TIMESTAMP ? WHERE user = ? AND channel = ?",
};
const SETTINGS: Statement =
    Statement { class: Class::Read, cql: "SELECT channel FROM channel_settings WHERE user = ? LIMIT ?" };
const FORGET_SETTINGS: Statement = Statement {
    class: Class::Conditional,
    cql: "DELETE FROM channel_settings WHERE user = ? AND channel = ? IF EXISTS",
};
const HIDDEN: Statement =
    Statement { class: Class::Read, cql: "SELECT channel, seq FROM hidden WHERE user = ? LIMIT ?" };
const SHOW: Statement =
    Statement { class: Class::Write, cql: "DELETE FROM hidden WHERE user = ? AND channel = ? AND seq = ?" };
const SHOW_ALL: Statement =
    Statement { class: Class::Write, cql: "DELETE FROM hidden WHERE user = ? AND channel = ?" };

impl Scylla {
    /// Removes rows of a user's own log from its beginning, except the last one.
    async fn forget_own_rows(&self, user: UserId, forgets: usize) -> StoreResult<usize> {
        let log = LogId::User(user);
        let (kind, id) = log_key(log);
        let last = self.last_bucket(log).await?.head().seq;
        let (mut gone, mut bucket) = (0, 0);
        while gone < forgets && first_of(bucket) < last && bucket <= bucket_of(last) {
            let limit = i32::try_from(forgets - gone).unwrap_or(i32::MAX);
            let rows: Vec<(i64,)> =
                self.cql.read(&OWN_ROWS, (kind, id, bucket, int(last.get()), limit)).await?;
            for (seq,) in &rows {
                self.cql.conditional(&FORGET_ROW, (kind, id, bucket, *seq)).await?;
            }
            gone += rows.len();
            bucket += 1;
        }
        Ok(gone)
    }

    /// Removes channels that a user has left, except those with a ban or a pending change. Everything of the user about the channel
    /// goes with it.
    async fn forget_left(&self, user: UserId, forgets: usize) -> StoreResult<usize> {
        let left =
            self.all_memberships(user, None, usize::MAX, |membership| !membership.spans.is_open()).await?;
        let mut gone = 0;
        for membership in left {
            if gone == forgets {
                break;
            }
            gone += usize::from(self.forget_channel(membership).await?);
        }
        Ok(gone)
    }

    async fn forget_channel(&self, membership: Membership) -> StoreResult<bool> {
        let (user, id) = (membership.user_id, membership.channel_id);
        let is_kept = |member: &crate::channels::Member| {
            member.spans.is_open() || member.pending.is_some() || member.banned.is_some()
        };
        if self.member(id, user).await?.is_some_and(|member| is_kept(&member)) {
            return Ok(false);
        }
        let (user, channel) = (int(user.raw()), int(id.raw()));
        self.cql.conditional(&FORGET_MEMBER, (channel, user)).await?;
        // A marker is at or before the end of the stay.
        let until = membership.spans.edge().unwrap_or(Seq::ZERO).max(membership.version);
        self.cql.write(&FORGET_MARKER, (int(until.get()), user, channel)).await?;
        self.cql.conditional(&FORGET_SETTINGS, (user, channel)).await?;
        self.cql.write(&SHOW_ALL, (user, channel)).await?;
        self.cql.write(&FORGET_MEMBERSHIP, (int(membership.version.get()), user, channel)).await?;
        Ok(true)
    }

    async fn forget_settings(&self, user: UserId, forgets: usize) -> StoreResult<usize> {
        if forgets == 0 {
            return Ok(0);
        }
        let user = int(user.raw());
        let limit = i32::try_from(forgets).unwrap_or(i32::MAX);
        let channels: Vec<(i64,)> = self.cql.read(&SETTINGS, (user, limit)).await?;
        for (channel,) in &channels {
            self.cql.conditional(&FORGET_SETTINGS, (user, *channel)).await?;
        }
        Ok(channels.len())
    }

    async fn forget_hidden(&self, user: UserId, forgets: usize) -> StoreResult<usize> {
        if forgets == 0 {
            return Ok(0);
        }
        let user = int(user.raw());
        let limit = i32::try_from(forgets).unwrap_or(i32::MAX);
        let hidden: Vec<(i64, i64)> = self.cql.read(&HIDDEN, (user, limit)).await?;
        for (channel, seq) in &hidden {
            self.cql.write(&SHOW, (user, *channel, *seq)).await?;
        }
        Ok(hidden.len())
    }

    /// Ends blocks by the user. A block stays if the two users have a direct channel.
    async fn forget_blocks(&self, user: UserId, forgets: usize) -> StoreResult<usize> {
        let (mut gone, mut after) = (0, None);
        while gone < forgets {
            let page = self.blocks(user, after, 500).await?;
            let Some(last) = page.last() else { break };
            after = Some(*last);
            for other in page {
                if gone < forgets && self.direct(user, other).await?.is_none() {
                    self.unblock(user, other).await?;
                    gone += 1;
                }
            }
        }
        Ok(gone)
    }
}

#[async_trait]
impl TrimStore for Scylla {
    async fn forget_user(&self, user: UserId, forgets: usize) -> StoreResult<usize> {
        let mut gone = self.forget_own_rows(user, forgets).await?;
        gone += self.forget_left(user, forgets - gone).await?;
        gone += self.forget_settings(user, forgets - gone).await?;
        gone += self.forget_hidden(user, forgets - gone).await?;
        gone += self.forget_blocks(user, forgets - gone).await?;
        Ok(gone)
    }
}
