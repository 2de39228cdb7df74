//! Codes that let people sign up.

use async_trait::async_trait;
use madang_ids::Millis;
use scylla::DeserializeRow;
use scylla::value::CqlValue;

use super::Scylla;
use super::accounts::TRIES;
use super::codec::{int, number, set};
use super::log::each;
use super::session::{Class, Statement};
use crate::accounts::User;
use crate::error::{StoreError, StoreResult};
use crate::invitations::{Invitation, InvitationStore};

const PUT_INVITATION: Statement = Statement {
    class: Class::Conditional,
    cql: "UPDATE invitations SET label = ?, created_at = ?, ends_at = ?, uses = ?, used = 0 WHERE hash = ? IF uses = null",
};
const INVITATION: Statement = Statement {
    class: Class::SerialRead,
    cql: "SELECT label, created_at, ends_at, uses, used FROM invitations WHERE hash = ? LIMIT 1",
};
const USE: Statement =
    Statement { class: Class::SerialRead, cql: "SELECT user FROM invitations WHERE hash = ? AND user = ?" };
const COUNT_USE: Statement = Statement {
    class: Class::Conditional,
    cql: "UPDATE invitations SET used = ? WHERE hash = ? IF used = ?",
};
const PUT_USE: Statement = Statement {
    class: Class::Conditional,
    cql: "INSERT INTO invitations (hash, user) VALUES (?, ?) IF NOT EXISTS",
};
const REVOKE_INVITATION: Statement = Statement {
    class: Class::Conditional,
    cql: "UPDATE invitations SET label = null, created_at = null, ends_at = null, uses = null, used = null
          WHERE hash = ? IF uses != null",
};
const PUT_IN_ORDER: Statement =
    Statement { class: Class::Write, cql: "INSERT INTO invitations_in_order (shard, hash) VALUES (0, ?)" };
const REMOVE_IN_ORDER: Statement =
    Statement { class: Class::Write, cql: "DELETE FROM invitations_in_order WHERE shard = 0 AND hash = ?" };
const IN_ORDER: Statement = Statement {
    class: Class::Read,
    cql: "SELECT hash FROM invitations_in_order WHERE shard = 0 AND hash > ? LIMIT ?",
};

#[derive(Debug, DeserializeRow)]
struct StoredInvitation {
    label: Option<String>,
    created_at: Option<i64>,
    ends_at: Option<i64>,
    uses: Option<i32>,
    used: Option<i32>,
}

impl StoredInvitation {
    fn invitation(self, hash: [u8; 32]) -> Option<Invitation> {
        Some(Invitation {
            hash,
            label: self.label?,
            created_at: Millis::new(number(self.created_at?)),
            ends_at: Millis::new(number(self.ends_at?)),
            uses: self.uses?.cast_unsigned(),
            used: self.used.unwrap_or(0).cast_unsigned(),
        })
    }
}

impl Scylla {
    /// Whether the user has one of the uses of an invitation now.
    pub(super) async fn take_use(&self, hash: &[u8; 32], user: &User) -> StoreResult<bool> {
        let (hash, id) = (hash.to_vec(), int(user.id.raw()));
        for _ in 0..TRIES {
            let own: Option<(Option<i64>,)> = self.cql.read_one(&USE, (hash.clone(), id)).await?;
            if own.is_some_and(|(user,)| user.is_some()) {
                return Ok(true);
            }
            let stored: Option<StoredInvitation> = self.cql.read_one(&INVITATION, (hash.clone(),)).await?;
            let Some(StoredInvitation { ends_at: Some(ends_at), uses: Some(uses), used, .. }) = stored else {
                return Ok(false);
            };
            let used = used.unwrap_or(0);
            if used >= uses || number(ends_at) <= user.created_at.get() {
                return Ok(false);
            }
            let hash = || set(CqlValue::Blob(hash.clone()));
            let count = vec![set(CqlValue::Int(used + 1)), hash(), set(CqlValue::Int(used))];
            let own = vec![hash(), set(CqlValue::BigInt(id))];
            if self.cql.conditional_batch(vec![(&COUNT_USE, count), (&PUT_USE, own)]).await? {
                return Ok(true);
            }
        }
        Err(StoreError::Unavailable("too many sign-ups with one invitation at once".into()))
    }
}

#[async_trait]
impl InvitationStore for Scylla {
    async fn put_invitation(&self, invitation: &Invitation) -> StoreResult<()> {
        let Invitation { hash, label, created_at, ends_at, uses, .. } = invitation;
        self.cql.write(&PUT_IN_ORDER, (hash.to_vec(),)).await?;
        let values =
            (label.as_str(), int(created_at.get()), int(ends_at.get()), uses.cast_signed(), hash.to_vec());
        self.cql.conditional(&PUT_INVITATION, values).await.map(drop)
    }

    async fn invitations(&self, after: Option<&[u8; 32]>, limit: usize) -> StoreResult<Vec<Invitation>> {
        let after = after.map(|after| after.to_vec()).unwrap_or_default();
        let limit = i32::try_from(limit).unwrap_or(i32::MAX);
        let hashes: Vec<(Vec<u8>,)> = self.cql.read(&IN_ORDER, (after, limit)).await?;
        let read = |(hash,): (Vec<u8>,)| async move {
            let stored: Option<StoredInvitation> = self.cql.read_one(&INVITATION, (hash.clone(),)).await?;
            let hash: Option<[u8; 32]> = hash.try_into().ok();
            Ok(stored.zip(hash).and_then(|(stored, hash)| stored.invitation(hash)))
        };
        Ok(each(hashes, read).await?.into_iter().flatten().collect())
    }

    async fn revoke_invitation(&self, hash: &[u8; 32]) -> StoreResult<bool> {
        let was_there = self.cql.conditional(&REVOKE_INVITATION, (hash.to_vec(),)).await?;
        self.cql.write(&REMOVE_IN_ORDER, (hash.to_vec(),)).await?;
        Ok(was_there)
    }
}
