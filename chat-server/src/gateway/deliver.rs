//! Brings envelopes to the connections of this node: encoded once, enqueued on each.

use std::sync::Arc;

use madang_bus::{Delivery, Envelope};
use madang_engine::log::Row;
use madang_ids::{LogId, UserId};
use madang_proto::{CloseReason, Content};
use tokio::sync::mpsc;

use super::outbound::Frames;
use super::{Gateway, encode};

/// Runs until the inbox goes.
pub async fn run(gateway: Arc<Gateway>, mut envelopes: mpsc::Receiver<Envelope>) {
    while let Some(envelope) = envelopes.recv().await {
        match envelope {
            Envelope::Delivery(delivery) => gateway.deliver(&delivery),
            Envelope::Lost => {
                gateway.registry.visit_all(|connection| connection.read_inbox());
                gateway.operations.presence.resend();
            }
        }
    }
}

impl Gateway {
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
        if let LogId::User(user) = delivery.log {
            self.close_revoked(user, &delivery.rows);
            self.follow_circle(user, &delivery.rows);
        }
    }

    /// A device that was revoked leaves at once (G5).
    fn close_revoked(&self, user: UserId, rows: &[Row]) {
        for row in rows {
            if let Content::DeviceRevoked { device_id } = row.entry.content {
                self.registry.close_device(user, device_id, CloseReason::DeviceRevoked);
            }
        }
    }
}
