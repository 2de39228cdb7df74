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

#[async_trait]
impl ContactStore for Model {
    async fn put_contact(
        &self,
        user: UserId,
        other: UserId,
        at: Millis,
        limits: ContactLimits,
    ) -> StoreResult<PutContact> {
        let is_blind = self.is_mutant(Mutant::ContactsIgnoreBlocks);
        let is_endless = self.is_mutant(Mutant::ContactsWithoutLimit);
        let is_lopsided = self.is_mutant(Mutant::ContactChangesOneSide);
        self.write(|state| {
            if state.is_blocked(user, other) && !is_blind {
                return ContactOutcome::Blocked.into();
            }
            let (becomes, rev) = match meet(state.contacts.get(&(user, other)).copied()) {
                Meeting::Stands(contact) => return ContactOutcome::Is(contact).into(),
                Meeting::Becomes { state, rev } => (state, rev),
            };
            let refused = may_become(becomes, state.counts(user), limits);
            if let Some(refused) = refused.filter(|_| !is_endless) {
                return refused.into();
            }
            let is_crowded = state.counts(other).asked >= limits.asked && !is_endless;
            let displaced = match becomes {
                ContactState::Requested if is_crowded => state.displace(other, at),
                _ => None,
            };
            let before = state.contacts.get(&(other, user)).copied();
            let contact = state.put_pair((user, other), Some(becomes), at, rev);
            if let Some(before) = before.filter(|_| is_lopsided) {
                state.contacts.insert((other, user), before);
            }
            PutContact { outcome: ContactOutcome::Is(contact), displaced }
        })
        .await
    }

    async fn remove_contact(&self, user: UserId, other: UserId, at: Millis) -> StoreResult<Option<Contact>> {
        self.write(|state| match state.contacts.get(&(user, other)).copied() {
            Some(Contact { state: Some(_), rev, .. }) => {
                Some(state.put_pair((user, other), None, at, rev + 1))
            }
            found => found,
        })
        .await
    }

    async fn contact(&self, user: UserId, other: UserId) -> StoreResult<Option<Contact>> {
        self.read(|state| state.contacts.get(&(user, other)).copied()).await
    }

    async fn settle_contact(&self, user: UserId, other: UserId, rev: u64) -> StoreResult<bool> {
        let is_blind = self.is_mutant(Mutant::SettleContactIgnoresLaterChange);
        self.write(|state| {
            if state.contacts.get(&(user, other)).is_some_and(|found| found.rev != rev && !is_blind) {
                return false;
            }
            for side in [(user, other), (other, user)] {
                state.contacts.entry(side).and_modify(|contact| contact.is_told = true);
            }
            true
        })
        .await
    }

    async fn contacts(&self, user: UserId, after: Option<UserId>, limit: usize) -> StoreResult<Vec<Contact>> {
        self.read(|state| {
            let hers = state.contacts_of(user).filter(|contact| Some(contact.other) > after);
            hers.copied().take(limit).collect()
        })
        .await
    }

    async fn relations(&self, user: UserId, others: &[UserId], scan: usize) -> StoreResult<Relations> {
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
        let row = |state: &State, user| state.presence.get(user).cloned().unwrap_or_default();
        self.read(|state| users.iter().map(|user| row(state, user)).collect()).await
    }

    async fn set_last_active(&self, marks: &[(UserId, Millis)]) -> StoreResult<()> {
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

    /// Removes the oldest unanswered request to `user`.
    fn displace(&mut self, user: UserId, at: Millis) -> Option<Contact> {
        let asked = self.contacts_of(user).filter(|contact| contact.state == Some(ContactState::Asked));
        let oldest = asked.min_by_key(|contact| (contact.since, contact.other)).copied()?;
        Some(self.put_pair((user, oldest.other), None, at, oldest.rev + 1))
    }

    fn put_pair(
        &mut self,
        (user, other): (UserId, UserId),
        state: Option<ContactState>,
        since: Millis,
        rev: u64,
    ) -> Contact {
        let contact = Contact { other, state, since, rev, is_told: false };
        let mirror = Contact { other: user, state: state.map(ContactState::mirrored), ..contact };
        self.contacts.insert((user, other), contact);
        self.contacts.insert((other, user), mirror);
        contact
    }
}
