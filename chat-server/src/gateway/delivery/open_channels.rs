//! Open channels: which connections are subscribed, how a subscription begins and ends, and how rows reach the subscribers.
//!
//! This file knows the subscribed connections of each channel. How far each connection has come is kept in the connection itself
//! ([`Outbound`], `engine::subscriptions`), under the lock that is taken anyway to enqueue a frame.

use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use madang_bus::{Bus, OpenRows};
use madang_engine::log::Row;
use madang_engine::subscriptions::{At, Live, Started};
use madang_ids::{ChannelId, LogId, Seq, UserId};
use madang_proto::{ChannelHead, Content, ErrorBody, ErrorCode, Mode, RequestId, ServerFrame, limits};
use madang_store::StoreResult;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::refusal::OperationError;

use crate::gateway::Gateway;
use crate::gateway::connection::outbound::{HeadsFrames, OpenFrames, Outbound};
use crate::gateway::delivery::encode;
use crate::gateway::delivery::pacing::Share;
use crate::heat::{HotChannel, Saving};

/// Further reads of rows that arrived during the read before. After them the rest becomes a gap: a busy channel may be faster
/// than its reader.
const READS: usize = 4;
/// Users whose membership is looked up in one read.
const MEMBERS_AT_ONCE: usize = 500;
/// The wait before a failed read of heads is repeated.
const LOSS_RETRY: Duration = Duration::from_secs(1);

/// The subscribed connections of this node by channel.
pub(in crate::gateway) struct Subscribers {
    bus: Arc<dyn Bus>,
    /// By channel and connection number.
    channels: DashMap<ChannelId, HashMap<u64, Arc<Outbound>>>,
    /// Connections with passive subscriptions whose heads have moved. Each is in the list once.
    moved: Mutex<Vec<Arc<Outbound>>>,
    /// What was lost on the way to this node and is not covered by a gap yet.
    lost: Mutex<Lost>,
    /// Woken when something was lost.
    woken: Notify,
}

/// The open channels whose rows may have been lost.
#[derive(Default)]
enum Lost {
    #[default]
    Nothing,
    Channels(HashSet<ChannelId>),
    Any,
}

/// One registration of this node for a channel, until a connection holds it: also if the request is dropped meanwhile.
struct Count<'a> {
    bus: &'a dyn Bus,
    channel: ChannelId,
}

impl Drop for Count<'_> {
    fn drop(&mut self) {
        self.bus.unsubscribe(self.channel);
    }
}

impl Subscribers {
    pub(in crate::gateway) fn new(bus: Arc<dyn Bus>) -> Self {
        Self {
            bus,
            channels: DashMap::new(),
            moved: Mutex::default(),
            lost: Mutex::default(),
            woken: Notify::new(),
        }
    }

    /// Registers a connection.
    ///
    /// # Errors
    /// The bus cannot register the node for the channel now.
    async fn add(&self, channel: ChannelId, connection: &Arc<Outbound>) -> StoreResult<()> {
        // Before the insert: a `remove` that finds the connection calls `unsubscribe`. If that call came before this one, the
        // node would stay subscribed without a subscriber.
        let count = Count { bus: self.bus.as_ref(), channel };
        self.bus.subscribe(channel).await?;
        let mut connections = self.channels.entry(channel).or_default();
        // A subscription that begins again is counted already.
        if connections.insert(connection.number, Arc::clone(connection)).is_none() {
            std::mem::forget(count);
        }
        Ok(())
    }

    fn remove(&self, channel: ChannelId, connection: &Outbound) {
        let mut was_there = false;
        self.channels.remove_if_mut(&channel, |_, connections| {
            was_there = connections.remove(&connection.number).is_some();
            connections.is_empty()
        });
        if was_there {
            self.bus.unsubscribe(channel);
        }
    }

    /// Ends all subscriptions of a connection that ends.
    pub(in crate::gateway) fn remove_all(&self, connection: &Outbound) {
        for channel in connection.end_subscriptions() {
            self.remove(channel, connection);
        }
    }

    /// The number of subscribed connections of a channel.
    pub(in crate::gateway) fn count(&self, channel: ChannelId) -> usize {
        self.channels.get(&channel).map_or(0, |connections| connections.len())
    }

    pub(in crate::gateway) fn visit(&self, channel: ChannelId, mut visit: impl FnMut(&Arc<Outbound>)) {
        if let Some(connections) = self.channels.get(&channel) {
            connections.values().for_each(&mut visit);
        }
    }
}

/// A `subscribe` request.
pub(in crate::gateway) struct Subscribe {
    pub(in crate::gateway) channel: ChannelId,
    pub(in crate::gateway) after: Option<Seq>,
    pub(in crate::gateway) mode: Mode,
}

impl Gateway {
    /// Subscribes a connection. It gets one head, the entries after `request.after`, and then live entries.
    pub(in crate::gateway) async fn subscribe(
        &self,
        connection: &Arc<Outbound>,
        user: UserId,
        id: Option<RequestId>,
        request: Subscribe,
    ) {
        if let Err(error) = self.try_subscribe(connection, user, id.clone(), &request).await {
            self.unsubscribe(connection, request.channel);
            connection.push(encode::frame(&ServerFrame::Error { id, error }));
        }
    }

    /// Ends a subscription, if there is one.
    pub(in crate::gateway) fn unsubscribe(&self, connection: &Outbound, channel: ChannelId) {
        connection.end_subscription(channel);
        self.subscribers.remove(channel, connection);
    }

    /// Registers the connection first and checks the membership next. A leave or a ban is either visible to the check, or its row
    /// arrives as a live row and ends the subscription.
    async fn try_subscribe(
        &self,
        connection: &Arc<Outbound>,
        user: UserId,
        id: Option<RequestId>,
        request: &Subscribe,
    ) -> Result<(), ErrorBody> {
        let &Subscribe { channel, after, mode } = request;
        if !connection.begin_subscription(channel, mode) {
            let max = limits::SUBSCRIPTIONS;
            let message = format!("this connection has {max} subscriptions, the limit");
            return Err(ErrorBody::field(ErrorCode::Full, "channel_id", message));
        }
        self.subscribers.add(channel, connection).await.map_err(OperationError::from)?;
        // The head is read before the membership: if the check succeeds, the user was still a member when `head` was read, and may
        // read up to it. In the other order, a ban between the two reads would leave rows below `head` that the user must not see.
        let head = self.operations.open_head(channel).await?;
        let since = self.operations.check_subscriber(user, channel).await?;
        let after = after.filter(|_| mode == Mode::Active);
        let rows = self.rows_between(user, channel, after.unwrap_or(head.seq)..=head.seq).await?;
        connection.push(heads(id, channel, head, rows.is_none()));
        push_rows(connection, channel, &rows.unwrap_or_default());
        self.start(connection, user, (channel, head), since).await;
        Ok(())
    }

    /// Reads the rows that arrived while rows were read, at most [`READS`] times, and then makes the connection live. The rest is
    /// a gap.
    async fn start(
        &self,
        connection: &Arc<Outbound>,
        user: UserId,
        (channel, mut upto): (ChannelId, At),
        since: Seq,
    ) {
        // While a subscription starts, live rows only move its place. `handle_open_read` compares that place with `upto` under
        // the lock of the connection, so no row falls between the last read and the first live delivery.
        let mut started = connection.handle_open_read(channel, upto, since);
        for _ in 0..READS {
            let Started::ReadOn(head) = started else { break };
            let rows = match self.rows_between(user, channel, upto.seq..=head.seq).await {
                Ok(Some(rows)) => rows,
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(channel.id = %channel, %error, "reading for a subscription failed");
                    break;
                }
            };
            push_rows(connection, channel, &rows);
            upto = head;
            started = connection.handle_open_read(channel, upto, since);
        }
        // The rows arrive faster than they are read, or the store has failed. What is missing becomes a gap.
        if let Started::ReadOn(_) = started {
            started = connection.give_up_open_read(channel, upto, since);
        }
        // A change of the level that came while the subscription started was not sent to it.
        connection.notify_pacing(&mut HeadsFrames::default(), channel, self.operations.heats.notice(channel));
        match started {
            Started::Live | Started::ReadOn(_) => {}
            Started::Moved => self.subscribers.moved.lock().push(Arc::clone(connection)),
            // The user has left meanwhile. The user's own log says so.
            Started::Ended => self.subscribers.remove(channel, connection),
        }
    }

    /// The rows above `places.start` up to `places.end`. `None` if these are more than `subscribe` returns.
    async fn rows_between(
        &self,
        user: UserId,
        channel: ChannelId,
        places: RangeInclusive<Seq>,
    ) -> Result<Option<Vec<Row>>, OperationError> {
        let (after, upto) = places.into_inner();
        if after > upto || upto.get() - after.get() > limits::SUBSCRIBE_ENTRIES {
            return Ok(None);
        }
        self.operations.open_rows(user, channel, after.next()..=upto).await
    }

    /// Delivers rows of an open channel to a share of its subscribers.
    pub(in crate::gateway) fn deliver_open(&self, open: &OpenRows, share: Share) {
        let Some(mut frames) = OpenFrames::new(open.channel, &open.rows) else { return };
        let hot = self.operations.heats.hot(open.channel);
        if let Some(count) = hot.as_ref().and_then(HotChannel::slow_reader_entries) {
            frames = frames.with_digest(count);
        }
        // Before the others: this ends the subscriptions of users who leave in these rows, so that the visit below does not find
        // them.
        self.deliver_last(open, share);
        let limit_bytes = self.operations.config.gateway.outbound_bytes;
        let (mut delivered, mut gaps, mut moved) = (0, 0, Vec::new());
        self.subscribers.visit(open.channel, |connection| {
            if !share.has(connection.number) {
                return;
            }
            match connection.deliver_open(&frames, limit_bytes) {
                Live::Deliver | Live::DeliverAfter(_) => delivered += 1,
                Live::DeliverBehind(_) => (delivered, gaps) = (delivered + 1, gaps + 1),
                Live::FellBehind => gaps += 1,
                Live::Moved => moved.push(Arc::clone(connection)),
                Live::Drop => {}
            }
        });
        self.operations.metrics.delivered.inc_by(delivered);
        self.operations.metrics.gaps.inc_by(gaps);
        self.operations.heats.delivered(open.channel, open.rows.len(), delivered, frames.size());
        if let Some(hot) = hot {
            self.note_hot(&hot, open, delivered, gaps);
        }
        self.subscribers.moved.lock().append(&mut moved);
    }

    /// Notes what the board shows of a delivery.
    fn note_hot(&self, hot: &HotChannel, open: &OpenRows, delivered: u64, gaps: u64) {
        let (clock, rows) = (&self.operations.clock, open.rows.len() as u64);
        let kept = hot.slow_reader_entries().map_or(0, |count| count as u64);
        hot.spare(Saving::Frame, rows.saturating_sub(1) * delivered);
        hot.spare(Saving::LeftOut, rows.saturating_sub(kept) * gaps);
        if let Some(last) = open.rows.last().filter(|_| delivered > 0) {
            hot.note_age(clock.now_ms().get().saturating_sub(last.entry.at.get()), clock.elapsed());
        }
    }

    /// Users who leave or are banned get the rows up to and with the one that says so, and nothing after it.
    fn deliver_last(&self, open: &OpenRows, share: Share) {
        let limit_bytes = self.operations.config.gateway.outbound_bytes;
        for (index, row) in open.rows.iter().enumerate() {
            let (Content::Left { user_id, .. } | Content::Banned { user_id, .. }) = row.entry.content else {
                continue;
            };
            let mut hers = None;
            self.registry.visit_user(user_id, |connection| {
                // `false` if the subscription began after this row, or is still starting. In the second case `start` compares the
                // place of the leave with the beginning of the stay.
                if !share.has(connection.number) || !connection.handle_left(open.channel, row.entry.seq) {
                    return;
                }
                let hers = hers.get_or_insert_with(|| OpenFrames::new(open.channel, &open.rows[..=index]));
                if let Some(hers) = hers {
                    connection.deliver_open(hers, limit_bytes);
                }
                // This locks a shard of `channels` while a shard of the registry is locked. No code locks them in the other
                // order.
                self.unsubscribe(connection, open.channel);
            });
        }
    }

    /// Ends the subscriptions of users who are not members any more: the rows that were lost may have said that they left or were
    /// banned.
    async fn unsubscribe_left(&self, channels: &[ChannelId]) -> Result<(), OperationError> {
        let mut users: HashMap<u64, UserId> = HashMap::new();
        self.registry.visit_devices(|user, _, connection| {
            users.insert(connection.number, user);
        });
        for &channel in channels {
            let mut here: Vec<(UserId, Arc<Outbound>)> = Vec::new();
            self.subscribers.visit(channel, |connection| {
                here.extend(users.get(&connection.number).map(|user| (*user, Arc::clone(connection))));
            });
            for some in here.chunks(MEMBERS_AT_ONCE) {
                let asked: Vec<UserId> = some.iter().map(|(user, _)| *user).collect();
                let are_members = self.operations.are_members(channel, &asked).await?;
                for ((_, connection), _) in some.iter().zip(are_members).filter(|(_, is_member)| !is_member) {
                    self.unsubscribe(connection, channel);
                }
            }
        }
        Ok(())
    }

    /// Rows of an open channel, or of any (`None`), were lost on the way to this node. Wakes [`cover_losses`], which covers the
    /// loss by a gap up to the present head.
    pub(in crate::gateway) fn lose_open(&self, channel: Option<ChannelId>) {
        let mut lost = self.subscribers.lost.lock();
        *lost = match (std::mem::take(&mut *lost), channel) {
            (Lost::Any, _) | (_, None) => Lost::Any,
            (Lost::Nothing, Some(channel)) => Lost::Channels(HashSet::from([channel])),
            // Bounded by the channels to which somebody here is subscribed.
            (Lost::Channels(mut channels), Some(channel)) => {
                channels.insert(channel);
                Lost::Channels(channels)
            }
        };
        drop(lost);
        self.subscribers.woken.notify_one();
    }

    /// Sends the moved heads to passive subscribers. Called once a second.
    pub(in crate::gateway) fn send_moved_heads(&self) {
        let moved = std::mem::take(&mut *self.subscribers.moved.lock());
        let limit_bytes = self.operations.config.gateway.outbound_bytes;
        let mut frames = HeadsFrames::default();
        let (hot, second) = (self.operations.heats.all(), self.operations.clock.elapsed().as_secs());
        let is_due =
            |channel: ChannelId| hot.get(&channel).is_none_or(|hot| hot.sends_heads(channel, second));
        for connection in moved {
            // No room now, or not due: the connection is tried again with the next sweep.
            if !connection.send_moved_heads(&mut frames, is_due, limit_bytes) {
                self.subscribers.moved.lock().push(connection);
            }
        }
    }

    async fn cover_loss(&self, lost: &Lost) -> Result<(), OperationError> {
        // A connection that subscribes after this line reads the log after its registration, so it does not miss the lost rows.
        let is_lost = |channel: &ChannelId| match lost {
            Lost::Nothing => false,
            Lost::Channels(channels) => channels.contains(channel),
            Lost::Any => true,
        };
        let channels = self.subscribers.channels.iter().map(|entry| *entry.key());
        let channels: Vec<ChannelId> = channels.filter(is_lost).collect();
        self.unsubscribe_left(&channels).await?;
        let heads = self.operations.open_heads(&channels).await?;
        // A row that arrives after the heads were read moves its subscription past `head`. Such a row shows the hole by itself,
        // and the loss is ignored for that connection.
        for (channel, head) in channels.into_iter().zip(heads) {
            self.subscribers.visit(channel, |connection| match connection.lose_open(channel, head) {
                Live::FellBehind => drop(self.operations.metrics.gaps.inc()),
                Live::Moved => self.subscribers.moved.lock().push(Arc::clone(connection)),
                _ => {}
            });
        }
        Ok(())
    }
}

/// Handles losses; never returns. It reads the store in a task of its own, so that no delivery waits for the store.
pub async fn cover_losses(gateway: Arc<Gateway>) {
    loop {
        gateway.subscribers.woken.notified().await;
        let lost = std::mem::take(&mut *gateway.subscribers.lost.lock());
        while let Err(error) = gateway.cover_loss(&lost).await {
            tracing::warn!(%error, "reading the heads of open channels failed; retrying");
            gateway.operations.clock.sleep(LOSS_RETRY).await;
        }
    }
}

fn heads(id: Option<RequestId>, channel_id: ChannelId, head: At, gap: bool) -> encode::Frame {
    let At { seq, ordinal } = head;
    encode::frame(&ServerFrame::Heads {
        id,
        heads: vec![ChannelHead { channel_id, seq, ordinal, gap, pacing: None }],
    })
}

fn push_rows(connection: &Outbound, channel: ChannelId, rows: &[Row]) {
    for frame in encode::batches(LogId::Channel(channel), rows) {
        connection.push(frame);
    }
}
