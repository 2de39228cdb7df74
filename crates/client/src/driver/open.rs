//! Subscriptions to open channels. They are requested again on each connection.

use madang_ids::{ChannelId, LogId};
use madang_proto::{ChannelHead, ClientFrame, Content, Entry, Mode, RequestId};

use super::Driver;
use super::live::Live;
use crate::error::ClientError;
use crate::event::Event;

/// Prefix of the name of a `subscribe` request; the channel follows.
const SUBSCRIBE: &str = "subscribe-";

impl Driver {
    pub(super) async fn subscribe(
        &mut self,
        live: &mut Live,
        channel_id: ChannelId,
        mode: Mode,
    ) -> Result<(), ClientError> {
        self.subscriptions.insert(channel_id, mode);
        let after_seq = self.received.head(LogId::Channel(channel_id));
        let frame = ClientFrame::Subscribe { channel_id, after_seq, mode };
        live.request(&format!("{SUBSCRIBE}{channel_id}"), frame).await
    }

    pub(super) async fn unsubscribe(
        &mut self,
        live: &mut Live,
        channel_id: ChannelId,
    ) -> Result<(), ClientError> {
        self.subscriptions.remove(&channel_id);
        live.request("unsubscribe", ClientFrame::Unsubscribe { channel_id }).await
    }

    /// Requests all subscriptions. A new connection has none.
    pub(super) async fn subscribe_again(&mut self, live: &mut Live) -> Result<(), ClientError> {
        for (channel, mode) in self.subscriptions.clone() {
            self.subscribe(live, channel, mode).await?;
        }
        Ok(())
    }

    pub(super) async fn handle_heads(
        &mut self,
        live: &mut Live,
        heads: Vec<ChannelHead>,
    ) -> Result<(), ClientError> {
        let is_active = |head: &&ChannelHead| self.subscriptions.get(&head.channel_id) == Some(&Mode::Active);
        heads.iter().filter(is_active).for_each(|head| self.received.apply_head(head));
        self.emit_alive(live, Event::Heads(heads)).await
    }

    /// The channel of a subscription that was refused. It is not requested again.
    pub(super) fn refused_subscription(&mut self, id: &RequestId) -> Option<ChannelId> {
        let channel = id.0.strip_prefix(SUBSCRIBE)?.parse().ok()?;
        self.subscriptions.remove(&channel);
        Some(channel)
    }

    /// Removes the subscription to a channel that the user has left.
    pub(super) fn forget_left(&mut self, log: LogId, entries: &[Entry]) {
        let LogId::User(_) = log else { return };
        for entry in entries {
            if let Content::ChannelLeft { channel_id, .. } = entry.content {
                self.subscriptions.remove(&channel_id);
            }
        }
    }
}
