//! One after the other: a change and the notification of it, where two at once could notify in the wrong order.
//!
//! A home orders what is appended to its log. It cannot know in which order two callers changed a row that lies elsewhere
//! (a read marker, a contact). Callers that change the same thing therefore take turns: change, then hand over the note,
//! then let the next one change. In a fleet the user's home drops a note that is overtaken (`engine::home`), and clients
//! keep the greater.

use std::sync::Arc;

use dashmap::DashMap;
use madang_ids::{ChannelId, UserId};
use tokio::sync::{Mutex, OwnedMutexGuard};

/// What is changed by one caller at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Subject {
    /// How far a user has read a channel.
    Marker(UserId, ChannelId),
    /// What two users are to each other: contacts and blocks. The lesser id first.
    Pair(UserId, UserId),
    /// The invitation of a user to a group. Nobody who has such a turn waits for one of this kind.
    Invitation(UserId, ChannelId),
    /// The settings of a user's account.
    Account(UserId),
    /// In how many channels a user is, close to the limit. Of several users in the order of their ids.
    Channels(UserId),
}

impl Subject {
    pub(super) fn pair(one: UserId, other: UserId) -> Self {
        Self::Pair(one.min(other), one.max(other))
    }
}

/// Who changes what now. An entry lives while somebody changes its subject or waits to: at most one a request that is
/// under way.
#[derive(Debug, Default)]
pub struct Turns(DashMap<Subject, Arc<Mutex<()>>>);

/// The right to change a subject, until it is dropped.
#[must_use]
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    subject: Subject,
    held: Option<OwnedMutexGuard<()>>,
}

impl Turns {
    /// Waits until nobody else changes `subject`; in the order of the calls. Cancel safe.
    pub(super) async fn take(&self, subject: Subject) -> Turn<'_> {
        // Made first: a caller that goes away while it waits must leave no entry behind.
        let mut turn = Turn { turns: self, subject, held: None };
        let mutex = Arc::clone(&*self.0.entry(subject).or_default());
        turn.held = Some(mutex.lock_owned().await);
        turn
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.held = None;
        // Clones are made under the lock of the map's shard, so nobody takes one meanwhile.
        self.turns.0.remove_if(&self.subject, |_, mutex| Arc::strong_count(mutex) == 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn a_subject_is_changed_by_one_at_a_time_and_forgotten_afterwards() {
        let turns = Turns::default();
        let [ada, bob, cy] = [1, 2, 3].map(UserId::from_raw);
        let first = turns.take(Subject::pair(ada, bob)).await;
        let mut second = Box::pin(turns.take(Subject::pair(bob, ada)));
        assert!((&mut second).now_or_never().is_none(), "the pair is the same either way");
        drop(turns.take(Subject::pair(ada, cy)).now_or_never().expect("another pair does not wait"));
        let mut third = Box::pin(turns.take(Subject::pair(ada, bob)));
        assert!((&mut third).now_or_never().is_none());
        drop(first);
        assert!((&mut third).now_or_never().is_none(), "who asked earlier goes first");
        drop(second.await);
        drop(third);
        assert!(turns.0.is_empty(), "also a caller that went away leaves nothing behind");
    }
}
