//! The details of a channel as JSON: in `channels` as they were made, in the log as the last append that changed them left them.

use madang_ids::Seq;
use serde::{Deserialize, Serialize};

use super::codec::json;
use crate::error::{StoreError, StoreResult};
use crate::log::{ChannelState, Details};

#[derive(Serialize, Deserialize)]
struct Stored {
    #[serde(default)]
    state: ChannelState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    topic: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    avatar: String,
    #[serde(default)]
    slow_mode_seconds: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pins: Vec<Seq>,
}

pub(super) fn to_json(details: &Details) -> StoreResult<String> {
    let Details { state, name, topic, avatar, slow_mode_seconds, pins } = details.clone();
    json(&Stored { state, name, topic, avatar, slow_mode_seconds, pins })
}

pub(super) fn from_json(text: &str) -> StoreResult<Details> {
    let stored = serde_json::from_str(text);
    let Stored { state, name, topic, avatar, slow_mode_seconds, pins } =
        stored.map_err(|error| StoreError::Corrupt(format!("details of a channel: {error}")))?;
    Ok(Details { state, name, topic, avatar, slow_mode_seconds, pins })
}
