//! The seam: what an inbox promises, and what a node receives.

use async_trait::async_trait;
use madang_engine::sync::Place;
use madang_ids::{ChannelId, Cursor, LogId, Position, Seq, UserId};
use madang_proto::{SnapshotReason, UserCard};
use madang_store::{SharedRows, StoreResult};
use tokio::sync::mpsc;

/// What one node receives about the users who are connected to it.
#[derive(Debug, Clone)]
pub enum Envelope {
    /// Rows, and whom they concern.
    Delivery(Delivery),
    /// Rows of an open channel to which this node is subscribed.
    Open(OpenRows),
    /// Something was lost on the way: every session of this node reads its inbox, and every subscription has a gap.
    Lost,
    /// What is told and kept nowhere. May be left out.
    Event(Event, Told),
    /// The profile of a user has changed, and these users are notified. May be left out.
    Profile(Box<UserCard>, Vec<UserId>),
}

/// Something that passes: told to members of a channel who are online, and kept nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// In which channel.
    pub channel_id: ChannelId,
    /// Whose. She herself is not told.
    pub user_id: UserId,
    /// What.
    pub kind: EventKind,
    /// Who is not told, such as those with whom there is a block. Sorted.
    pub except: Vec<UserId>,
}

impl Event {
    /// Whether a user may be told.
    #[must_use]
    pub fn is_for(&self, user: UserId) -> bool {
        user != self.user_id && self.except.binary_search(&user).is_err()
    }
}

/// Who is told an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// These.
    Users(Vec<UserId>),
    /// Who is subscribed to the open channel.
    Subscribers,
}

/// What passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// She is writing.
    Typing,
    /// She has read up to here.
    Read(Seq),
}

/// Rows of one append to an open channel. Whom they concern, who subscribed knows.
#[derive(Debug, Clone)]
pub struct OpenRows {
    /// Which channel.
    pub channel: ChannelId,
    /// The rows, rising without a hole.
    pub rows: SharedRows,
}

/// Rows of one log, and whom of this node's users they concern.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Whose log.
    pub log: LogId,
    /// The rows, rising without a hole.
    pub rows: SharedRows,
    /// Whom they concern.
    pub recipients: Vec<Recipient>,
}

/// One user whom a delivery concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recipient {
    /// Who.
    pub user_id: UserId,
    /// Its place in her inbox.
    pub place: Place,
    /// Whether she may see all of the rows. Otherwise she reads her inbox, which knows which.
    pub sees_all: bool,
}

/// A run of rows that concerns a user. The content is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InboxItem {
    /// Whose log.
    pub log: LogId,
    /// The first row.
    pub from: Seq,
    /// The last row.
    pub to: Seq,
    /// The position of the last row: with all items up to this one, everything up to here is known.
    pub position: Position,
}

/// Items after a cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboxPage {
    /// In the inbox's order.
    pub items: Vec<InboxItem>,
    /// Everything up to here is in the items.
    pub upto: Cursor,
    /// Whether there is more.
    pub more: bool,
}

/// A read of an inbox, or the verdict that the cursor does not serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InboxRead {
    /// A page.
    Page(InboxPage),
    /// The device must take a snapshot.
    SnapshotRequired(SnapshotReason),
}

/// Everything that concerns a user, in one order.
///
/// # Guarantees
/// - Complete (G4): pages read one after the other from a cursor hold every row after it of the user's channels,
///   within her spans, and of her own log, in an order that keeps that of each log; or the verdict comes.
/// - Once [`attach`](Inbox::attach) has returned, every row whose append returns later reaches this node's envelopes
///   with the user among the recipients, or [`Envelope::Lost`] does, or a later item of hers has a `previous` above
///   what was delivered. A page that is read after `attach` holds what came before.
/// - Nothing of an open channel is in an inbox. Once [`subscribe`](Inbox::subscribe) has returned, every row of the
///   channel whose append returns later reaches this node's envelopes once, in order, or [`Envelope::Lost`] does.
///   What came before is in the log, if that is read after `subscribe`.
/// - A cursor is given out only once its epoch is durable.
#[async_trait]
pub trait Inbox: Send + Sync + 'static {
    /// This node's envelopes, in order. There is one stream; `None` the second time.
    fn take_envelopes(&self) -> Option<mpsc::Receiver<Envelope>>;

    /// From now on what concerns `user` comes to this node. Once for each connection.
    fn attach(&self, user: UserId);

    /// One connection of `user` has gone.
    fn detach(&self, user: UserId);

    /// Tells an event to the members of a direct channel or a group who are online, unless they are more than `at_most`;
    /// or to this node's subscribers of an open channel. May be lost, and never waits for who is slow.
    async fn publish(&self, event: Event, at_most: usize) -> StoreResult<()>;

    /// Notifies those of `users` who are online of a changed profile. May be lost, and never waits.
    fn publish_profile(&self, card: UserCard, users: Vec<UserId>);

    /// From now on this node wants what happens in an open channel. Once for each subscription.
    fn subscribe(&self, channel: ChannelId);

    /// One subscription has ended.
    fn unsubscribe(&self, channel: ChannelId);

    /// Rows were appended (or a retry found them): bring them to the inboxes. Repeating it changes nothing.
    async fn moved(&self, log: LogId, to: Seq) -> StoreResult<()>;

    /// Where the user's inbox ends now.
    async fn end(&self, user: UserId) -> StoreResult<Cursor>;

    /// What concerns `user` after `after`: at most `max_rows` rows.
    async fn read(&self, user: UserId, after: Cursor, max_rows: usize) -> StoreResult<InboxRead>;
}
