//! The cards of the users whom a page names, so that a client can show names without asking for each.

use std::collections::BTreeSet;

use madang_ids::UserId;
use madang_proto::{Content, Entry, UserCard};

use crate::operations::accounts::card;
use crate::operations::costs::Cost;
use crate::operations::{Caller, Operations};
use crate::refusal::Result;

impl Operations {
    /// The cards of these users, each once, by id, in one read. A page names a bounded number of users.
    pub(in crate::operations) async fn cards(
        &self,
        caller: Caller,
        users: BTreeSet<UserId>,
    ) -> Result<Vec<UserCard>> {
        let ids: Vec<UserId> = users.into_iter().collect();
        let found = self.store.users(&ids).await?;
        self.callers.charge(caller.user_id, Cost::ids(ids.len()));
        Ok(found.into_iter().flatten().map(card).collect())
    }
}

/// The senders of messages, the users who caused the other entries, and the users whom these are about.
pub(in crate::operations) fn named_in(entries: &[Entry]) -> BTreeSet<UserId> {
    entries.iter().flat_map(|entry| people(&entry.content)).flatten().collect()
}

const fn people(content: &Content) -> [Option<UserId>; 2] {
    match content {
        Content::Message(message) => [Some(message.sender_id), None],
        Content::Unreadable(unreadable) => [unreadable.sender_id, None],
        Content::Reactions(change) => [Some(change.by), None],
        Content::Edited(change) | Content::Deleted(change) => match &change.message {
            Some(message) => [Some(change.by), Some(message.sender_id)],
            None => [Some(change.by), None],
        },
        Content::Joined { user_id, by }
        | Content::Left { user_id, by }
        | Content::RoleChanged { user_id, by, .. }
        | Content::Banned { user_id, by, .. }
        | Content::Unbanned { user_id, by }
        | Content::Muted { user_id, by, .. }
        | Content::Unmuted { user_id, by } => [Some(*user_id), Some(*by)],
        Content::Pinned { by, .. }
        | Content::Unpinned { by, .. }
        | Content::Created { by }
        | Content::Renamed { by, .. }
        | Content::TopicChanged { by, .. }
        | Content::AvatarChanged { by, .. }
        | Content::SlowModeChanged { by, .. }
        | Content::Archived { by }
        | Content::Unarchived { by }
        | Content::ChannelDeleted { by } => [Some(*by), None],
        _ => [None, None],
    }
}
