//! Channels in the list of one user.

use futures_util::future::{try_join, try_join3};
use madang_ids::{LogId, Seq, UserId};
use madang_proto::ChannelKind;

use super::Scylla;
use super::codec::int;
use super::log::each;
use super::session::{Class, Statement};
use crate::channels::{Channel, MENTIONS_COUNTED, Membership, Overview, OverviewOrder};
use crate::error::StoreResult;
use crate::log::ChannelState;

const MENTIONS: Statement = Statement {
    class: Class::Read,
    cql: "SELECT seq, sender FROM mentions_by_channel WHERE user = ? AND channel = ? AND seq > ? LIMIT ?",
};
const BLOCKS: Statement =
    Statement { class: Class::Read, cql: "SELECT other FROM blocks WHERE user = ? AND other IN ?" };

/// Whether a former member may read entries of the time of their membership.
fn is_readable_after(channel: &Channel) -> bool {
    channel.card.kind != ChannelKind::Open && channel.state != ChannelState::Deleted
}

impl Scylla {
    /// Counts the messages behind the marker that mention the user or everybody. Blocked senders do not count.
    async fn mentions_after(&self, membership: &Membership, marker: Seq) -> StoreResult<u64> {
        let (user, channel) = (int(membership.user_id.raw()), int(membership.channel_id.raw()));
        let limit = i32::try_from(MENTIONS_COUNTED).unwrap_or(i32::MAX);
        let read = |id: i64| self.cql.read::<(i64, i64)>(&MENTIONS, (id, channel, int(marker.get()), limit));
        let (own, everybody) = try_join(read(user), read(0)).await?;
        let until =
            membership.spans.last().and_then(|span| span.until).map_or(i64::MAX, |until| int(until.get()));
        let mut found: Vec<(i64, i64)> =
            own.into_iter().chain(everybody).filter(|(seq, _)| *seq <= until).collect();
        if found.is_empty() {
            return Ok(0);
        }
        found.sort_unstable();
        found.dedup_by_key(|(seq, _)| *seq);
        let mut senders: Vec<i64> = found.iter().map(|(_, sender)| *sender).collect();
        senders.sort_unstable();
        senders.dedup();
        let blocked: Vec<(i64,)> = self.cql.read(&BLOCKS, (user, senders)).await?;
        let count = found.iter().filter(|(_, sender)| !blocked.contains(&(*sender,))).count() as u64;
        Ok(count.min(MENTIONS_COUNTED))
    }

    pub(super) async fn overview_with(&self, membership: Membership) -> StoreResult<Option<Overview>> {
        let (user, id) = (membership.user_id, membership.channel_id);
        let marker = async {
            let marker = self.marker(user, id).await?;
            Ok((marker, self.mentions_after(&membership, marker.seq).await?))
        };
        let settings = self.settings_of(user, id);
        let (channel, (marker, mentions), settings) =
            try_join3(self.channel_with_head(id), marker, settings).await?;
        let Some((channel, head, last_message_at)) = channel else { return Ok(None) };
        Ok(Some(Overview { channel, membership, head, marker, mentions, settings, last_message_at }))
    }

    /// See [`crate::ChannelStore::overview`].
    pub(super) async fn overview_page(
        &self,
        user: UserId,
        order: OverviewOrder,
        limit: usize,
    ) -> StoreResult<Vec<Overview>> {
        let (after, is_left) = match order {
            OverviewOrder::Id(after) => (after, false),
            OverviewOrder::Left(after) => (after, true),
            OverviewOrder::Activity(_) => (None, false),
        };
        let wants = move |membership: &Membership| membership.spans.is_open() != is_left;
        if let OverviewOrder::Activity(after) = order {
            // The order depends on every head: all of them are read, and the page is filled from the latest on.
            let all = self.all_memberships(user, None, usize::MAX, wants).await?;
            let heads = each(all, |membership| async move {
                let head = self.last_bucket(LogId::Channel(membership.channel_id)).await?.head();
                Ok((head.at, membership.channel_id, membership))
            });
            let mut heads = heads.await?;
            heads.retain(|(at, id, _)| after.is_none_or(|after| (*at, *id) < after));
            heads.sort_by_key(|(at, id, _)| std::cmp::Reverse((*at, *id)));
            heads.truncate(limit);
            let page = heads.into_iter().map(|(_, _, membership)| membership).collect();
            let found = each(page, |membership| self.overview_with(membership)).await?;
            return Ok(found.into_iter().flatten().collect());
        }
        let (mut found, mut after) = (Vec::new(), after);
        while found.len() < limit {
            let page = self.all_memberships(user, after, limit, wants).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.channel_id);
            let more = each(page, |membership| self.overview_with(membership)).await?;
            found.extend(more.into_iter().flatten().filter(|it| !is_left || is_readable_after(&it.channel)));
        }
        found.truncate(limit);
        Ok(found)
    }
}
