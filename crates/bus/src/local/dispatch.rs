//! Follows the commits and addresses each to the connected users whom it concerns.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use madang_engine::sync::Place;
use madang_ids::{ChannelId, LogId, UserId};
use madang_store::{Commit, CommitFeed};
use moka::sync::Cache;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::inbox::{Delivery, Envelope, Recipient};
use crate::local::{Attached, LocalStore};
use crate::roster::Roster;

/// Channels whose members are kept in memory.
const ROSTERS: u64 = 20_000;

pub(super) struct Dispatcher<S> {
    store: Arc<S>,
    attached: Arc<Attached>,
    envelopes: mpsc::Sender<Envelope>,
    /// Locked by nobody else: the lock is there so that a roster changes in its place.
    rosters: Cache<ChannelId, Arc<Mutex<Roster>>>,
}

impl<S: LocalStore> Dispatcher<S> {
    pub(super) fn new(store: Arc<S>, attached: Arc<Attached>, envelopes: mpsc::Sender<Envelope>) -> Self {
        Self { store, attached, envelopes, rosters: Cache::new(ROSTERS) }
    }

    /// Runs until the store or the gateway goes.
    pub(super) async fn run(self, mut feed: CommitFeed) {
        loop {
            let commit = tokio::select! {
                commit = feed.recv() => commit,
                () = self.envelopes.closed() => None,
            };
            let Some(commit) = commit else { return };
            let envelope = self.address(&commit).await;
            self.attached.addressed.store(commit.last().get(), Ordering::SeqCst);
            if let Some(envelope) = envelope
                && self.envelopes.send(envelope).await.is_err()
            {
                return;
            }
        }
    }

    async fn address(&self, commit: &Commit) -> Option<Envelope> {
        let recipients = match commit.log {
            LogId::User(user) => self.recipient(user, true, commit).into_iter().collect(),
            LogId::Channel(channel) => match self.recipients(channel, commit).await {
                Ok(recipients) => recipients,
                Err(error) => {
                    tracing::warn!(channel.id = %channel, %error, "members could not be read; sessions read their inboxes");
                    return Some(Envelope::Lost);
                }
            },
        };
        let delivery = Delivery { log: commit.log, rows: Arc::clone(&commit.rows), recipients };
        (!delivery.recipients.is_empty()).then_some(Envelope::Delivery(delivery))
    }

    async fn recipients(
        &self,
        channel: ChannelId,
        commit: &Commit,
    ) -> madang_store::StoreResult<Vec<Recipient>> {
        let Some((first, last)) = commit.rows.first().zip(commit.rows.last()) else { return Ok(Vec::new()) };
        let (from, to) = (first.entry.seq, last.entry.seq);
        let roster = match self.rosters.get(&channel) {
            Some(roster) => roster,
            None => {
                let loaded = Roster::load(self.store.as_ref(), channel, from).await?;
                let roster = Arc::new(Mutex::new(loaded));
                self.rosters.insert(channel, Arc::clone(&roster));
                roster
            }
        };
        let mut roster = roster.lock();
        roster.apply(&commit.rows);
        let concerned = roster.concerned(from, to);
        Ok(concerned.filter_map(|(user, sees_all)| self.recipient(user, sees_all, commit)).collect())
    }

    /// Takes the next place of a user's inbox, if she is connected.
    fn recipient(&self, user_id: UserId, sees_all: bool, commit: &Commit) -> Option<Recipient> {
        let mut attached = self.attached.users.get_mut(&user_id)?;
        let place = Place { previous: attached.last, first: commit.first, last: commit.last() };
        attached.last = place.last;
        Some(Recipient { user_id, place, sees_all })
    }
}
