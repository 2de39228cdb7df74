//! The model store, kept across starts of a node. Each start follows the commits from the beginning.

use std::sync::Arc;

use async_trait::async_trait;
use madang_ids::{ChannelId, Epoch, Position, UserId};
use madang_store::model::{Faults, Model, ModelConfig};
use madang_store::{
    Channel, ChannelStore, Commit, CommitFeed, CommitOrder, EpochRow, Marker, Member, Membership, Overview,
    OverviewOrder, Scan, SeatChange, SeatOutcome, Seating, Seats, StoreResult,
};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

const FEED_COMMITS: usize = 1024;
/// Every operation yields up to this many times, so that other tasks can run in between.
const DELAY_YIELDS: u32 = 3;

/// The model, and the present receiver of its commits.
pub(crate) struct SharedModel {
    pub(crate) model: Arc<Model>,
    follower: Arc<Mutex<Option<Follower>>>,
    _forward: JoinSet<()>,
}

struct Follower {
    after: Position,
    commits: mpsc::Sender<Commit>,
}

impl SharedModel {
    /// An empty store. Call within a runtime.
    pub(crate) fn new() -> Arc<Self> {
        let faults = Faults { delay_yields: DELAY_YIELDS, ..Faults::NONE };
        let model = Model::new(ModelConfig { seed: 1, faults });
        let feed = model.take_feed().unwrap();
        let follower: Arc<Mutex<Option<Follower>>> = Arc::default();
        let mut forward = JoinSet::new();
        forward.spawn(forward_commits(feed, Arc::clone(&follower)));
        Arc::new(Self { model, follower, _forward: forward })
    }
}

async fn forward_commits(mut feed: CommitFeed, follower: Arc<Mutex<Option<Follower>>>) {
    while let Some(commit) = feed.recv().await {
        let to = follower.lock().as_ref().filter(|to| commit.first > to.after).map(|to| to.commits.clone());
        if let Some(to) = to {
            // The send fails if the receiver belongs to a node that has been stopped.
            let _ = to.send(commit).await;
        }
    }
}

#[async_trait]
impl CommitOrder for SharedModel {
    fn take_feed(&self) -> Option<CommitFeed> {
        let (commits, feed) = mpsc::channel(FEED_COMMITS);
        *self.follower.lock() = Some(Follower { after: self.model.position(), commits });
        Some(feed)
    }

    fn position(&self) -> Position {
        self.model.position()
    }

    async fn begin_epoch(&self, epoch: Epoch) -> StoreResult<EpochRow> {
        self.model.begin_epoch(epoch).await
    }

    async fn epochs(&self) -> StoreResult<Vec<EpochRow>> {
        self.model.epochs().await
    }

    async fn scan(
        &self,
        user: UserId,
        after: Position,
        max_rows: usize,
        give_up: usize,
    ) -> StoreResult<Option<Scan>> {
        self.model.scan(user, after, max_rows, give_up).await
    }
}

/// Forwards each method to the model.
macro_rules! hand_on {
    ($(fn $name:ident($($arg:ident: $type:ty),*) -> $out:ty;)*) => {
        #[async_trait]
        impl ChannelStore for SharedModel {
            $(async fn $name(&self, $($arg: $type),*) -> StoreResult<$out> {
                self.model.$name($($arg),*).await
            })*
        }
    };
}

hand_on! {
    fn create_channel(channel: &Channel) -> ();
    fn channel(id: ChannelId) -> Option<Channel>;
    fn open_made(user: UserId, most: u32) -> u32;
    fn channels_among(user: UserId, channels: &[ChannelId]) -> Vec<ChannelId>;
    fn channel_counts(users: &[UserId], most: u32) -> Vec<u32>;
    fn successor(channel: ChannelId, owner: UserId) -> Option<UserId>;
    fn claim_direct(one: UserId, other: UserId, candidate: ChannelId) -> ChannelId;
    fn direct(one: UserId, other: UserId) -> Option<ChannelId>;
    fn seats(channel: ChannelId) -> Seats;
    fn change_seats(change: SeatChange, memberships: &[Membership]) -> SeatOutcome;
    fn accept_stay(user: UserId, channel: ChannelId) -> ();
    fn settle_members(channel: ChannelId, members: &[Member]) -> ();
    fn members_of(channel: ChannelId, users: &[UserId]) -> Vec<Option<Member>>;
    fn members(channel: ChannelId, after: Option<UserId>, limit: usize) -> Vec<Member>;
    fn members_ever(channel: ChannelId, after: Option<UserId>, limit: usize) -> Vec<Member>;
    fn seating(channel: ChannelId, users: &[UserId]) -> Seating;
    fn banned(channel: ChannelId, after: Option<UserId>, limit: usize) -> Vec<Member>;
    fn put_memberships(memberships: &[Membership]) -> ();
    fn membership(user: UserId, channel: ChannelId) -> Option<Membership>;
    fn memberships(user: UserId, after: Option<ChannelId>, limit: usize) -> Vec<Membership>;
    fn overview(user: UserId, order: OverviewOrder, limit: usize) -> Vec<Overview>;
    fn overview_of(user: UserId, channel: ChannelId) -> Option<Overview>;
    fn markers(channel: ChannelId, users: &[UserId]) -> Vec<Marker>;
    fn advance_marker(user: UserId, channel: ChannelId, marker: Marker) -> ();
}
