//! Contacts, whom a user may watch, and what she says of herself.

use async_trait::async_trait;
use madang_ids::{Millis, UserId};
use madang_proto::ContactState;

use crate::error::StoreResult;

/// One user as a contact of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contact {
    /// Who.
    pub other: UserId,
    /// How things stand between the two. `None`: they were something to each other, and their logs do not tell yet
    /// that they are no longer.
    pub state: Option<ContactState>,
    /// Since when.
    pub since: Millis,
    /// Rises with each change between the two.
    pub rev: u64,
    /// Whether the logs of both tell of this.
    pub is_told: bool,
}

/// How many contacts a user may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContactLimits {
    /// Mutual ones and those that the user asked: what the user chose. What others ask does not count.
    pub contacts: u32,
    /// That the user asked and that have not answered.
    pub requests: u32,
    /// That asked the user and wait for an answer: a place of their own, in which the oldest makes room for the next.
    pub asked: u32,
}

/// What became of a wish to be contacts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContactOutcome {
    /// So it stands now, also if it stood so before.
    Is(Contact),
    /// One of the two blocks the other.
    Blocked,
    /// The caller has as many contacts as she may.
    Full,
    /// The caller has asked as many as she may.
    TooManyRequests,
}

/// What [`ContactStore::put_contact`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PutContact {
    /// How things stand with the other.
    pub outcome: ContactOutcome,
    /// The oldest request that waited with the other, and that made room: as the other sees it, over and not told yet.
    pub displaced: Option<Contact>,
}

impl From<ContactOutcome> for PutContact {
    fn from(outcome: ContactOutcome) -> Self {
        Self { outcome, displaced: None }
    }
}

/// What a user says of herself, and when she was here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PresenceRow {
    /// Others see her as offline.
    pub invisible: bool,
    /// Free text.
    pub status: Option<String>,
    /// When others could last see her active.
    pub last_active_at: Option<Millis>,
}

/// A change of what a user says of herself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PresenceChange {
    /// Whether others see her as offline.
    pub invisible: Option<bool>,
    /// Free text; `Some(None)` takes it away.
    pub status: Option<Option<String>>,
}

/// What somebody is to a user who wants to bring them into a group, or to write to them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Relation {
    /// They are mutual contacts.
    pub is_contact: bool,
    /// They share a group in which both have accepted.
    pub shares_group: bool,
    /// The user blocks them.
    pub is_blocked: bool,
    /// They block the user.
    pub blocks: bool,
}

/// What several people are to a user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Relations {
    /// In the order asked for.
    pub of: Vec<Relation>,
    /// Co-members that were looked at.
    pub looked_at: usize,
}

/// Contacts and presence settings.
///
/// # Guarantees
/// Every write is durable when it returns, and repeating it is harmless. `put_contact` and `remove_contact` are
/// compare-and-sets on the pair: two who ask each other at once end as `mutual`. The limits are exact (G10).
#[async_trait]
pub trait ContactStore: Send + Sync + 'static {
    /// `user` asks `other`, or accepts if `user` was asked. Nothing changes if `user` has asked before or they are mutual.
    /// A request for which `other` has no place ends the oldest that waits there.
    async fn put_contact(
        &self,
        user: UserId,
        other: UserId,
        at: Millis,
        limits: ContactLimits,
    ) -> StoreResult<PutContact>;
    /// Ends whatever is between two users. `None` if there is nothing, told or untold.
    async fn remove_contact(&self, user: UserId, other: UserId, at: Millis) -> StoreResult<Option<Contact>>;
    /// What `other` is to `user`.
    async fn contact(&self, user: UserId, other: UserId) -> StoreResult<Option<Contact>>;
    /// The logs of both tell of the change with this `rev`. `false` if there was another change meanwhile.
    async fn settle_contact(&self, user: UserId, other: UserId, rev: u64) -> StoreResult<bool>;
    /// The contacts of a user by id, after `after`; those that ended are left out.
    async fn contacts(&self, user: UserId, after: Option<UserId>, limit: usize) -> StoreResult<Vec<Contact>>;

    /// What each of `others` is to `user`. Groups are looked at from the latest on, up to `scan` members of them; a user
    /// who is found only beyond that counts as sharing none. One read.
    async fn relations(&self, user: UserId, others: &[UserId], scan: usize) -> StoreResult<Relations>;

    /// Whom a user watches, each once and in no order: mutual contacts, then co-members of groups of at most
    /// `group_members` in which both have accepted, less those with a block in either direction; the first `limit` of them.
    async fn circle(&self, user: UserId, group_members: u32, limit: usize) -> StoreResult<Vec<UserId>>;
    /// Those of `others` who are mutual contacts of `user`, or share a group or an open channel with `user` in which both
    /// have accepted, without a block in either direction; in the order asked for. A direct channel does not count: one of the two opens it alone.
    async fn acquainted(&self, user: UserId, others: &[UserId]) -> StoreResult<Vec<UserId>>;

    /// Changes what a user says of herself.
    async fn change_presence(&self, user: UserId, change: &PresenceChange) -> StoreResult<()>;
    /// What users say of themselves, in the order asked for; the default for whom nothing was written.
    async fn presence(&self, users: &[UserId]) -> StoreResult<Vec<PresenceRow>>;
    /// Notes when users were last active; an earlier time changes nothing.
    async fn set_last_active(&self, marks: &[(UserId, Millis)]) -> StoreResult<()>;
}

/// What a wish to be contacts comes to, limits aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meeting {
    /// Nothing changes.
    Stands(Contact),
    /// The one who wishes is this to the other's mirror, as this change.
    Becomes { state: ContactState, rev: u64 },
}

/// The one who wishes sees `found`. What every implementation of [`ContactStore::put_contact`] asks.
pub(crate) fn meet(found: Option<Contact>) -> Meeting {
    match found {
        Some(contact) if matches!(contact.state, Some(ContactState::Requested | ContactState::Mutual)) => {
            Meeting::Stands(contact)
        }
        Some(contact) => {
            let state = contact.state.map_or(ContactState::Requested, |_| ContactState::Mutual);
            Meeting::Becomes { state, rev: contact.rev + 1 }
        }
        None => Meeting::Becomes { state: ContactState::Requested, rev: 1 },
    }
}

/// Why somebody who becomes `state` is refused, by what they have. Who was asked and accepts needs a place as well: what
/// others ask takes none of one's own.
pub(crate) const fn may_become(
    state: ContactState,
    own: ContactLimits,
    limits: ContactLimits,
) -> Option<ContactOutcome> {
    if own.contacts >= limits.contacts {
        Some(ContactOutcome::Full)
    } else if matches!(state, ContactState::Requested) && own.requests >= limits.requests {
        Some(ContactOutcome::TooManyRequests)
    } else {
        None
    }
}
