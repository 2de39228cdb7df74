//! Invitations. Their uses are counted where users are created.

use async_trait::async_trait;
use madang_ids::Millis;
use rusqlite::{Result, Row, params};

use crate::embedded::Embedded;
use crate::embedded::codec::{int, limit, number, small_number};
use crate::error::StoreResult;
use crate::invitations::{Invitation, InvitationStore};

#[async_trait]
impl InvitationStore for Embedded {
    async fn put_invitation(&self, invitation: &Invitation) -> StoreResult<()> {
        let one = invitation.clone();
        self.write(move |transaction| {
            let mut statement = transaction.db().prepare_cached(
                "INSERT INTO invitations (hash, label, created_at, ends_at, uses) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT DO NOTHING",
            )?;
            let (created_at, ends_at) = (int(one.created_at.get()), int(one.ends_at.get()));
            statement.execute(params![one.hash, one.label, created_at, ends_at, one.uses]).map(drop)
        })
        .await
    }

    async fn invitations(&self, after: Option<&[u8; 32]>, rows: usize) -> StoreResult<Vec<Invitation>> {
        let after = after.map_or_else(Vec::new, |hash| hash.to_vec());
        self.read(move |db| {
            let mut statement = db.prepare_cached(
                "SELECT hash, label, created_at, ends_at, uses, used FROM invitations
                 WHERE hash > ?1 ORDER BY hash LIMIT ?2",
            )?;
            statement.query_map(params![after, limit(rows)], invitation_of)?.collect()
        })
        .await
    }

    async fn revoke_invitation(&self, hash: &[u8; 32]) -> StoreResult<bool> {
        let hash = *hash;
        self.write(move |transaction| {
            let mut statement = transaction.db().prepare_cached("DELETE FROM invitations WHERE hash = ?1")?;
            Ok(statement.execute([hash])? == 1)
        })
        .await
    }
}

fn invitation_of(row: &Row<'_>) -> Result<Invitation> {
    Ok(Invitation {
        hash: row.get(0)?,
        label: row.get(1)?,
        created_at: Millis::new(number(row, 2)?),
        ends_at: Millis::new(number(row, 3)?),
        uses: small_number(row, 4)?,
        used: small_number(row, 5)?,
    })
}
