//! Erasures of deleted channels.

use async_trait::async_trait;
use madang_ids::{ChannelId, LogId, Millis, Seq};
use rusqlite::{OptionalExtension, Result};

use super::log::{change_row, place};
use crate::embedded::Embedded;
use crate::embedded::codec::{int, json, limit, number, small_number, store_error};
use crate::embedded::job::Transaction;
use crate::erasure::{Erasure, ErasureStore};
use crate::error::StoreResult;
use crate::log::RowChange;

#[async_trait]
impl ErasureStore for Embedded {
    async fn put_erasure(&self, erasure: Erasure) -> StoreResult<()> {
        self.write(move |transaction| {
            let mut statement = transaction.db().prepare_cached(
                "INSERT INTO erasures (channel, at_ms, upto) VALUES (?1, ?2, ?3)
                 ON CONFLICT DO UPDATE SET upto = max(upto, excluded.upto)",
            )?;
            let Erasure { channel_id, at, upto } = erasure;
            statement.execute([int(channel_id.raw()), int(at.get()), int(upto.get())]).map(drop)
        })
        .await
    }

    async fn erasures(&self, rows: usize) -> StoreResult<Vec<Erasure>> {
        self.read(move |db| {
            let mut statement =
                db.prepare_cached("SELECT channel, at_ms, upto FROM erasures ORDER BY channel LIMIT ?1")?;
            let found = statement.query_map([limit(rows)], |row| {
                Ok(Erasure {
                    channel_id: ChannelId::from_raw(number(row, 0)?),
                    at: Millis::new(number(row, 1)?),
                    upto: Seq::new(number(row, 2)?),
                })
            })?;
            found.collect()
        })
        .await
    }

    async fn end_erasure(&self, channel: ChannelId) -> StoreResult<()> {
        self.write(move |transaction| {
            let mut statement = transaction.db().prepare_cached("DELETE FROM erasures WHERE channel = ?1")?;
            statement.execute([int(channel.raw())]).map(drop)
        })
        .await
    }

    async fn replace_rows(&self, channel: ChannelId, changes: &[RowChange]) -> StoreResult<()> {
        let encoded: Result<Vec<(RowChange, String)>> =
            changes.iter().map(|change| Ok((change.clone(), json(&change.content)?))).collect();
        let encoded = encoded.map_err(|error| store_error(&error))?;
        self.write(move |transaction| {
            encoded.iter().try_for_each(|(change, content)| replace(transaction, channel, change, content))
        })
        .await
    }
}

fn replace(
    transaction: &mut Transaction<'_>,
    channel: ChannelId,
    change: &RowChange,
    content: &str,
) -> Result<()> {
    let log = LogId::Channel(channel);
    let (statements, id) = place(log);
    let found = {
        let mut version = transaction.db().prepare_cached(statements.version)?;
        version.query_row([id, int(change.target.get())], |row| small_number(row, 0)).optional()?
    };
    if found != Some(change.if_version) {
        return Ok(());
    }
    change_row(transaction, log, change, content)
}
