//! Inbox and bus of one process: reads of the store's commit order. Nothing is written per member.
//!
//! One task follows the commits in their order and addresses each to the connected users whom it concerns. Because it
//! is one task, the places of a user's items rise in the order in which they leave it. A user who is not connected
//! reads the same order from the store later.

mod dispatch;
mod epochs;

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use async_trait::async_trait;
use dashmap::DashMap;
use madang_engine::log::Row;
use madang_ids::{ChannelId, Cursor, Epoch, LogId, Position, Seq, UserId};
use madang_proto::{ChannelKind, SnapshotReason, UserCard, limits};
use madang_store::{ChannelStore, CommitOrder, StoreError, StoreResult};
use moka::sync::Cache;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::bus::{Bus, Envelope, Event, Receivers};
use crate::inbox::{Inbox, InboxItem, InboxPage, InboxRead};
use crate::local::dispatch::Dispatcher;
use crate::local::epochs::Epochs;
use crate::roster::Roster;

/// Most envelopes between the dispatcher and the gateway. Beyond that the dispatcher waits, and then the writer.
const ENVELOPES: usize = 1024;
/// Bytes of the recipients of all these envelopes: 500 recipients each, with 40 bytes. The store counts the rows.
pub const ENVELOPE_BYTES: u64 = ENVELOPES as u64 * 500 * 40;

/// Bytes of the audiences that are kept in memory: those of 6,000 groups of 500 members, or of 300,000 direct channels.
pub const AUDIENCE_BYTES: u64 = 128 * 1024 * 1024;
/// Size of an audience without its members.
const AROUND_BYTES: usize = 256;

/// The receivers of the rows of a channel.
#[derive(Debug, Clone)]
pub(crate) enum Audience {
    /// Its members, as of the last commit that was addressed. Only the dispatcher changes them.
    Members(Arc<Mutex<Roster>>),
    /// The subscribers of an open channel. Its members are not read at all.
    Subscribers,
}

pub(crate) type Audiences = Cache<ChannelId, Audience>;

/// A cache of audiences with at most `max_bytes` in all. An audience is measured when it is inserted.
pub(crate) fn audiences(max_bytes: u64) -> Audiences {
    let bytes = |audience: &Audience| match audience {
        Audience::Members(roster) => AROUND_BYTES + roster.lock().bytes(),
        Audience::Subscribers => AROUND_BYTES,
    };
    let weigh = move |_: &ChannelId, audience: &Audience| u32::try_from(bytes(audience)).unwrap_or(u32::MAX);
    Cache::builder().max_capacity(max_bytes).weigher(weigh).build()
}

/// The parts of the store that the local inbox reads.
pub trait LocalStore: ChannelStore + CommitOrder {}

impl<T: ChannelStore + CommitOrder> LocalStore for T {}

/// The inbox of one process.
#[derive(Debug)]
pub struct LocalInbox<S> {
    store: Arc<S>,
    epochs: Epochs,
    attached: Arc<Attached>,
    subscribed: Arc<Subscribed>,
    /// The last position that a page has returned. Readers may see a commit before the store reports that it is
    /// durable.
    shown: AtomicU64,
    envelopes: Mutex<Option<mpsc::Receiver<Envelope>>>,
    audiences: Audiences,
    /// A weak sender, so that the stream ends with the dispatcher.
    events: mpsc::WeakSender<Envelope>,
}

/// The open channels with subscriptions on this node, and the number of subscriptions of each.
pub(crate) type Subscribed = DashMap<ChannelId, u32>;

/// The connected users, and the position of the last item that was addressed to each.
#[derive(Debug, Default)]
pub(crate) struct Attached {
    users: DashMap<UserId, AttachedUser>,
    /// Number of these users. Counting the map would lock all of it.
    count: AtomicUsize,
    /// The position of the last commit that was addressed.
    addressed: AtomicU64,
}

#[derive(Debug)]
pub(crate) struct AttachedUser {
    connections: u32,
    /// The position of the user's last item that was addressed, or the position at which the user attached.
    last: Position,
}

impl Attached {
    fn attach(&self, user: UserId) {
        let last = Position::new(self.addressed.load(Ordering::SeqCst));
        let first = || {
            self.count.fetch_add(1, Ordering::Relaxed);
            AttachedUser { connections: 0, last }
        };
        self.users.entry(user).or_insert_with(first).connections += 1;
    }

    /// An approximate number: users attach and detach meanwhile.
    fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    fn detach(&self, user: UserId) {
        let removed = self.users.remove_if_mut(&user, |_, attached| {
            attached.connections = attached.connections.saturating_sub(1);
            attached.connections == 0
        });
        if removed.is_some() {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl<S: LocalStore> LocalInbox<S> {
    /// Draws and stores the epoch of this start. The second value follows the commits; the caller runs it as a task. It
    /// ends when the store or the reader of the envelopes ends.
    ///
    /// # Errors
    /// Errors of the store; `Corrupt` if its feed was taken before.
    pub async fn open(store: Arc<S>) -> StoreResult<(Self, impl Future<Output = ()> + Send + 'static)> {
        let feed = store
            .take_feed()
            .ok_or_else(|| StoreError::Corrupt("the commit feed was taken before".into()))?;
        let current = store.begin_epoch(Epoch::random()).await?;
        let epochs = Epochs::new(store.epochs().await?, current);
        let (sender, receiver) = mpsc::channel(ENVELOPES);
        let attached = Arc::new(Attached::default());
        attached.addressed.store(store.position().get(), Ordering::SeqCst);
        let (subscribed, audiences) = (Arc::<Subscribed>::default(), audiences(AUDIENCE_BYTES));
        let events = sender.downgrade();
        let (of_users, of_channels) = (Arc::clone(&attached), Arc::clone(&subscribed));
        let dispatcher =
            Dispatcher::new(Arc::clone(&store), of_users, of_channels, audiences.clone(), sender);
        let (shown, envelopes) = (AtomicU64::new(0), Mutex::new(Some(receiver)));
        let inbox = Self { store, epochs, attached, subscribed, shown, envelopes, audiences, events };
        Ok((inbox, dispatcher.run(feed)))
    }
}

impl<S> LocalInbox<S> {
    /// The members who are connected and may receive the event; `None` if there are none, or too many members.
    fn receivers(&self, event: &Event, at_most: usize, members: Vec<UserId>) -> Option<Receivers> {
        if members.len() > at_most {
            return None;
        }
        let receives = |user: &UserId| event.is_for(*user) && self.attached.users.contains_key(user);
        let users: Vec<UserId> = members.into_iter().filter(receives).collect();
        (!users.is_empty()).then_some(Receivers::Users(users))
    }
}

#[async_trait]
impl<S: LocalStore> Inbox for LocalInbox<S> {
    /// The dispatcher follows the commits, so it misses none.
    async fn moved(&self, _: LogId, _: &Arc<[Row]>) -> StoreResult<()> {
        Ok(())
    }

    async fn moved_again(&self, _: LogId, _: RangeInclusive<Seq>) -> StoreResult<()> {
        Ok(())
    }

    async fn end(&self, _user: UserId) -> StoreResult<Cursor> {
        Ok(self.epochs.cursor(self.store.position()))
    }

    async fn read(&self, user: UserId, after: Cursor, max_rows: usize) -> StoreResult<InboxRead> {
        let shown = Position::new(self.shown.load(Ordering::SeqCst));
        if let Err(reason) = self.epochs.check(after, self.store.position().max(shown)) {
            return Ok(InboxRead::SnapshotRequired(reason));
        }
        let give_up = usize::try_from(limits::SYNC_ITEMS).unwrap_or(usize::MAX);
        let Some(scan) = self.store.scan(user, after.position, max_rows, give_up).await? else {
            return Ok(InboxRead::SnapshotRequired(SnapshotReason::TooFarBehind));
        };
        self.shown.fetch_max(scan.upto.get(), Ordering::SeqCst);
        let item = |item: madang_store::ScanItem| {
            let madang_store::ScanItem { log, from, to, position } = item;
            InboxItem { log, from, to, position }
        };
        let items = scan.items.into_iter().map(item).collect();
        Ok(InboxRead::Page(InboxPage { items, upto: self.epochs.cursor(scan.upto), more: scan.more }))
    }
}

#[async_trait]
impl<S: LocalStore> Bus for LocalInbox<S> {
    fn take_envelopes(&self) -> Option<mpsc::Receiver<Envelope>> {
        self.envelopes.lock().take()
    }

    async fn attach(&self, user: UserId) -> StoreResult<()> {
        self.attached.attach(user);
        Ok(())
    }

    fn detach(&self, user: UserId) {
        self.attached.detach(user);
    }

    async fn publish(&self, event: Event, at_most: usize) -> StoreResult<()> {
        let receivers = match self.audiences.get(&event.channel_id) {
            Some(Audience::Members(roster)) => {
                self.receivers(&event, at_most, roster.lock().members().collect())
            }
            Some(Audience::Subscribers) => Some(Receivers::Subscribers),
            // If no commit has asked for the audience yet, it is read and not cached: only the dispatcher knows as of
            // which commit it is.
            None => {
                let row = self.store.channel(event.channel_id).await?;
                if row.is_some_and(|row| row.card.kind == ChannelKind::Open) {
                    Some(Receivers::Subscribers)
                } else {
                    let members = self.store.members(event.channel_id, None, at_most + 1).await?;
                    let members = members.into_iter().map(|member| member.user_id);
                    self.receivers(&event, at_most, members.collect())
                }
            }
        };
        if let Some((events, receivers)) = self.events.upgrade().zip(receivers) {
            // If the stream is full, the event is lost: commits have priority.
            let _ = events.try_send(Envelope::Event(event, receivers));
        }
        Ok(())
    }

    fn publish_profile(&self, card: UserCard, mut users: Vec<UserId>) {
        users.retain(|user| self.attached.users.contains_key(user));
        if let Some(events) = self.events.upgrade().filter(|_| !users.is_empty()) {
            // If the stream is full, the event is lost: commits have priority.
            let _ = events.try_send(Envelope::Profile(Box::new(card), users));
        }
    }

    async fn subscribe(&self, channel: ChannelId) -> StoreResult<()> {
        *self.subscribed.entry(channel).or_default() += 1;
        Ok(())
    }

    fn unsubscribe(&self, channel: ChannelId) {
        self.subscribed.remove_if_mut(&channel, |_, count| {
            *count = count.saturating_sub(1);
            *count == 0
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use madang_ids::{Millis, Ordinal};
    use madang_proto::{Content, Entry};

    fn roster(members: std::ops::Range<u64>) -> Arc<Mutex<Roster>> {
        let mut roster = Roster::default();
        join(&mut roster, members);
        Arc::new(Mutex::new(roster))
    }

    fn join(roster: &mut Roster, members: std::ops::Range<u64>) {
        for id in members {
            let user_id = UserId::from_raw(id);
            let content = Content::Joined { user_id, by: user_id };
            let entry = Entry { seq: Seq::new(id), at: Millis::ZERO, content };
            assert!(roster.apply(&[Row { entry, ordinal: Ordinal::ZERO, key: None }]));
        }
    }

    #[test]
    fn audiences_are_bounded_in_bytes_for_any_number_of_members() {
        const MAX: u64 = 256 * 1024;
        let kept = audiences(MAX);
        for id in 1..=100 {
            kept.insert(ChannelId::from_raw(id), Audience::Members(roster(1..100)));
            kept.run_pending_tasks();
            assert!(kept.weighted_size() <= MAX);
        }
        assert!((10..50).contains(&kept.entry_count()), "{} are kept", kept.entry_count());
        // An audience that has grown is measured again.
        let kept = audiences(MAX);
        let growing = roster(1..2);
        for members in 1..=20 {
            join(&mut growing.lock(), members * 50..members * 50 + 50);
            kept.insert(ChannelId::from_raw(1), Audience::Members(Arc::clone(&growing)));
            kept.run_pending_tasks();
            assert_eq!(kept.weighted_size(), (AROUND_BYTES + growing.lock().bytes()) as u64);
        }
    }
}
