//! The snapshot that a device without a valid cursor starts from, in pages.

use std::collections::{BTreeMap, HashSet};
use std::ops::Bound;

use madang_engine::body;
use madang_ids::{ChannelId, Cursor, LogId, Seq, UserId};
use madang_proto::rest::{ChannelView, HistoryQuery, PageQuery, Since, Snapshot, SnapshotQuery};
use madang_proto::{Entry, ErrorBody, ErrorCode, limits};
use madang_store::{Overview, OverviewOrder};

use super::channels::view;
use super::costs::Cost;
use super::people::names::named_in;
use super::{Caller, Operations, pages};
use crate::refusal::{OperationError, Result};

const RECENT_CHANNELS: usize = 10;
const RECENT_ENTRIES: u32 = 20;
/// The bound of the entries of all channels together; the page that crosses it is included.
const RECENT_BYTES: usize = 512 * 1024;
const SINCE_CHANNELS: usize = 10_000;

/// Channels that a device has and the user is not a member of any more.
struct Left {
    left: Vec<Overview>,
    /// Channels of which nothing is known.
    gone: Vec<ChannelId>,
}

impl Operations {
    /// A page of the snapshot. The cursor of the first page is taken before anything is read, so changes during the reads arrive
    /// again behind it.
    ///
    /// # Errors
    /// `after`, `limit` or `since` out of bounds.
    pub async fn snapshot(&self, caller: Caller, query: SnapshotQuery) -> Result<Snapshot> {
        if query.since.len() > SINCE_CHANNELS {
            let message = format!("since has {} channels, the limit is {SINCE_CHANNELS}", query.since.len());
            return Err(ErrorBody::invalid("since", message).into());
        }
        let is_first = query.after.is_none();
        let limit = query.limit.unwrap_or(limits::LIST_PAGE);
        let (after, limit) =
            pages::bounds::<ChannelId>(&PageQuery { after: query.after, limit: Some(limit) })?;
        let (end, rows) = self.page_behind_cursor(caller.user_id, after, limit).await?;
        let next = pages::next(&rows, limit, |row| row.channel.card.id);
        let upto = next.as_ref().and_then(|_| rows.last()).map(|row| row.channel.card.id);
        let Left { left, gone } = self.left(caller, &query.since, after, upto, &rows).await?;
        self.callers.charge(caller.user_id, Cost::rows(rows.len()));
        let moved = rows.into_iter().filter(|row| {
            let now =
                Since { head_seq: row.head.seq, read_seq: row.marker.seq, settings_rev: row.settings.rev };
            query.since.get(&row.channel.card.id) != Some(&now)
        });
        let moved = moved.chain(left);
        let recent = if is_first && query.recent { self.recent(caller).await? } else { BTreeMap::new() };
        let cursor = end.filter(|_| is_first).map(|end| self.seal(caller.user_id, end)).transpose()?;
        let channels: Vec<ChannelView> = moved.map(view).collect();
        let users = if query.users {
            let between = channels.iter().filter_map(|channel| channel.card.between).flatten();
            let named = recent.values().flat_map(|entries| named_in(entries));
            self.cards(caller, between.chain(named).collect()).await?
        } else {
            Vec::new()
        };
        let invitations = if is_first { self.count_invitations(caller.user_id).await? } else { 0 };
        Ok(Snapshot { cursor, channels, gone, recent, users, invitations, next })
    }

    /// The cursor, and the channels after `after` as they are behind it. Without the inbox there is no cursor: the device keeps the
    /// one that it has.
    async fn page_behind_cursor(
        &self,
        user: UserId,
        after: Option<ChannelId>,
        limit: usize,
    ) -> Result<(Option<Cursor>, Vec<Overview>)> {
        let Some(end) = self.inbox_end(user).await? else {
            return Ok((None, self.store.overview(user, OverviewOrder::Id(after), limit).await?));
        };
        let rows = self.store.overview(user, OverviewOrder::Id(after), limit).await?;
        if !self.inbox.wants_to_know() {
            return Ok((Some(end), rows));
        }
        let mut heads: Vec<(LogId, Seq)> =
            rows.iter().map(|row| (LogId::Channel(row.channel.card.id), row.head.seq)).collect();
        if after.is_none() {
            let own = self.store.heads(&[LogId::User(user)]).await?;
            heads.extend(own.first().map(|head| (LogId::User(user), head.seq)));
        }
        match self.inbox.know(user, &heads, rows.len() < limit).await {
            // Rows of a channel that the inbox did not know may have been lost since they were read.
            Ok(true) => Ok((Some(end), self.store.overview(user, OverviewOrder::Id(after), limit).await?)),
            Ok(false) => Ok((Some(end), rows)),
            // The inbox answered just now. A snapshot of which it does not know must not look like a whole one.
            Err(error) => Err(error.into()),
        }
    }

    /// Channels of this page that the device has and the caller has left. A channel that cannot be read is in neither list.
    async fn left(
        &self,
        caller: Caller,
        since: &BTreeMap<ChannelId, Since>,
        after: Option<ChannelId>,
        upto: Option<ChannelId>,
        rows: &[Overview],
    ) -> Result<Left> {
        let here: HashSet<ChannelId> = rows.iter().map(|row| row.channel.card.id).collect();
        let range =
            (after.map_or(Bound::Unbounded, Bound::Excluded), upto.map_or(Bound::Unbounded, Bound::Included));
        let unknown: Vec<ChannelId> = since
            .range(range)
            .map(|(channel, _)| *channel)
            .filter(|channel| !here.contains(channel))
            .collect();
        // One read for all of them: a client may name any ids, and usually none of them is known.
        let known = self.store.channels_among(caller.user_id, &unknown).await?;
        self.callers.charge(caller.user_id, Cost::ids(unknown.len()).and(Cost::rows(2 * known.len())));
        let mut left = Vec::new();
        let mut gone: Vec<ChannelId> =
            unknown.into_iter().filter(|channel| known.binary_search(channel).is_err()).collect();
        for channel in known {
            match self.overview_of(caller.user_id, channel).await {
                Ok(row) => left.push(row),
                Err(error) if is_strange(&error) => gone.push(channel),
                Err(error) if error.code() == ErrorCode::Internal => {
                    tracing::error!(channel.id = %channel, %error, "reading a channel for a snapshot failed");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Left { left, gone })
    }

    async fn recent(&self, caller: Caller) -> Result<BTreeMap<ChannelId, Vec<Entry>>> {
        let order = OverviewOrder::Activity(None);
        let rows = self.store.overview(caller.user_id, order, RECENT_CHANNELS).await;
        let (mut recent, mut bytes) = (BTreeMap::new(), 0);
        for row in rows? {
            let query = HistoryQuery { limit: Some(RECENT_ENTRIES), ..HistoryQuery::default() };
            match self.history(caller, row.channel.card.id, &query).await {
                Ok(page) => {
                    let sizes = page.entries.iter().map(|entry| body::entry_bytes(&entry.content));
                    bytes += sizes.sum::<usize>();
                    recent.insert(row.channel.card.id, page.entries);
                    if bytes >= RECENT_BYTES {
                        break;
                    }
                }
                // The caller has left it meanwhile.
                Err(error) if is_strange(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(recent)
    }
}

/// Whether the caller has no access to a channel: its existence is a secret, or it is an open one.
const fn is_strange(error: &OperationError) -> bool {
    matches!(error.code(), ErrorCode::NotFound | ErrorCode::Forbidden)
}
