//! The WebSocket gateway: accepts, registers, feeds and drains connections.
//!
//! [`listener`] accepts TCP connections, bounds their number and finds the address of the client. [`socket`] upgrades them and is
//! the reading side of each: its `incoming` judges every frame by its header, its `pipe` carries the bytes, its `lane` holds the
//! tasks that write. [`connection`] is the task of one socket (the shell of `engine::session`); its `outbound` is the writing
//! side with the inbox cursor (`engine::sync`), its `registry` holds the connections by user. [`delivery`] brings envelopes to
//! them, rows of open channels to their subscribers, and notices of presence. [`ledger`] counts the bytes under way, [`drain`]
//! closes all connections over a window of time, [`revoked`] those of devices that were revoked elsewhere.

mod connection;
pub mod delivery;
pub mod drain;
pub(crate) mod ledger;
pub mod listener;
mod nearby;
pub mod revoked;
pub mod socket;
pub mod sweep;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use madang_discovery::NodeDiscovery;
use madang_engine::bucket::{Bucket, Rate};
use madang_engine::session::{Now, SessionConfig};
use madang_service::Tasks;
use parking_lot::Mutex;

use crate::operations::Operations;
use crate::tls::Tls;

use connection::page_reads::PageReads;
pub use connection::registry::Registry;
use delivery::open_channels::Subscribers;
use delivery::pacing::Pacer;
use ledger::Ledger;
use listener::addresses::Addresses;
use listener::places::Places;
use socket::lane::Lanes;

pub(crate) use delivery::envelopes::TURN_BYTES;
pub(crate) use ledger::FREE_BYTES;
pub(crate) use listener::listen::{HEAD_BYTES, HTTP_CONNECTIONS};
#[cfg(feature = "fleet")]
pub(crate) use nearby::alert_hold_ms;

/// Rate of log lines above `debug` for unknown paths and for refusals by a rate limit.
const NOISE: Rate = Rate { per_second: 1, burst: 20 };

/// The state that all connections share.
pub struct Gateway {
    /// The use cases.
    pub operations: Arc<Operations>,
    /// The connections of this node by user.
    pub registry: Registry,
    /// Spawns the tasks of connections and waits for them in a drain.
    pub tasks: Tasks,
    subscribers: Subscribers,
    pacer: Pacer,
    discovery: OnceLock<Arc<NodeDiscovery>>,
    /// Present if a certificate is configured.
    pub tls: Option<Arc<Tls>>,
    addresses: Addresses,
    /// Bounds the connections that speak HTTP.
    places: Places,
    /// Bounds the sockets, including those that have not sent `hello`.
    seats: Places,
    /// Counts the sockets of each address.
    seated: Addresses,
    /// Limits the log lines about requests that anybody can send in any number.
    noise: Mutex<Bucket>,
    /// Peers that look like proxies and are not named in the configuration.
    pub(crate) unnamed: listener::proxies::Unnamed,
    /// Counts the bytes under way.
    pub(crate) ledger: Arc<Ledger>,
    session: SessionConfig,
    lanes: Lanes,
    page_reads: PageReads,
    next_number: AtomicU64,
}

impl Gateway {
    /// A gateway without connections.
    #[must_use]
    pub fn new(operations: Arc<Operations>, tasks: Tasks, tls: Option<Arc<Tls>>) -> Self {
        let config = &operations.config;
        let session = config.session();
        let of_user = config.limits.sockets_of_user();
        let registry = Registry::new(config.gateway.connections_per_device, of_user);
        let (places, seats) =
            (Places::new(listener::listen::HTTP_CONNECTIONS), Places::new(config.gateway.connections));
        let noise = Bucket::full(NOISE, operations.clock.elapsed());
        let ledger = Ledger::new(&config.limits, config.gateway.node_bytes);
        let subscribers = Subscribers::new(Arc::clone(&operations.bus));
        let lanes = Lanes::new(&operations.cursors);
        Self {
            operations,
            registry,
            tasks,
            subscribers,
            pacer: Pacer::default(),
            discovery: OnceLock::new(),
            tls,
            addresses: Addresses::default(),
            places,
            seats,
            seated: Addresses::default(),
            noise: Mutex::new(noise),
            unnamed: listener::proxies::Unnamed::default(),
            ledger,
            session,
            lanes,
            page_reads: PageReads::new(),
            next_number: AtomicU64::new(1),
        }
    }

    /// Makes this the gateway of a node of a fleet: from now on sockets are judged by their tickets, and clients are sent to other
    /// nodes. Called once, before the node listens.
    pub fn join_fleet(&self, discovery: Arc<NodeDiscovery>) {
        let is_first = self.discovery.set(discovery).is_ok();
        debug_assert!(is_first, "a node joins one fleet");
    }

    /// Present in a fleet.
    pub(crate) fn discovery(&self) -> Option<&Arc<NodeDiscovery>> {
        self.discovery.get()
    }

    /// The tasks that write to connections. They never return.
    pub fn writers(&self) -> impl Iterator<Item = impl Future<Output = ()> + Send + use<>> {
        let metrics = &self.operations.metrics;
        self.lanes.iter().map(|lane| socket::lane::run(Arc::clone(lane), metrics.clone()))
    }

    /// Bytes under way: partly received messages and bodies, requests, and frames that wait for peers. The first 4 KiB of each
    /// connection and request are not counted.
    #[must_use]
    pub fn bytes_under_way(&self) -> usize {
        self.ledger.bytes()
    }

    /// The subscribed connections of an open channel on this node.
    #[must_use]
    pub fn subscribers_of(&self, channel: madang_ids::ChannelId) -> usize {
        self.subscribers.count(channel)
    }

    /// Whether one more request that matches no call may be logged above `debug`.
    pub(crate) fn take_noise(&self) -> bool {
        self.noise.lock().take(NOISE, 1, self.operations.clock.elapsed()).is_ok()
    }

    fn now(&self) -> Now {
        Now { at: self.operations.clock.raw_ms(), elapsed: self.operations.clock.elapsed() }
    }

    fn next_number(&self) -> u64 {
        self.next_number.fetch_add(1, Ordering::Relaxed)
    }
}
