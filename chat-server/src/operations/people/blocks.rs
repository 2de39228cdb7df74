//! Blocking a user ends direct messages in both directions, the contact, and invitations between the two. Only the user who
//! blocks is notified.

use madang_ids::UserId;
use madang_proto::rest::{Page, PageQuery};
use madang_proto::{Content, ErrorBody, UserCard};
use madang_store::Ending;

use crate::operations::accounts::card;
use crate::operations::costs::Cost;
use crate::operations::turns::Subject;
use crate::operations::{Caller, Operations, pages};
use crate::refusal::Result;

impl Operations {
    /// The users whom the caller blocks.
    ///
    /// # Errors
    /// `after` or `limit` out of bounds.
    pub async fn blocks(&self, caller: Caller, query: PageQuery) -> Result<Page<UserCard>> {
        let (after, limit) = pages::bounds::<UserId>(&query)?;
        let ids = self.store.blocks(caller.user_id, after, limit).await?;
        let next = pages::next(&ids, limit, |id| *id);
        let users = self.store.users(&ids).await?;
        self.callers.charge(caller.user_id, Cost::rows(ids.len()));
        Ok(Page { items: users.into_iter().flatten().map(card).collect(), next })
    }

    /// Blocks a user. Repeating it is harmless.
    ///
    /// # Errors
    /// `not_found`; `invalid` for oneself.
    pub async fn block(&self, caller: Caller, other: UserId) -> Result<()> {
        check_other(caller, other)?;
        self.user(other).await?;
        let _turn = self.turns.take(Subject::pair(caller.user_id, other)).await;
        let now = self.clock.now_ms();
        let is_new = self.store.block(caller.user_id, other, now).await?;
        // The block is written first: from here on neither of the two can ask the other to be a contact again.
        self.end_contact(caller, other).await?;
        for (user, by) in [(caller.user_id, other), (other, caller.user_id)] {
            self.end_invitations(Ending::Between { user, by }).await?;
        }
        // An earlier call may have ended between its write and its note.
        if is_new || self.noted_block(caller.user_id, other).await? != Some(true) {
            self.note_block(caller.user_id, other, true).await?;
        }
        Ok(())
    }

    /// Ends a block. Repeating it is harmless.
    ///
    /// # Errors
    /// `invalid` for oneself; those of the store.
    pub async fn unblock(&self, caller: Caller, other: UserId) -> Result<()> {
        check_other(caller, other)?;
        let _turn = self.turns.take(Subject::pair(caller.user_id, other)).await;
        let was_there = self.store.unblock(caller.user_id, other).await?;
        if was_there || self.noted_block(caller.user_id, other).await? == Some(true) {
            self.note_block(caller.user_id, other, false).await?;
        }
        Ok(())
    }

    /// The last of the recent notes about `other`: whether it says blocked. `None` if there is no recent one.
    async fn noted_block(&self, user: UserId, other: UserId) -> Result<Option<bool>> {
        let pick = |content: &Content| match content {
            Content::Blocked { user_id } if *user_id == other => Some(true),
            Content::Unblocked { user_id } if *user_id == other => Some(false),
            _ => None,
        };
        Ok(self.homes.last_noted(user, pick).await?)
    }

    /// Makes the home of their direct channel read again who may write, and notes the change in the user's own log.
    async fn note_block(&self, user: UserId, other: UserId, mut is_blocked: bool) -> Result<()> {
        let direct = self.store.direct(user, other).await?;
        if let Some(channel) = direct {
            self.homes.forget_members(channel);
        }
        loop {
            let content = match is_blocked {
                true => Content::Blocked { user_id: other },
                false => Content::Unblocked { user_id: other },
            };
            self.homes.note(user, content).await?;
            // Another node may have changed it meanwhile and noted that first. The last note must say what is in the store.
            let noted = is_blocked;
            is_blocked = self.has_blocked(user, other).await?;
            if is_blocked == noted {
                return Ok(());
            }
        }
    }

    async fn has_blocked(&self, user: UserId, other: UserId) -> Result<bool> {
        let before = UserId::from_raw(other.raw().saturating_sub(1));
        let next = self.store.blocks(user, Some(before), 1).await?;
        Ok(next.contains(&other))
    }
}

/// A user cannot block themselves or be their own contact.
pub(in crate::operations) fn check_other(caller: Caller, other: UserId) -> Result<(), ErrorBody> {
    if other == caller.user_id {
        return Err(ErrorBody::invalid("user_id", "user_id is your own"));
    }
    Ok(())
}
