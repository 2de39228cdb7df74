//! The settings of users about channels, and the messages that users deleted for themselves.

use std::ops::RangeInclusive;

use async_trait::async_trait;
use madang_ids::{ChannelId, Seq, UserId};
use madang_proto::ChannelSettings;

use crate::error::StoreResult;

/// Settings of users about channels. Everything of one user is one partition.
///
/// # Guarantees
/// Every write is durable when it returns, and repeating it is harmless. A read that begins after a write has returned
/// sees it, on any node.
#[async_trait]
pub trait SettingStore: Send + Sync + 'static {
    /// Writes the settings of a user for a channel if the stored `rev` is one below that of `settings`, by
    /// compare-and-set; settings that were never written have `rev` 0. `false`: another device was first, read again.
    async fn put_channel_settings(
        &self,
        user: UserId,
        channel: ChannelId,
        settings: &ChannelSettings,
    ) -> StoreResult<bool>;

    /// The settings of a user for a channel; the default if nothing was ever set.
    async fn channel_settings(&self, user: UserId, channel: ChannelId) -> StoreResult<ChannelSettings>;

    /// Hides a message from a user. `false`, and nothing is written, if `at_most` others of the channel are hidden. The
    /// bound protects reads and is not exact under concurrency.
    async fn hide_message(
        &self,
        user: UserId,
        channel: ChannelId,
        seq: Seq,
        at_most: usize,
    ) -> StoreResult<bool>;

    /// The messages within these ranges that are hidden from a user, each once and in no order. One read of the user's
    /// partition, whatever the number of ranges; almost always empty.
    async fn hidden_messages(
        &self,
        user: UserId,
        ranges: &[(ChannelId, RangeInclusive<Seq>)],
    ) -> StoreResult<Vec<(ChannelId, Seq)>>;
}
