//! Removal by age, by indexes on time.

use async_trait::async_trait;
use madang_ids::{DeviceId, Millis, UserId};
use rusqlite::Row;

use super::devices::forget as forget_devices;
use super::{push, sends};
use crate::embedded::Embedded;
use crate::embedded::codec::{bound, limit, number};
use crate::error::StoreResult;
use crate::trim::{TrimStep, Trimmed};
use crate::upkeep::Upkeep;

#[async_trait]
impl Upkeep for Embedded {
    async fn trim(&self, step: TrimStep) -> StoreResult<Trimmed> {
        self.trim_users(step).await
    }

    async fn forget_sends(&self, before: Millis, limit_rows: usize) -> StoreResult<usize> {
        self.write(move |transaction| sends::forget(transaction.db(), before, limit_rows)).await
    }

    async fn forget_claims(&self, before: Millis, limit_rows: usize) -> StoreResult<usize> {
        self.write(move |transaction| {
            let mut statement = transaction.db().prepare_cached(
                "DELETE FROM claims WHERE (scope, key) IN
                 (SELECT scope, key FROM claims WHERE at_ms < ?1 ORDER BY at_ms LIMIT ?2)",
            )?;
            statement.execute([bound(before.get()), limit(limit_rows)])
        })
        .await
    }

    async fn forget_devices(&self, before: Millis, rows: usize) -> StoreResult<usize> {
        self.write(move |transaction| {
            forget_devices(
                transaction.db(),
                "SELECT id FROM devices INDEXED BY devices_revoked_by_time
                 WHERE revoked_at IS NOT NULL AND revoked_at < ?1 ORDER BY revoked_at LIMIT ?2",
                [bound(before.get()), limit(rows)],
            )
        })
        .await
    }

    async fn forget_invitations(&self, before: Millis, rows: usize) -> StoreResult<usize> {
        self.write(move |transaction| {
            let mut statement = transaction.db().prepare_cached(
                "DELETE FROM invitations WHERE hash IN
                 (SELECT hash FROM invitations WHERE ends_at < ?1 LIMIT ?2)",
            )?;
            statement.execute([bound(before.get()), limit(rows)])
        })
        .await
    }

    async fn forget_alert_notes(&self, before: Millis, rows: usize) -> StoreResult<usize> {
        self.write(move |transaction| push::forget_notes(transaction.db(), before, rows)).await
    }

    async fn ended_devices(&self, before: Millis, rows: usize) -> StoreResult<Vec<(UserId, DeviceId)>> {
        self.read(move |db| {
            let mut statement = db.prepare_cached(
                "SELECT user, device FROM refresh_tokens INDEXED BY refresh_tokens_by_end
                 WHERE is_revoked = 0 AND expires_at < ?1 ORDER BY expires_at LIMIT ?2",
            )?;
            let pair =
                |row: &Row<'_>| Ok((UserId::from_raw(number(row, 0)?), DeviceId::from_raw(number(row, 1)?)));
            statement.query_map([bound(before.get()), limit(rows)], pair)?.collect()
        })
        .await
    }

    async fn probe(&self) -> StoreResult<()> {
        self.write(|transaction| {
            // Changes a value and changes it back: SQLite does not write an unchanged one.
            for step in [1, -1] {
                let mut statement =
                    transaction.db().prepare_cached("UPDATE position SET value = value + ?1")?;
                statement.execute([step])?;
            }
            Ok(())
        })
        .await
    }
}
