//! Inbox and bus of a fleet, over Redis or Valkey.
//!
//! A home brings appended rows to the inbox of each member by one script ([`scripts`]), which answers with the nodes where the
//! member is connected. These nodes receive the rows in their streams ([`streams`]), each once for all its users. So a message
//! costs one script for each member, and one entry for each node.
//!
//! Redis arbitrates nothing. The logs in the store are the truth: what is lost here is found again by the next rows of the log, by
//! the comparison that each node makes every 30 s ([`registrations`]), or by the home that drives the log next. If Redis begins
//! anew or a stale replica is promoted, its epoch changes, and devices take a snapshot.

mod alert_scripts;
mod alerts;
mod busy;
mod connection;
mod frames;
mod inbox;
mod metrics;
mod noted;
mod publish;
mod receive;
mod registrations;
mod reports;
mod scripts;
mod settings;
mod shared;
mod streams;
mod values;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use futures_util::future::BoxFuture;
use madang_ids::{ChannelId, Epoch, NodeRun, UserId};
use madang_store::{SharedRows, Store, StoreResult};
use moka::sync::Cache;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};

use crate::bounds::ROWS_BYTES;
use crate::bus::{Envelope, Loss};
use crate::peers::Arrivals;

pub use crate::config::{BusConfig, BusKind};
pub use alerts::{AlertTimes, RedisAlerts};
pub use connection::Redis;
pub use metrics::BusMetrics;
pub use reports::Reports;
pub use shared::SharedText;
pub use streams::{Received, StreamName, StreamReader, Streams};

use inbox::Audiences;
use publish::{Publication, Whereabouts};
use registrations::Registrations;

/// Envelopes between this crate and the gateway. Beyond that fan-out waits.
const ENVELOPES: usize = 1024;
/// Profiles that wait to be published. Beyond that they are lost.
const PUBLICATIONS: usize = 1_024;

/// Inbox and bus of one node.
pub struct RedisBus {
    redis: Redis,
    streams: Streams,
    store: Arc<dyn Store>,
    run: NodeRun,
    /// The name of this node's stream, which is also its name in the registrations.
    me: StreamName,
    metrics: BusMetrics,
    registrations: Registrations,
    audiences: Audiences,
    whereabouts: Whereabouts,
    /// The epoch of the last answer of Redis.
    epoch: Mutex<Option<Epoch>>,
    sender: mpsc::Sender<Envelope>,
    envelopes: Mutex<Option<mpsc::Receiver<Envelope>>>,
    room: Arc<Semaphore>,
    publications: mpsc::Sender<Publication>,
    arrivals: Arrivals,
    tokens: AtomicU64,
    /// `None`: rows are not noted for alerts.
    alerts: Option<(AlertTimes, RedisAlerts)>,
    alert_holds: OnceLock<AlertHolds>,
}

/// By how many milliseconds alerts of a channel wait longer than others.
pub type AlertHolds = Box<dyn Fn(ChannelId) -> u64 + Send + Sync>;

/// The name of the stream of a chat node.
fn node_stream(run: NodeRun) -> StreamName {
    StreamName::new(&format!("n{run}"))
}

impl RedisBus {
    /// The bus of a node. With `alerts` it notes rows that may be worth one. The second value is its work; the caller runs it as a task
    /// that never ends.
    #[must_use]
    pub fn open(
        redis: Redis,
        streams: Streams,
        store: Arc<dyn Store>,
        run: NodeRun,
        alerts: Option<AlertTimes>,
    ) -> (Arc<Self>, BoxFuture<'static, ()>) {
        let (sender, envelopes) = mpsc::channel(ENVELOPES);
        let (publications, to_publish) = mpsc::channel(PUBLICATIONS);
        let alerts = alerts.map(|times| (times, RedisAlerts::new(redis.clone(), Arc::clone(&store))));
        let this = Arc::new(Self {
            redis,
            streams,
            store,
            run,
            me: node_stream(run),
            metrics: BusMetrics::default(),
            registrations: Registrations::default(),
            audiences: inbox::audiences(),
            whereabouts: publish::whereabouts(),
            epoch: Mutex::default(),
            sender,
            envelopes: Mutex::new(Some(envelopes)),
            room: Arc::new(Semaphore::new(ROWS_BYTES)),
            publications,
            arrivals: Arrivals::default(),
            tokens: AtomicU64::new(1),
            alerts,
            alert_holds: OnceLock::new(),
        });
        let bus = Arc::clone(&this);
        let work = async move {
            let (receive, renew, publish, watch) = (
                bus.receive(bus.streams.reader(&bus.me)),
                bus.keep_registrations(),
                bus.publish_all(to_publish),
                bus.watch_settings(),
            );
            tokio::join!(receive, renew, publish, watch);
        };
        (this, Box::pin(work))
    }

    /// Asks from now on how much longer the alerts of a channel wait. Only the first call counts.
    pub fn hold_alerts(&self, holds: AlertHolds) {
        let _ = self.alert_holds.set(holds);
    }

    /// Creates the stream of this node. Rows that are moved after it has returned can reach the node.
    ///
    /// # Errors
    /// Redis does not answer. The work of the bus creates the stream too.
    pub async fn ready(&self) -> StoreResult<()> {
        self.streams.reader(&self.me).create().await
    }

    /// The metrics.
    #[must_use]
    pub const fn metrics(&self) -> &BusMetrics {
        &self.metrics
    }

    /// A token that no other registration of this node has.
    fn token(&self) -> u64 {
        self.tokens.fetch_add(1, Ordering::Relaxed)
    }

    /// Compares the epoch of an answer with the last one. After a change everything may have been lost: sessions read their
    /// inboxes, which do not accept the cursors of another epoch.
    async fn note_epoch(&self, epoch: Epoch) {
        if *self.epoch.lock() == Some(epoch) {
            return;
        }
        // The loss enters the stream before anything of the new epoch can: a place in the stream is taken first, and the epoch is
        // set while the loss is put there.
        let Ok(place) = self.sender.reserve().await else { return };
        let mut known = self.epoch.lock();
        if *known == Some(epoch) {
            return;
        }
        if known.replace(epoch).is_some() {
            tracing::warn!(%epoch, "Redis has a new epoch: it was started again, or a replica was promoted");
            self.metrics.epoch_changes.inc();
            place.send(Envelope::Lost(Loss::Node));
        }
    }

    /// Hands an envelope to the gateway.
    async fn hand_over(&self, envelope: Envelope) {
        // The gateway ends with the node.
        let _ = self.sender.send(envelope).await;
    }

    /// Rows that count against [`ROWS_BYTES`] until the gateway has delivered them.
    async fn in_room(&self, rows: SharedRows) -> SharedRows {
        let bytes = rows.size_bytes().min(ROWS_BYTES);
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        match Arc::clone(&self.room).acquire_many_owned(permits).await {
            Ok(room) => rows.in_room(room),
            // Never closed.
            Err(_) => rows,
        }
    }
}

/// An epoch of Redis, from its `master_replid`.
fn epoch_of(text: &str) -> Epoch {
    Epoch::from_raw(text.get(..16).and_then(|part| u64::from_str_radix(part, 16).ok()).unwrap_or_default())
}

fn inbox_keys(user: UserId) -> [String; 3] {
    ["heads", "items", "nodes"].map(|name| format!("{{u{user}}}:{name}"))
}

fn channel_nodes(channel: ChannelId) -> String {
    format!("{{c{channel}}}:nodes")
}

/// A cache whose entries end some time after they were inserted.
fn brief<K, V>(entries: u64, ttl: std::time::Duration) -> Cache<K, V>
where
    K: std::hash::Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    Cache::builder().max_capacity(entries).time_to_live(ttl).build()
}
