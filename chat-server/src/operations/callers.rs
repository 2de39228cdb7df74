//! Rate limits of users and addresses, over all their connections. Memory is bounded: a bucket that is full again is evicted.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use madang_engine::bucket::{Bucket, Rate};
use madang_ids::UserId;
use madang_proto::ErrorBody;
use madang_service::Clock;
use moka::sync::Cache;
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::LiveLimits;
use super::costs::Cost;
use crate::config::LimitConfig;

/// Callers of each kind whose buckets are kept. After [`REST`] every bucket is full, or has paid off its debt.
const KEPT: u64 = 100_000;
/// The ten kinds of buckets of [`Callers`], with 200 bytes for each caller.
pub(crate) const RATE_BYTES: u64 = 10 * KEPT * 200;
const REST: Duration = Duration::from_secs(70);
/// Changes in an hour by which one user may cause notes in another user's log.
const NUDGES_AN_HOUR: u32 = 60;
/// Password computations of one address that run or wait at the same time. A node runs and queues 33 for each core, so one
/// address cannot take all of these places.
const LOGINS_UNDER_WAY: usize = 8;
const HOUR: Duration = Duration::from_secs(3_600);

/// A login in progress.
#[derive(Debug)]
pub struct LoginSeat(#[expect(dead_code, reason = "held until it is dropped")] Option<OwnedSemaphorePermit>);

/// Buckets of users and addresses. Clones share the buckets.
#[derive(Debug, Clone)]
pub struct Callers {
    limits: Arc<LiveLimits>,
    sends: Buckets<UserId>,
    requests: Buckets<UserId>,
    /// In KiB.
    written: Buckets<UserId>,
    /// For exports, apart from other requests: an export must not use up the rate of the client that waits for it.
    exports: Buckets<UserId>,
    addresses: Buckets<IpAddr>,
    pages: Buckets<IpAddr>,
    logins: Buckets<IpAddr>,
    /// By account and the address that it has signed in from before.
    known_logins: Buckets<(String, IpAddr)>,
    /// Logins and sign-ups in progress.
    seats: Cache<IpAddr, Arc<Semaphore>>,
    /// The changes of this hour, by the user who caused them and the user who was notified.
    nudges: Cache<(UserId, UserId), Arc<AtomicU32>>,
    clock: Clock,
    limited: Counter,
}

type Buckets<K> = Cache<K, Arc<Mutex<Bucket>>>;

fn buckets<K: std::hash::Hash + Eq + Send + Sync + 'static>() -> Buckets<K> {
    Cache::builder().max_capacity(KEPT).time_to_idle(REST).build()
}

impl Callers {
    /// All buckets are full.
    #[must_use]
    pub fn new(limits: Arc<LiveLimits>, clock: Clock, limited: Counter) -> Self {
        Self {
            limits,
            sends: buckets(),
            requests: buckets(),
            written: buckets(),
            exports: buckets(),
            addresses: buckets(),
            pages: buckets(),
            logins: buckets(),
            known_logins: buckets(),
            seats: Cache::builder().max_capacity(KEPT).time_to_idle(REST).build(),
            nudges: Cache::builder().max_capacity(KEPT).time_to_live(HOUR).build(),
            clock,
            limited,
        }
    }

    /// Charges a message of a user, or a change of one. `price` is its cost beyond a plain message, `bytes` what it adds to the
    /// disk and to the answers of every reader.
    ///
    /// # Errors
    /// `limited`, with the time to wait.
    pub fn take_send(&self, user: UserId, price: Cost, bytes: usize) -> Result<(), ErrorBody> {
        let rate = self.rate(|limits| limits.user_sends);
        let calls = price.tokens().saturating_add(1);
        self.take_some(&self.sends, user, rate, calls, "messages of one user")?;
        let rate = self.rate(|limits| limits.user_write_kib);
        self.take_some(&self.written, user, rate, kib(bytes), "KiB of messages of one user")
    }

    /// Charges what a call turned out to cost beyond a plain one.
    pub fn charge(&self, user: UserId, cost: Cost) {
        if cost.tokens() > 0 {
            self.owe(&self.requests, user, self.rate(|limits| limits.user_requests), cost.tokens());
        }
    }

    /// Waits until an export of the user has paid for what it has read, at the rate of requests but in a bucket of its own.
    pub async fn pay_export(&self, user: UserId, cost: Cost) {
        let rate = self.rate(|limits| limits.user_requests);
        loop {
            let now = self.clock.elapsed();
            let bucket = self.exports.get_with(user, || Arc::new(Mutex::new(Bucket::full(rate, now))));
            let taken = bucket.lock().take(rate, cost.tokens(), now);
            let Err(wait_ms) = taken else { return };
            self.clock.sleep(Duration::from_millis(wait_ms)).await;
        }
    }

    /// Charges bytes that a change of a user turned out to send to every reader.
    pub fn charge_bytes(&self, user: UserId, bytes: usize) {
        self.owe(&self.written, user, self.rate(|limits| limits.user_write_kib), kib(bytes));
    }

    fn owe(&self, buckets: &Buckets<UserId>, user: UserId, rate: Rate, calls: u32) {
        let now = self.clock.elapsed();
        let bucket = buckets.get_with(user, || Arc::new(Mutex::new(Bucket::full(rate, now))));
        bucket.lock().charge(rate, calls, now);
    }

    /// Charges a REST request of a user, or one on a socket that reads or writes the store.
    ///
    /// # Errors
    /// `limited`, with the time to wait.
    pub fn take_request(&self, user: UserId) -> Result<(), ErrorBody> {
        let rate = self.rate(|limits| limits.user_requests);
        self.take(&self.requests, user, rate, "requests of one user")
    }

    /// Charges an entry in the own log of `other` that `by` causes and that `other` has not asked for: a contact request or its
    /// end, or being added to a group. A stranger must not fill the inbox of the user's devices beyond what it keeps.
    ///
    /// # Errors
    /// `limited`.
    pub fn take_nudge(&self, by: UserId, other: UserId) -> Result<(), ErrorBody> {
        if !self.limits.present().enabled || by == other {
            return Ok(());
        }
        let count = self.nudges.get_with((by, other), Arc::default);
        if count.fetch_add(1, Ordering::Relaxed) < NUDGES_AN_HOUR {
            return Ok(());
        }
        self.limited.inc();
        let message = format!("more than {NUDGES_AN_HOUR} changes between you and user {other} in an hour");
        Err(ErrorBody::limited(message, HOUR.as_millis() as u64))
    }

    /// Charges a new socket, or a request without a token, to an address.
    ///
    /// # Errors
    /// `limited`, with the time to wait.
    pub fn take_address(&self, address: IpAddr) -> Result<(), ErrorBody> {
        let rate = self.rate(|limits| limits.address_requests);
        self.take(&self.addresses, network(address), rate, "requests from one address")
    }

    /// Charges a request for a public page, or for a path that does not exist. It is counted apart from other requests of the
    /// address.
    ///
    /// # Errors
    /// `limited`, with the time to wait.
    pub fn take_page(&self, address: IpAddr) -> Result<(), ErrorBody> {
        let rate = self.rate(|limits| limits.address_requests);
        self.take(&self.pages, network(address), rate, "public pages from one address")
    }

    /// Charges a sign-up or login to an address. It is in progress until the result is dropped. `known` is the account if it has
    /// signed in from the address lately: such logins are counted apart, so that others behind the same address cannot shut the
    /// user out.
    ///
    /// # Errors
    /// `limited`, with the time to wait.
    pub fn take_login(&self, address: IpAddr, known: Option<&str>) -> Result<LoginSeat, ErrorBody> {
        let (rate, network) = (self.limits.present().logins(), network(address));
        if let Some(handle) = known {
            let key = (handle.to_owned(), network);
            self.take(&self.known_logins, key, rate, "logins to one account from one address")?;
            return Ok(LoginSeat(None));
        }
        self.take(&self.logins, network, rate, "logins from one address")?;
        if rate.per_second == 0 {
            return Ok(LoginSeat(None));
        }
        let seats = self.seats.get_with(network, || Arc::new(Semaphore::new(LOGINS_UNDER_WAY)));
        let seat = seats.try_acquire_owned().map_err(|_| {
            self.limited.inc();
            let message = format!("more than {LOGINS_UNDER_WAY} logins from this address are in progress");
            ErrorBody::limited(message, 500)
        })?;
        Ok(LoginSeat(Some(seat)))
    }

    fn rate(&self, of: impl FnOnce(&LimitConfig) -> u32) -> Rate {
        let limits = self.limits.present();
        limits.rate(of(&limits))
    }

    fn take<K>(&self, buckets: &Buckets<K>, key: K, rate: Rate, what: &str) -> Result<(), ErrorBody>
    where
        K: std::hash::Hash + Eq + Send + Sync + 'static,
    {
        self.take_some(buckets, key, rate, 1, what)
    }

    fn take_some<K>(
        &self,
        buckets: &Buckets<K>,
        key: K,
        rate: Rate,
        calls: u32,
        what: &str,
    ) -> Result<(), ErrorBody>
    where
        K: std::hash::Hash + Eq + Send + Sync + 'static,
    {
        if rate.per_second == 0 {
            return Ok(());
        }
        let now = self.clock.elapsed();
        let bucket = buckets.get_with(key, || Arc::new(Mutex::new(Bucket::full(rate, now))));
        let taken = bucket.lock().take(rate, calls, now);
        taken.map_err(|retry_after_ms| {
            self.limited.inc();
            let message = format!("more than {} {what} a second (burst {})", rate.per_second, rate.burst);
            ErrorBody::limited(message, retry_after_ms)
        })
    }
}

/// Rounded up: at least one KiB.
fn kib(bytes: usize) -> u32 {
    u32::try_from(bytes / 1024 + 1).unwrap_or(u32::MAX)
}

/// The network that an address is counted for: for IPv6 its /64, because one caller usually has all of it.
#[must_use]
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use madang_ids::Millis;

    #[test]
    fn the_rate_bounds_what_calls_cost_and_what_messages_weigh() {
        let ada = UserId::from_raw(1);
        let (clock, hand) = Clock::manual(Millis::new(1));
        let callers =
            Callers::new(Arc::new(LiveLimits::new(LimitConfig::default())), clock, Counter::default());
        callers.take_request(ada).unwrap();
        callers.charge(ada, Cost::ids(100_000));
        // 501 tokens are owed at 50 a second, and a quarter of the burst opens the bucket again.
        assert_eq!(callers.take_request(ada).unwrap_err().retry_after_ms, Some(12_520));
        hand.advance(Duration::from_millis(12_520));
        callers.take_request(ada).unwrap();

        let (mut sent, large) = (0, 400_000);
        while callers.take_send(ada, Cost::default(), large).is_ok() {
            sent += 1;
        }
        assert_eq!(sent, 5_120 / 391, "ten seconds' worth of bytes");
        let body = madang_proto::Body { mentions: vec![ada; 50], ..Default::default() };
        let bob = UserId::from_raw(2);
        let mentioned = (0..100).take_while(|_| callers.take_send(bob, Cost::mentions(&body), 10).is_ok());
        assert_eq!(mentioned.count(), 400 / 51, "a mention costs a message");
    }

    #[test]
    fn the_limit_of_nudges_counts_each_pair_of_users() {
        let [ada, bob, cy] = [1, 2, 3].map(UserId::from_raw);
        let callers = |enabled| {
            let config = LimitConfig { enabled, ..LimitConfig::default() };
            Callers::new(
                Arc::new(LiveLimits::new(config)),
                Clock::manual(Millis::new(1)).0,
                Counter::default(),
            )
        };
        let limited = callers(true);
        for _ in 0..NUDGES_AN_HOUR {
            limited.take_nudge(ada, bob).unwrap();
        }
        let refusal = limited.take_nudge(ada, bob).unwrap_err();
        assert_eq!(refusal.retry_after_ms, Some(3_600_000));
        for (by, other) in [(ada, cy), (bob, ada), (ada, ada)] {
            limited.take_nudge(by, other).unwrap();
        }
        let unlimited = callers(false);
        assert!((0..=NUDGES_AN_HOUR).all(|_| unlimited.take_nudge(ada, bob).is_ok()));
    }
}
