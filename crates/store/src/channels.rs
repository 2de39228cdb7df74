//! Channels, their seats and members, and read markers.

use async_trait::async_trait;
use madang_ids::{ChannelId, Millis, Seq, UserId};
use madang_proto::{ChannelCard, ChannelSettings, Role};

pub use madang_engine::seats::{Member, Pending, PendingChange, SeatChange, SeatOutcome, Seats};

use crate::error::StoreResult;
use crate::log::{ChannelState, Details, Head, Marker};
use madang_engine::spans::Spans;

/// A conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channel {
    /// Id, kind, name, pair.
    pub card: ChannelCard,
    /// The user who made the channel.
    pub created_by: UserId,
    /// The time at which the channel was made.
    pub created_at: Millis,
    /// The most members.
    pub capacity: u32,
    /// Seconds that a member waits between two messages.
    pub slow_mode_seconds: u32,
    /// Pinned messages, the one that was pinned last first.
    pub pins: Vec<Seq>,
    /// Active, archived or deleted.
    pub state: ChannelState,
}

impl Channel {
    /// A new channel.
    #[must_use]
    pub const fn new(card: ChannelCard, created_by: UserId, created_at: Millis, capacity: u32) -> Self {
        Self {
            card,
            created_by,
            created_at,
            capacity,
            slow_mode_seconds: 0,
            pins: Vec::new(),
            state: ChannelState::Active,
        }
    }

    /// The properties that members may change.
    #[must_use]
    pub fn details(&self) -> Details {
        Details {
            name: self.card.name.clone(),
            topic: self.card.topic.clone(),
            avatar: self.card.avatar.clone(),
            slow_mode_seconds: self.slow_mode_seconds,
            pins: self.pins.clone(),
            state: self.state,
        }
    }
}

/// A member, keyed by user. An inbox is merged from the logs of these channels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The user who is or was the member.
    pub user_id: UserId,
    /// The channel of the membership.
    pub channel_id: ChannelId,
    /// The member's role.
    pub role: Role,
    /// The entries that the member may read.
    pub spans: Spans,
    /// [`Member::version`] of the member as it was when this was written.
    pub version: Seq,
    /// Whether the channel's log is in the user's inbox: not if the channel is open.
    pub in_inbox: bool,
    /// As [`Member::has_accepted`].
    pub has_accepted: bool,
}

impl Membership {
    /// Whether this may replace `other`: it must not be of an earlier change. The memory and the embedded store compare; a store
    /// with timestamps writes `USING TIMESTAMP version`, without a read and without a condition.
    pub(crate) fn may_replace(&self, other: &Self) -> bool {
        self.version >= other.version
    }
}

/// What a home reads of a channel's seats before its first command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seating {
    /// Count and revision.
    pub seats: Seats,
    /// Members with a pending change, by user: without an entry in the log, or not settled.
    pub pending: Vec<Member>,
    /// The members that were asked for, in the order of the users; also those who left.
    pub members: Vec<Option<Member>>,
}

/// A channel in the list of one member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overview {
    /// The channel.
    pub channel: Channel,
    /// The membership of the user.
    pub membership: Membership,
    /// The log's head.
    pub head: Head,
    /// The read marker of the user.
    pub marker: Marker,
    /// Messages after that which mention the user; counted up to [`MENTIONS_COUNTED`].
    pub mentions: u64,
    /// The user's settings for the channel.
    pub settings: ChannelSettings,
    /// When the last message was sent, if there was one.
    pub last_message_at: Option<Millis>,
}

/// Unread mentions of a channel that are counted: a client shows more as "999+", and a channel that mentions everybody each
/// second must not make each list of channels slower.
pub(crate) const MENTIONS_COUNTED: u64 = madang_proto::limits::MENTIONS_COUNTED;

/// The order of a list of channels, and the begin of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverviewOrder {
    /// By id, after this one.
    Id(Option<ChannelId>),
    /// The most recently active first, after this one (its head's time, then its id, both falling).
    Activity(Option<(Millis, ChannelId)>),
    /// By id, after this one: groups that the user has left, and that are not deleted.
    Left(Option<ChannelId>),
}

/// Channels and members.
///
/// # Guarantees
/// Every write is durable when it returns, and repeating it is harmless. `claim_direct` and `change_seats` are
/// compare-and-sets: of concurrent callers one wins. Nothing is atomic across calls.
#[async_trait]
pub trait ChannelStore: Send + Sync + 'static {
    /// Writes a channel that is new; an existing one stays as it is.
    async fn create_channel(&self, channel: &Channel) -> StoreResult<()>;
    /// A channel.
    async fn channel(&self, id: ChannelId) -> StoreResult<Option<Channel>>;
    /// The number of open channels that a user has made; not counted beyond `most`.
    async fn open_made(&self, user: UserId, most: u32) -> StoreResult<u32>;
    /// The channel of a pair: `candidate` if there was none. The order of the two does not matter.
    async fn claim_direct(&self, one: UserId, other: UserId, candidate: ChannelId) -> StoreResult<ChannelId>;

    /// The channel of a pair, if there is one.
    async fn direct(&self, one: UserId, other: UserId) -> StoreResult<Option<ChannelId>>;

    /// The seats of a channel.
    async fn seats(&self, channel: ChannelId) -> StoreResult<Seats>;
    /// Changes seats by compare-and-set on the revision, and if that is done puts the memberships as
    /// [`ChannelStore::put_memberships`] does. One write where the store can; elsewhere it may stop between the two, with
    /// an unknown outcome, and the members are found pending.
    async fn change_seats(&self, change: SeatChange, memberships: &[Membership]) -> StoreResult<SeatOutcome>;
    /// Records that a member has accepted the present stay; changes nothing for a user who is no member now. Writes of members and
    /// memberships never clear it within a stay, since their writer may not know of it.
    async fn accept_stay(&self, user: UserId, channel: ChannelId) -> StoreResult<()>;
    /// Writes the spans of members whose entry is in the log, and clears `pending`, or marks it as having its entry if the given
    /// member is marked so. A member with another pending change by now is left out: `pending` of the given member says which change
    /// it is about.
    async fn settle_members(&self, channel: ChannelId, members: &[Member]) -> StoreResult<()>;
    /// Members by user, in the order of `users`; also those who left.
    async fn members_of(&self, channel: ChannelId, users: &[UserId]) -> StoreResult<Vec<Option<Member>>>;
    /// Members now, by user, after `after`.
    async fn members(
        &self,
        channel: ChannelId,
        after: Option<UserId>,
        limit: usize,
    ) -> StoreResult<Vec<Member>>;
    /// The next owner of a channel after `owner`: of the other members an admin before a member, then the one who joined first.
    async fn successor(&self, channel: ChannelId, owner: UserId) -> StoreResult<Option<UserId>>;
    /// All present and former members, by user, after `after`: those whom a batch of the log may concern.
    async fn members_ever(
        &self,
        channel: ChannelId,
        after: Option<UserId>,
        limit: usize,
    ) -> StoreResult<Vec<Member>>;
    /// What a home reads of a channel's seats before its first command: one read of one partition.
    async fn seating(&self, channel: ChannelId, users: &[UserId]) -> StoreResult<Seating>;

    /// Users who are banned, or whose ban has ended and is not cleared yet, by user, after `after`.
    async fn banned(
        &self,
        channel: ChannelId,
        after: Option<UserId>,
        limit: usize,
    ) -> StoreResult<Vec<Member>>;

    /// Writes memberships, except where one of a later version is there: the writer may have been paused meanwhile.
    async fn put_memberships(&self, memberships: &[Membership]) -> StoreResult<()>;
    /// Those of `channels` of which the user is or was a member, in the order of `channels`. One read.
    async fn channels_among(&self, user: UserId, channels: &[ChannelId]) -> StoreResult<Vec<ChannelId>>;
    /// The membership of a user in a channel; also one that ended.
    async fn membership(&self, user: UserId, channel: ChannelId) -> StoreResult<Option<Membership>>;
    /// The memberships of a user by channel, after `after`; those that ended included.
    async fn memberships(
        &self,
        user: UserId,
        after: Option<ChannelId>,
        limit: usize,
    ) -> StoreResult<Vec<Membership>>;
    /// The number of channels of each user, in the order of `users`; not counted beyond `most`.
    async fn channel_counts(&self, users: &[UserId], most: u32) -> StoreResult<Vec<u32>>;
    /// Channels of a user by pages: those that the user is in, or those that the user has left.
    async fn overview(&self, user: UserId, order: OverviewOrder, limit: usize) -> StoreResult<Vec<Overview>>;
    /// One channel of a user, also one that the user left.
    async fn overview_of(&self, user: UserId, channel: ChannelId) -> StoreResult<Option<Overview>>;

    /// The read markers of these users, in the order of `users`.
    async fn markers(&self, channel: ChannelId, users: &[UserId]) -> StoreResult<Vec<Marker>>;

    /// Moves a read marker forward; changes nothing if it is there or beyond. The greatest marker stays, in any order of the calls,
    /// so a store with timestamps writes `USING TIMESTAMP seq`, without a read and without a condition.
    async fn advance_marker(&self, user: UserId, channel: ChannelId, marker: Marker) -> StoreResult<()>;
}
