//! Channels, their seats and members, and how far each has read.

use async_trait::async_trait;
use caseless::Caseless;
use madang_ids::{ChannelId, Millis, Seq, UserId};
use madang_proto::{ChannelCard, ChannelSettings, Role};
use unicode_normalization::UnicodeNormalization;

pub use madang_engine::seats::{Member, Pending, PendingChange, SeatChange, SeatOutcome, Seats};

use crate::error::StoreResult;
use crate::log::{ChannelState, Details, Head, Marker};
use madang_engine::spans::Spans;

/// A conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channel {
    /// Id, kind, name, pair.
    pub card: ChannelCard,
    /// Who made it.
    pub created_by: UserId,
    /// When.
    pub created_at: Millis,
    /// Most members.
    pub capacity: u32,
    /// Seconds that a member waits between two messages.
    pub slow_mode_seconds: u32,
    /// Messages that are pinned, the last one first.
    pub pins: Vec<Seq>,
    /// What the channel still takes.
    pub state: ChannelState,
}

impl Channel {
    /// A channel as it is made.
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

    /// What members may change of it.
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

/// A member, keyed by user: what an inbox is merged from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// Whose.
    pub user_id: UserId,
    /// Where.
    pub channel_id: ChannelId,
    /// What she may do.
    pub role: Role,
    /// What she may read.
    pub spans: Spans,
    /// The place in the channel's log where her last change was to be told.
    pub as_of: Seq,
    /// Whether the channel's log is in her inbox: not if the channel is open.
    pub in_inbox: bool,
    /// As [`Member::has_accepted`].
    pub has_accepted: bool,
}

impl Membership {
    /// Whether this may take the place of `other`: it is of no earlier change, and a change that the log told later
    /// than it was planned keeps the place where it is told. What every implementation of
    /// [`ChannelStore::put_memberships`] asks.
    pub(crate) fn may_replace(&self, other: &Self) -> bool {
        (self.as_of, self.spans.edge()) >= (other.as_of, other.spans.edge())
    }
}

/// An open channel, as anybody finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundChannel {
    /// The channel.
    pub card: ChannelCard,
    /// Members now.
    pub members: u32,
}

/// Open channels of one page of a search.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FoundPage {
    /// By id.
    pub channels: Vec<FoundChannel>,
    /// Behind which channel the search goes on; `None` at its end. A page may be short, or empty, though it goes on: it
    /// ends after a number of channels that were looked at.
    pub next: Option<ChannelId>,
}

/// What an open channel is found by: its name and topic, caseless.
pub(crate) fn searched(name: Option<&str>, topic: &str) -> String {
    caseless(&format!("{} {topic}", name.unwrap_or_default()))
}

/// The form in which texts are compared without case and width: compatibility caseless matching (Unicode 3.13, D146),
/// without what is not shown.
pub(crate) fn caseless(text: &str) -> String {
    let folded = text.chars().filter(|char| !is_ignorable(*char)).nfd().default_case_fold();
    folded.nfkd().default_case_fold().nfkd().collect()
}

/// Default ignorable code points that occur in texts: soft hyphen, joiners, marks of direction, variation selectors.
const fn is_ignorable(char: char) -> bool {
    matches!(char, '\u{AD}' | '\u{34F}' | '\u{61C}' | '\u{180B}'..='\u{180F}' | '\u{200B}'..='\u{200F}'
        | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}'
        | '\u{E0000}'..='\u{E0FFF}')
}

/// A channel as one member has it in her list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overview {
    /// The channel.
    pub channel: Channel,
    /// Her membership.
    pub membership: Membership,
    /// The log's head.
    pub head: Head,
    /// How far she has read.
    pub marker: Marker,
    /// Messages after that which mention the user; counted up to [`MENTIONS_COUNTED`].
    pub mentions: u64,
    /// What the user set for the channel.
    pub settings: ChannelSettings,
    /// When the last message was sent, if there was one.
    pub last_message_at: Option<Millis>,
}

/// Unread mentions of a channel that are counted: a client shows more as "999+", and a channel that mentions everybody each
/// second must not make each list of channels slower.
pub(crate) const MENTIONS_COUNTED: u64 = madang_proto::limits::MENTIONS_COUNTED;

/// In which order a list of channels comes, and where a page begins.
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
/// compare-and-sets: of callers at once one wins. Between calls nothing is atomic.
#[async_trait]
pub trait ChannelStore: Send + Sync + 'static {
    /// Writes a channel that is new; an existing one stays as it is.
    async fn create_channel(&self, channel: &Channel) -> StoreResult<()>;
    /// A channel.
    async fn channel(&self, id: ChannelId) -> StoreResult<Option<Channel>>;
    /// Active open channels that have been joined, whose name or topic holds `query`, caseless, by id, after `after`: at most
    /// `limit` of them, found among the next `scan` open channels.
    async fn find_open(
        &self,
        query: &str,
        after: Option<ChannelId>,
        limit: usize,
        scan: usize,
    ) -> StoreResult<FoundPage>;
    /// How many open channels a user has made; not counted beyond `most`.
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
    /// A member has accepted the present stay; who is none now is left as they are. Writes of members and memberships keep
    /// what was accepted within a stay: their writer may not know of it.
    async fn accept_stay(&self, user: UserId, channel: ChannelId) -> StoreResult<()>;
    /// Writes the spans of members whose change the log tells, and clears `pending`, or marks it as told if the member says so;
    /// unless another change is pending by now. The members say which change was pending.
    async fn settle_members(&self, channel: ChannelId, members: &[Member]) -> StoreResult<()>;
    /// Members by user, in the order asked for; also those who left.
    async fn members_of(&self, channel: ChannelId, users: &[UserId]) -> StoreResult<Vec<Option<Member>>>;
    /// Members now, by user, after `after`.
    async fn members(
        &self,
        channel: ChannelId,
        after: Option<UserId>,
        limit: usize,
    ) -> StoreResult<Vec<Member>>;
    /// Who owns a channel after `owner`: of the other members an admin before a member, then who has been there
    /// longest.
    async fn successor(&self, channel: ChannelId, owner: UserId) -> StoreResult<Option<UserId>>;
    /// Everybody who is or was a member, by user, after `after`: whom a batch of the log may concern.
    async fn members_ever(
        &self,
        channel: ChannelId,
        after: Option<UserId>,
        limit: usize,
    ) -> StoreResult<Vec<Member>>;
    /// Members whose seats changed while the log does not tell yet.
    async fn pending_members(&self, channel: ChannelId) -> StoreResult<Vec<Member>>;

    /// Who is banned, or was until lately, by user, after `after`.
    async fn banned(
        &self,
        channel: ChannelId,
        after: Option<UserId>,
        limit: usize,
    ) -> StoreResult<Vec<Member>>;

    /// Writes memberships, each unless a later one is there: its writer may have been paused. By `as_of`, then by
    /// the last edge of the spans.
    async fn put_memberships(&self, memberships: &[Membership]) -> StoreResult<()>;
    /// Those of `channels` that the user is or was a member of, in the order asked for. One read.
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
    /// In how many channels each of these is, in the order asked for; not counted beyond `most`.
    async fn channel_counts(&self, users: &[UserId], most: u32) -> StoreResult<Vec<u32>>;
    /// Channels of a user by pages: those that the user is in, or those that the user has left.
    async fn overview(&self, user: UserId, order: OverviewOrder, limit: usize) -> StoreResult<Vec<Overview>>;
    /// One channel of hers, also one that she left.
    async fn overview_of(&self, user: UserId, channel: ChannelId) -> StoreResult<Option<Overview>>;

    /// How far each of these users has read, in the order asked for.
    async fn markers(&self, channel: ChannelId, users: &[UserId]) -> StoreResult<Vec<Marker>>;

    /// Moves a read marker forward. `false` if it was there or beyond already.
    async fn advance_marker(&self, user: UserId, channel: ChannelId, marker: Marker) -> StoreResult<bool>;
}
