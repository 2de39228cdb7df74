//! Contacts, and the other users that a user may know.
//!
//! A pair has one row, which is authoritative, and each of the two users has a list of their own. These are three partitions,
//! written one after another: a place in the list of the asking user, the pair, both lists. A call that stops in between leaves a
//! pair that is not settled, and a repeated call finishes it.

use std::collections::BTreeSet;

use async_trait::async_trait;
use futures_util::future::try_join;
use madang_ids::{ChannelId, Millis, UserId};
use madang_proto::{ChannelKind, ContactState};
use scylla::DeserializeRow;
use scylla::value::{CqlValue, MaybeUnset};

use super::Scylla;
use super::codec::{int, json, number, set};
use super::log::each;
use super::session::{Class, Statement, Values};
use crate::accounts::AccountStore;
use crate::channels::{Member, Membership};
use crate::contacts::{
    Contact, ContactLimits, ContactOutcome, ContactStore, Meeting, PresenceChange, PresenceRow, PutContact,
    Relation, Relations, may_become, meet,
};
use crate::error::{StoreError, StoreResult};

const PAIR: Statement = Statement {
    class: Class::SerialRead,
    cql: "SELECT state, since, rev, is_recorded FROM contact_pairs WHERE low = ? AND high = ?",
};
const FIRST_PAIR: Statement = Statement {
    class: Class::Conditional,
    cql: "INSERT INTO contact_pairs (low, high, state, since, rev, is_recorded) VALUES (?, ?, ?, ?, ?, ?) IF NOT EXISTS",
};
const NEXT_PAIR: Statement = Statement {
    class: Class::Conditional,
    cql: "UPDATE contact_pairs SET state = ?, since = ?, rev = ?, is_recorded = ? WHERE low = ? AND high = ? IF rev = ?",
};
const SETTLE: Statement = Statement {
    class: Class::Conditional,
    cql: "UPDATE contact_pairs SET is_recorded = true WHERE low = ? AND high = ? IF rev = ?",
};
const LIST: Statement = Statement {
    class: Class::SerialRead,
    cql: "SELECT list_rev, other, state, since, rev, is_recorded FROM contacts WHERE user = ?",
};
const PAGE: Statement = Statement {
    class: Class::Read,
    cql: "SELECT list_rev, other, state, since, rev, is_recorded FROM contacts WHERE user = ? AND other > ? LIMIT ?",
};
const AMONG: Statement =
    Statement { class: Class::Read, cql: "SELECT other, state FROM contacts WHERE user = ? AND other IN ?" };
const FIRST_LIST: Statement = Statement {
    class: Class::Conditional,
    cql: "UPDATE contacts SET list_rev = 1 WHERE user = ? IF list_rev = null",
};
const NEXT_LIST: Statement = Statement {
    class: Class::Conditional,
    cql: "UPDATE contacts SET list_rev = ? WHERE user = ? IF list_rev = ?",
};
const PUT: Statement = Statement {
    class: Class::Conditional,
    cql: "UPDATE contacts SET state = ?, since = ?, rev = ?, is_recorded = ? WHERE user = ? AND other = ?",
};
const FIRST_ROW: Statement = Statement {
    class: Class::Conditional,
    cql: "UPDATE contacts SET state = ?, since = ?, rev = ?, is_recorded = ? WHERE user = ? AND other = ? IF rev = null",
};
const NEXT_ROW: Statement = Statement {
    class: Class::Conditional,
    cql: "UPDATE contacts SET state = ?, since = ?, rev = ?, is_recorded = ? WHERE user = ? AND other = ? IF rev <= ?",
};
const KIND: Statement = Statement { class: Class::Read, cql: "SELECT kind FROM channels WHERE id = ?" };

/// Attempts of a compare-and-set whose value another call changes meanwhile.
const TRIES: usize = 64;
const PAGE_ROWS: i32 = 500;

#[derive(Debug, DeserializeRow)]
struct StoredPair {
    state: Option<String>,
    since: i64,
    rev: i64,
    is_recorded: bool,
}

#[derive(Debug, DeserializeRow)]
struct StoredContact {
    list_rev: Option<i64>,
    other: Option<i64>,
    state: Option<String>,
    since: Option<i64>,
    rev: Option<i64>,
    is_recorded: Option<bool>,
}

fn state_of(text: Option<&str>) -> Option<ContactState> {
    serde_json::from_str(text?).ok()
}

impl StoredContact {
    fn contact(&self) -> Option<Contact> {
        Some(Contact {
            other: UserId::from_raw(number(self.other?)),
            state: state_of(self.state.as_deref()),
            since: Millis::new(number(self.since?)),
            rev: number(self.rev?),
            is_recorded: self.is_recorded?,
        })
    }
}

/// The key of a pair: the lower id comes first.
fn in_order(one: UserId, other: UserId) -> (i64, i64) {
    (int(one.min(other).raw()), int(one.max(other).raw()))
}

fn too_many() -> StoreError {
    StoreError::Unavailable("too many changes of one contact at once".into())
}

/// The values of [`PUT`].
fn row(user: UserId, contact: Contact) -> StoreResult<Values> {
    let text = contact.state.map(|state| json(&state)).transpose()?;
    Ok(vec![
        text.map_or(MaybeUnset::Set(None), |text| set(CqlValue::Text(text))),
        set(CqlValue::BigInt(int(contact.since.get()))),
        set(CqlValue::BigInt(int(contact.rev))),
        set(CqlValue::Boolean(contact.is_recorded)),
        set(CqlValue::BigInt(int(user.raw()))),
        set(CqlValue::BigInt(int(contact.other.raw()))),
    ])
}

impl Scylla {
    /// Takes a place for `wanted` in the user's list, if there is one.
    async fn reserve(
        &self,
        user: UserId,
        wanted: Contact,
        limits: ContactLimits,
    ) -> StoreResult<Option<ContactOutcome>> {
        for _ in 0..TRIES {
            let list: Vec<StoredContact> = self.cql.read(&LIST, (int(user.raw()),)).await?;
            let own = list.iter().filter_map(StoredContact::contact);
            let counts = counts(own.filter(|contact| contact.other != wanted.other));
            let becomes = wanted.state.unwrap_or(ContactState::Requested);
            if let Some(refused) = may_become(becomes, counts, limits) {
                return Ok(Some(refused));
            }
            let id = set(CqlValue::BigInt(int(user.raw())));
            let part = match list.first().and_then(|row| row.list_rev) {
                None => (&FIRST_LIST, vec![id]),
                Some(rev) => {
                    (&NEXT_LIST, vec![set(CqlValue::BigInt(rev + 1)), id, set(CqlValue::BigInt(rev))])
                }
            };
            if self.cql.conditional_batch(vec![part, (&PUT, row(user, wanted)?)]).await? {
                return Ok(None);
            }
        }
        Err(too_many())
    }

    /// Writes the pair by compare-and-set on what was found. Returns `false` if the pair has changed.
    async fn put_pair(&self, user: UserId, found: Option<Contact>, wanted: Contact) -> StoreResult<bool> {
        let seen = if user < wanted.other { wanted.state } else { wanted.state.map(ContactState::mirrored) };
        let state = seen.map(|seen| json(&seen)).transpose()?;
        let (low, high) = in_order(user, wanted.other);
        let (since, rev) = (int(wanted.since.get()), int(wanted.rev));
        match found {
            None => {
                self.cql.conditional(&FIRST_PAIR, (low, high, state, since, rev, wanted.is_recorded)).await
            }
            Some(found) => {
                let values = (state, since, rev, wanted.is_recorded, low, high, int(found.rev));
                self.cql.conditional(&NEXT_PAIR, values).await
            }
        }
    }

    /// Writes a contact into the lists of both users.
    async fn list_pair(&self, user: UserId, contact: Contact) -> StoreResult<()> {
        let mirror = Contact { other: user, state: contact.state.map(ContactState::mirrored), ..contact };
        try_join(self.list_contact(user, contact), self.list_contact(contact.other, mirror)).await.map(drop)
    }

    /// Writes a contact into the list of `user`, unless the list has a later one.
    async fn list_contact(&self, user: UserId, contact: Contact) -> StoreResult<()> {
        if self.cql.conditional(&FIRST_ROW, row(user, contact)?).await? {
            return Ok(());
        }
        let mut values = row(user, contact)?;
        values.push(set(CqlValue::BigInt(int(contact.rev))));
        self.cql.conditional(&NEXT_ROW, values).await.map(drop)
    }

    /// Ends the oldest unanswered request to `user`, if there is no place for another one.
    async fn displace(
        &self,
        user: UserId,
        at: Millis,
        limits: ContactLimits,
    ) -> StoreResult<Option<Contact>> {
        let list: Vec<StoredContact> = self.cql.read(&LIST, (int(user.raw()),)).await?;
        let asked = list.iter().filter_map(StoredContact::contact);
        let asked: Vec<Contact> =
            asked.filter(|contact| contact.state == Some(ContactState::Asked)).collect();
        if asked.len() < limits.asked as usize {
            return Ok(None);
        }
        let Some(oldest) = asked.into_iter().min_by_key(|contact| (contact.since, contact.other)) else {
            return Ok(None);
        };
        let found = self.contact(user, oldest.other).await?;
        let ended = Contact { state: None, since: at, rev: oldest.rev + 1, is_recorded: false, ..oldest };
        // If the pair has changed, a place is free, or the list will soon contain the change.
        if found.is_none_or(|found| found.rev != oldest.rev) || !self.put_pair(user, found, ended).await? {
            return Ok(None);
        }
        self.list_pair(user, ended).await?;
        Ok(Some(ended))
    }

    pub(super) async fn kind_of(&self, channel: ChannelId) -> StoreResult<Option<ChannelKind>> {
        let row: Option<(String,)> = self.cql.read_one(&KIND, (int(channel.raw()),)).await?;
        Ok(row.and_then(|(kind,)| super::channels::kind(&kind).ok()))
    }

    /// The channels of a user in which the user is present and has accepted, with their kinds; the latest first.
    async fn accepted_channels(&self, user: UserId) -> StoreResult<Vec<(ChannelId, Option<ChannelKind>)>> {
        let wants = |membership: &Membership| membership.spans.is_open() && membership.has_accepted;
        let mut own = self.all_memberships(user, None, usize::MAX, wants).await?;
        own.reverse();
        each(own, |membership| async move {
            Ok((membership.channel_id, self.kind_of(membership.channel_id).await?))
        })
        .await
    }

    async fn contacts_among(&self, user: UserId, others: &[UserId]) -> StoreResult<BTreeSet<UserId>> {
        let ids: Vec<i64> = others.iter().map(|other| int(other.raw())).collect();
        let found: Vec<(i64, Option<String>)> = self.cql.read(&AMONG, (int(user.raw()), ids)).await?;
        let mutual =
            found.into_iter().filter(|(_, state)| state_of(state.as_deref()) == Some(ContactState::Mutual));
        Ok(mutual.map(|(other, _)| UserId::from_raw(number(other))).collect())
    }

    /// Those of `others` with a block between them and the user.
    async fn apart_among(&self, user: UserId, others: &[UserId]) -> StoreResult<BTreeSet<UserId>> {
        let (by_them, by_user) =
            try_join(self.who_block(user, others), self.blocked_among(user, others)).await?;
        Ok(by_them.into_iter().chain(by_user).collect())
    }
}

fn counts(contacts: impl Iterator<Item = Contact>) -> ContactLimits {
    let mut counts = ContactLimits { contacts: 0, requests: 0, asked: 0 };
    for contact in contacts.filter(|contact| contact.state.is_some()) {
        let is_asked = contact.state == Some(ContactState::Asked);
        counts.contacts += u32::from(!is_asked);
        counts.asked += u32::from(is_asked);
        counts.requests += u32::from(contact.state == Some(ContactState::Requested));
    }
    counts
}

#[async_trait]
impl ContactStore for Scylla {
    async fn put_contact(
        &self,
        user: UserId,
        other: UserId,
        at: Millis,
        limits: ContactLimits,
    ) -> StoreResult<PutContact> {
        for _ in 0..TRIES {
            if self.is_blocked(user, other).await? {
                return Ok(ContactOutcome::Blocked.into());
            }
            let found = self.contact(user, other).await?;
            let (becomes, rev) = match meet(found) {
                Meeting::Stands(contact) => {
                    // The call that wrote the pair may have stopped before it wrote the lists.
                    if !contact.is_recorded {
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
            self.list_contact(user, now.unwrap_or(Contact { state: None, ..wanted })).await?;
        }
        Err(too_many())
    }

    async fn remove_contact(&self, user: UserId, other: UserId, at: Millis) -> StoreResult<Option<Contact>> {
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
        Err(too_many())
    }

    async fn contact(&self, user: UserId, other: UserId) -> StoreResult<Option<Contact>> {
        let row: Option<StoredPair> = self.cql.read_one(&PAIR, in_order(user, other)).await?;
        Ok(row.map(|row| {
            let seen = state_of(row.state.as_deref());
            Contact {
                other,
                state: if user < other { seen } else { seen.map(ContactState::mirrored) },
                since: Millis::new(number(row.since)),
                rev: number(row.rev),
                is_recorded: row.is_recorded,
            }
        }))
    }

    async fn settle_contact(&self, user: UserId, other: UserId, rev: u64) -> StoreResult<bool> {
        let (low, high) = in_order(user, other);
        if self.cql.conditional(&SETTLE, (low, high, int(rev))).await? {
            return Ok(true);
        }
        Ok(self.contact(user, other).await?.is_none())
    }

    async fn contacts(&self, user: UserId, after: Option<UserId>, limit: usize) -> StoreResult<Vec<Contact>> {
        let (mut found, mut after) = (Vec::new(), after.map_or(-1, |after| int(after.raw())));
        while found.len() < limit {
            let page: Vec<StoredContact> = self.cql.read(&PAGE, (int(user.raw()), after, PAGE_ROWS)).await?;
            let Some(last) = page.last().and_then(|row| row.other) else { break };
            after = last;
            let is_end = page.len() < PAGE_ROWS as usize;
            let contacts = page.iter().filter_map(StoredContact::contact);
            found.extend(contacts.filter(|contact| contact.state.is_some()));
            if is_end {
                break;
            }
        }
        found.truncate(limit);
        Ok(found)
    }

    async fn relations(&self, user: UserId, others: &[UserId], scan: usize) -> StoreResult<Relations> {
        let by_user = self.blocked_among(user, others);
        let by_them = self.who_block(user, others);
        let ((contacts, by_user), by_them) =
            try_join(try_join(self.contacts_among(user, others), by_user), by_them).await?;
        let mut met: Vec<Member> = Vec::new();
        for (channel, kind) in self.accepted_channels(user).await? {
            if kind == Some(ChannelKind::Group) && met.len() < scan {
                met.extend(self.present(channel, None, scan - met.len()).await?);
            }
        }
        let relation = |other: &UserId| {
            let is_contact = contacts.contains(other);
            let is_met = |member: &Member| member.user_id == *other && member.has_accepted;
            Relation {
                is_contact,
                shares_group: !is_contact && met.iter().any(is_met),
                is_blocked: by_user.contains(other),
                blocks: by_them.contains(other),
            }
        };
        Ok(Relations { of: others.iter().map(relation).collect(), looked_at: met.len() })
    }

    async fn circle(&self, user: UserId, group_members: u32, limit: usize) -> StoreResult<Vec<UserId>> {
        let (contacts, channels) =
            try_join(self.contacts(user, None, usize::MAX), self.accepted_channels(user)).await?;
        let mutual = contacts.into_iter().filter(|contact| contact.state == Some(ContactState::Mutual));
        let mut found: Vec<UserId> = mutual.map(|contact| contact.other).collect();
        let groups: Vec<ChannelId> = channels
            .into_iter()
            .filter(|(_, kind)| *kind == Some(ChannelKind::Group))
            .map(|(channel, _)| channel)
            .collect();
        let members = each(groups, |channel| async move {
            if self.seats_of(channel).await?.count > group_members {
                return Ok(Vec::new());
            }
            self.present(channel, None, group_members as usize + 1).await
        });
        let accepted = members.await?.into_iter().flatten().filter(|member| member.has_accepted);
        found.extend(accepted.map(|member| member.user_id));
        let mut seen = BTreeSet::from([user]);
        found.retain(|other| seen.insert(*other));
        let apart = self.apart_from(user, usize::MAX >> 1).await?;
        found.retain(|other| apart.binary_search(other).is_err());
        found.truncate(limit);
        Ok(found)
    }

    async fn acquainted(&self, user: UserId, others: &[UserId]) -> StoreResult<Vec<UserId>> {
        let contacts = self.contacts_among(user, others);
        let apart = self.apart_among(user, others);
        let ((contacts, apart), channels) =
            try_join(try_join(contacts, apart), self.accepted_channels(user)).await?;
        let shared: Vec<ChannelId> = channels
            .into_iter()
            .filter(|(_, kind)| kind.is_some_and(|kind| kind != ChannelKind::Direct))
            .map(|(channel, _)| channel)
            .collect();
        let known = each(others.to_vec(), |other| {
            let (shared, is_contact) = (&shared, contacts.contains(&other));
            let is_apart = apart.contains(&other);
            async move {
                if is_apart || is_contact {
                    return Ok((other, is_contact && !is_apart));
                }
                let wants = |row: &Membership| {
                    row.spans.is_open() && row.has_accepted && shared.contains(&row.channel_id)
                };
                Ok((other, !self.all_memberships(other, None, 1, wants).await?.is_empty()))
            }
        });
        Ok(known.await?.into_iter().filter_map(|(other, is_known)| is_known.then_some(other)).collect())
    }

    async fn change_presence(&self, user: UserId, change: &PresenceChange) -> StoreResult<()> {
        self.put_presence(user, change).await
    }

    async fn presence(&self, users: &[UserId]) -> StoreResult<Vec<PresenceRow>> {
        self.presence_rows(users).await
    }

    async fn set_last_active(&self, marks: &[(UserId, Millis)]) -> StoreResult<()> {
        self.put_last_active(marks).await
    }
}
