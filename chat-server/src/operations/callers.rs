//! How fast users and addresses may go, over all their connections. Bounded: a bucket that is full is forgotten.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use madang_engine::bucket::{Bucket, Rate};
use madang_ids::UserId;
use madang_proto::ErrorBody;
use madang_service::Clock;
use moka::sync::Cache;
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;

use crate::config::LimitConfig;

/// Callers whose buckets are kept; after a minute's rest every bucket is full anyway.
const KEPT: u64 = 200_000;
const REST: Duration = Duration::from_secs(70);

/// Buckets of users and addresses.
#[derive(Debug)]
pub struct Callers {
    config: LimitConfig,
    sends: Buckets<UserId>,
    requests: Buckets<UserId>,
    addresses: Buckets<IpAddr>,
    logins: Buckets<IpAddr>,
    clock: Clock,
    limited: Counter,
}

type Buckets<K> = Cache<K, Arc<Mutex<Bucket>>>;

fn buckets<K: std::hash::Hash + Eq + Send + Sync + 'static>() -> Buckets<K> {
    Cache::builder().max_capacity(KEPT).time_to_idle(REST).build()
}

impl Callers {
    /// Full buckets for everybody.
    #[must_use]
    pub fn new(config: LimitConfig, clock: Clock, limited: Counter) -> Self {
        Self {
            config,
            sends: buckets(),
            requests: buckets(),
            addresses: buckets(),
            logins: buckets(),
            clock,
            limited,
        }
    }

    /// A message of a user.
    ///
    /// # Errors
    /// `limited`, with the time to wait.
    pub fn take_send(&self, user: UserId) -> Result<(), ErrorBody> {
        let rate = self.config.rate(self.config.user_sends);
        self.take(&self.sends, user, rate, "messages of this user")
    }

    /// A REST request of a user.
    ///
    /// # Errors
    /// `limited`, with the time to wait.
    pub fn take_request(&self, user: UserId) -> Result<(), ErrorBody> {
        let rate = self.config.rate(self.config.user_requests);
        self.take(&self.requests, user, rate, "requests of this user")
    }

    /// A socket, or a request without a token, from an address.
    ///
    /// # Errors
    /// `limited`, with the time to wait.
    pub fn take_address(&self, address: IpAddr) -> Result<(), ErrorBody> {
        let rate = self.config.rate(self.config.address_requests);
        self.take(&self.addresses, network(address), rate, "requests from this address")
    }

    /// A sign-up or login from an address.
    ///
    /// # Errors
    /// `limited`, with the time to wait.
    pub fn take_login(&self, address: IpAddr) -> Result<(), ErrorBody> {
        let rate = self.config.logins();
        self.take(&self.logins, network(address), rate, "logins from this address")
    }

    fn take<K>(&self, buckets: &Buckets<K>, key: K, rate: Rate, what: &str) -> Result<(), ErrorBody>
    where
        K: std::hash::Hash + Eq + Send + Sync + 'static,
    {
        if rate.per_second == 0 {
            return Ok(());
        }
        let now = self.clock.elapsed();
        let bucket = buckets.get_with(key, || Arc::new(Mutex::new(Bucket::full(rate, now))));
        let taken = bucket.lock().take(rate, 1, now);
        taken.map_err(|retry_after_ms| {
            self.limited.inc();
            let message = format!("more than {} {what} a second (burst {})", rate.per_second, rate.burst);
            ErrorBody::limited(message, retry_after_ms)
        })
    }
}

/// Whom an address stands for: one caller has a whole /64 of IPv6.
#[must_use]
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}
