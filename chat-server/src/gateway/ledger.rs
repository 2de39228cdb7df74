//! Counts the bytes under way by user, by address and for the node: partly received frames and bodies, requests, and frames that
//! wait for a peer that does not read.
//!
//! Each connection and each request has an [`Account`]. The first [`FREE_BYTES`] of each are not counted, so that small frames
//! cost nothing here; their sum is bounded by the number of connections. A bound is soft for what must be delivered and hard for
//! what a peer asks for: room is checked before work begins, and the one that crosses the bound is let in.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use madang_ids::UserId;
use parking_lot::Mutex;

use crate::config::LimitConfig;
use crate::operations::network;

/// Bytes that each account may hold without being counted: 15,000 connections × 4 KiB = 60 MiB.
pub(crate) const FREE_BYTES: usize = 4 * 1024;

/// The bounds, and the bytes that are counted against them.
#[derive(Debug)]
pub(crate) struct Ledger {
    node: AtomicUsize,
    node_limit: usize,
    users: Book<UserId>,
    addresses: Book<IpAddr>,
}

/// The counters of all users, or of all addresses, that have accounts.
#[derive(Debug)]
struct Book<K> {
    tallies: Mutex<HashMap<K, Arc<Tally>>>,
    limit: usize,
}

type Tally = AtomicUsize;

/// The part that one account has in the counter of its user or address.
#[derive(Debug)]
struct Share<K> {
    key: K,
    tally: Arc<Tally>,
}

/// The bytes that one connection or request holds. They are subtracted when it is dropped.
#[derive(Debug)]
pub(crate) struct Account {
    ledger: Arc<Ledger>,
    address: Share<IpAddr>,
    user: Option<Share<UserId>>,
    /// Counted bytes: those above [`FREE_BYTES`].
    bytes: usize,
}

impl<K: Copy + Eq + Hash> Book<K> {
    fn new(limit: usize) -> Self {
        Self { tallies: Mutex::default(), limit }
    }

    fn open(&self, key: K) -> Share<K> {
        let tally = Arc::clone(self.tallies.lock().entry(key).or_default());
        Share { key, tally }
    }

    /// Removes a counter that no other account shares.
    fn close(&self, share: &Share<K>) {
        let mut tallies = self.tallies.lock();
        // One count is the map's and one is this share's. Shares are opened under the same lock, so the number cannot rise in
        // between.
        if Arc::strong_count(&share.tally) == 2 {
            tallies.remove(&share.key);
        }
    }

    fn has_room(&self, share: &Share<K>) -> bool {
        share.tally.load(Ordering::Relaxed) < self.limit
    }
}

impl Ledger {
    pub(crate) fn new(config: &LimitConfig, node_limit: usize) -> Arc<Self> {
        let limit = |bytes| if config.enabled && bytes > 0 { bytes } else { usize::MAX };
        Arc::new(Self {
            node: AtomicUsize::new(0),
            node_limit,
            users: Book::new(limit(config.user_bytes)),
            addresses: Book::new(limit(config.address_bytes)),
        })
    }

    /// Opens an account for a peer at `address`.
    pub(crate) fn open(self: &Arc<Self>, address: IpAddr) -> Account {
        let address = self.addresses.open(network(address));
        Account { ledger: Arc::clone(self), address, user: None, bytes: 0 }
    }

    /// Counted bytes of the whole node.
    pub(crate) fn bytes(&self) -> usize {
        self.node.load(Ordering::Relaxed)
    }

    /// Whether the node has reached its bound.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes() >= self.node_limit
    }
}

impl Account {
    /// Names the user: what the account holds is counted for that user too, now and later.
    pub(crate) fn set_user(&mut self, user: UserId) {
        if self.user.is_none() {
            let share = self.ledger.users.open(user);
            share.tally.fetch_add(self.bytes, Ordering::Relaxed);
            self.user = Some(share);
        }
    }

    /// Whether the user is known.
    pub(crate) const fn has_user(&self) -> bool {
        self.user.is_some()
    }

    /// Sets what the account holds to `bytes`.
    pub(crate) fn set(&mut self, bytes: usize) {
        let (now, before) = (bytes.saturating_sub(FREE_BYTES), self.bytes);
        if now == before {
            return;
        }
        self.bytes = now;
        let user = self.user.as_ref().map(|user| &*user.tally);
        for tally in [Some(&self.ledger.node), Some(&*self.address.tally), user].into_iter().flatten() {
            if now > before {
                tally.fetch_add(now - before, Ordering::Relaxed);
            } else {
                tally.fetch_sub(before - now, Ordering::Relaxed);
            }
        }
    }

    /// Whether something larger than [`FREE_BYTES`] may begin: neither the user, nor the address, nor the node has reached its
    /// bound.
    pub(crate) fn has_room(&self) -> bool {
        let (users, addresses) = (&self.ledger.users, &self.ledger.addresses);
        addresses.has_room(&self.address)
            && self.user.as_ref().is_none_or(|user| users.has_room(user))
            && !self.ledger.is_full()
    }

    /// Whether the node has reached its bound.
    pub(crate) fn is_node_full(&self) -> bool {
        self.ledger.is_full()
    }

    /// Sets what the account holds to `bytes` if there is room or if that is less than before. Returns whether it did.
    pub(crate) fn try_set(&mut self, bytes: usize) -> bool {
        let may = bytes.saturating_sub(FREE_BYTES) <= self.bytes || self.has_room();
        if may {
            self.set(bytes);
        }
        may
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.set(0);
        self.ledger.addresses.close(&self.address);
        if let Some(user) = &self.user {
            self.ledger.users.close(user);
        }
    }
}

#[cfg(any(test, fuzzing))]
pub(super) mod tests {
    use super::*;

    /// An account without bounds.
    pub(in crate::gateway) fn account() -> Account {
        let config = LimitConfig { enabled: false, ..LimitConfig::default() };
        Ledger::new(&config, usize::MAX).open(IpAddr::from([127, 0, 0, 1]))
    }

    #[cfg(test)]
    mod bounds {
        use super::*;

        const KIB: usize = 1024;

        fn ledger() -> Arc<Ledger> {
            let config =
                LimitConfig { user_bytes: 64 * KIB, address_bytes: 128 * KIB, ..LimitConfig::default() };
            Ledger::new(&config, 160 * KIB)
        }

        fn of(ledger: &Arc<Ledger>, address: u8, user: u64) -> Account {
            let mut account = ledger.open([127, 0, 0, address].into());
            account.set_user(UserId::from_raw(user));
            account
        }

        #[test]
        fn bytes_are_counted_for_the_user_the_address_and_the_node_until_they_are_released() {
            let ledger = ledger();
            let (mut a, mut b) = (of(&ledger, 1, 1), of(&ledger, 2, 1));
            assert!(a.try_set(FREE_BYTES + 64 * KIB));
            assert!(!b.try_set(2 * FREE_BYTES), "their user has none left");
            assert!(b.try_set(FREE_BYTES), "what is small is free");
            let mut c = of(&ledger, 1, 2);
            assert!(c.try_set(FREE_BYTES + 64 * KIB));
            assert!(!of(&ledger, 1, 3).has_room(), "the address has none left");
            let mut d = of(&ledger, 2, 3);
            assert!(d.try_set(FREE_BYTES + 32 * KIB));
            assert!(!of(&ledger, 3, 4).has_room(), "the node has none left");
            assert_eq!(ledger.bytes(), 160 * KIB);
            drop((a, c));
            assert!(b.try_set(2 * FREE_BYTES));
            drop((b, d));
            assert_eq!(ledger.bytes(), 0);
            assert!(ledger.users.tallies.lock().is_empty() && ledger.addresses.tallies.lock().is_empty());
        }

        #[test]
        fn bytes_held_before_the_user_is_known_are_counted_for_the_user_afterwards() {
            let ledger = ledger();
            let mut a = ledger.open([127, 0, 0, 1].into());
            a.set(FREE_BYTES + 64 * KIB);
            a.set_user(UserId::from_raw(1));
            assert!(!of(&ledger, 2, 1).has_room());
            a.set(0);
            assert!(of(&ledger, 2, 1).has_room());
        }
    }
}
