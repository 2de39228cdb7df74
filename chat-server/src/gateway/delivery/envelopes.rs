//! Delivers envelopes to the connections of this node. Each frame is encoded once and enqueued on every connection.

use std::sync::Arc;

use madang_bus::{Delivery, Envelope, Event, EventKind, Loss, Receivers};
use madang_engine::heat::Level;
use madang_engine::log::Row;
use madang_ids::{LogId, UserId};
use madang_proto::{CloseReason, Content, ServerFrame, UserCard, limits};
use tokio::sync::mpsc;

use crate::gateway::Gateway;
use crate::gateway::connection::outbound::Frames;
use crate::gateway::delivery::encode;
use crate::heat::Saving;

/// Delivers envelopes until the inbox closes the channel.
pub async fn run(gateway: Arc<Gateway>, mut envelopes: mpsc::Receiver<Envelope>) {
    while let Some(envelope) = envelopes.recv().await {
        match envelope {
            Envelope::Delivery(delivery) => gateway.deliver(&delivery),
            Envelope::Event(event, receivers) => gateway.deliver_event(&event, &receivers),
            Envelope::Profile(card, users) => gateway.notify_profile(*card, &users),
            Envelope::Open(open) => gateway.pace_open(&open),
            Envelope::Lost(loss) => {
                // What came before the loss is delivered before it is covered.
                gateway.deliver_held();
                gateway.handle_loss(loss);
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
