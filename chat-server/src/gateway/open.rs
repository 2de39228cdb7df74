//! Open channels: who wants what happens there, how one begins to want it, and how it comes to all of them.
//!
//! By channel, this file knows the connections; how far each has come, the connection knows itself
//! ([`Outbound`], `engine::subscriptions`), under the lock that it needs anyway to be given a frame.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use madang_bus::{Inbox, OpenRows};
use madang_engine::log::Row;
use madang_engine::subscriptions::{At, Live, Started};
use madang_ids::{ChannelId, LogId, Seq, UserId};
use madang_proto::{ChannelHead, Content, ErrorBody, ErrorCode, Mode, RequestId, ServerFrame, limits};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::plant::{self, Fault};

use super::outbound::{HeadsFrames, OpenFrames, Outbound};
use super::{Gateway, encode};

/// Reads of rows that came while rows were read, before the rest becomes a gap: a busy channel may outrun its reader.
const READS: usize = 4;
/// Members that are looked up in one read.
const MEMBERS_AT_ONCE: usize = 500;
/// Wait before heads that could not be read are read again.
const LOSS_RETRY: Duration = Duration::from_secs(1);

/// The subscribed connections of this node by channel.
pub(super) struct Subscribers {
    inbox: Arc<dyn Inbox>,
    /// By the connection's number.
    channels: DashMap<ChannelId, HashMap<u64, Arc<Outbound>>>,
    /// Connections whose passive subscriptions have moved; each is in it once.
    moved: Mutex<Vec<Arc<Outbound>>>,
    /// Something was lost on the way here.
    lost: Notify,
}

impl Subscribers {
    pub(super) fn new(inbox: Arc<dyn Inbox>) -> Self {
        Self { inbox, channels: DashMap::new(), moved: Mutex::default(), lost: Notify::new() }
    }

    fn add(&self, channel: ChannelId, connection: &Arc<Outbound>) {
        // First, so that an end that overtakes it ends something.
        self.inbox.subscribe(channel);
        let mut connections = self.channels.entry(channel).or_default();
        if connections.insert(connection.number, Arc::clone(connection)).is_some() {
            self.inbox.unsubscribe(channel);
        }
    }

    fn remove(&self, channel: ChannelId, connection: &Outbound) {
        let mut was_there = false;
        self.channels.remove_if_mut(&channel, |_, connections| {
            was_there = connections.remove(&connection.number).is_some();
            connections.is_empty()
        });
        if was_there {
            self.inbox.unsubscribe(channel);
        }
    }

    /// The connection ends.
    pub(super) fn remove_all(&self, connection: &Outbound) {
        for channel in connection.end_subscriptions() {
            self.remove(channel, connection);
        }
    }

    /// Subscribers of a channel.
    pub(super) fn count(&self, channel: ChannelId) -> usize {
        self.channels.get(&channel).map_or(0, |connections| connections.len())
    }

    pub(super) fn visit(&self, channel: ChannelId, mut visit: impl FnMut(&Arc<Outbound>)) {
        if let Some(connections) = self.channels.get(&channel) {
            connections.values().for_each(&mut visit);
        }
    }
}

/// A request of a connection.
pub(super) struct Subscribe {
    pub(super) channel: ChannelId,
    pub(super) after: Option<Seq>,
    pub(super) mode: Mode,
}

impl Gateway {
    /// Subscribes a connection, and answers: a head, the entries after `after`, then live ones.
    pub(super) async fn subscribe(
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
    pub(super) fn unsubscribe(&self, connection: &Outbound, channel: ChannelId) {
        connection.end_subscription(channel);
        self.subscribers.remove(channel, connection);
    }

    /// Registers first and asks next: a leave or a ban was seen by then, or its row ends the subscription.
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
            let message = format!("this connection has its {max} subscriptions");
            return Err(ErrorBody::field(ErrorCode::Full, "channel_id", message));
        }
        self.subscribers.add(channel, connection);
        // What she may read is what was there when she was found to be a member.
        let head = self.operations.open_head(channel).await?;
        let since = self.operations.check_subscriber(user, channel).await?;
        let after = after.filter(|_| mode == Mode::Active);
        let rows = self.rows_between(user, channel, after.unwrap_or(head.seq)..=head.seq).await?;
        connection.push(heads(id, channel, head, rows.is_none()));
        push_rows(connection, channel, &rows.unwrap_or_default());
        self.start(connection, user, (channel, head), since).await;
        Ok(())
    }

    /// What came while rows were read is read too, some times; then the rest is a gap.
    async fn start(
        &self,
        connection: &Arc<Outbound>,
        user: UserId,
        (channel, mut upto): (ChannelId, At),
        since: Seq,
    ) {
        let mut started = connection.handle_open_read(channel, upto, since);
        for _ in 0..READS {
            let Started::ReadOn(head) = started else { break };
            let Ok(Some(rows)) = self.rows_between(user, channel, upto.seq..=head.seq).await else { break };
            push_rows(connection, channel, &rows);
            upto = head;
            started = connection.handle_open_read(channel, upto, since);
        }
        if let Started::ReadOn(_) = started {
            started = connection.give_up_open_read(channel, upto, since);
        }
        match started {
            Started::Live | Started::ReadOn(_) => {}
            Started::Moved => self.subscribers.moved.lock().push(Arc::clone(connection)),
            // She has left meanwhile, and her own log tells.
            Started::Ended => self.subscribers.remove(channel, connection),
        }
    }

    /// The rows above the first of `places` up to the last, if they are not more than `subscribe` brings.
    async fn rows_between(
        &self,
        user: UserId,
        channel: ChannelId,
        places: RangeInclusive<Seq>,
    ) -> Result<Option<Vec<Row>>, ErrorBody> {
        let (after, upto) = places.into_inner();
        if after > upto || upto.get() - after.get() > limits::SUBSCRIBE_ENTRIES {
            return Ok(None);
        }
        self.operations.open_rows(user, channel, after.next()..=upto).await
    }

    /// Rows of an open channel came.
    pub(super) fn deliver_open(&self, open: &OpenRows) {
        let Some(frames) = OpenFrames::new(open.channel, &open.rows) else { return };
        self.deliver_last(open);
        let limit_bytes = self.operations.config.gateway.outbound_bytes;
        let (mut delivered, mut gaps, mut moved) = (0, 0, Vec::new());
        self.subscribers.visit(open.channel, |connection| {
            match connection.deliver_open(&frames, limit_bytes) {
                Live::Deliver => delivered += 1,
                Live::DeliverBehind(_) => (delivered, gaps) = (delivered + 1, gaps + 1),
                Live::FellBehind => gaps += 1,
                Live::Moved => moved.push(Arc::clone(connection)),
                Live::Drop => {}
            }
        });
        self.operations.metrics.delivered.inc_by(delivered);
        self.operations.metrics.gaps.inc_by(gaps);
        self.subscribers.moved.lock().append(&mut moved);
    }

    /// Who leaves or is banned gets the row that tells it, and nothing behind it.
    fn deliver_last(&self, open: &OpenRows) {
        let limit_bytes = self.operations.config.gateway.outbound_bytes;
        for (index, row) in open.rows.iter().enumerate() {
            let (Content::Left { user_id, .. } | Content::Banned { user_id, .. }) = row.entry.content else {
                continue;
            };
            if plant::strikes(Fault::BanLeaks) {
                continue;
            }
            let mut hers = None;
            self.registry.visit_user(user_id, |connection| {
                if !connection.handle_left(open.channel, row.entry.seq) {
                    return;
                }
                let hers = hers.get_or_insert_with(|| OpenFrames::new(open.channel, &open.rows[..=index]));
                if let Some(hers) = hers {
                    connection.deliver_open(hers, limit_bytes);
                }
                self.unsubscribe(connection, open.channel);
            });
        }
    }

    /// Whoever is no member any more hears nothing more: that she left or was banned may be what was lost.
    async fn unsubscribe_left(&self, channels: &[ChannelId]) -> Result<(), ErrorBody> {
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

    /// Something was lost on the way here: whatever it was, a gap up to the present head covers it.
    pub(super) fn lose_open(&self) {
        self.subscribers.lost.notify_one();
    }

    /// Tells passive subscribers what has moved. Each second.
    pub(super) fn tell_moved(&self) {
        let moved = std::mem::take(&mut *self.subscribers.moved.lock());
        let limit_bytes = self.operations.config.gateway.outbound_bytes;
        let mut frames = HeadsFrames::default();
        for connection in moved {
            if !connection.tell_moved(&mut frames, limit_bytes) {
                self.subscribers.moved.lock().push(connection);
            }
        }
    }

    async fn tell_loss(&self) -> Result<(), ErrorBody> {
        let channels: Vec<ChannelId> = self.subscribers.channels.iter().map(|entry| *entry.key()).collect();
        self.unsubscribe_left(&channels).await?;
        let heads = self.operations.open_heads(&channels).await?;
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

/// Tells subscribers of what was lost, for ever. Reads the store, and so waits for it where nobody else does.
pub async fn tell_losses(gateway: Arc<Gateway>) {
    loop {
        gateway.subscribers.lost.notified().await;
        while let Err(error) = gateway.tell_loss().await {
            tracing::warn!(code = ?error.code, "the heads of open channels could not be read; tried again");
            gateway.operations.clock.sleep(LOSS_RETRY).await;
        }
    }
}

fn heads(id: Option<RequestId>, channel_id: ChannelId, head: At, gap: bool) -> encode::Frame {
    let At { seq, ordinal } = head;
    encode::frame(&ServerFrame::Heads { id, heads: vec![ChannelHead { channel_id, seq, ordinal, gap }] })
}

fn push_rows(connection: &Outbound, channel: ChannelId, rows: &[Row]) {
    for frame in encode::batches(LogId::Channel(channel), rows) {
        connection.push(frame);
    }
}
