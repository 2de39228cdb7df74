//! The directory of open channels.

use async_trait::async_trait;
use madang_ids::{ChannelId, Seq};
use madang_proto::{ChannelCard, ChannelKind};

use super::codec::{int, number};
use super::session::{Class, Statement};
use super::{Scylla, details};
use crate::directory::{DirectoryStore, FoundChannel, FoundPage, caseless, searched};
use crate::error::StoreResult;
use crate::log::{ChannelState, Details};

const PUT_OPEN: Statement = Statement {
    class: Class::Write,
    cql: "INSERT INTO open_channels (shard, id, details) VALUES (0, ?, ?) USING TIMESTAMP ?",
};
const OPEN: Statement = Statement {
    class: Class::Read,
    cql: "SELECT id, details FROM open_channels WHERE shard = 0 AND id > ? LIMIT ?",
};
/// Rows that are read at once.
const PAGE_ROWS: i32 = 500;

impl Scylla {
    /// The details of a channel have changed: if it is open, the directory follows.
    pub(super) async fn list_if_open(
        &self,
        channel: ChannelId,
        details: &Details,
        at: Seq,
    ) -> StoreResult<()> {
        match self.kind_of(channel).await? {
            Some(ChannelKind::Open) => self.list_open(channel, details, at).await,
            _ => Ok(()),
        }
    }

    pub(super) async fn list_open(&self, channel: ChannelId, details: &Details, at: Seq) -> StoreResult<()> {
        let values = (int(channel.raw()), details::to_json(details)?, int(at.get()));
        self.cql.write(&PUT_OPEN, values).await
    }
}

#[async_trait]
impl DirectoryStore for Scylla {
    async fn find_open(
        &self,
        query: &str,
        after: Option<ChannelId>,
        limit: usize,
        scan: usize,
    ) -> StoreResult<FoundPage> {
        let (query, mut page, mut looked_at) = (caseless(query), FoundPage::default(), 0);
        let mut after = after.map_or(-1, |after| int(after.raw()));
        while looked_at < scan {
            let rows: Vec<(i64, String)> = self.cql.read(&OPEN, (after, PAGE_ROWS)).await?;
            let is_end = rows.len() < PAGE_ROWS as usize;
            for (id, text) in rows {
                after = id;
                let Details { state, name, topic, avatar, .. } = details::from_json(&text)?;
                if state != ChannelState::Active {
                    continue;
                }
                let channel = ChannelId::from_raw(number(id));
                looked_at += 1;
                page.next = Some(channel);
                if searched(name.as_deref(), &topic).contains(&query) {
                    let seats = self.seats_of(channel).await?;
                    if seats.rev > 0 {
                        let mut card = ChannelCard::new(channel, ChannelKind::Open, name, None);
                        (card.topic, card.avatar) = (topic, avatar);
                        page.channels.push(FoundChannel { card, members: seats.count });
                        if page.channels.len() == limit {
                            return Ok(page);
                        }
                    }
                }
                if looked_at == scan {
                    return Ok(page);
                }
            }
            if is_end {
                page.next = None;
                return Ok(page);
            }
        }
        Ok(page)
    }
}
