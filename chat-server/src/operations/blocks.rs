//! Blocking ends direct messages both ways, and whatever the two were to each other. Only who blocks is told.

use madang_ids::UserId;
use madang_proto::rest::{Page, PageQuery};
use madang_proto::{Content, ErrorBody, UserCard};
use madang_store::Ending;

use super::accounts::card;
use super::costs::Cost;
use super::turns::Subject;
use super::{Caller, Operations, pages};
use crate::refusal::refusal;

impl Operations {
    /// Whom the caller blocks.
    ///
    /// # Errors
    /// `after` or `limit` out of bounds.
    pub async fn blocks(&self, caller: Caller, query: PageQuery) -> Result<Page<UserCard>, ErrorBody> {
        let (after, limit) = pages::bounds::<UserId>(&query)?;
        let ids = self.store.blocks(caller.user_id, after, limit).await.map_err(|error| refusal(&error))?;
        let next = pages::next(&ids, limit, |id| *id);
        let users = self.store.users(&ids).await.map_err(|error| refusal(&error))?;
        self.callers.charge(caller.user_id, Cost::rows(ids.len()));
        Ok(Page { items: users.into_iter().flatten().map(card).collect(), next })
    }

    /// Blocks a user. Repeating it is harmless.
    ///
    /// # Errors
    /// `not_found`; `invalid` for oneself.
    pub async fn block(&self, caller: Caller, other: UserId) -> Result<(), ErrorBody> {
        check_other(caller, other)?;
        self.user(other).await?;
        let _turn = self.turns.take(Subject::pair(caller.user_id, other)).await;
        let now = self.clock.now_ms();
        let is_new = self.store.block(caller.user_id, other, now).await.map_err(|error| refusal(&error))?;
        // From here on nobody of the two can ask the other.
        self.end_contact(caller, other).await?;
        for (user, by) in [(caller.user_id, other), (other, caller.user_id)] {
            self.end_invitations(Ending::Between { user, by }).await?;
        }
        // An earlier call may have ended between its write and its note.
        if is_new || self.noted_block(caller.user_id, other).await? != Some(true) {
            self.tell_block(caller.user_id, other, true).await?;
        }
        Ok(())
    }

    /// Ends a block. Repeating it is harmless.
    ///
    /// # Errors
    /// `invalid` for oneself; the store's.
    pub async fn unblock(&self, caller: Caller, other: UserId) -> Result<(), ErrorBody> {
        check_other(caller, other)?;
        let _turn = self.turns.take(Subject::pair(caller.user_id, other)).await;
        let was_there = self.store.unblock(caller.user_id, other).await.map_err(|error| refusal(&error))?;
        if was_there || self.noted_block(caller.user_id, other).await? == Some(true) {
            self.tell_block(caller.user_id, other, false).await?;
        }
        Ok(())
    }

    /// What the user's devices were last notified of, if that was lately.
    async fn noted_block(&self, user: UserId, other: UserId) -> Result<Option<bool>, ErrorBody> {
        let pick = |content: &Content| match content {
            Content::Blocked { user_id } if *user_id == other => Some(true),
            Content::Unblocked { user_id } if *user_id == other => Some(false),
            _ => None,
        };
        self.homes.last_noted(user, pick).await.map_err(|error| refusal(&error))
    }

    /// The home of their direct channel looks again, and the caller's devices are notified.
    async fn tell_block(&self, user: UserId, other: UserId, mut is_blocked: bool) -> Result<(), ErrorBody> {
        let direct = self.store.direct(user, other).await.map_err(|error| refusal(&error))?;
        if let Some(channel) = direct {
            self.homes.forget_members(channel);
        }
        loop {
            let content = match is_blocked {
                true => Content::Blocked { user_id: other },
                false => Content::Unblocked { user_id: other },
            };
            self.homes.note(user, content).await?;
            // Another device may have changed it meanwhile, and told first: the last word must be what is.
            let told = is_blocked;
            is_blocked = self.has_blocked(user, other).await?;
            if is_blocked == told {
                return Ok(());
            }
        }
    }

    async fn has_blocked(&self, user: UserId, other: UserId) -> Result<bool, ErrorBody> {
        let before = UserId::from_raw(other.raw().saturating_sub(1));
        let next = self.store.blocks(user, Some(before), 1).await.map_err(|error| refusal(&error))?;
        Ok(next.contains(&other))
    }
}

/// Nobody is anything to herself.
pub(super) fn check_other(caller: Caller, other: UserId) -> Result<(), ErrorBody> {
    if other == caller.user_id {
        return Err(ErrorBody::invalid("user_id", "user_id is your own"));
    }
    Ok(())
}
