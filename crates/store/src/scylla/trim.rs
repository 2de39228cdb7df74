//! Removal of what only a deleted user read, and of what nobody needs any more.
//!
//! A cluster has no walk over all users: it would be a scan. A user's own log and left channels grow only when they are written, so
//! the writer removes what is too much: the append that begins a bucket of an own log empties an old one, and the write of a
//! membership that has ended sometimes removes the stays that ended longest ago.

use std::cmp::Reverse;

use async_trait::async_trait;
use madang_ids::{LogId, Seq, UserId};
use madang_proto::limits;
use scylla::value::{CqlTimestamp, CqlValue};

use super::Scylla;
use super::codec::{big, int, log_key, set};
use super::log::{BUCKET, bucket_of, each, first_of, last_of};
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

/// A bucket of an own log begins: this bucket is emptied, one of the earliest whose rows all lie before the last
/// [`limits::SYNC_ITEMS`] ones. The head stays, so that a writer which was paused since cannot begin the bucket anew.
const EMPTY_BUCKET: Statement = Statement {
    class: Class::Conditional,
    cql: "DELETE FROM log WHERE kind = ? AND id = ? AND bucket = ? AND part = 0",
};
const KEEP_HEAD: Statement = Statement {
    class: Class::Conditional,
    cql: "UPDATE log SET head_seq = ? WHERE kind = ? AND id = ? AND bucket = ? IF head_seq = ?",
};
/// The time of the row that ended a stay, beside the time of the cluster.
const ENDED: Statement = Statement {
    class: Class::Read,
    cql: "SELECT at, toTimestamp(now()) FROM log WHERE kind = ? AND id = ? AND bucket = ? AND part = 0 AND seq = ? AND key = 0x",
};

/// One end of a stay in this number looks for stays to remove: looking reads all memberships of the user.
const LOOK_EVERY: u64 = 64;
/// A stay that ended less than this ago is kept, because a device may still have to read its last rows: an inbox goes back 7 days.
const KEPT_MS: i64 = 8 * 86_400_000;

impl Scylla {
    /// Empties what is too old when `bucket` of a user's own log begins. The bucket before is emptied once more, in case its turn
    /// failed.
    pub(super) async fn empty_old_buckets(&self, user: UserId, bucket: i32) {
        let newest =
            i64::from(bucket) - 1 - i64::try_from(limits::SYNC_ITEMS / BUCKET + 1).unwrap_or(i64::MAX);
        let newest = i32::try_from(newest).unwrap_or(i32::MAX);
        for old in (newest - 1).max(0)..=newest {
            match self.empty_bucket(user, old).await {
                Ok(is_empty) => drop(self.cql.metrics.forgotten_buckets.inc_by(u64::from(is_empty))),
                Err(error) => {
                    tracing::warn!(user.id = %user, bucket = old, %error, "removing old rows of a user's own log failed");
                }
            }
        }
    }

    async fn empty_bucket(&self, user: UserId, bucket: i32) -> StoreResult<bool> {
        let (kind, id) = log_key(LogId::User(user));
        let place = || [set(CqlValue::TinyInt(kind)), set(CqlValue::BigInt(id)), set(CqlValue::Int(bucket))];
        let last = || big(last_of(bucket).get());
        let mut keep = vec![last()];
        keep.extend(place());
        keep.push(last());
        self.cql.conditional_batch(vec![(&KEEP_HEAD, keep), (&EMPTY_BUCKET, place().into())]).await
    }

    /// A stay of a user has ended. Sometimes removes the user's left channels above the number that is kept: first open channels,
    /// of which a former member reads nothing, then stays that were not accepted, which any user could have caused, and of the rest
    /// those that were left longest ago.
    pub(super) async fn forget_old_stays(&self, ended: &Membership) {
        let (user, channel) = (ended.user_id.raw(), ended.channel_id.raw());
        // Ids have their time above bit 22, and the counter of their millisecond in the lowest bits.
        let turn = (channel ^ (channel >> 22) ^ user ^ (user >> 22) ^ ended.version.get()) % LOOK_EVERY;
        if turn != 0 {
            return;
        }
        match self.forget_excess(ended.user_id).await {
            Ok(gone) => drop(self.cql.metrics.forgotten_channels.inc_by(gone)),
            Err(error) => {
                tracing::warn!(user.id = %ended.user_id, %error, "removing channels that a user left long ago failed");
            }
        }
    }

    async fn forget_excess(&self, user: UserId) -> StoreResult<u64> {
        let is_left = |membership: &Membership| !membership.spans.is_open();
        let left = self.all_memberships(user, None, usize::MAX, is_left).await?;
        let excess = left.len().saturating_sub(limits::LEFT_CHANNELS);
        if excess == 0 {
            return Ok(0);
        }
        let aged = each(left, |stay| async move { Ok((self.ended_ago_ms(&stay).await?, stay)) }).await?;
        let mut old: Vec<(i64, Membership)> =
            aged.into_iter().filter(|(ago, stay)| *ago >= KEPT_MS || !stay.in_inbox).collect();
        old.sort_by_key(|(ago, stay)| (stay.in_inbox, stay.has_accepted, Reverse(*ago)));
        old.truncate(excess);
        let gone = each(old, |(_, stay)| self.forget_channel(stay)).await?;
        Ok(gone.into_iter().map(u64::from).sum())
    }

    /// How long ago a stay ended. A row that is not there is of a channel that was erased long ago.
    async fn ended_ago_ms(&self, stay: &Membership) -> StoreResult<i64> {
        let until = stay.spans.edge().unwrap_or(Seq::ZERO);
        let (kind, id) = log_key(LogId::Channel(stay.channel_id));
        let values = (kind, id, bucket_of(until), int(until.get()));
        let found: Option<(i64, CqlTimestamp)> = self.cql.read_one(&ENDED, values).await?;
        Ok(found.map_or(i64::MAX, |(at, now)| now.0 - at))
    }

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
        if !self.forget_member(id, user).await? {
            return Ok(false);
        }
        let (user, channel) = (int(user.raw()), int(id.raw()));
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
