//! The store of contacts, circles and presence settings, in memory.

use async_trait::async_trait;
use madang_ids::{Millis, UserId};
use madang_proto::{ChannelKind, ContactState};

use super::{Model, Mutant, State};
use crate::contacts::{
    Contact, ContactLimits, ContactOutcome, ContactStore, Meeting, PresenceChange, PresenceRow, PutContact,
    Relation, Relations, may_become, meet,
};
use crate::error::StoreResult;
use crate::model::unavailable;

/// Most attempts to change a pair if another call changes it first.
const TRIES: usize = 64;

#[async_trait]
impl ContactStore for Model {
    async fn put_contact(
        &self,
        user: UserId,
        other: UserId,
        at: Millis,
        limits: ContactLimits,
    ) -> StoreResult<PutContact> {
        let _call = self.journal.begin("put_contact");
        let is_blind = self.is_mutant(Mutant::ContactsIgnoreBlocks);
        for _ in 0..TRIES {
            if self.read(|state| state.is_blocked(user, other)).await? && !is_blind {
                return Ok(ContactOutcome::Blocked.into());
            }
            let found = self.contact(user, other).await?;
            let (becomes, rev) = match meet(found) {
                Meeting::Stands(contact) => {
                    // The call that wrote the pair may have stopped before it wrote the lists.
                    if !contact.is_recorded && !self.is_mutant(Mutant::ContactIsNotFinished) {
                        self.list_pair(user, contact).await?;
                    }
                    return Ok(ContactOutcome::Is(contact).into());
                }
                Meeting::Becomes { state, rev } => (state, rev),
            };
            let wanted = Contact { other, state: Some(becomes), since: at, rev, is_recorded: false };
            if let Some(refused) = self.reserve(user, wanted, limits).await? {
                return Ok(refused.into());
            }
            let displaced = match becomes {
                ContactState::Requested => self.displace(other, at, limits).await?,
                _ => None,
            };
            if self.put_pair(user, found, wanted).await? {
                self.list_pair(user, wanted).await?;
                return Ok(PutContact { outcome: ContactOutcome::Is(wanted), displaced });
            }
            // Another call changed the pair first: the reserved place now belongs to the pair as it is.
            let now = self.contact(user, other).await?;
            self.list(user, now.unwrap_or(Contact { state: None, ..wanted })).await?;
        }
        Err(unavailable())
    }

    async fn remove_contact(&self, user: UserId, other: UserId, at: Millis) -> StoreResult<Option<Contact>> {
        let _call = self.journal.begin("remove_contact");
        for _ in 0..TRIES {
            let found = self.contact(user, other).await?;
            let Some(Contact { state: Some(_), rev, .. }) = found else {
                if let Some(ended) = found.filter(|found| !found.is_recorded) {
                    self.list_pair(user, ended).await?;
                }
                return Ok(found);
            };
            let ended = Contact { other, state: None, since: at, rev: rev + 1, is_recorded: false };
            if self.put_pair(user, found, ended).await? {
                self.list_pair(user, ended).await?;
                return Ok(Some(ended));
            }
        }
        Err(unavailable())
    }

    async fn contact(&self, user: UserId, other: UserId) -> StoreResult<Option<Contact>> {
        let _call = self.journal.begin("contact");
        self.read(|state| state.pair(user, other)).await
    }

    async fn settle_contact(&self, user: UserId, other: UserId, rev: u64) -> StoreResult<bool> {
        let _call = self.journal.begin("settle_contact");
        let is_blind = self.is_mutant(Mutant::SettleContactIgnoresLaterChange);
        self.write(|state| {
            let Some(pair) = state.pairs.get_mut(&in_order(user, other)) else { return true };
            if pair.rev != rev && !is_blind {
                return false;
            }
            pair.is_recorded = true;
            true
        })
        .await
    }

    async fn contacts(&self, user: UserId, after: Option<UserId>, limit: usize) -> StoreResult<Vec<Contact>> {
        let _call = self.journal.begin("contacts");
        self.read(|state| {
            let own = state.contacts_of(user).filter(|contact| Some(contact.other) > after);
            own.copied().take(limit).collect()
        })
        .await
    }

    async fn relations(&self, user: UserId, others: &[UserId], scan: usize) -> StoreResult<Relations> {
        let _call = self.journal.begin("relations");
        let ignores_acceptance = self.is_mutant(Mutant::RelationsIgnoreAcceptance);
        self.read(|state| {
            let groups = state.memberships.iter().rev().filter(|((who, channel), row)| {
                let kind = state.channels.get(channel).map(|row| row.card.kind);
                *who == user && row.spans.is_open() && row.has_accepted && kind == Some(ChannelKind::Group)
            });
            let all = groups.flat_map(|((_, channel), _)| {
                state.members.iter().filter(move |((of, _), member)| of == channel && member.spans.is_open())
            });
            let looked_at: Vec<_> = all.map(|(_, member)| member).take(scan).collect();
            let relation = |other: &UserId| {
                let is_met = |member: &&crate::Member| {
                    member.user_id == *other && (member.has_accepted || ignores_acceptance)
                };
                let contact = state.contacts.get(&(user, *other));
                let is_contact = contact.is_some_and(|contact| contact.state == Some(ContactState::Mutual));
                Relation {
                    is_contact,
                    shares_group: !is_contact && looked_at.iter().any(is_met),
                    is_blocked: state.blocks.contains(&(user, *other)),
                    blocks: state.blocks.contains(&(*other, user)),
                }
            };
            Relations { of: others.iter().map(relation).collect(), looked_at: looked_at.len() }
        })
        .await
    }

    async fn circle(&self, user: UserId, group_members: u32, limit: usize) -> StoreResult<Vec<UserId>> {
        let _call = self.journal.begin("circle");
        let ignores_blocks = self.is_mutant(Mutant::CircleIgnoresBlocks);
        let counts_large = self.is_mutant(Mutant::CircleCountsLargeGroups);
        let ignores_acceptance = self.is_mutant(Mutant::CircleIgnoresAcceptance);
        let is_here =
            |row: &crate::Membership| row.spans.is_open() && (row.has_accepted || ignores_acceptance);
        self.read(|state| {
            let contacts =
                state.contacts_of(user).filter(|contact| contact.state == Some(ContactState::Mutual));
            let mut found: Vec<UserId> = contacts.map(|contact| contact.other).collect();
            for ((_, channel), _) in
                state.memberships.iter().filter(|((who, _), row)| *who == user && is_here(row))
            {
                let is_group =
                    state.channels.get(channel).is_some_and(|row| row.card.kind == ChannelKind::Group);
                let count = state.seats.get(channel).map_or(0, |seats| seats.count);
                if is_group && (count <= group_members || counts_large) {
                    let all = state.members.iter().filter(|((of, _), _)| of == channel);
                    let open = all.filter(|(_, member)| {
                        member.spans.is_open() && (member.has_accepted || ignores_acceptance)
                    });
                    found.extend(open.map(|((_, other), _)| *other));
                }
            }
            let mut seen = std::collections::BTreeSet::from([user]);
            found.retain(|other| seen.insert(*other) && (ignores_blocks || !state.is_blocked(user, *other)));
            found.truncate(limit);
            found
        })
        .await
    }

    async fn acquainted(&self, user: UserId, others: &[UserId]) -> StoreResult<Vec<UserId>> {
        let _call = self.journal.begin("acquainted");
        self.read(|state| {
            let is_contact = |other: UserId| {
                let found = state.contacts.get(&(user, other));
                found.is_some_and(|contact| contact.state == Some(ContactState::Mutual))
            };
            let is_open = |user, channel| {
                state
                    .memberships
                    .get(&(user, channel))
                    .is_some_and(|row| row.spans.is_open() && row.has_accepted)
            };
            let shares = |other: UserId| {
                let mut channels = state.channels.values().filter(|row| row.card.kind != ChannelKind::Direct);
                channels.any(|row| is_open(user, row.card.id) && is_open(other, row.card.id))
            };
            let is_it =
                |other: &UserId| (is_contact(*other) || shares(*other)) && !state.is_blocked(user, *other);
            others.iter().copied().filter(is_it).collect()
        })
        .await
    }

    async fn change_presence(&self, user: UserId, change: &PresenceChange) -> StoreResult<()> {
        let _call = self.journal.begin("change_presence");
        self.write(|state| {
            let row = state.presence.entry(user).or_default();
            row.invisible = change.invisible.unwrap_or(row.invisible);
            if let Some(status) = &change.status {
                row.status.clone_from(status);
            }
        })
        .await
    }

    async fn presence(&self, users: &[UserId]) -> StoreResult<Vec<PresenceRow>> {
        let _call = self.journal.begin("presence");
        let row = |state: &State, user| state.presence.get(user).cloned().unwrap_or_default();
        self.read(|state| users.iter().map(|user| row(state, user)).collect()).await
    }

    async fn set_last_active(&self, marks: &[(UserId, Millis)]) -> StoreResult<()> {
        let _call = self.journal.begin("set_last_active");
        let goes_back = self.is_mutant(Mutant::LastActiveGoesBack);
        self.write_each(marks, |state, (user, at)| {
            let row = state.presence.entry(*user).or_default();
            row.last_active_at = row.last_active_at.filter(|_| !goes_back).max(Some(*at));
        })
        .await
    }
}

impl State {
    pub(super) fn is_blocked(&self, one: UserId, other: UserId) -> bool {
        self.blocks.contains(&(one, other)) || self.blocks.contains(&(other, one))
    }

    fn contacts_of(&self, user: UserId) -> impl Iterator<Item = &Contact> {
        let rows =
            self.contacts.iter().filter(move |((who, _), contact)| *who == user && contact.state.is_some());
        rows.map(|(_, contact)| contact)
    }

    fn counts(&self, user: UserId) -> ContactLimits {
        let mut counts = ContactLimits { contacts: 0, requests: 0, asked: 0 };
        for contact in self.contacts_of(user) {
            let is_asked = contact.state == Some(ContactState::Asked);
            counts.contacts += u32::from(!is_asked);
            counts.asked += u32::from(is_asked);
            counts.requests += u32::from(contact.state == Some(ContactState::Requested));
        }
        counts
    }

    /// The pair, as `user` sees it.
    fn pair(&self, user: UserId, other: UserId) -> Option<Contact> {
        let pair = *self.pairs.get(&in_order(user, other))?;
        let state = if user < other { pair.state } else { pair.state.map(ContactState::mirrored) };
        Some(Contact { other, state, ..pair })
    }
}

/// A pair has one row, which is authoritative; each of the two users has a list of their own, with counts. These are
/// three partitions, written one after another: a place in the list of the asking user, the pair, both lists. A call
/// that stops in between leaves a pair that is not settled, and a repeated call finishes it.
impl Model {
    /// Reserves a place for `wanted` in the user's list, if there is one. The limit is exact, because list and counts
    /// are one partition.
    async fn reserve(
        &self,
        user: UserId,
        wanted: Contact,
        limits: ContactLimits,
    ) -> StoreResult<Option<ContactOutcome>> {
        let is_endless = self.is_mutant(Mutant::ContactsWithoutLimit);
        self.write(|state| {
            // The row of this pair is not counted: a request that becomes mutual keeps its place.
            let before = state.contacts.remove(&(user, wanted.other));
            let becomes = wanted.state.unwrap_or(ContactState::Requested);
            let refused = may_become(becomes, state.counts(user), limits).filter(|_| !is_endless);
            let row = if refused.is_some() { before } else { Some(wanted) };
            if let Some(row) = row {
                state.contacts.insert((user, wanted.other), row);
            }
            refused
        })
        .await
    }

    /// Writes the pair by compare-and-set on what was found. Returns `false` if the pair has changed.
    async fn put_pair(&self, user: UserId, found: Option<Contact>, wanted: Contact) -> StoreResult<bool> {
        let (other, is_blind) = (wanted.other, self.is_mutant(Mutant::PairIgnoresRevision));
        self.write(|state| {
            if state.pair(user, other).map(|pair| pair.rev) != found.map(|found| found.rev) && !is_blind {
                return false;
            }
            let seen = if user < other { wanted.state } else { wanted.state.map(ContactState::mirrored) };
            let (low, high) = in_order(user, other);
            state.pairs.insert((low, high), Contact { other: high, state: seen, ..wanted });
            true
        })
        .await
    }

    /// Writes a contact into the lists of both users.
    async fn list_pair(&self, user: UserId, contact: Contact) -> StoreResult<()> {
        self.list(user, contact).await?;
        if self.is_mutant(Mutant::ContactChangesOneSide) {
            return Ok(());
        }
        let mirror = Contact { other: user, state: contact.state.map(ContactState::mirrored), ..contact };
        self.list(contact.other, mirror).await
    }

    /// Writes a contact into the list of `user`, unless the list has a later one.
    async fn list(&self, user: UserId, contact: Contact) -> StoreResult<()> {
        let goes_back = self.is_mutant(Mutant::ContactListGoesBack);
        self.write(|state| {
            let row = state.contacts.entry((user, contact.other)).or_insert(contact);
            if row.rev <= contact.rev || goes_back {
                *row = contact;
            }
        })
        .await
    }

    /// Ends the oldest unanswered request to `user`, if there is no place for another one.
    async fn displace(
        &self,
        user: UserId,
        at: Millis,
        limits: ContactLimits,
    ) -> StoreResult<Option<Contact>> {
        let is_endless = self.is_mutant(Mutant::ContactsWithoutLimit);
        let oldest = self.read(|state| {
            let is_crowded = state.counts(user).asked >= limits.asked && !is_endless;
            let asked = state.contacts_of(user).filter(|contact| contact.state == Some(ContactState::Asked));
            asked.min_by_key(|contact| (contact.since, contact.other)).copied().filter(|_| is_crowded)
        });
        let Some(oldest) = oldest.await? else { return Ok(None) };
        let found = self.contact(user, oldest.other).await?;
        let ended = Contact { state: None, since: at, rev: oldest.rev + 1, is_recorded: false, ..oldest };
        // If the pair has changed, a place is free, or the list will soon contain the change.
        if found.is_none_or(|found| found.rev != oldest.rev) || !self.put_pair(user, found, ended).await? {
            return Ok(None);
        }
        self.list_pair(user, ended).await?;
        Ok(Some(ended))
    }
}

/// The key of a pair: the lower id comes first.
fn in_order(one: UserId, other: UserId) -> (UserId, UserId) {
    (one.min(other), one.max(other))
}
