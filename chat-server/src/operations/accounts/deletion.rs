//! Deletes accounts. What identifies the user is deleted at once; what connects others to the user is deleted after that, a page
//! at a time. Upkeep repeats the deletion until it is complete.

use std::sync::atomic::{AtomicBool, Ordering};

use madang_ids::{DeviceId, UserId};
use madang_proto::rest::Deletion;
use madang_proto::{ChannelKind, ErrorCode, limits};
use madang_store::{Ending, Overview, OverviewOrder};

use crate::operations::postponed::Postponed;
use crate::operations::{Caller, Operations};
use crate::refusal::Result;

const DAY_MS: u64 = 86_400_000;
/// Rows that are read in one page.
const PAGE: usize = 100;
/// Rows that are deleted in one transaction.
const FORGETS: usize = 500;
/// Deletions that are continued in one round.
const AT_ONCE: usize = 10;

/// Whether there may be deletions that are not complete.
#[derive(Debug)]
pub struct Deletions {
    may_be_due: AtomicBool,
    failed: Postponed<UserId>,
}

impl Default for Deletions {
    fn default() -> Self {
        // An earlier process may have left some.
        Self { may_be_due: AtomicBool::new(true), failed: Postponed::default() }
    }
}

impl Operations {
    /// Deletes the caller's account: name, picture and password are deleted, devices are revoked, the user leaves groups and open
    /// channels, and contacts end. Messages stay, shown as sent by a deleted user. The other user of a direct channel can still
    /// read it.
    ///
    /// # Errors
    /// `unauthorized` for a wrong password; `limited`.
    pub async fn delete_account(&self, caller: Caller, request: Deletion) -> Result<()> {
        self.prove(caller, "password", request.password).await?;
        self.delete_user(caller.user_id).await
    }

    /// Deletes an account.
    pub(in crate::operations) async fn delete_user(&self, user: UserId) -> Result<()> {
        // Marked as deleted first, and durably: upkeep continues from here if this call stops.
        self.begin_deletion(user).await?;
        // Now, while there are still contacts to notify.
        self.notify_profile(user).await;
        self.revoke_all(user, None).await.map(drop)
    }

    async fn begin_deletion(&self, user: UserId) -> Result<()> {
        let until = self.clock.now_ms().plus(limits::HANDLE_KEPT_DAYS * DAY_MS);
        self.store.delete_user(user, until).await?;
        self.deletions.may_be_due.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Continues deletions that are not complete.
    pub(in crate::operations) async fn finish_deletions(&self) {
        let is_due = self.deletions.may_be_due.swap(false, Ordering::Relaxed);
        if !is_due && !self.deletions.failed.has_due(self.clock.elapsed()) {
            return;
        }
        if let Err(error) = self.finish_some_deletions().await {
            self.deletions.may_be_due.store(true, Ordering::Relaxed);
            tracing::warn!(%error, "reading deleted accounts failed; retrying");
        }
    }

    async fn finish_some_deletions(&self) -> Result<()> {
        let Deletions { may_be_due, failed } = &self.deletions;
        let now = self.clock.elapsed();
        let users = self.store.deletions(AT_ONCE + failed.len()).await?;
        failed.keep(|user| users.contains(user));
        let due: Vec<UserId> = users.into_iter().filter(|user| failed.is_due(user, now)).collect();
        for &user in due.iter().take(AT_ONCE) {
            match self.finish_deletion(user).await {
                Ok(()) => failed.done(&user),
                Err(error) => {
                    failed.failed(user, now);
                    tracing::error!(user.id = %user, %error, "erasing a deleted account failed; retrying");
                }
            }
        }
        // Cleared before the next read: a deletion that begins after it sets the flag again, and one that began before it is
        // either found by the read or was handled above.
        may_be_due.store(false, Ordering::Relaxed);
        let left = self.store.deletions(1 + failed.len()).await?;
        if left.len() > failed.len() {
            may_be_due.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Repeats all steps, including the first ones, because the process may have stopped between any two of them.
    async fn finish_deletion(&self, user: UserId) -> Result<()> {
        self.begin_deletion(user).await?;
        self.revoke_all(user, None).await?;
        self.leave_channels(user).await?;
        self.end_contacts(user).await?;
        self.store.forget_group_invitations(user).await?;
        self.end_invitations(Ending::By(user)).await?;
        // Last of the steps that write: those before it append to the user's own log.
        self.forget_what_was_read(user).await?;
        self.store.settle_deletion(user).await?;
        tracing::info!(user.id = %user, "erased a deleted account");
        Ok(())
    }

    async fn leave_channels(&self, user: UserId) -> Result<()> {
        let mut after = None;
        loop {
            let page = self.store.overview(user, OverviewOrder::Id(after), PAGE).await?;
            for row in &page {
                self.leave_channel_of(user, row).await?;
            }
            after = page.last().map(|row| row.channel.card.id);
            if page.len() < PAGE {
                return Ok(());
            }
        }
    }

    async fn leave_channel_of(&self, user: UserId, row: &Overview) -> Result<()> {
        let channel = row.channel.card.id;
        if row.channel.card.kind != ChannelKind::Direct {
            return match self.remove_member(as_caller(user), channel, user).await {
                // The user was removed meanwhile.
                Err(error) if matches!(error.code(), ErrorCode::NotFound | ErrorCode::Forbidden) => Ok(()),
                left => left,
            };
        }
        // The other user can still read the channel. The block makes the home refuse all sends here, and costs other sends
        // nothing.
        let between = row.channel.card.between.into_iter().flatten();
        for other in between.filter(|other| *other != user) {
            self.store.block(user, other, self.clock.now_ms()).await?;
        }
        self.homes.forget_members(channel);
        Ok(())
    }

    /// Deletes the user's own log, settings and blocks, in small transactions. What others see of the user stays.
    async fn forget_what_was_read(&self, user: UserId) -> Result<()> {
        while self.store.forget_user(user, FORGETS).await? == FORGETS {}
        Ok(())
    }

    async fn end_contacts(&self, user: UserId) -> Result<()> {
        loop {
            let page = self.store.contacts(user, None, PAGE).await?;
            for contact in &page {
                self.end_contact(as_caller(user), contact.other).await?;
            }
            if page.len() < PAGE {
                return Ok(());
            }
        }
    }
}

/// Lets the server act as the user, who has no device any more.
pub(in crate::operations) const fn as_caller(user_id: UserId) -> Caller {
    Caller { user_id, device_id: DeviceId::from_raw(1), origin: None }
}
