//! Acts of operators.

use async_trait::async_trait;
use madang_ids::{ChannelId, Millis};
use rusqlite::{Result, Row, params};

use crate::acts::{Act, ActStore};
use crate::embedded::Embedded;
use crate::embedded::codec::{int, limit, number};
use crate::error::StoreResult;

#[async_trait]
impl ActStore for Embedded {
    async fn append_act(&self, act: &Act) -> StoreResult<bool> {
        let act = act.clone();
        self.write(move |transaction| {
            let mut statement = transaction.db().prepare_cached(
                "INSERT INTO acts (seq, at, by_name, client, kind, channel, change, why, document)
                 SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9
                 WHERE ?1 = (SELECT coalesce(max(seq), 0) + 1 FROM acts)",
            )?;
            let Act { seq, at, by, from, kind, channel, change, why, document } = &act;
            let channel = channel.map(|channel| int(channel.raw()));
            let values = params![int(*seq), int(at.get()), by, from, kind, channel, change, why, document];
            Ok(statement.execute(values)? == 1)
        })
        .await
    }

    async fn last_act(&self) -> StoreResult<Option<Act>> {
        Ok(self.acts(None, 1).await?.pop())
    }

    async fn acts(&self, before: Option<u64>, rows: usize) -> StoreResult<Vec<Act>> {
        let before = before.map_or(i64::MAX, int);
        self.read(move |db| {
            let mut statement = db.prepare_cached(
                "SELECT seq, at, by_name, client, kind, channel, change, why, document FROM acts
                 WHERE seq < ?1 ORDER BY seq DESC LIMIT ?2",
            )?;
            statement.query_map(params![before, limit(rows)], act_of)?.collect()
        })
        .await
    }
}

fn act_of(row: &Row<'_>) -> Result<Act> {
    let channel: Option<i64> = row.get(5)?;
    Ok(Act {
        seq: number(row, 0)?,
        at: Millis::new(number(row, 1)?),
        by: row.get(2)?,
        from: row.get(3)?,
        kind: row.get(4)?,
        channel: channel.map(|channel| ChannelId::from_raw(channel.cast_unsigned())),
        change: row.get(6)?,
        why: row.get(7)?,
        document: row.get(8)?,
    })
}
