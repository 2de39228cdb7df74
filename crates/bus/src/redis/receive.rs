//! Takes the frames of this node from its stream.

use async_trait::async_trait;
use madang_ids::{Epoch, LogId, NodeRun};
use madang_store::StoreResult;
use tokio::sync::mpsc;

use super::frames::{Content, FrameHead};
use super::streams::{Received, StreamReader};
use super::{RedisBus, node_stream};
use crate::bus::{Envelope, Event, EventKind, Loss, Receivers, Recipient};
use crate::peers::{Arrived, PeerFrame, Peers};

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
        if self.try_receive(frame).await.is_none() {
            // The comparison finds the rows that it carried. While nodes of two releases run side by side there may be many.
            self.metrics.frames_unreadable.inc();
            tracing::debug!(
                bytes = frame.len(),
                "a frame of another node is of an unknown version, or damaged"
            );
        }
    }

    /// `None` if the frame cannot be read.
    async fn try_receive(&self, frame: &[u8]) -> Option<()> {
        let (head, content) = FrameHead::decode(frame)?;
        match head {
            FrameHead::Rows { log, epoch, to } => {
                let rows = Content::rows(content)?;
                let recipients = to.into_iter().map(Recipient::from).collect();
                self.deliver(log.into(), Epoch::from_raw(epoch), Some(&rows), recipients).await;
            }
            FrameHead::Open { channel } => self.deliver_open(channel, &Content::rows(content)?).await,
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
            FrameHead::Peer { from } => {
                if !self.arrivals.put(from, Content::read::<PeerFrame>(content)?, content.len()) {
                    self.metrics.frames_dropped.inc();
                }
            }
        }
        Some(())
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

#[async_trait]
impl Peers for RedisBus {
    fn me(&self) -> NodeRun {
        self.run
    }

    fn send(&self, to: NodeRun, frame: &PeerFrame) -> bool {
        let head = FrameHead::Peer { from: self.run };
        self.streams.send(&node_stream(to), head.encode(&Content::of(frame)))
    }

    fn take_frames(&self) -> Option<mpsc::Receiver<Arrived>> {
        self.arrivals.take()
    }

    async fn left_logs(&self, alive: &[NodeRun]) -> StoreResult<Vec<(NodeRun, Vec<LogId>)>> {
        let mut left = Vec::new();
        for run in self.runs().await?.into_iter().filter(|run| !alive.contains(run)) {
            let logs = self.logs_of(run).await?;
            if !logs.is_empty() {
                left.push((run, logs));
            }
        }
        Ok(left)
    }

    async fn is_listed(&self) -> StoreResult<bool> {
        Ok(self.runs().await?.contains(&self.run))
    }

    async fn take_over(&self, run: NodeRun, logs: &[LogId]) -> StoreResult<()> {
        self.retire_logs(run, logs).await
    }
}
