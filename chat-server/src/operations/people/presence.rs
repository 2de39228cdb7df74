//! What users say about their own presence, and the presence of others on demand.

use std::collections::HashMap;

use madang_engine::overload::Class;
use madang_ids::{ChannelId, UserId};
use madang_presence::States;
use madang_proto::{
    Availability, ErrorBody, PresenceCounts, PresenceList, SetPresence, UserPresence, limits,
};
use madang_store::PresenceChange;

use crate::operations::accounts::parse_ids;
use crate::operations::messages::texts::check_text;
use crate::operations::{Caller, Operations};
use crate::refusal::{OperationError, Result};

/// Members of a channel that are counted.
const COUNTED: usize = 10_000;
/// In channels with at most this many members the counts are made for the caller: users with whom there is a block are left out.
const COUNTED_FOR_CALLER: usize = limits::WATCHED_GROUP_MEMBERS as usize;

impl Operations {
    /// Stores what the caller says about themselves. Whether a connection is idle is kept by the gateway.
    ///
    /// # Errors
    /// A status beyond its limit.
    pub async fn set_presence(&self, caller: Caller, set: &SetPresence) -> Result<()> {
        let status = set.status.as_deref().map(check_status).transpose()?;
        if set.invisible.is_none() && status.is_none() {
            return Ok(());
        }
        let change = PresenceChange { invisible: set.invisible, status };
        self.store.change_presence(caller.user_id, &change).await?;
        self.presence.settings_changed(caller.user_id);
        Ok(())
    }

    /// The presence of users, as far as the caller may know it: of contacts, and of users who share a channel in which both have
    /// accepted. Everybody else is shown as offline.
    ///
    /// # Errors
    /// `invalid` for texts that are not ids, or for too many; `unavailable` without presence.
    pub async fn presence_of(&self, caller: Caller, user_ids: &str) -> Result<PresenceList> {
        let ids = parse_ids("user_ids", user_ids)?;
        self.shedding.admit(Class::Presence, caller.user_id.raw())?;
        let known = self.store.acquainted(caller.user_id, &ids).await?;
        let asked = [&known[..], &[caller.user_id]].concat();
        let States { users, is_settled } = self.states(Some(caller.user_id), asked).await?;
        let rows = self.store.presence(&known).await?;
        let mut cards: HashMap<UserId, UserPresence> =
            users.into_iter().flatten().map(|card| (card.user_id, card)).collect();
        if is_settled {
            for (id, row) in known.into_iter().zip(rows) {
                let offline =
                    || UserPresence { last_active_at: row.last_active_at, ..UserPresence::offline(id) };
                cards.entry(id).or_insert_with(offline);
            }
        }
        let card = |id: UserId| match cards.remove(&id) {
            None if is_settled => Some(UserPresence::offline(id)),
            found => found,
        };
        let users = ids.into_iter().filter_map(card).collect();
        Ok(PresenceList { users, complete: is_settled, ..PresenceList::default() })
    }

    /// How many members of a channel of the caller are online or away. For a large channel the answer may be a few seconds old.
    ///
    /// # Errors
    /// `not_found` for a channel that the caller is not a member of; `unavailable` without presence.
    pub async fn channel_presence(&self, caller: Caller, channel: ChannelId) -> Result<PresenceCounts> {
        self.check_is_member(caller, channel).await?;
        if let Some(counts) = self.known.counts.get(&channel).await {
            return Ok(counts);
        }
        let members = self.first_members(channel, COUNTED_FOR_CALLER + 1).await?;
        if members.len() <= COUNTED_FOR_CALLER {
            let mut known = self.store.acquainted(caller.user_id, &members).await?;
            known.retain(|user| *user != caller.user_id);
            known.push(caller.user_id);
            return self.count(known).await;
        }
        let counts = self
            .known
            .counts
            .try_get_with(channel, async { self.count(self.first_members(channel, COUNTED).await?).await });
        counts.await.map_err(|error: std::sync::Arc<OperationError>| (*error).clone())
    }

    /// The first members who have accepted the channel, and so show their presence in it.
    async fn first_members(&self, channel: ChannelId, at_most: usize) -> Result<Vec<UserId>> {
        let (mut found, mut after): (Vec<UserId>, Option<UserId>) = (Vec::new(), None);
        while found.len() < at_most {
            let rows = (at_most - found.len()).min(limits::LIST_PAGE as usize);
            let page = self.store.members(channel, after, rows).await?;
            found.extend(page.iter().filter(|member| member.has_accepted).map(|member| member.user_id));
            after = page.last().map(|member| member.user_id);
            if page.len() < rows {
                break;
            }
        }
        Ok(found)
    }

    async fn count(&self, users: Vec<UserId>) -> Result<PresenceCounts> {
        let mut counts =
            PresenceCounts { counted: u32::try_from(users.len()).unwrap_or(u32::MAX), ..Default::default() };
        for card in self.states(None, users).await?.users.into_iter().flatten() {
            match card.state {
                Availability::Online => counts.online += 1,
                Availability::Away => counts.away += 1,
                Availability::Offline => {}
            }
        }
        Ok(counts)
    }

    async fn states(&self, asker: Option<UserId>, users: Vec<UserId>) -> Result<States> {
        let states = self.presence.states(asker, users).await;
        Ok(states.ok_or_else(|| ErrorBody::unavailable("presence is unavailable", 1000))?)
    }
}

/// The text, or `None` to remove it.
fn check_status(status: &str) -> Result<Option<String>, ErrorBody> {
    let status = check_text("status", status, 0..=limits::STATUS_CHARS)?;
    Ok(Some(status).filter(|status| !status.is_empty()))
}
