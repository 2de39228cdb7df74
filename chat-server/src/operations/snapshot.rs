//! What a device without a valid cursor starts from, by pages.

use std::collections::BTreeMap;

use madang_ids::ChannelId;
use madang_proto::rest::{HistoryQuery, PageQuery, Snapshot, SnapshotQuery};
use madang_proto::{Entry, ErrorBody, limits};
use madang_store::OverviewOrder;

use super::blocks::page_bounds;
use super::channels::view;
use super::{Caller, Operations, refusal};

const RECENT_CHANNELS: usize = 10;
const RECENT_ENTRIES: u32 = 20;
const SINCE_CHANNELS: usize = 10_000;

impl Operations {
    /// A page of the snapshot. The cursor of the first page is taken before anything is read, so what happens
    /// meanwhile comes again after it.
    ///
    /// # Errors
    /// `after`, `limit` or `since` out of bounds.
    pub async fn snapshot(&self, caller: Caller, query: SnapshotQuery) -> Result<Snapshot, ErrorBody> {
        if query.since.len() > SINCE_CHANNELS {
            let message = format!("since has {} channels, the limit is {SINCE_CHANNELS}", query.since.len());
            return Err(ErrorBody::invalid("since", message));
        }
        let is_first = query.after.is_none();
        let limit = query.limit.unwrap_or(limits::LIST_PAGE);
        let (after, limit) = page_bounds::<ChannelId>(&PageQuery { after: query.after, limit: Some(limit) })?;
        let end = self.inbox.end(caller.user_id).await.map_err(|error| refusal(&error))?;
        let rows = self.store.overview(caller.user_id, OverviewOrder::Id(after), limit).await;
        let rows = rows.map_err(|error| refusal(&error))?;
        let next = rows.last().map(|row| row.card.id.to_string()).filter(|_| rows.len() == limit);
        let moved = rows.into_iter().filter(|row| query.since.get(&row.card.id) != Some(&row.head.seq));
        let recent = if is_first && query.recent { self.recent(caller).await? } else { BTreeMap::new() };
        Ok(Snapshot { cursor: is_first.then_some(end), channels: moved.map(view).collect(), recent, next })
    }

    async fn recent(&self, caller: Caller) -> Result<BTreeMap<ChannelId, Vec<Entry>>, ErrorBody> {
        let order = OverviewOrder::Activity(None);
        let rows = self.store.overview(caller.user_id, order, RECENT_CHANNELS).await;
        let mut recent = BTreeMap::new();
        for row in rows.map_err(|error| refusal(&error))? {
            let query = HistoryQuery { limit: Some(RECENT_ENTRIES), ..HistoryQuery::default() };
            let page = self.history(caller, row.card.id, &query).await?;
            recent.insert(row.card.id, page.entries);
        }
        Ok(recent)
    }
}
