//! Contacts, the users whose presence a user may watch, and presence settings.

use async_trait::async_trait;
use madang_ids::{Millis, UserId};
use madang_proto::ContactState;

use crate::error::StoreResult;

/// One user as a contact of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contact {
    /// The contact.
    pub other: UserId,
    /// The state between the two. `None`: it has ended, and the notes of that are not in both own logs yet.
    pub state: Option<ContactState>,
    /// The time of the last change.
    pub since: Millis,
    /// Rises with each change between the two.
    pub rev: u64,
    /// Whether the own logs of both have the note of this.
    pub is_recorded: bool,
}

/// The most contacts of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContactLimits {
    /// Mutual contacts and requests of the user together. Requests by others do not count.
    pub contacts: u32,
    /// Requests of the user that are not answered.
    pub requests: u32,
    /// Requests by others that wait for the user's answer, counted separately: the oldest makes room for the next.
    pub asked: u32,
}

/// The result of a contact request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContactOutcome {
    /// The state now, also if it is unchanged.
    Is(Contact),
    /// One of the two blocks the other.
    Blocked,
    /// The caller has the most contacts allowed.
    Full,
    /// The caller has the most open requests allowed.
    TooManyRequests,
}

/// The result of [`ContactStore::put_contact`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PutContact {
    /// The state with the other user, or the refusal.
    pub outcome: ContactOutcome,
    /// The oldest request that waited with the other user and made room: as the other user sees it, ended and without a note yet.
    pub displaced: Option<Contact>,
}

impl From<ContactOutcome> for PutContact {
    fn from(outcome: ContactOutcome) -> Self {
        Self { outcome, displaced: None }
    }
}

/// The presence settings of a user, and the last activity.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PresenceRow {
    /// Whether others see the user as offline.
    pub invisible: bool,
    /// Free text.
    pub status: Option<String>,
    /// The last time at which others could see the user active.
    pub last_active_at: Option<Millis>,
}

/// A change of presence settings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PresenceChange {
    /// Whether others see the user as offline.
    pub invisible: Option<bool>,
    /// Free text; `Some(None)` removes it.
    pub status: Option<Option<String>>,
}

/// The relation of another user to one who wants to add them to a group, or to write to them.
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

/// The relations of several users to one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Relations {
    /// In the order of the request.
    pub of: Vec<Relation>,
    /// Co-members that were looked at.
    pub looked_at: usize,
}

/// Contacts and presence settings.
///
/// # Guarantees
/// Every write is durable when it returns, and repeating it is harmless. `put_contact` and `remove_contact` are
/// compare-and-sets on the pair: two users who request each other concurrently end as `mutual`. The limits are exact (G10).
#[async_trait]
pub trait ContactStore: Send + Sync + 'static {
    /// `user` requests `other` as a contact, or accepts the request of `other`. Nothing changes if `user` has an open request or
    /// they are mutual. A request above the limit of `other` ends the oldest that waits there.
    async fn put_contact(
        &self,
        user: UserId,
        other: UserId,
        at: Millis,
        limits: ContactLimits,
    ) -> StoreResult<PutContact>;
    /// Ends any contact or request between two users. `None` if there is no row of them.
    async fn remove_contact(&self, user: UserId, other: UserId, at: Millis) -> StoreResult<Option<Contact>>;
    /// The contact `other` as `user` sees it.
    async fn contact(&self, user: UserId, other: UserId) -> StoreResult<Option<Contact>>;
    /// Records that the own logs of both have the note of the change with this `rev`. `false` if there was another change
    /// meanwhile.
    async fn settle_contact(&self, user: UserId, other: UserId, rev: u64) -> StoreResult<bool>;
    /// The contacts of a user by id, after `after`; those that ended are left out.
    async fn contacts(&self, user: UserId, after: Option<UserId>, limit: usize) -> StoreResult<Vec<Contact>>;

    /// The relation of each of `others` to `user`. Groups are looked at from the latest on, up to `scan` members in all; a user
    /// who would be found only beyond that counts as sharing none. One read.
    async fn relations(&self, user: UserId, others: &[UserId], scan: usize) -> StoreResult<Relations>;

    /// The users whose presence a user watches, each once and in no order: mutual contacts, then co-members of groups of at most
    /// `group_members` in which both have accepted, less those with a block in either direction; the first `limit` of them.
    async fn circle(&self, user: UserId, group_members: u32, limit: usize) -> StoreResult<Vec<UserId>>;
    /// Those of `others` who are mutual contacts of `user`, or share a group or an open channel with `user` in which both
    /// have accepted, without a block in either direction; in the order of `others`. A direct channel does not count: one of the
    /// two opens it alone.
    async fn acquainted(&self, user: UserId, others: &[UserId]) -> StoreResult<Vec<UserId>>;

    /// Changes the presence settings of a user.
    async fn change_presence(&self, user: UserId, change: &PresenceChange) -> StoreResult<()>;
    /// The presence rows of users, in the order of `users`; the default for a user without one.
    async fn presence(&self, users: &[UserId]) -> StoreResult<Vec<PresenceRow>>;
    /// Records the last activity of users; an earlier time changes nothing.
    async fn set_last_active(&self, marks: &[(UserId, Millis)]) -> StoreResult<()>;
}

/// The effect of a contact request, without the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meeting {
    /// Nothing changes.
    Stands(Contact),
    /// The state of the requester becomes this, and the other user's its mirror, with this revision.
    Becomes { state: ContactState, rev: u64 },
}

/// The effect of a request by a user whose row of the other is `found`. Every implementation of [`ContactStore::put_contact`]
/// uses this.
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

/// Refuses a user who would become `state`, by the contacts that the user has. Accepting needs room as well: a request by the
/// other user took none of the accepting user's own.
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
