//! Delivers envelopes to the connections of this node. Each frame is encoded once and enqueued on every connection.

use std::sync::Arc;

use madang_bus::{Delivery, Envelope, Event, EventKind, Loss, Receivers};
use madang_engine::heat::Level;
use madang_engine::log::Row;
use madang_engine::overload::{Class, Fair, FairConfig, Lane, Price};
use madang_ids::{ChannelId, LogId, UserId};
use madang_proto::{CloseReason, Content, ServerFrame, UserCard, limits};
use tokio::sync::mpsc;

use crate::gateway::Gateway;
use crate::gateway::connection::outbound::Frames;
use crate::gateway::delivery::encode;
use crate::heat::Saving;

/// What a channel costs in a round, in receivers.
const QUANTUM: u64 = 1_000;
/// Bytes that may wait of one open channel, and of all: a channel that exceeds it gets a gap, and hurts nobody else. A small part of
/// what the feed of the embedded store has room for, which the rows keep occupied.
const OPEN_BYTES: u64 = 1024 * 1024;
const ALL_BYTES: u64 = 4 * OPEN_BYTES;
/// Bytes of envelopes that take turns: those for inboxes, and those of open channels.
pub(crate) const TURN_BYTES: u64 = 2 * ALL_BYTES;
/// The memory of an envelope besides its rows and its receivers.
const ENVELOPE_BYTES: usize = 256;
/// Envelopes that are sorted before one is delivered.
const SORTED_AT_ONCE: usize = 256;
/// After deliveries of this cost other tasks get their turn.
const WORK_AT_ONCE: u64 = 1_000;
/// The key of everything that is not of an open channel. It keeps its order, because the items of an inbox follow each other.
const INBOXES: ChannelId = ChannelId::from_raw(0);

/// Delivers envelopes until the inbox closes the channel.
///
/// What concerns inboxes and what concerns open channels take turns by cost, and among open channels each gets its share: a channel with
/// thousands of subscribers does not hold up others before it is known to be hot.
pub async fn run(gateway: Arc<Gateway>, mut envelopes: mpsc::Receiver<Envelope>) {
    let config = FairConfig { quantum: QUANTUM, key_bytes: OPEN_BYTES, lane_bytes: ALL_BYTES };
    let mut waiting = Fair::new(config);
    let mut work = 0;
    loop {
        let is_idle = waiting.is_empty();
        for _ in 0..SORTED_AT_ONCE {
            match envelopes.try_recv() {
                Ok(envelope) => gateway.sort(&mut waiting, envelope),
                Err(_) => break,
            }
        }
        if let Some((_, envelope)) = waiting.pop() {
            work += gateway.cost_of(&envelope);
            gateway.deliver_envelope(envelope);
        } else if is_idle {
            let Some(envelope) = envelopes.recv().await else { return };
            gateway.sort(&mut waiting, envelope);
        }
        if work >= WORK_AT_ONCE {
            work = 0;
            tokio::task::yield_now().await;
        }
    }
}

impl Gateway {
    /// Puts an envelope behind those of its kind. A loss is covered at once, behind everything that came before it.
    fn sort(&self, waiting: &mut Fair<ChannelId, Envelope>, envelope: Envelope) {
        let (lane, key) = match &envelope {
            Envelope::Open(open) => (Lane::Others, open.channel),
            Envelope::Lost(_) => return self.deliver_behind(waiting, envelope),
            Envelope::Delivery(_) | Envelope::Event(..) | Envelope::Profile(..) => (Lane::Direct, INBOXES),
        };
        if let Err(refused) = waiting.push(lane, key, self.price_of(&envelope), envelope) {
            match refused {
                // Its subscribers get a gap up to the head.
                Envelope::Open(open) => self.lose_open(Some(open.channel)),
                // There is room again once what waits was delivered.
                refused => self.deliver_behind(waiting, refused),
            }
        }
    }

    /// Delivers everything that waits, and then an envelope.
    fn deliver_behind(&self, waiting: &mut Fair<ChannelId, Envelope>, last: Envelope) {
        while let Some((_, before)) = waiting.pop() {
            self.deliver_envelope(before);
        }
        self.deliver_envelope(last);
    }

    /// About the number of connections that a delivery visits.
    fn cost_of(&self, envelope: &Envelope) -> u64 {
        let receivers = match envelope {
            Envelope::Delivery(delivery) => delivery.recipients.len(),
            Envelope::Open(open) => self.subscribers.count(open.channel),
            Envelope::Event(_, Receivers::Users(users)) => users.len(),
            Envelope::Event(_, Receivers::Subscribers) | Envelope::Lost(_) => 1,
            Envelope::Profile(_, users) => users.len(),
        };
        receivers as u64 + 1
    }

    fn price_of(&self, envelope: &Envelope) -> Price {
        let bytes = match envelope {
            Envelope::Delivery(delivery) => {
                delivery.rows.size_bytes() + size_of_val(&delivery.recipients[..])
            }
            Envelope::Open(open) => open.rows.size_bytes(),
            Envelope::Event(_, Receivers::Users(users)) | Envelope::Profile(_, users) => {
                size_of_val(&users[..])
            }
            Envelope::Event(_, Receivers::Subscribers) | Envelope::Lost(_) => 0,
        };
        Price { cost: self.cost_of(envelope), bytes: (bytes + ENVELOPE_BYTES) as u64 }
    }

    fn deliver_envelope(&self, envelope: Envelope) {
        match envelope {
            Envelope::Delivery(delivery) => self.deliver(&delivery),
            Envelope::Event(event, receivers) => self.deliver_event(&event, &receivers),
            Envelope::Profile(card, users) => self.notify_profile(*card, &users),
            Envelope::Open(open) => self.pace_open(&open),
            Envelope::Lost(loss) => {
                // What came before the loss is delivered before it is covered.
                self.deliver_held();
                self.handle_loss(loss);
            }
        }
    }
}

impl Gateway {
    /// Sessions that may have missed something read the store. A revocation among it closes its device: the page of the user's inbox
    /// holds it ([`crate::gateway::catch_up`]).
    fn handle_loss(&self, loss: Loss) {
        match loss {
            Loss::Users(users) => users.into_iter().for_each(|user| {
                self.registry.visit_user(user, |connection| connection.read_inbox());
            }),
            Loss::Channel(channel) => {
                self.registry.visit_all(|connection| connection.read_inbox());
                self.lose_open(Some(channel));
            }
            Loss::Node => {
                self.registry.visit_all(|connection| connection.read_inbox());
                self.lose_open(None);
                self.operations.presence.resend();
            }
        }
    }

    fn deliver(&self, delivery: &Delivery) {
        let frames = Frames::from(encode::batches(delivery.log, &delivery.rows));
        let limit_bytes = self.operations.config.gateway.outbound_bytes;
        let (mut count, mut fallen_behind) = (0, 0);
        for recipient in &delivery.recipients {
            self.registry.visit_user(recipient.user_id, |connection| {
                count += 1;
                let fell = connection.deliver(&frames, recipient.place, recipient.sees_all, limit_bytes);
                fallen_behind += u64::from(fell);
            });
        }
        self.operations.metrics.delivered.inc_by(count);
        self.operations.metrics.resyncs.inc_by(fallen_behind);
        if let LogId::Channel(channel) = delivery.log {
            let bytes = frames.iter().map(encode::Frame::len).sum();
            self.operations.heats.delivered(channel, delivery.rows.len(), count, bytes);
            if let Some(last) = delivery.rows.last().filter(|_| count > 0) {
                self.operations.heats.delivered_beside(channel, last);
            }
        }
        // Behind the delivery: the rows reach every device of the user first. After the close the connection takes no delivery, so
        // later rows do not reach the revoked device.
        if let LogId::User(user) = delivery.log {
            self.close_revoked(user, &delivery.rows);
            self.follow_circle(user, &delivery.rows);
        }
    }

    /// An event is dropped where the outbound queue is half full: it must not push out entries. Those of hot channels are dropped.
    fn deliver_event(&self, event: &Event, receivers: &Receivers) {
        let &Event { channel_id, user_id, kind, .. } = event;
        let class = match kind {
            EventKind::Typing => Class::Presence,
            EventKind::Read(_) => Class::Receipts,
        };
        if !self.operations.shedding.admits(class, user_id.raw()) {
            return;
        }
        if let Some(hot) = self.operations.heats.hot(channel_id).filter(|hot| hot.level > Level::Normal) {
            hot.spare(Saving::Event, 1);
            self.operations.metrics.events_spared.inc();
            return;
        }
        let frame = encode::frame(&match kind {
            EventKind::Typing => ServerFrame::Typing { channel_id, user_id },
            EventKind::Read(seq) => ServerFrame::Receipt { channel_id, user_id, seq },
        });
        let limit_bytes = self.operations.config.gateway.outbound_bytes;
        match receivers {
            Receivers::Users(users) => users.iter().for_each(|user| {
                self.registry.visit_user(*user, |connection| _ = connection.offer(&frame, limit_bytes));
            }),
            // Typing is not delivered in channels with more than `TYPING_SUBSCRIBERS` subscribers.
            Receivers::Subscribers if self.subscribers.count(channel_id) > limits::TYPING_SUBSCRIBERS => {}
            Receivers::Subscribers => {
                // Subscribers are known by connection and exceptions by user, so the exceptions are translated first. The
                // registry is not locked any more when the subscribers are.
                let mut others = Vec::new();
                for user in event.except.iter().chain([&user_id]) {
                    self.registry.visit_user(*user, |connection| others.push(connection.number));
                }
                self.subscribers.visit(channel_id, |connection| {
                    if !others.contains(&connection.number) {
                        connection.offer_open(channel_id, &frame, limit_bytes);
                    }
                });
            }
        }
    }

    /// Dropped where the outbound queue is half full, as events are.
    fn notify_profile(&self, user: UserCard, users: &[UserId]) {
        let frame = encode::frame(&ServerFrame::Profile { user });
        let limit_bytes = self.operations.config.gateway.outbound_bytes;
        for user in users {
            self.registry.visit_user(*user, |connection| _ = connection.offer(&frame, limit_bytes));
        }
    }

    /// Closes the connections of devices that these rows revoke (G5).
    fn close_revoked(&self, user: UserId, rows: &[Row]) {
        for row in rows {
            if let Content::DeviceRevoked { device_id } = row.entry.content {
                self.registry.close_device(user, device_id, CloseReason::DeviceRevoked);
            }
        }
    }
}
