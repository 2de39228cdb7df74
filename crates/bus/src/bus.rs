//! The bus: what one node receives about the users who are connected to it, and what it sends to other nodes.

use async_trait::async_trait;
use madang_engine::sync::Place;
use madang_ids::{ChannelId, LogId, Seq, UserId};
use madang_proto::UserCard;
use madang_store::{SharedRows, StoreResult};
use tokio::sync::mpsc;

/// A unit of the stream from the bus to a node.
#[derive(Debug, Clone)]
pub enum Envelope {
    /// Rows, and the users of this node whom they concern.
    Delivery(Delivery),
    /// Rows of an open channel to which this node is subscribed.
    Open(OpenRows),
    /// Envelopes may have been lost.
    Lost(Loss),
    /// A transient event. May be lost.
    Event(Event, Receivers),
    /// The profile of a user has changed; these users of this node are notified. May be lost.
    Profile(Box<UserCard>, Vec<UserId>),
}

/// The users whose envelopes may have been lost. Their sessions read the store, which has everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loss {
    /// Rows that concern these users: their sessions read their inboxes.
    Users(Vec<UserId>),
    /// Rows of one channel whose members are not known: every session reads its inbox, and the subscriptions of this channel
    /// have a gap.
    Channel(ChannelId),
    /// Anything: every session reads its inbox, every subscription has a gap, and presence is read again.
    Node,
}

/// Something transient that happened in a channel. It is sent to members who are online, and never stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The channel.
    pub channel_id: ChannelId,
    /// The user who caused it. They do not receive it.
    pub user_id: UserId,
    /// The kind.
    pub kind: EventKind,
    /// Users who do not receive it either, such as those with whom there is a block. Sorted.
    pub except: Vec<UserId>,
}

impl Event {
    /// Whether a user may receive it.
    #[must_use]
    pub fn is_for(&self, user: UserId) -> bool {
        user != self.user_id && self.except.binary_search(&user).is_err()
    }
}

/// The users of a node who receive an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Receivers {
    /// These users.
    Users(Vec<UserId>),
    /// The subscribers of the open channel.
    Subscribers,
}

/// The kind of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// The user is typing.
    Typing,
    /// The user has read up to here.
    Read(Seq),
}

/// Rows of one append to an open channel.
#[derive(Debug, Clone)]
pub struct OpenRows {
    /// The channel.
    pub channel: ChannelId,
    /// The rows, in ascending order without gaps.
    pub rows: SharedRows,
}

/// Rows of one log, and the users of this node whom they concern.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The log.
    pub log: LogId,
    /// The rows, in ascending order without gaps.
    pub rows: SharedRows,
    /// The users whom they concern.
    pub recipients: Vec<Recipient>,
}

/// One user whom a delivery concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recipient {
    /// The user.
    pub user_id: UserId,
    /// The place of the rows in the user's inbox.
    pub place: Place,
    /// Whether the user may see all rows. Otherwise the session reads the inbox, which knows which ones.
    pub sees_all: bool,
}

/// The transport between nodes, as one node uses it.
///
/// Registrations are counted: each `attach` needs one `detach`, each `subscribe` one `unsubscribe`. They are leases of this
/// node's epoch, which the bus renews by itself; they end with the node.
#[async_trait]
pub trait Bus: Send + Sync + 'static {
    /// The envelopes of this node, in order. `None` the second time: there is one stream.
    fn take_envelopes(&self) -> Option<mpsc::Receiver<Envelope>>;

    /// Registers this node for what concerns `user`.
    ///
    /// Once it has returned `Ok`, one of these holds for every row whose [`moved`](crate::Inbox::moved) returns later:
    /// the row reaches the envelopes of this node with the user among the recipients; or an [`Envelope::Lost`] that
    /// concerns the user does; or a later item of the user has a `previous` above what was delivered. So a page of the
    /// inbox that is read after `attach`, together with the envelopes, has no gap.
    ///
    /// # Errors
    /// The registration does not hold yet. The bus repeats it until [`detach`](Bus::detach), and sends [`Loss::Users`]
    /// once it holds. The caller may continue without live delivery meanwhile.
    async fn attach(&self, user: UserId) -> StoreResult<()>;

    /// Ends one registration of `user`. Never waits: the bus enqueues what it has to send. May be called under locks.
    fn detach(&self, user: UserId);

    /// Registers this node for the rows of an open channel.
    ///
    /// Once it has returned `Ok`, every row whose `moved` returns later reaches the envelopes of this node once and in order, or
    /// [`Envelope::Lost`] does. Earlier rows are in the log, if that is read after `subscribe`.
    ///
    /// # Errors
    /// See [`attach`](Bus::attach), with [`Loss::Channel`].
    async fn subscribe(&self, channel: ChannelId) -> StoreResult<()>;

    /// Ends one registration of an open channel. Never waits. May be called under locks.
    fn unsubscribe(&self, channel: ChannelId);

    /// Sends an event to the members of a direct channel or a group who are online, unless the channel has more than `at_most`
    /// members; or to the subscribers of an open channel. May be lost, and never waits for a slow receiver.
    async fn publish(&self, event: Event, at_most: usize) -> StoreResult<()>;

    /// Notifies those of `users` who are online of a changed profile. May be lost, and never waits.
    fn publish_profile(&self, card: UserCard, users: Vec<UserId>);
}
