//! Takes the frames of this node from its stream.

use madang_ids::Epoch;

use super::RedisBus;
use super::frames::FrameHead;
use super::streams::{Received, StreamReader};
use crate::bus::{Envelope, Event, EventKind, Loss, Receivers, Recipient};

impl RedisBus {
    /// Receives frames; never returns.
    pub(super) async fn receive(&self, mut reader: StreamReader) {
        loop {
            match reader.next().await {
                Received::Lost => {
                    self.metrics.stream_losses.inc();
                    self.hand_over(Envelope::Lost(Loss::Node)).await;
                }
                Received::Frame(frame) => self.receive_frame(&frame).await,
            }
        }
    }

    async fn receive_frame(&self, frame: &[u8]) {
        let Some((head, rows)) = FrameHead::decode(frame) else {
            self.metrics.frames_unreadable.inc();
            tracing::debug!(
                bytes = frame.len(),
                "a frame of another node is of an unknown version, or damaged"
            );
            return self.hand_over(Envelope::Lost(Loss::Node)).await;
        };
        match head {
            FrameHead::Rows { log, epoch, to } => {
                let recipients = to.into_iter().map(Recipient::from).collect();
                self.deliver(log.into(), Epoch::from_raw(epoch), Some(&rows), recipients).await;
            }
            FrameHead::Open { channel } => self.deliver_open(channel, &rows).await,
            FrameHead::Unread { mut to } => {
                to.retain(|user| self.registrations.has(*user));
                if !to.is_empty() {
                    self.hand_over(Envelope::Lost(Loss::Users(to))).await;
                }
            }
            FrameHead::UnreadOpen { channel } => self.hand_over(Envelope::Lost(Loss::Channel(channel))).await,
            FrameHead::Event { channel, user, read, except, to } => {
                let kind = read.map_or(EventKind::Typing, EventKind::Read);
                let event = Event { channel_id: channel, user_id: user, kind, except };
                let receivers = if to.is_empty() { Receivers::Subscribers } else { Receivers::Users(to) };
                self.hand_over_if_room(Envelope::Event(event, receivers));
            }
            FrameHead::Profile { card, to } => self.hand_over_if_room(Envelope::Profile(card, to)),
        }
    }

    /// For what may be lost: rows have priority.
    pub(super) fn hand_over_if_room(&self, envelope: Envelope) {
        let envelope = match envelope {
            Envelope::Event(event, Receivers::Users(mut users)) => {
                users.retain(|user| self.registrations.has(*user) && event.is_for(*user));
                if users.is_empty() {
                    return;
                }
                Envelope::Event(event, Receivers::Users(users))
            }
            Envelope::Profile(card, mut users) => {
                users.retain(|user| self.registrations.has(*user));
                if users.is_empty() {
                    return;
                }
                Envelope::Profile(card, users)
            }
            other => other,
        };
        let _ = self.sender.try_send(envelope);
    }
}
