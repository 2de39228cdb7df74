//! Divides users into those who are added to a group at once and those who are invited.

use std::collections::HashSet;

use madang_ids::UserId;
use madang_proto::ErrorBody;
use madang_store::{Relation, Relations, User};

use crate::consent::{Consent, scan_for, takes_in};
use crate::operations::costs::Cost;
use crate::operations::{Caller, Operations};
use crate::refusal::Result;

/// Users who are to become members of a group.
#[derive(Debug, Default)]
pub(in crate::operations) struct Division {
    /// Users who let the caller add them.
    pub(in crate::operations) added: Vec<UserId>,
    /// All others.
    pub(in crate::operations) invited: Vec<UserId>,
}

impl Operations {
    pub(in crate::operations) fn consent(&self) -> Consent {
        Consent::new(self.config.accounts.consent)
    }

    /// Divides users by whether they let the caller add them. A user who blocks the caller counts as invited, but never learns of
    /// the invitation. `field` names the field of the request that holds the ids.
    ///
    /// # Errors
    /// `not_found` for an unknown user; `forbidden` for a user whom the caller blocks.
    pub(in crate::operations) async fn divide(
        &self,
        caller: Caller,
        field: &'static str,
        users: &[UserId],
    ) -> Result<Division> {
        let mut seen = HashSet::new();
        let users: Vec<UserId> = users.iter().copied().filter(|user| seen.insert(*user)).collect();
        let found = self.check_users(field, &users).await?;
        let audience = |user: &User| self.consent().may_add(user);
        let scan = scan_for(found.iter().map(audience));
        let Relations { of, looked_at } = self.store.relations(caller.user_id, &users, scan).await?;
        self.callers.charge(caller.user_id, Cost::ids(users.len()).and(Cost::looked_at(looked_at)));
        let mut division = Division::default();
        for (user, relation) in found.iter().zip(of) {
            check_not_blocking(user.id, relation)?;
            let is_added = user.id == caller.user_id
                || !relation.blocks && takes_in(self.consent().may_add(user), relation);
            if is_added { &mut division.added } else { &mut division.invited }.push(user.id);
        }
        Ok(division)
    }

    /// Whether `to` accepts messages of `from` in a direct channel that `to` has not accepted.
    pub(in crate::operations) async fn takes_messages(&self, to: UserId, from: UserId) -> Result<bool> {
        let (takes, looked_at) = self.consent().takes_messages(self.store.as_ref(), to, from).await?;
        self.callers.charge(from, Cost::looked_at(looked_at));
        Ok(takes)
    }
}

fn check_not_blocking(user: UserId, relation: Relation) -> Result<(), ErrorBody> {
    if relation.is_blocked {
        return Err(ErrorBody::forbidden(format!("you block user {user}: unblock first")));
    }
    Ok(())
}
