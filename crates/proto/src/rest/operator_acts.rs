//! Bodies of the calls of operators: configuration at run time, and what operators did and asked.

use madang_ids::{ChannelId, Millis, Seq};
use serde::{Deserialize, Serialize};

use crate::cards::ChannelKind;
use crate::heat::HeatConfig;

/// `GET /v1/operator/config`: the configuration that may change while the server runs. The `ETag` is its version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct OperatorConfig {
    /// The number of the act that changed it last; 0 if it was never changed. Other acts leave it as it is.
    pub version: u64,
    /// When it was changed last.
    pub at: Millis,
    /// The configuration.
    pub config: RuntimeConfig,
    /// The rates in the configuration file of the answering node. They hold where `config.limits` names none.
    #[serde(default)]
    pub file_limits: RateLimits,
}

/// What may change while the server runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RuntimeConfig {
    /// Hot channels.
    pub heat: HeatConfig,
    /// Rates of users and addresses.
    #[serde(default, skip_serializing_if = "RateLimits::is_empty")]
    pub limits: RateLimits,
}

/// Rates that replace those of `[limits]` in the configuration file of every node. Absent: what the file of each node says. Zero: no
/// limit. A node whose file switches limits off has none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RateLimits {
    /// Messages of one user in a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_sends: Option<u32>,
    /// KiB of messages and changes of one user in a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_write_kib: Option<u32>,
    /// Requests of one user in a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_requests: Option<u32>,
    /// Sockets that are opened, and calls without a token, from one address in a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address_requests: Option<u32>,
    /// Sign-ups and logins from one address in a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address_logins: Option<u32>,
}

impl RateLimits {
    /// Whether the files of the nodes hold for everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// `PUT /v1/operator/config`, with the version that it replaces in `If-Match`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ConfigChange {
    /// The whole configuration.
    #[cfg_attr(feature = "schema", schemars(with = "schemas::NewRuntimeConfig"))]
    pub config: RuntimeConfig,
    /// Why, 10 to 500 characters. For people.
    pub why: String,
}

/// `GET /v1/operator/acts`: which acts.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ActQuery {
    /// Acts before this one; absent: the newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<u64>,
    /// How many, 1 to 100; default 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// `DELETE /v1/operator/channels/{channel_id}/override`: why an override is ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct EndOverride {
    /// Why, 10 to 500 characters. For people.
    pub why: String,
}

/// `POST /v1/operator/channels/{channel_id}/name`: why the name of a channel is to be shown. Recorded.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ShowName {
    /// Why, 10 to 500 characters. For people.
    pub why: String,
}

/// The name of a channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ChannelName {
    /// Its kind.
    pub kind: ChannelKind,
    /// Its name. Direct channels have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// `GET /v1/operator/alerts`: whose alert of which message.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AlertTrace {
    /// The handle of the user.
    pub handle: String,
    /// The channel.
    pub channel_id: ChannelId,
    /// The message.
    pub seq: Seq,
}

/// `GET /v1/operator/dead-letters`: which alerts that were given up.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DeadLetterQuery {
    /// Those after this id; absent: from the oldest on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
}

/// `POST /v1/operator/dead-letters`: sends alerts again that were given up. Recorded.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SendAgain {
    /// The id of one of them; absent: all, the oldest 10,000 at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Why, 10 to 500 characters. For people.
    pub why: String,
    /// Only answer how many there are.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

/// The answer to `POST /v1/operator/dead-letters`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SentAgain {
    /// Alerts that wait again, and are decided anew; of a dry run, those that would.
    pub count: usize,
}

/// What an operator did. Acts are written before they take effect, and never changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ActCard {
    /// Its place: 1, 2, 3 …
    pub seq: u64,
    /// The time.
    pub at: Millis,
    /// The operator; `local` for a command beside the server.
    pub by: String,
    /// The address of the operator's client; empty for a command beside the server.
    pub from: String,
    /// What was done.
    pub what: ActKind,
    /// The channel that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel_id: Option<ChannelId>,
    /// What changed, in words.
    pub change: String,
    /// The reason, as the operator said.
    pub why: String,
}

/// The kinds of acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ActKind {
    /// The configuration was changed.
    ConfigChanged,
    /// An override was set.
    OverrideSet,
    /// An override was ended before its time.
    OverrideEnded,
    /// What came of an override within five minutes, or until its end, beside its forecast. Recorded by the server itself.
    OverrideMeasured,
    /// The name of a channel that is not open was shown.
    NameShown,
    /// Alerts that were given up were sent again.
    AlertsSentAgain,
    /// An operator was added, or got a new secret.
    OperatorAdded,
    /// An operator was removed.
    OperatorRemoved,
}

/// What a [`RuntimeConfig`] is in a request, where `null` stands for what is absent. An answer has no `null`.
#[cfg(feature = "schema")]
#[expect(dead_code, reason = "they are schemas, and never made")]
mod schemas {
    use super::{Deserialize, HeatConfig};

    /// What may change while the server runs.
    #[derive(Deserialize, schemars::JsonSchema)]
    #[serde(deny_unknown_fields)]
    pub(super) struct NewRuntimeConfig {
        /// Hot channels.
        heat: HeatConfig,
        /// Rates of users and addresses. Absent: the files of the nodes hold.
        limits: Option<NewRateLimits>,
    }

    /// As [`super::RateLimits`].
    #[derive(Deserialize, schemars::JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct NewRateLimits {
        /// Messages of one user in a second.
        user_sends: Option<u32>,
        /// KiB of messages and changes of one user in a second.
        user_write_kib: Option<u32>,
        /// Requests of one user in a second.
        user_requests: Option<u32>,
        /// Sockets that are opened, and calls without a token, from one address in a second.
        address_requests: Option<u32>,
        /// Sign-ups and logins from one address in a second.
        address_logins: Option<u32>,
    }
}
