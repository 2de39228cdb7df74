//! Turns of callers that change the same thing, so that two changes are not noted in the wrong order.
//!
//! A home orders what is appended to its log. It cannot know in which order two callers changed a row elsewhere, such as a read
//! marker or a contact. Therefore callers that change the same row take turns: each changes the row and hands over the note
//! before the next one begins. In a fleet turns hold for one node only; there the user's home drops a note that is overtaken
//! (`engine::home`), and clients keep the greater one.

use std::sync::Arc;

use dashmap::DashMap;
use madang_ids::{ChannelId, UserId};
use tokio::sync::{Mutex, OwnedMutexGuard};

/// A thing that one caller changes at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Subject {
    /// A user's read marker in a channel.
    Marker(UserId, ChannelId),
    /// The relation of two users: contact and blocks. The lesser id is first.
    Pair(UserId, UserId),
    /// A user's invitation to a group. A caller that holds such a turn never waits for another of this kind.
    Invitation(UserId, ChannelId),
    /// The settings of a user's account.
    Account(UserId),
    /// The number of channels of a user who is close to the limit. For several users the turns are taken in the order of their
    /// ids.
    Channels(UserId),
}

impl Subject {
    pub(super) fn pair(one: UserId, other: UserId) -> Self {
        Self::Pair(one.min(other), one.max(other))
    }
}

/// The turns in progress. An entry lives while a caller holds or waits for its subject, so there is at most one for each request
/// in flight.
#[derive(Debug, Default)]
pub struct Turns(DashMap<Subject, Arc<Mutex<()>>>);

/// The right to change a subject, held until it is dropped.
#[must_use]
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    subject: Subject,
    held: Option<OwnedMutexGuard<()>>,
}

impl Turns {
    /// Waits until no other caller holds `subject`. Callers are served in the order of their calls. Cancel safe.
    pub(super) async fn take(&self, subject: Subject) -> Turn<'_> {
        // Made before the wait: if the caller goes away while it waits, dropping the turn removes the entry.
        let mut turn = Turn { turns: self, subject, held: None };
        let mutex = Arc::clone(&*self.0.entry(subject).or_default());
        turn.held = Some(mutex.lock_owned().await);
        turn
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.held = None;
        // The last holder removes the entry. Clones are made under the lock of the map's shard, so no caller can take one between
        // the count and the removal.
        self.turns.0.remove_if(&self.subject, |_, mutex| Arc::strong_count(mutex) == 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn a_subject_is_changed_by_one_caller_at_a_time_and_leaves_no_entry() {
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
