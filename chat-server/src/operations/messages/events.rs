//! Events, which are delivered to online users and stored nowhere: typing and read receipts.

use std::collections::HashMap;
use std::time::Duration;

use madang_bus::{Event, EventKind};
use madang_engine::overload::Class;
use madang_ids::{ChannelId, Seq, UserId};
use madang_proto::{ChannelKind, limits};
use parking_lot::Mutex;

use crate::operations::{Caller, Operations};
use crate::refusal::Result;

const TYPING_PACE: Duration = Duration::from_millis(limits::TYPING_MS);
/// A typing event that takes longer is dropped: what the user sends next waits behind it.
const TYPING_PATIENCE: Duration = Duration::from_millis(200);
/// Users and channels of which the last typing event is kept. Above it typing is not published.
const WRITERS: usize = 100_000;
/// The memory of all of them in bytes.
pub(crate) const TYPING_BYTES: u64 = WRITERS as u64 * 64;

/// Blocks of one user, in both directions, that are read for an event: 16 KiB of ids.
const APART: usize = 2_000;

/// When each user was last published as writing in a channel, by the steady clock.
#[derive(Debug, Default)]
pub struct Writers(Mutex<HashMap<(UserId, ChannelId), Duration>>);

impl Writers {
    /// Whether a typing event is due. If so, the time is kept.
    fn take(&self, user: UserId, channel: ChannelId, now: Duration) -> bool {
        let mut noted = self.0.lock();
        if noted.len() >= WRITERS {
            noted.retain(|_, at| now.saturating_sub(*at) < TYPING_PACE);
        }
        let is_due = noted.get(&(user, channel)).is_none_or(|at| now.saturating_sub(*at) >= TYPING_PACE);
        let is_sent = is_due && noted.len() < WRITERS;
        if is_sent {
            noted.insert((user, channel), now);
        }
        is_sent
    }
}

impl Operations {
    /// Publishes that the caller is writing, at most every three seconds. A user who may not write is not published and gets no
    /// error.
    ///
    /// # Errors
    /// `not_found` for a channel that the caller is not a member of.
    pub async fn typing(&self, caller: Caller, channel_id: ChannelId) -> Result<()> {
        if !self.writers.take(caller.user_id, channel_id, self.clock.elapsed()) {
            return Ok(());
        }
        // Before anything is read: what is shed must cost nothing. The node that delivers the event may be overloaded as well, and
        // asks again.
        if !self.shedding.admits(Class::Presence, caller.user_id.raw()) {
            return Ok(());
        }
        tokio::select! {
            published = self.publish_typing(caller, channel_id) => published,
            () = self.clock.sleep(TYPING_PATIENCE) => Ok(()),
        }
    }

    async fn publish_typing(&self, caller: Caller, channel_id: ChannelId) -> Result<()> {
        self.check_is_member(caller, channel_id).await?;
        let channel = self.channel(channel_id).await?;
        let other = channel.card.between.into_iter().flatten().find(|user| *user != caller.user_id);
        let asked: Vec<UserId> = [caller.user_id].into_iter().chain(other).collect();
        let members = self.store.members_of(channel_id, &asked).await?;
        let now = self.clock.raw_ms();
        if members.iter().take(1).flatten().any(|member| member.is_muted(now)) {
            return Ok(());
        }
        // Nothing may tell a user that somebody is writing whose messages they do not accept.
        if let (Some(other), Some(Some(member))) = (other, members.get(1))
            && !member.has_accepted
            && !self.takes_messages(other, caller.user_id).await?
        {
            return Ok(());
        }
        let at_most = limits::GROUP_MEMBERS_MAX as usize;
        self.publish(caller, channel_id, EventKind::Typing, at_most).await
    }

    /// Publishes to the others of a small channel how far the caller has read, unless the user keeps that private.
    pub(in crate::operations) async fn publish_receipt(
        &self,
        caller: Caller,
        channel_id: ChannelId,
        seq: Seq,
    ) {
        if let Err(error) = self.try_to_publish_receipt(caller, channel_id, seq).await {
            tracing::debug!(channel.id = %channel_id, %error, "publishing a receipt failed");
        }
    }

    async fn try_to_publish_receipt(&self, caller: Caller, channel_id: ChannelId, seq: Seq) -> Result<()> {
        if self.channel(channel_id).await?.card.kind == ChannelKind::Open {
            return Ok(());
        }
        let users = self.store.users(&[caller.user_id]).await?;
        if users.iter().flatten().any(|user| user.sends_receipts) {
            self.publish(caller, channel_id, EventKind::Read(seq), limits::RECEIPT_MEMBERS).await?;
        }
        Ok(())
    }

    /// Publishes an event that shows that a user is online: never for an invisible user, and never across a block. For a user
    /// with more than [`APART`] blocks nothing is published, because an incomplete list of exceptions would be worse.
    async fn publish(
        &self,
        caller: Caller,
        channel_id: ChannelId,
        kind: EventKind,
        at_most: usize,
    ) -> Result<()> {
        let user_id = caller.user_id;
        let rows = self.store.presence(&[user_id]).await?;
        if rows.iter().any(|row| row.invisible) {
            return Ok(());
        }
        let Some(except) = self.apart_from(user_id).await? else { return Ok(()) };
        let event = Event { channel_id, user_id, kind, except };
        Ok(self.bus.publish(event, at_most).await?)
    }

    /// The users with whom a user has a block, in either direction, by id. `None` if there are more than [`APART`].
    pub(in crate::operations) async fn apart_from(&self, user: UserId) -> Result<Option<Vec<UserId>>> {
        let apart = self.store.apart_from(user, APART + 1).await?;
        Ok(Some(apart).filter(|apart| apart.len() <= APART))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_is_published_every_three_seconds() {
        let writers = Writers::default();
        let (ada, tea, milk) = (UserId::from_raw(1), ChannelId::from_raw(2), ChannelId::from_raw(3));
        let at = Duration::from_millis;
        let noted = [(tea, 0), (tea, 1), (milk, 2), (tea, 2_999), (tea, 3_000), (tea, 3_001)]
            .map(|(channel, now)| writers.take(ada, channel, at(now)));
        assert_eq!(noted, [true, false, true, false, true, false]);
    }
}
