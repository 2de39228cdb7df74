//! Bodies of the calls of operators: signing in, hot channels, the state of the nodes, overrides.

use madang_ids::{ChannelId, Millis, UserId};
use serde::{Deserialize, Serialize};

use crate::alerts::PushProvider;
use crate::cards::ChannelKind;
use crate::heat::{HeatLevel, Pacing};

/// What an operator may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum OperatorScope {
    /// See everything that operators see.
    View,
    /// Change configuration and overrides as well.
    Act,
}

impl OperatorScope {
    /// The word, as in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Act => "act",
        }
    }
}

/// `POST /v1/operator/token`: exchanges the secret of an operator for a token.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct OperatorSignIn {
    /// The operator's name.
    pub name: String,
    /// The secret that `madang operator add` has printed.
    pub secret: String,
}

/// The answer to `POST /v1/operator/token`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct OperatorToken {
    /// For `Authorization: Bearer`.
    pub token: String,
    /// What it is good for.
    pub scope: OperatorScope,
    /// The end of its validity, 15 minutes from now.
    pub ends_at: Millis,
}

/// `GET /v1/operator/board`, and each frame of `GET /v1/operator/live`: the present state, as the answering node knows it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Board {
    /// The time of this state, by the clock of the answering node.
    pub at: Millis,
    /// The name of the answering node.
    pub node: String,
    /// The number of the last act of operators that the answering node has applied.
    pub config_version: u64,
    /// All nodes of which it knows, by name.
    pub nodes: Vec<BoardNode>,
    /// Channels that are hot, were hot within a minute, or have an override; the costliest first, at most 50.
    pub channels: Vec<HotRow>,
    /// The guarantees that this node watches.
    pub guarantees: Vec<GuaranteeRow>,
    /// The processes that send alerts and do nothing else, by name. One that is silent is shown for half a minute.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub push_processes: Vec<PushProcess>,
}

/// A process that sends alerts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PushProcess {
    /// Its name.
    pub name: String,
    /// The version of the program.
    pub version: String,
    /// The time of what it reported, by its own clock.
    pub at: Millis,
    /// What it has sent to push providers.
    pub push: Vec<PushRow>,
}

/// A node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct BoardNode {
    /// Its name.
    pub name: String,
    /// The version of the program.
    pub version: String,
    /// The time of what it reported, by its own clock.
    pub at: Millis,
    /// Whether it is ready for clients.
    pub is_ready: bool,
    /// The number of the last act of operators that it has applied.
    pub config_version: u64,
    /// Open sockets.
    pub connections: u64,
    /// Messages that were acknowledged in the last second.
    pub sends: u64,
    /// Entries that were delivered to connections in the last second.
    pub deliveries: u64,
    /// The cost of everything in the last second.
    pub cost: f64,
    /// The cost a second that it can do, as it has learnt.
    pub capacity: f64,
    /// The costs from which on a channel is warm, hot and blazing.
    pub bars: [f64; 3],
    /// Milliseconds for which its timers were late on average in the last second.
    pub lag_ms: f64,
    /// Bytes under way: requests, and frames that wait for peers.
    pub bytes_under_way: u64,
    /// Milliseconds from an append to its delivery, of direct channels and groups, within the last ten seconds: half of the
    /// deliveries were faster, and 99 in 100.
    pub bystanders_ms: Quantiles,
    /// How much is shed, 0 (nothing) to 7 (messages).
    pub shed_level: u8,
    /// What it has sent to push providers. Empty if it sends no alerts, because there are none or other processes send them.
    pub push: Vec<PushRow>,
}

/// What a node has sent to one push provider since its process began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PushRow {
    /// The provider.
    pub provider: PushProvider,
    /// Alerts that the provider has taken.
    pub taken: u64,
    /// Calls that it has not taken; they are made again.
    pub not_taken: u64,
    /// Calls without an answer; they are not made again.
    pub unknown: u64,
    /// Calls for subscriptions that have ended, or belong elsewhere.
    pub gone: u64,
    /// Alerts that became dead letters: refused, or worthless before they were taken.
    pub dead: u64,
    /// Calls that it refused because it does not accept the keys of this server.
    pub credential: u64,
    /// Services of this provider that are left alone at present, because they fail or do not accept the keys.
    pub halted: u32,
}

/// Quantiles of a time in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Quantiles {
    /// The median.
    pub p50: f64,
    /// The 99th percentile.
    pub p99: f64,
}

/// What makes a channel hot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum HeatCause {
    /// Many messages.
    #[default]
    Entries,
    /// Many receivers, or long messages to them.
    Delivery,
    /// Many users who join and leave.
    Joins,
    /// Many reads of history.
    History,
}

impl HeatCause {
    /// The word in logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Entries => "entries",
            Self::Delivery => "delivery",
            Self::Joins => "joins",
            Self::History => "history",
        }
    }
}

/// A channel on the board.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct HotRow {
    /// The channel.
    pub channel_id: ChannelId,
    /// Its kind, if the answering node knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<ChannelKind>,
    /// The name of an open channel. Names of others are not shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How hot it is.
    pub level: HeatLevel,
    /// Since when it has this level.
    pub since: Millis,
    /// What costs most.
    pub cause: HeatCause,
    /// The name of its home: the node that orders it. Absent if the server is one process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<String>,
    /// Its cost in the last second.
    pub cost: f64,
    /// What happened in the last second.
    pub work: WorkRow,
    /// Subscribed connections of an open channel.
    pub subscribers: u64,
    /// How it is paced.
    pub pacing: Pacing,
    /// Milliseconds from an append to its delivery, within the last ten seconds.
    pub freshness_ms: Quantiles,
    /// What pacing has spared since the channel is hot.
    pub spared: Spared,
    /// The costs of the last five minutes, one for each ten seconds, the oldest first.
    pub spark: Vec<u64>,
    /// What an operator has set.
    #[serde(rename = "override", default, skip_serializing_if = "Option::is_none")]
    pub set: Option<OverrideCard>,
}

/// What happened in a channel within a second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct WorkRow {
    /// Entries that were appended.
    pub entries: u64,
    /// Entries to receivers.
    pub deliveries: u64,
    /// Bytes to receivers.
    pub bytes: u64,
    /// Users who joined or left.
    pub joins: u64,
    /// Reads of history.
    pub reads: u64,
}

/// What pacing has spared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Spared {
    /// Typing and receipts that were dropped.
    pub events: u64,
    /// Frames that were not sent, because their entries left together with others.
    pub frames: u64,
    /// Entries that slow readers did not get, each with a gap.
    pub left_out: u64,
    /// Joins that were refused for now.
    pub joins: u64,
    /// Reads of history that were answered with what another one had read.
    pub reads: u64,
    /// Messages that the slow mode of the level has refused.
    pub sends: u64,
}

/// A guarantee of the server, and whether it held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct GuaranteeRow {
    /// Its number, such as `G1`.
    pub id: String,
    /// How often something happened that may break it, since the start of the process; 0 if nothing did.
    pub breaches: u64,
    /// When that happened last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Millis>,
}

/// `GET /v1/operator/channels/{channel_id}`: one channel in detail.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct HotDetail {
    /// The channel as on the board.
    pub row: HotRow,
    /// The last hour, one point for each ten seconds, the oldest first.
    pub hour: Vec<HeatPoint>,
    /// The last 20 changes of the level, the newest first.
    pub changes: Vec<HeatChangeRow>,
    /// The users who sent most within the last minute, at most 10.
    pub senders: Vec<SenderRow>,
    /// Users who wanted to join.
    #[serde(default)]
    pub joins: JoinRow,
    /// The address of graphs of this channel, if the answering node has one (`operator.graphs_url`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graphs_url: Option<String>,
}

/// Ten seconds of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct HeatPoint {
    /// The end of the ten seconds.
    pub at: Millis,
    /// The mean cost a second.
    pub cost: f64,
    /// The bar of the next hotter level at that time; of blazing, its own bar.
    pub bar: f64,
    /// The level at that time.
    pub level: HeatLevel,
}

/// A change of a level.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct HeatChangeRow {
    /// The time.
    pub at: Millis,
    /// The level before.
    pub from: HeatLevel,
    /// The level after.
    pub to: HeatLevel,
    /// The cost of that second.
    pub cost: f64,
    /// What cost most.
    pub cause: HeatCause,
    /// Whether an override did it.
    pub by_override: bool,
}

/// A sender of a hot channel.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SenderRow {
    /// The user.
    pub user_id: UserId,
    /// The user's share of the messages, 0 to 1.
    pub share: f64,
}

/// Users who wanted to join a channel since it is hot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct JoinRow {
    /// Attempts that the rate of the level has admitted. They may be those of members, or have been refused for another reason, such
    /// as a ban.
    pub admitted: u64,
    /// Attempts that were refused for now. A user who comes again counts again.
    pub refused: u64,
    /// Milliseconds that refused users were asked to wait within the last ten seconds.
    pub wait_ms: Quantiles,
}

/// What an operator sets for one channel. One of these, or where its home is, is given at least.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct OverrideSettings {
    /// Holds the channel at this level; `normal` exempts it from pacing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<HeatLevel>,
    /// Instead of what the level says; 0 to 1,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_ms: Option<u16>,
    /// Instead of what the level says; 0 to 21,600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_mode_seconds: Option<u16>,
    /// Instead of what the level says, on each node; 0 closes joins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joins_per_second: Option<u32>,
}

/// `PUT /v1/operator/channels/{channel_id}/override`: sets an override, which replaces an earlier one of the channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct OverrideWish {
    /// Holds the channel at this level; `normal` exempts it from pacing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<HeatLevel>,
    /// Instead of what the level says; 0 to 1,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_ms: Option<u16>,
    /// Instead of what the level says; 0 to 21,600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_mode_seconds: Option<u16>,
    /// Instead of what the level says, on each node; 0 closes joins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joins_per_second: Option<u32>,
    /// The name of a node that must not be the home of the channel, as long as there is another one: it moves away from there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub away_from: Option<String>,
    /// The minutes until it ends by itself, 1 to 1,440.
    pub minutes: u32,
    /// Why, 10 to 500 characters. For people.
    pub why: String,
    /// Only answer what would follow.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

impl OverrideWish {
    /// What is set.
    #[must_use]
    pub const fn settings(&self) -> OverrideSettings {
        let &Self { level, batch_ms, slow_mode_seconds, joins_per_second, .. } = self;
        OverrideSettings { level, batch_ms, slow_mode_seconds, joins_per_second }
    }
}

/// An override.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct OverrideCard {
    /// What is set.
    #[serde(flatten)]
    pub settings: OverrideSettings,
    /// The name of the node that is not the home of the channel meanwhile, unless it is the only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub away_from: Option<String>,
    /// The operator who set it.
    pub by: String,
    /// The reason, as the operator said.
    pub why: String,
    /// When it was set.
    pub since: Millis,
    /// When it ends by itself.
    pub ends_at: Millis,
}

/// The answer to `PUT /v1/operator/channels/{channel_id}/override`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct OverrideAnswer {
    /// What would have followed within the last five minutes.
    pub forecast: Forecast,
    /// The override, unless this was a dry run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<OverrideCard>,
    /// The number of the act that set it; of a dry run, that of the last act.
    pub config_version: u64,
}

/// What an override would have done to the traffic of the last minutes, as the answering node saw it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Forecast {
    /// Seconds with traffic that it is made of; at most 300.
    pub seconds: u32,
    /// Deliveries that would have waited, a minute.
    pub delayed: f64,
    /// For how long on average, in milliseconds.
    pub delay_ms: f64,
    /// Frames to receivers, a minute, at present and with the override.
    pub frames: [f64; 2],
    /// Joins, a minute, that would have been refused for now.
    pub joins_refused: f64,
}
