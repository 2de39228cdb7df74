//! The erasure of deleted channels.

use async_trait::async_trait;
use madang_engine::consequences::mentioned;
use madang_ids::{ChannelId, LogId, Millis, Seq};

use super::Scylla;
use super::codec::{int, number};
use super::session::{Class, Statement};
use crate::erasure::{Erasure, ErasureStore};
use crate::error::StoreResult;
use crate::log::{Consequences, Deleted, LogStore, Row, RowChange};

const ERASURE: Statement =
    Statement { class: Class::Read, cql: "SELECT at, upto FROM erasures WHERE shard = 0 AND channel = ?" };
const PUT: Statement = Statement {
    class: Class::Write,
    cql: "INSERT INTO erasures (shard, channel, at, upto) VALUES (0, ?, ?, ?)",
};
const ALL: Statement =
    Statement { class: Class::Read, cql: "SELECT channel, at, upto FROM erasures WHERE shard = 0 LIMIT ?" };
const END: Statement =
    Statement { class: Class::Write, cql: "DELETE FROM erasures WHERE shard = 0 AND channel = ?" };

#[async_trait]
impl ErasureStore for Scylla {
    async fn put_erasure(&self, erasure: Erasure) -> StoreResult<()> {
        let channel = int(erasure.channel_id.raw());
        let before: Option<(i64, i64)> = self.cql.read_one(&ERASURE, (channel,)).await?;
        let (at, upto) = before.unwrap_or((int(erasure.at.get()), 0));
        self.cql.write(&PUT, (channel, at, upto.max(int(erasure.upto.get())))).await
    }

    async fn erasures(&self, limit: usize) -> StoreResult<Vec<Erasure>> {
        let limit = i32::try_from(limit).unwrap_or(i32::MAX);
        let rows: Vec<(i64, i64, i64)> = self.cql.read(&ALL, (limit,)).await?;
        let erasure = |(channel, at, upto): (i64, i64, i64)| Erasure {
            channel_id: ChannelId::from_raw(number(channel)),
            at: Millis::new(number(at)),
            upto: Seq::new(number(upto)),
        };
        Ok(rows.into_iter().map(erasure).collect())
    }

    async fn end_erasure(&self, channel: ChannelId) -> StoreResult<()> {
        self.cql.write(&END, (int(channel.raw()),)).await
    }

    async fn replace_rows(&self, channel: ChannelId, changes: &[RowChange]) -> StoreResult<()> {
        let log = LogId::Channel(channel);
        let targets: Vec<Seq> =
            changes.iter().filter(|change| change.deletes()).map(|change| change.target).collect();
        // Read before the change: it removes the body, which has the mentioned users.
        let rows = self.rows_at(log, &targets, usize::MAX).await?;
        let mentioned_by = |row: &Option<Row>| {
            let message = row.as_ref().and_then(|row| row.entry.content.message());
            message.map(|message| mentioned(message).collect()).unwrap_or_default()
        };
        let deleted: Vec<Deleted> = targets
            .into_iter()
            .zip(&rows)
            .map(|(target, row)| Deleted { target, mentioned: mentioned_by(row) })
            .collect();
        self.apply_consequences(channel, &Consequences { deleted, ..Consequences::default() }).await?;
        for change in changes {
            // A row with another version is left out.
            self.change_rows(log, std::slice::from_ref(change)).await?;
        }
        Ok(())
    }
}
