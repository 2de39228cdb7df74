//! The metrics of the chat server: one for each guarantee that it can break.

use std::sync::atomic::AtomicU64;

use madang_engine::overload::Class;
use madang_proto::SnapshotReason;
use madang_service::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// The label `reason`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Reason {
    reason: &'static str,
}

/// The label `level`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LevelLabel {
    level: &'static str,
}

/// The label `class`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ClassLabel {
    class: &'static str,
}

/// The metrics of the chat server. Clones share them.
#[derive(Debug, Clone)]
pub struct ChatMetrics {
    /// G1: messages that were acknowledged as durable.
    pub acked: Counter,
    /// G1: appends that the store refused or whose outcome is unknown.
    pub append_failures: Counter,
    /// G1: duration of an append in the store, in seconds.
    pub append_seconds: Histogram,
    /// G2: sends answered with the ack of an earlier attempt.
    pub acked_by_retry: Counter,
    /// G3: appends that found the head moved by another writer.
    pub moved: Counter,
    /// G4: devices that were welcomed while the inbox did not answer.
    pub degraded: Counter,
    /// G4: time from a row's `at` until the inboxes of all its receivers have it, in seconds.
    pub fanout_seconds: Histogram,
    /// G4: logs whose fan-out was repeated because the node that appended to them has died.
    pub redriven: Counter,
    /// Commands that were forwarded to homes on other nodes.
    pub forwarded: Counter,
    /// Forwarded commands that were carried out here, because their home did not answer.
    pub self_appends: Counter,
    /// Commands of other nodes that came too late to be carried out.
    pub forwards_expired: Counter,
    /// G4: fan-outs that failed and are repeated.
    pub fanout_failures: Counter,
    /// G4: devices that had a cursor and must take a snapshot.
    pub snapshots: Family<Reason, Counter>,
    /// G4: devices that resumed from their cursor.
    pub resumed: Counter,
    /// G5: tokens refused.
    pub unauthorized: Counter,
    /// G7: slow consumers that fell back to reading their inbox.
    pub resyncs: Counter,
    /// G4: gaps in subscriptions of open channels, sent to connections that read too slowly.
    pub gaps: Counter,
    /// G7: requests that were refused by a rate limit.
    pub limited: Counter,
    /// G7: connections and requests that were refused because their address had too many.
    pub crowded: Counter,
    /// G7: connections without a complete request that gave their place to another one.
    pub evicted: Counter,
    /// G10: joins that were refused because no seat was free.
    pub full: Counter,
    /// Rows of users' own logs that were deleted because no device needs them.
    pub forgotten_own_rows: Counter,
    /// Channels that users had left long ago and that were deleted from their lists.
    pub forgotten_left_channels: Counter,
    /// Bytes of appended entries and of messages that were rewritten with them.
    pub written_bytes: Counter,
    /// The share of one user in the bytes of the last whole hour: the greatest of all users.
    pub written_top_user: Gauge<f64, AtomicU64>,
    /// The same for channels.
    pub written_top_channel: Gauge<f64, AtomicU64>,
    /// G8: channels by their level of heat.
    pub heat: Family<LevelLabel, Gauge>,
    /// G8: changes of these levels.
    pub heat_changes: Counter,
    /// G8: notices of typing and receipts of hot channels that were not delivered.
    pub events_spared: Counter,
    /// G8: joins of hot channels that were refused for now.
    pub joins_refused: Counter,
    /// G8: reads of the history of hot channels that were answered with what another one had read.
    pub reads_shared: Counter,
    /// G7: requests that were refused, or notices that were dropped, because the node is overloaded.
    pub shed: Family<ClassLabel, Counter>,
    /// G7: how much is shed, 0 (nothing) to 7 (messages).
    pub shed_level: Gauge,
    /// Open sockets.
    pub connections: Gauge,
    /// G7: bytes under way, as of the last second.
    pub bytes_under_way: Gauge,
    /// Deliveries to connections.
    pub delivered: Counter,
    /// Writes to sockets. `outbound_frames` divided by this is the number of frames in one write.
    pub writes: Counter,
}

impl ChatMetrics {
    /// Makes the metrics and registers them.
    #[must_use]
    pub fn register(metrics: &Metrics) -> Self {
        let this = Self {
            acked: Counter::default(),
            append_failures: Counter::default(),
            append_seconds: Histogram::new(exponential_buckets(0.000_25, 2.0, 14)),
            fanout_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 16)),
            acked_by_retry: Counter::default(),
            moved: Counter::default(),
            redriven: Counter::default(),
            degraded: Counter::default(),
            forwards_expired: Counter::default(),
            self_appends: Counter::default(),
            forwarded: Counter::default(),
            fanout_failures: Counter::default(),
            snapshots: Family::default(),
            resumed: Counter::default(),
            unauthorized: Counter::default(),
            resyncs: Counter::default(),
            gaps: Counter::default(),
            limited: Counter::default(),
            crowded: Counter::default(),
            evicted: Counter::default(),
            full: Counter::default(),
            forgotten_own_rows: Counter::default(),
            forgotten_left_channels: Counter::default(),
            written_bytes: Counter::default(),
            written_top_user: Gauge::default(),
            written_top_channel: Gauge::default(),
            heat: Family::default(),
            heat_changes: Counter::default(),
            events_spared: Counter::default(),
            joins_refused: Counter::default(),
            reads_shared: Counter::default(),
            shed: Family::default(),
            shed_level: Gauge::default(),
            connections: Gauge::default(),
            bytes_under_way: Gauge::default(),
            delivered: Counter::default(),
            writes: Counter::default(),
        };
        metrics.register(|registry| this.put(registry));
        this
    }

    fn put(&self, registry: &mut Registry) {
        let mut counter =
            |name: &str, help: &str, counter: &Counter| registry.register(name, help, counter.clone());
        counter("messages_acked", "G1: messages acked as durable", &self.acked);
        counter(
            "append_failures",
            "G1: appends that were refused, or have an unknown \
             outcome",
            &self.append_failures,
        );
        counter(
            "messages_acked_by_retry",
            "G2: sends answered with the ack of an earlier attempt",
            &self.acked_by_retry,
        );
        counter("home_forwarded", "Commands forwarded to homes on other nodes", &self.forwarded);
        counter(
            "home_self_appends",
            "Forwarded commands carried out here because their home was silent",
            &self.self_appends,
        );
        counter(
            "home_forwards_expired",
            "Commands of other nodes that came too late",
            &self.forwards_expired,
        );
        counter("welcome_degraded", "G4: devices welcomed while the inbox did not answer", &self.degraded);
        counter("home_redriven", "G4: logs of dead nodes whose fan-out was repeated", &self.redriven);
        counter("log_moved", "G3: appends that found the head moved", &self.moved);
        counter("fanout_failures", "G4: fan-outs that failed and are repeated", &self.fanout_failures);
        counter("sync_resumed", "G4: devices resumed from their cursor", &self.resumed);
        counter("auth_refused", "G5: tokens refused", &self.unauthorized);
        counter("outbound_resyncs", "G7: slow consumers that were resynced from their inbox", &self.resyncs);
        counter("subscription_gaps", "G4: gaps sent to subscriptions that read too slowly", &self.gaps);
        counter("requests_limited", "G7: requests refused by a rate limit", &self.limited);
        counter(
            "http_connections_refused",
            "G7: connections refused because their address has too \
             many",
            &self.crowded,
        );
        counter(
            "http_connections_evicted",
            "G7: connections without a complete request that were closed to make room",
            &self.evicted,
        );
        counter(
            "seats_refused",
            "G10: commands refused as `full`: no seat, or too many pins or reactions",
            &self.full,
        );
        counter("outbound_frames", "Connections addressed by each delivery, summed", &self.delivered);
        counter(
            "own_log_rows_forgotten",
            "Rows deleted from users' own logs: no device is that far behind",
            &self.forgotten_own_rows,
        );
        counter(
            "left_channels_forgotten",
            "Left channels forgotten, beyond the last 1,000 of a user",
            &self.forgotten_left_channels,
        );
        counter("hot_channel_changes", "G8: changes of the levels of channels", &self.heat_changes);
        counter(
            "hot_events_spared",
            "G8: typing and receipts of hot channels that were not delivered",
            &self.events_spared,
        );
        counter("hot_joins_refused", "G8: joins that were refused for now", &self.joins_refused);
        counter("hot_reads_shared", "G8: reads of history answered with what was read", &self.reads_shared);
        counter("outbound_writes", "Writes of queued frames to sockets", &self.writes);
        registry.register(
            "written_bytes",
            "Bytes of appended entries and rewritten messages",
            self.written_bytes.clone(),
        );
        registry.register(
            "written_top_user_share",
            "The greatest share of one user in the bytes of the last whole hour",
            self.written_top_user.clone(),
        );
        registry.register(
            "written_top_channel_share",
            "The greatest share of one channel in the bytes of the last whole hour",
            self.written_top_channel.clone(),
        );
        registry.register("append_seconds", "G1: time of an append", self.append_seconds.clone());
        registry.register(
            "fanout_seconds",
            "G4: time from a row until all inboxes have it",
            self.fanout_seconds.clone(),
        );
        registry.register("sync_snapshots", "G4: devices that must take a snapshot", self.snapshots.clone());
        registry.register("shed", "G7: requests refused by class: the node is overloaded", self.shed.clone());
        registry.register("shed_level", "G7: how much is shed, 0 to 7", self.shed_level.clone());
        registry.register("hot_channels", "G8: channels by their level of heat", self.heat.clone());
        registry.register("gateway_connections", "Open connections", self.connections.clone());
        registry.register(
            "gateway_bytes_under_way",
            "G7: incomplete frames and bodies, requests, and unread answers",
            self.bytes_under_way.clone(),
        );
    }

    /// The number of channels of a level.
    pub fn shed(&self, class: Class) -> Counter {
        let class = match class {
            Class::Presence => "presence",
            Class::Receipts => "receipts",
            Class::Push => "push",
            Class::History => "history",
            Class::Joins => "joins",
            Class::Connections => "connections",
            Class::Messages => "messages",
        };
        self.shed.get_or_create_owned(&ClassLabel { class })
    }

    /// Channels of one level of heat.
    #[must_use]
    pub fn hot_channels(&self, level: &'static str) -> Gauge {
        self.heat.get_or_create_owned(&LevelLabel { level })
    }

    /// Counts a device that had a cursor and must take a snapshot.
    pub fn count_snapshot(&self, reason: SnapshotReason) {
        let reason = match reason {
            SnapshotReason::NoCursor => return,
            SnapshotReason::ForeignCursor => "foreign_cursor",
            SnapshotReason::BeyondStore => "beyond_store",
            SnapshotReason::TooFarBehind => "too_far_behind",
            SnapshotReason::InboxReset => "inbox_reset",
            SnapshotReason::InboxUnavailable => "inbox_unavailable",
        };
        self.snapshots.get_or_create(&Reason { reason }).inc();
    }
}
