//! A store whose members can be made unreadable, and whose feed belongs to this start only.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use madang_ids::{ChannelId, Epoch, Position, UserId};
use madang_store::conformance::OrderedStore;
use madang_store::{
    Channel, ChannelStore, CommitFeed, CommitOrder, EpochRow, Marker, Member, Membership, Overview,
    OverviewOrder, Scan, SeatChange, SeatOutcome, Seating, Seats, StoreError, StoreResult,
};
use parking_lot::Mutex;

/// One start over `store`.
pub(crate) struct Watched {
    store: Arc<dyn OrderedStore>,
    feed: Mutex<Option<CommitFeed>>,
    are_members_broken: Arc<AtomicBool>,
    /// How far the reported position is behind what readers see.
    lag: u64,
}

impl Watched {
    pub(crate) fn new(
        store: Arc<dyn OrderedStore>,
        feed: Option<CommitFeed>,
        are_members_broken: Arc<AtomicBool>,
    ) -> Self {
        Self { store, feed: Mutex::new(feed), are_members_broken, lag: 0 }
    }

    pub(crate) fn lagging(store: Arc<dyn OrderedStore>, lag: u64) -> Self {
        Self { lag, ..Self::new(Arc::clone(&store), store.take_feed(), Arc::default()) }
    }
}

#[async_trait]
impl CommitOrder for Watched {
    fn take_feed(&self) -> Option<CommitFeed> {
        self.feed.lock().take()
    }

    fn position(&self) -> Position {
        Position::new(self.store.position().get().saturating_sub(self.lag))
    }

    async fn begin_epoch(&self, epoch: Epoch) -> StoreResult<EpochRow> {
        self.store.begin_epoch(epoch).await
    }

    async fn epochs(&self) -> StoreResult<Vec<EpochRow>> {
        self.store.epochs().await
    }

    async fn scan(
        &self,
        user: UserId,
        after: Position,
        max_rows: usize,
        give_up: usize,
    ) -> StoreResult<Option<Scan>> {
        self.store.scan(user, after, max_rows, give_up).await
    }
}

#[async_trait]
impl ChannelStore for Watched {
    async fn members_ever(
        &self,
        channel: ChannelId,
        after: Option<UserId>,
        limit: usize,
    ) -> StoreResult<Vec<Member>> {
        if self.are_members_broken.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable("members are broken".into()));
        }
        self.store.members_ever(channel, after, limit).await
    }

    async fn create_channel(&self, channel: &Channel) -> StoreResult<()> {
        self.store.create_channel(channel).await
    }

    async fn channel(&self, id: ChannelId) -> StoreResult<Option<Channel>> {
        self.store.channel(id).await
    }

    async fn open_made(&self, user: UserId, most: u32) -> StoreResult<u32> {
        self.store.open_made(user, most).await
    }

    async fn channels_among(&self, user: UserId, channels: &[ChannelId]) -> StoreResult<Vec<ChannelId>> {
        self.store.channels_among(user, channels).await
    }

    async fn successor(&self, channel: ChannelId, owner: UserId) -> StoreResult<Option<UserId>> {
        self.store.successor(channel, owner).await
    }

    async fn claim_direct(&self, one: UserId, other: UserId, candidate: ChannelId) -> StoreResult<ChannelId> {
        self.store.claim_direct(one, other, candidate).await
    }

    async fn direct(&self, one: UserId, other: UserId) -> StoreResult<Option<ChannelId>> {
        self.store.direct(one, other).await
    }

    async fn seats(&self, channel: ChannelId) -> StoreResult<Seats> {
        self.store.seats(channel).await
    }

    async fn change_seats(&self, change: SeatChange, memberships: &[Membership]) -> StoreResult<SeatOutcome> {
        self.store.change_seats(change, memberships).await
    }

    async fn accept_stay(&self, user: UserId, channel: ChannelId) -> StoreResult<()> {
        self.store.accept_stay(user, channel).await
    }

    async fn settle_members(&self, channel: ChannelId, members: &[Member]) -> StoreResult<()> {
        self.store.settle_members(channel, members).await
    }

    async fn members_of(&self, channel: ChannelId, users: &[UserId]) -> StoreResult<Vec<Option<Member>>> {
        self.store.members_of(channel, users).await
    }

    async fn members(
        &self,
        channel: ChannelId,
        after: Option<UserId>,
        limit: usize,
    ) -> StoreResult<Vec<Member>> {
        self.store.members(channel, after, limit).await
    }

    async fn seating(&self, channel: ChannelId, users: &[UserId]) -> StoreResult<Seating> {
        self.store.seating(channel, users).await
    }

    async fn banned(
        &self,
        channel: ChannelId,
        after: Option<UserId>,
        limit: usize,
    ) -> StoreResult<Vec<Member>> {
        self.store.banned(channel, after, limit).await
    }

    async fn put_memberships(&self, memberships: &[Membership]) -> StoreResult<()> {
        self.store.put_memberships(memberships).await
    }

    async fn membership(&self, user: UserId, channel: ChannelId) -> StoreResult<Option<Membership>> {
        self.store.membership(user, channel).await
    }

    async fn memberships(
        &self,
        user: UserId,
        after: Option<ChannelId>,
        limit: usize,
    ) -> StoreResult<Vec<Membership>> {
        self.store.memberships(user, after, limit).await
    }

    async fn channel_counts(&self, users: &[UserId], most: u32) -> StoreResult<Vec<u32>> {
        self.store.channel_counts(users, most).await
    }

    async fn overview(&self, user: UserId, order: OverviewOrder, limit: usize) -> StoreResult<Vec<Overview>> {
        self.store.overview(user, order, limit).await
    }

    async fn overview_of(&self, user: UserId, channel: ChannelId) -> StoreResult<Option<Overview>> {
        self.store.overview_of(user, channel).await
    }

    async fn markers(&self, channel: ChannelId, users: &[UserId]) -> StoreResult<Vec<Marker>> {
        self.store.markers(channel, users).await
    }

    async fn advance_marker(&self, user: UserId, channel: ChannelId, marker: Marker) -> StoreResult<()> {
        self.store.advance_marker(user, channel, marker).await
    }
}
