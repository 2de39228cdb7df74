//! The users and channels that write most, for the operator.

use std::time::Duration;

use madang_ids::{ChannelId, UserId};
use madang_proto::{ChannelKind, ErrorBody};
use serde::{Deserialize, Serialize};

use super::Operations;
use crate::home::{Count, PERIOD, Period};
use crate::refusal::Result;

/// The most users, and channels, that an operator can ask for.
const LIMIT: usize = 100;
/// A user who has written at least this share of all bytes of an hour is logged, if it is at least [`WARN_BYTES`].
const WARN_PERCENT: u64 = 50;
/// The least number of bytes for which a user is logged.
const WARN_BYTES: u64 = 64 * 1024 * 1024;

/// What was written in one period.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TopPeriod {
    /// How long it has lasted, in seconds.
    pub seconds: u64,
    /// All bytes of appended entries and rewritten rows.
    pub bytes: u64,
    /// The users who have written most.
    pub users: Vec<TopUser>,
    /// The channels to which most was written. Bytes in users' own logs belong to none.
    pub channels: Vec<TopChannel>,
}

/// One user.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TopUser {
    /// The user.
    pub id: UserId,
    /// The handle; empty for a deleted user.
    pub handle: String,
    /// An upper bound.
    pub bytes: u64,
    /// A lower bound. The difference may belong to users who had the same counter before.
    pub at_least: u64,
}

/// One channel.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TopChannel {
    /// The channel.
    pub id: ChannelId,
    /// Its kind.
    pub kind: ChannelKind,
    /// Its name; direct channels have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// An upper bound.
    pub bytes: u64,
    /// A lower bound.
    pub at_least: u64,
}

impl Operations {
    /// The users and channels that have written most on this node, in this period and in the one before.
    ///
    /// # Errors
    /// `limit` out of bounds.
    pub async fn top(&self, limit: usize) -> Result<Vec<TopPeriod>> {
        if !(1..=LIMIT).contains(&limit) {
            return Err(
                ErrorBody::invalid("limit", format!("limit is {limit}, it must be 1 to {LIMIT}")).into()
            );
        }
        let (now, lasts, last) = self.homes.written().periods(self.clock.elapsed());
        let mut periods = vec![self.named(&now, lasts, limit).await?];
        if let Some(last) = last {
            periods.push(self.named(&last, PERIOD, limit).await?);
        }
        Ok(periods)
    }

    async fn named(&self, period: &Period, lasts: Duration, limit: usize) -> Result<TopPeriod> {
        let (users, channels) = (period.users.top(limit), period.channels.top(limit));
        let ids: Vec<UserId> = users.iter().map(|(id, _)| *id).collect();
        let cards = self.store.users(&ids).await?;
        let handle = |card: Option<madang_store::User>| card.map(|card| card.handle).unwrap_or_default();
        let user = |((id, count), card): ((UserId, Count), _)| TopUser {
            id,
            handle: handle(card),
            bytes: count.at_most,
            at_least: count.at_least(),
        };
        let users = users.into_iter().zip(cards).map(user).collect();
        let mut named = Vec::with_capacity(channels.len());
        for (id, count) in channels {
            let Some(channel) = self.store.channel(id).await? else {
                continue;
            };
            let (kind, name) = (channel.card.kind, channel.card.name);
            named.push(TopChannel { id, kind, name, bytes: count.at_most, at_least: count.at_least() });
        }
        Ok(TopPeriod { seconds: lasts.as_secs(), bytes: period.bytes, users, channels: named })
    }

    /// Ends the count of an hour. The share of the first user and channel goes to the metrics; a large share is logged.
    pub(super) fn turn_written(&self) {
        let Some(ended) = self.homes.written().turn(self.clock.elapsed()) else { return };
        let share = |bytes: u64| bytes as f64 / ended.bytes.max(1) as f64;
        let user = ended.users.top(1).first().map(|(id, count)| (*id, count.at_least()));
        let channel = ended.channels.top(1).first().map_or(0, |(_, count)| count.at_least());
        self.metrics.written_top_user.set(share(user.map_or(0, |(_, bytes)| bytes)));
        self.metrics.written_top_channel.set(share(channel));
        let is_large = |bytes: u64| bytes >= WARN_BYTES && bytes * 100 >= ended.bytes * WARN_PERCENT;
        if let Some((user, bytes)) = user.filter(|(_, bytes)| is_large(*bytes)) {
            let share_percent = bytes * 100 / ended.bytes;
            tracing::warn!(user.id = %user, bytes, share_percent, "one user has written most of the last hour's bytes: see `madang top`");
        }
    }
}
