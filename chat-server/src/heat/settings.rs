//! What operators have set about hot channels.

use std::collections::HashMap;

use madang_engine::heat::HeatConfig;
use madang_ids::ChannelId;
use madang_proto::rest::OverrideCard;

/// The settings that hold.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HeatSettings {
    /// For all channels.
    pub config: HeatConfig,
    /// For single ones, also those that have ended.
    pub overrides: HashMap<ChannelId, OverrideCard>,
}
