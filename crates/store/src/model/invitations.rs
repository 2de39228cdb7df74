//! The store of invitations, in memory.

use std::collections::BTreeSet;
use std::ops::Bound;

use async_trait::async_trait;

use super::Model;
use crate::error::StoreResult;
use crate::invitations::{Invitation, InvitationStore};

#[async_trait]
impl InvitationStore for Model {
    async fn put_invitation(&self, invitation: &Invitation) -> StoreResult<()> {
        let _call = self.journal.begin("put_invitation");
        self.write(|state| {
            let new = || (invitation.clone(), BTreeSet::new());
            state.invitations.entry(invitation.hash).or_insert_with(new);
        })
        .await
    }

    async fn invitations(&self, after: Option<&[u8; 32]>, limit: usize) -> StoreResult<Vec<Invitation>> {
        let _call = self.journal.begin("invitations");
        let from = after.map_or(Bound::Unbounded, |after| Bound::Excluded(*after));
        self.read(|state| {
            let found = state.invitations.range((from, Bound::Unbounded)).take(limit);
            let card = |(invitation, users): &(Invitation, BTreeSet<_>)| Invitation {
                used: u32::try_from(users.len()).unwrap_or(u32::MAX),
                ..invitation.clone()
            };
            found.map(|(_, found)| card(found)).collect()
        })
        .await
    }

    async fn revoke_invitation(&self, hash: &[u8; 32]) -> StoreResult<bool> {
        let _call = self.journal.begin("revoke_invitation");
        self.write(|state| state.invitations.remove(hash).is_some()).await
    }
}
