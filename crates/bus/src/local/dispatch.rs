//! Follows the commits and addresses each one to the connected users whom it concerns.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use madang_engine::sync::Place;
use madang_ids::{ChannelId, LogId, Seq, UserId};
use madang_proto::ChannelKind;
use madang_store::{Commit, CommitFeed, StoreResult};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::bus::{Delivery, Envelope, Loss, OpenRows, Recipient};
use crate::local::{Attached, AttachedUser, Audience, Audiences, LocalStore, Subscribed};
use crate::roster::{Batch, Roster};

/// Time in which a channel whose audience could not be read is not read again, and in which all sessions are asked at
/// most once to read their inboxes. A node with 15,000 sockets then reads 5,000 inboxes a second, whatever the message
/// rate.
const FAILING_PAUSE: Duration = Duration::from_secs(3);
/// Most failing channels that are remembered, with 32 bytes each.
const FAILING_CHANNELS: usize = 1_024;

pub(super) struct Dispatcher<S> {
    store: Arc<S>,
    attached: Arc<Attached>,
    envelopes: mpsc::Sender<Envelope>,
    subscribed: Arc<Subscribed>,
    audiences: Audiences,
    failing: Mutex<Failing>,
}

impl<S: LocalStore> Dispatcher<S> {
    pub(super) fn new(
        store: Arc<S>,
        attached: Arc<Attached>,
        subscribed: Arc<Subscribed>,
        audiences: Audiences,
        envelopes: mpsc::Sender<Envelope>,
    ) -> Self {
        Self { store, attached, envelopes, subscribed, audiences, failing: Mutex::default() }
    }

    /// Runs until the store or the gateway ends. Its reads have priority, because every commit of the node waits while
    /// the audience of one is read.
    pub(super) async fn run(self, feed: CommitFeed) {
        madang_store::urgently(self.follow(feed)).await;
    }

    async fn follow(&self, mut feed: CommitFeed) {
        loop {
            let due = self.failing.lock().due();
            let commit = tokio::select! {
                commit = feed.recv() => commit.map(Some),
                () = self.envelopes.closed() => None,
                () = until(due) => Some(None),
            };
            let Some(commit) = commit else { return };
            let envelope = match &commit {
                Some(commit) => self.address(commit).await,
                None => self.failing.lock().say_lost(Instant::now()),
            };
            if let Some(commit) = commit {
                self.attached.addressed.store(commit.last().get(), Ordering::SeqCst);
            }
            if let Some(envelope) = envelope
                && self.envelopes.send(envelope).await.is_err()
            {
                return;
            }
        }
    }

    async fn address(&self, commit: &Commit) -> Option<Envelope> {
        let channel = match commit.log {
            LogId::Channel(channel) => channel,
            LogId::User(user) => return deliver(commit, self.recipient(user, true, commit)),
        };
        let now = Instant::now();
        if self.failing.lock().is_failing(channel, now) {
            return self.pass_over(channel, commit, now);
        }
        match self.audience(channel, commit).await {
            Ok(Audience::Members(roster)) => {
                let is_changed = roster.lock().apply(&commit.rows);
                if is_changed {
                    // The entry is inserted again because its size in memory has changed.
                    self.audiences.insert(channel, Audience::Members(Arc::clone(&roster)));
                }
                deliver(commit, self.recipients(&roster.lock(), commit))
            }
            Ok(Audience::Subscribers) => {
                let rows = commit.rows.clone();
                self.subscribed.contains_key(&channel).then_some(Envelope::Open(OpenRows { channel, rows }))
            }
            Err(error) => {
                tracing::warn!(
                    channel.id = %channel, %error,
                    "reading members failed: sessions read their inboxes, and the read is retried in \
                     {FAILING_PAUSE:?}"
                );
                self.failing.lock().note(channel, now);
                self.pass_over(channel, commit, now)
            }
        }
    }

    /// The audience of the commit is unknown, so each user may have missed something. The next item of a user shows it,
    /// because the place before that item is not the one at which the session is. For users who receive no other item,
    /// all sessions are asked to read their inboxes, at most once per pause, whatever the message rate in the channel.
    fn pass_over(&self, channel: ChannelId, commit: &Commit, now: Instant) -> Option<Envelope> {
        self.attached.users.iter_mut().for_each(|mut user| user.last = commit.last());
        self.failing.lock().owe(channel, now)
    }

    async fn audience(&self, channel: ChannelId, commit: &Commit) -> StoreResult<Audience> {
        if let Some(audience) = self.audiences.get(&channel) {
            return Ok(audience);
        }
        let row = self.store.channel(channel).await?;
        let audience = if row.is_some_and(|row| row.card.kind == ChannelKind::Open) {
            Audience::Subscribers
        } else {
            let at = commit.rows.first().map_or(Seq::ZERO, |row| row.entry.seq);
            let roster = Roster::load(self.store.as_ref(), channel, at, at).await?;
            Audience::Members(Arc::new(Mutex::new(roster)))
        };
        self.audiences.insert(channel, audience.clone());
        Ok(audience)
    }

    fn recipients(&self, roster: &Roster, commit: &Commit) -> Vec<Recipient> {
        let Some(batch) = Batch::of(&commit.rows) else { return Vec::new() };
        if self.attached.len() < roster.len() {
            let concerns = |user| roster.concerns(user, &batch);
            let users = self.attached.users.iter_mut();
            let attached =
                users.filter_map(|mut user| Some((concerns(*user.key())?, user.next(commit), *user.key())));
            let recipient = |(sees_all, place, user_id)| Recipient { user_id, place, sees_all };
            return attached.map(recipient).collect();
        }
        let concerned = roster.concerned(&batch);
        concerned.filter_map(|(user, sees_all)| self.recipient(user, sees_all, commit)).collect()
    }

    /// Takes the next place of a user's inbox. `None` if the user is not connected.
    fn recipient(&self, user_id: UserId, sees_all: bool, commit: &Commit) -> Option<Recipient> {
        let place = self.attached.users.get_mut(&user_id)?.next(commit);
        Some(Recipient { user_id, place, sees_all })
    }
}

/// Waits until `due`, or for ever if nothing is due.
async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Channels whose audience could not be read. If each commit read the audience again and asked all sessions to read
/// their inboxes, one damaged row would occupy the whole node.
#[derive(Debug, Default)]
struct Failing {
    /// The time of the last failure of each channel.
    channels: HashMap<ChannelId, Instant>,
    lost_at: Option<Instant>,
    /// What was passed over since the sessions were last asked.
    owed: Option<Loss>,
}

impl Failing {
    fn note(&mut self, channel: ChannelId, now: Instant) {
        if self.channels.len() >= FAILING_CHANNELS {
            self.channels.retain(|_, failed_at| *failed_at + FAILING_PAUSE > now);
        }
        // Above the limit a channel is read again with each commit.
        if self.channels.len() < FAILING_CHANNELS {
            self.channels.insert(channel, now);
        }
    }

    /// Whether the channel failed so recently that it is not read again yet.
    fn is_failing(&mut self, channel: ChannelId, now: Instant) -> bool {
        let is_failing =
            self.channels.get(&channel).is_some_and(|failed_at| *failed_at + FAILING_PAUSE > now);
        if !is_failing {
            self.channels.remove(&channel);
        }
        is_failing
    }

    fn owe(&mut self, channel: ChannelId, now: Instant) -> Option<Envelope> {
        self.owed = Some(match self.owed.take() {
            None => Loss::Channel(channel),
            Some(Loss::Channel(other)) if other == channel => Loss::Channel(channel),
            Some(_) => Loss::Node,
        });
        let is_due = self.lost_at.is_none_or(|lost_at| lost_at + FAILING_PAUSE <= now);
        if is_due { self.say_lost(now) } else { None }
    }

    /// When the sessions must be asked, if they must.
    fn due(&self) -> Option<Instant> {
        self.lost_at.filter(|_| self.owed.is_some()).map(|lost_at| lost_at + FAILING_PAUSE)
    }

    fn say_lost(&mut self, now: Instant) -> Option<Envelope> {
        self.lost_at = Some(now);
        self.owed.take().map(Envelope::Lost)
    }
}

fn deliver(commit: &Commit, recipients: impl IntoIterator<Item = Recipient>) -> Option<Envelope> {
    let recipients: Vec<Recipient> = recipients.into_iter().collect();
    let delivery = Delivery { log: commit.log, rows: commit.rows.clone(), recipients };
    (!delivery.recipients.is_empty()).then_some(Envelope::Delivery(delivery))
}

impl AttachedUser {
    /// The next place of the user's inbox.
    fn next(&mut self, commit: &Commit) -> Place {
        let place = Place { previous: self.last, first: commit.first, last: commit.last() };
        self.last = place.last;
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::audiences;

    use madang_engine::seats::{Member, SeatChange};
    use madang_engine::spans::Spans;
    use madang_ids::{Millis, Ordinal, Position};
    use madang_proto::{Content, Entry, Role};
    use madang_store::model::{Model, ModelConfig};
    use madang_store::{ChannelStore, Row, SharedRows};

    fn user(id: u64) -> UserId {
        UserId::from_raw(id)
    }

    fn commit(place: u64, content: Content) -> Commit {
        let entry = Entry { seq: Seq::new(place), at: Millis::new(place), content };
        let row = Row { entry, ordinal: Ordinal::ZERO, key: None };
        let log = LogId::Channel(ChannelId::from_raw(1));
        Commit { log, rows: SharedRows::from(&[row][..]), first: Position::new(place) }
    }

    async fn dispatcher(members: u64, attached: impl Iterator<Item = u64>) -> Dispatcher<Model> {
        let store = Model::new(ModelConfig::default());
        let member = |id| Member {
            user_id: user(id),
            role: Role::Member,
            joined_at: Millis::ZERO,
            spans: Spans::since(Seq::new(1)),
            has_accepted: true,
            muted: None,
            banned: None,
            pending: None,
        };
        let members = (1..=members).map(member).collect();
        let change = SeatChange { channel: ChannelId::from_raw(1), if_rev: 0, count: 0, members };
        store.change_seats(change, &[]).await.expect("seats are changed");
        let registry = Arc::new(Attached::default());
        attached.for_each(|id| registry.attach(user(id)));
        Dispatcher::new(store, registry, Arc::default(), audiences(1 << 20), mpsc::channel(1).0)
    }

    /// Prints the cost of one commit. In a release build a message to 125 connected members takes about 7 µs.
    async fn address_many(
        what: &str,
        dispatcher: &Dispatcher<Model>,
        content: impl Fn(u64) -> Content,
    ) -> usize {
        const COMMITS: u64 = 2_000;
        let commits: Vec<Commit> = (10..10 + COMMITS).map(|place| commit(place, content(place))).collect();
        let (started, mut recipients) = (Instant::now(), 0);
        for commit in &commits {
            if let Some(Envelope::Delivery(delivery)) = dispatcher.address(commit).await {
                recipients += delivery.recipients.len();
            }
        }
        println!("{what}: {:?} a commit", started.elapsed() / COMMITS as u32);
        recipients / COMMITS as usize
    }

    #[tokio::test]
    async fn members_and_connected_users_are_crossed_from_the_smaller_side() {
        let note = |_| Content::Created { by: user(1) };
        let all = dispatcher(125, 1..=125).await;
        assert_eq!(address_many("125 members, all connected", &all, note).await, 125);
        let few = dispatcher(500, [1, 2, 900].into_iter()).await;
        assert_eq!(address_many("500 members, 2 connected", &few, note).await, 2);
        let crowd = dispatcher(125, 1..=20_000).await;
        assert_eq!(address_many("125 members, 20,000 connected", &crowd, note).await, 125);
    }

    #[tokio::test]
    async fn joins_and_departures_do_not_reload_the_members() {
        let dispatcher = dispatcher(500, 1..=500).await;
        let change = |place| {
            let user_id = user(1_000 + place / 2);
            match place % 2 {
                0 => Content::Joined { user_id, by: user_id },
                _ => Content::Left { user_id, by: user_id },
            }
        };
        assert_eq!(address_many("500 members, one comes or goes", &dispatcher, change).await, 500);
    }

    #[tokio::test(start_paused = true)]
    async fn a_channel_whose_members_cannot_be_read_asks_the_sessions_once_in_a_pause() {
        let dispatcher = dispatcher(2, 1..=3).await;
        let channel = ChannelId::from_raw(1);
        let note = |place| commit(place, Content::Created { by: user(1) });
        let began = Instant::now();
        dispatcher.failing.lock().note(channel, began);
        let mut lost = 0;
        for place in 10..110 {
            lost += usize::from(matches!(
                dispatcher.address(&note(place)).await,
                Some(Envelope::Lost(Loss::Channel(_)))
            ));
            tokio::time::advance(Duration::from_millis(10)).await;
        }
        assert_eq!(lost, 1, "of a hundred messages in a second");
        assert_eq!(
            dispatcher.failing.lock().due(),
            Some(began + FAILING_PAUSE),
            "the other losses are reported later"
        );
        tokio::time::advance(FAILING_PAUSE).await;
        assert!(matches!(
            dispatcher.failing.lock().say_lost(Instant::now()),
            Some(Envelope::Lost(Loss::Channel(_)))
        ));
        assert_eq!(dispatcher.failing.lock().due(), None);
        // Then the audience is read again. A session that has not read its inbox yet sees that something before this
        // item is missing.
        let Some(Envelope::Delivery(delivery)) = dispatcher.address(&note(110)).await else {
            panic!("the channel can be read")
        };
        let previous = delivery.recipients.iter().map(|one| one.place.previous.get()).collect::<Vec<_>>();
        assert_eq!(previous, [109, 109]);
    }
}
