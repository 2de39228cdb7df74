//! The users whose messages and groups a user accepts without being asked first. The user chooses; without a choice the
//! configuration decides.

use madang_ids::UserId;
use madang_proto::Audience;
use madang_store::{Relation, Relations, Store, StoreResult, User};

/// Co-members that are looked at to find out whether two users share a group: 200 groups of 100.
pub(crate) const SCAN: usize = 20_000;

/// The rule for users who have not chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Consent {
    is_asked: bool,
}

impl Consent {
    /// `is_asked`: whether users are asked before they become members of a group (`accounts.consent`).
    #[must_use]
    pub const fn new(is_asked: bool) -> Self {
        Self { is_asked }
    }

    /// The users who may add a user to a group at once.
    pub(crate) fn may_add(self, user: &User) -> Audience {
        let unset = if self.is_asked { Audience::SharedChannel } else { Audience::Everybody };
        user.may_add.unwrap_or(unset)
    }

    /// The users who may write to a user.
    pub(crate) fn may_write(self, user: &User) -> Audience {
        user.may_write.unwrap_or(Audience::Everybody)
    }

    /// Whether users who are added count as having accepted. If nobody is asked, everybody has agreed in advance.
    pub(crate) const fn is_given(self) -> bool {
        !self.is_asked
    }

    /// Whether `to` accepts messages of `from`, apart from what they have written to each other; and the number of rows that were
    /// read to find out.
    pub(crate) async fn takes_messages(
        self,
        store: &dyn Store,
        to: UserId,
        from: UserId,
    ) -> StoreResult<(bool, usize)> {
        let users = store.users(&[to]).await?;
        let Some(audience) = users.iter().flatten().next().map(|user| self.may_write(user)) else {
            return Ok((true, 0));
        };
        if audience == Audience::Everybody {
            return Ok((true, 0));
        }
        let Relations { of, looked_at } = store.relations(from, &[to], scan_for([audience])).await?;
        Ok((of.first().is_some_and(|relation| takes_in(audience, *relation)), looked_at))
    }
}

/// The number of co-members that must be looked at to judge these audiences.
pub(crate) fn scan_for(audiences: impl IntoIterator<Item = Audience>) -> usize {
    if audiences.into_iter().any(|audience| audience == Audience::SharedChannel) { SCAN } else { 0 }
}

/// Whether an audience contains a user with this relation.
pub(crate) const fn takes_in(audience: Audience, relation: Relation) -> bool {
    match audience {
        Audience::Everybody => true,
        Audience::SharedChannel => relation.is_contact || relation.shares_group,
        Audience::Contacts => relation.is_contact,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use madang_ids::Millis;

    #[test]
    fn a_users_choice_overrides_the_configuration() {
        let mut user = User::new(UserId::from_raw(1), "ada".into(), "Ada".into(), Millis::new(1));
        assert_eq!(Consent::new(true).may_add(&user), Audience::SharedChannel);
        assert_eq!(Consent::new(false).may_add(&user), Audience::Everybody);
        for is_asked in [true, false] {
            assert_eq!(Consent::new(is_asked).may_write(&user), Audience::Everybody);
        }
        (user.may_add, user.may_write) = (Some(Audience::Contacts), Some(Audience::SharedChannel));
        for is_asked in [true, false] {
            assert_eq!(Consent::new(is_asked).may_add(&user), Audience::Contacts);
            assert_eq!(Consent::new(is_asked).may_write(&user), Audience::SharedChannel);
        }
    }

    #[test]
    fn an_audience_contains_the_users_that_it_names() {
        let none = Relation::default();
        let contact = Relation { is_contact: true, ..none };
        let member = Relation { shares_group: true, ..none };
        let takes = |audience| [none, member, contact].map(|relation| takes_in(audience, relation));
        assert_eq!(takes(Audience::Everybody), [true, true, true]);
        assert_eq!(takes(Audience::SharedChannel), [false, true, true]);
        assert_eq!(takes(Audience::Contacts), [false, false, true]);
    }
}
