//! Contacts: requested, accepted, ended. Each change is noted in the own logs of both users, so that it reaches every device.

use std::collections::HashMap;

use madang_ids::UserId;
use madang_proto::rest::{Page, PageQuery};
use madang_proto::{ContactCard, ContactState, Content, ErrorBody, ErrorCode, UserCard, limits};
use madang_store::{Contact, ContactLimits, ContactOutcome, PutContact};

use crate::operations::accounts::card;
use crate::operations::costs::Cost;
use crate::operations::people::blocks::check_other;
use crate::operations::turns::Subject;
use crate::operations::{Caller, Operations, pages};
use crate::refusal::Result;

const LIMITS: ContactLimits = ContactLimits {
    contacts: limits::CONTACTS,
    requests: limits::CONTACT_REQUESTS,
    asked: limits::CONTACT_ASKED,
};

impl Operations {
    /// The caller's contacts, including open requests in both directions.
    ///
    /// # Errors
    /// `after` or `limit` out of bounds.
    pub async fn contacts(&self, caller: Caller, query: PageQuery) -> Result<Page<ContactCard>> {
        let (after, limit) = pages::bounds::<UserId>(&query)?;
        let contacts = self.store.contacts(caller.user_id, after, limit).await?;
        let next = pages::next(&contacts, limit, |contact| contact.other);
        let ids: Vec<UserId> = contacts.iter().map(|contact| contact.other).collect();
        self.callers.charge(caller.user_id, Cost::rows(ids.len()));
        let users = self.store.users(&ids).await?;
        let mut users: HashMap<UserId, UserCard> =
            users.into_iter().flatten().map(|user| (user.id, card(user))).collect();
        let row = |contact: Contact| contact_card(users.remove(&contact.other)?, contact);
        Ok(Page { items: contacts.into_iter().filter_map(row).collect(), next })
    }

    /// Asks a user to be a contact, or accepts that user's request. Repeating it is harmless.
    ///
    /// # Errors
    /// `not_found`; `invalid` for oneself; `forbidden` if one blocks the other; `full` above the limits.
    pub async fn put_contact(&self, caller: Caller, other: UserId) -> Result<ContactCard> {
        check_other(caller, other)?;
        let user = self.present_user(other).await?;
        self.callers.take_nudge(caller.user_id, other)?;
        let turn = self.turns.take(Subject::pair(caller.user_id, other)).await;
        let PutContact { outcome, displaced } =
            self.store.put_contact(caller.user_id, other, self.clock.now_ms(), LIMITS).await?;
        let contact = match outcome {
            ContactOutcome::Is(contact) => contact,
            ContactOutcome::Blocked => {
                let message = "you cannot be contacts: one of you blocks the other";
                return Err(ErrorBody::forbidden(message).into());
            }
            ContactOutcome::Full => {
                return Err(full(limits::CONTACTS, "contacts, including unanswered requests").into());
            }
            ContactOutcome::TooManyRequests => {
                return Err(full(limits::CONTACT_REQUESTS, "unanswered requests").into());
            }
        };
        let contact = self.note_contact(caller.user_id, contact).await?;
        // A call holds one turn at a time: two calls that wait for each other's turns would wait for ever.
        drop(turn);
        if let Some(displaced) = displaced {
            let _turn = self.turns.take(Subject::pair(other, displaced.other)).await;
            self.note_contact(other, displaced).await?;
        }
        Ok(contact_card(user, contact).ok_or_else(|| ErrorBody::not_found("contact"))?)
    }

    /// Ends a contact, takes a request back, or declines one. Repeating it is harmless.
    ///
    /// # Errors
    /// `invalid` for oneself; those of the store.
    pub async fn remove_contact(&self, caller: Caller, other: UserId) -> Result<()> {
        check_other(caller, other)?;
        self.callers.take_nudge(caller.user_id, other)?;
        let _turn = self.turns.take(Subject::pair(caller.user_id, other)).await;
        self.end_contact(caller, other).await
    }

    /// As [`Self::remove_contact`], without its limit. The caller of this function holds the turn of the pair.
    pub(in crate::operations) async fn end_contact(&self, caller: Caller, other: UserId) -> Result<()> {
        let now = self.clock.now_ms();
        match self.store.remove_contact(caller.user_id, other, now).await? {
            Some(contact) => self.note_contact(caller.user_id, contact).await.map(drop),
            None => Ok(()),
        }
    }

    /// Notes the contact in both logs, unless that is done; returns the contact that the logs say. An earlier call may have ended
    /// between its write and its notes.
    async fn note_contact(&self, user: UserId, mut contact: Contact) -> Result<Contact> {
        if contact.is_recorded {
            return Ok(contact);
        }
        let other = contact.other;
        loop {
            self.homes.note(user, note_of(contact.state, other, user)).await?;
            let mirrored = contact.state.map(ContactState::mirrored);
            self.homes.note(other, note_of(mirrored, user, other)).await?;
            // Fails if another node has changed the contact since it was read. The loop then notes the newer state: the last note
            // must say what is in the store.
            if self.store.settle_contact(user, other, contact.rev).await? {
                return Ok(contact);
            }
            let now = self.store.contact(user, other).await?;
            contact = now.unwrap_or(contact);
        }
    }
}

/// The note about `other` in the log of `own`.
const fn note_of(state: Option<ContactState>, other: UserId, own: UserId) -> Content {
    match state {
        Some(ContactState::Requested) => Content::ContactRequested { user_id: other, by: own },
        Some(ContactState::Asked) => Content::ContactRequested { user_id: other, by: other },
        Some(ContactState::Mutual) => Content::ContactAccepted { user_id: other },
        None => Content::ContactRemoved { user_id: other },
    }
}

fn contact_card(user: UserCard, contact: Contact) -> Option<ContactCard> {
    Some(ContactCard { user, state: contact.state?, since: contact.since })
}

fn full(limit: u32, what: &str) -> ErrorBody {
    ErrorBody::field(ErrorCode::Full, "user_id", format!("you have {limit} {what}, the limit"))
}
