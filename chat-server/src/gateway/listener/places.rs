//! A bounded number of connections. When places run short, an unfinished connection gives its place to the next one: the oldest
//! of the address that has the most of them. A finished connection keeps its place.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::operations::network;

/// The stage that a connection is in. Connections of the first kind are evicted first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unfinished {
    /// The connection is in a TLS handshake, the head or the body of a request, or has not sent `hello`.
    Request = 0,
    /// The last request was answered, and no new one has begun.
    Idle = 1,
    /// A request without a valid token is being answered.
    Guest = 2,
}

const KINDS: usize = 3;

/// All places. A clone shares them.
#[derive(Debug, Clone)]
pub(crate) struct Places(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limit: usize,
    state: Mutex<State>,
    /// A place may be available. For one waiter.
    freed: Notify,
}

#[derive(Debug, Default)]
struct State {
    taken: usize,
    next_number: u64,
    kinds: [Kind; KINDS],
}

/// The unfinished connections of one kind.
#[derive(Debug, Default)]
struct Kind {
    /// By address, then by age.
    addresses: HashMap<IpAddr, BTreeMap<u64, Arc<Eviction>>>,
    /// Addresses ordered by the number of their connections.
    busiest: BTreeSet<(usize, IpAddr)>,
}

#[derive(Debug, Default)]
struct Eviction {
    is_evicted: AtomicBool,
    wake: Notify,
}

/// The place of one connection. It is freed when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    shared: Arc<Shared>,
    number: u64,
    eviction: Arc<Eviction>,
    listed: Mutex<Option<(Unfinished, IpAddr)>>,
}

impl Kind {
    fn insert(&mut self, address: IpAddr, number: u64, eviction: Arc<Eviction>) {
        let of_address = self.addresses.entry(address).or_default();
        self.busiest.remove(&(of_address.len(), address));
        of_address.insert(number, eviction);
        self.busiest.insert((of_address.len(), address));
    }

    fn remove(&mut self, address: IpAddr, number: u64) -> Option<Arc<Eviction>> {
        let of_address = self.addresses.get_mut(&address)?;
        self.busiest.remove(&(of_address.len(), address));
        let removed = of_address.remove(&number);
        if of_address.is_empty() {
            self.addresses.remove(&address);
        } else {
            self.busiest.insert((of_address.len(), address));
        }
        removed
    }

    /// Removes the oldest connection of the busiest address.
    fn pop(&mut self) -> Option<Arc<Eviction>> {
        let &(_, address) = self.busiest.last()?;
        let oldest = *self.addresses.get(&address)?.keys().next()?;
        self.remove(address, oldest)
    }
}

impl State {
    /// Evicts one unfinished connection. Returns whether there was one.
    fn evict(&mut self) -> bool {
        let Some(eviction) = self.kinds.iter_mut().find_map(Kind::pop) else { return false };
        eviction.is_evicted.store(true, Ordering::Release);
        eviction.wake.notify_one();
        // Freed now, not when the evicted task ends. `Place::set` and `drop` check the flag under the same lock and do not
        // subtract again.
        self.taken -= 1;
        true
    }
}

impl Places {
    pub(crate) fn new(limit: usize) -> Self {
        Self(Arc::new(Shared { limit, state: Mutex::default(), freed: Notify::new() }))
    }

    /// A place for a new connection of `address`, which is unfinished. `None` if all places are taken by finished ones.
    pub(crate) fn try_take(&self, address: IpAddr) -> Option<Place> {
        let place = self.reserve()?;
        place.set(Some(Unfinished::Request), address);
        Some(place)
    }

    /// A place for a connection that keeps it, such as that of a proxy.
    pub(crate) fn try_keep(&self) -> Option<Place> {
        self.reserve()
    }

    fn reserve(&self) -> Option<Place> {
        let mut state = self.0.state.lock();
        if state.taken >= self.0.limit && !state.evict() {
            return None;
        }
        state.taken += 1;
        state.next_number += 1;
        let (shared, number) = (Arc::clone(&self.0), state.next_number);
        Some(Place { shared, number, eviction: Arc::default(), listed: Mutex::default() })
    }

    /// Waits until a place may be available. For one waiter. Cancel safe.
    pub(crate) async fn freed(&self) {
        self.0.freed.notified().await;
    }
}

impl Place {
    /// Sets what the connection has not finished, and for which address. `None` keeps the place.
    pub(crate) fn set(&self, unfinished: Option<Unfinished>, address: IpAddr) {
        let entry = unfinished.map(|kind| (kind, network(address)));
        let mut listed = self.listed.lock();
        if *listed == entry {
            return;
        }
        let mut state = self.shared.state.lock();
        // Read under the lock of `evict`: an evicted connection must not be listed again.
        if self.eviction.is_evicted.load(Ordering::Acquire) {
            return;
        }
        if let Some((kind, address)) = listed.take() {
            state.kinds[kind as usize].remove(address, self.number);
        }
        if let Some((kind, address)) = entry {
            state.kinds[kind as usize].insert(address, self.number, Arc::clone(&self.eviction));
        }
        *listed = entry;
        drop(state);
        if entry.is_some() {
            // A listed connection can be evicted, so a waiter may get a place now.
            self.shared.freed.notify_one();
        }
    }

    /// Waits until the place was given to another connection. For one waiter. Cancel safe.
    pub(crate) async fn evicted(&self) {
        self.eviction.wake.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        if !self.eviction.is_evicted.load(Ordering::Acquire) {
            if let Some((kind, address)) = *self.listed.get_mut() {
                state.kinds[kind as usize].remove(address, self.number);
            }
            state.taken -= 1;
        }
        drop(state);
        self.shared.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        [127, 0, 0, last].into()
    }

    fn is_evicted(place: &Place) -> bool {
        place.eviction.is_evicted.load(Ordering::Acquire)
    }

    #[test]
    fn the_oldest_unfinished_of_the_busiest_address_goes_first() {
        let places = Places::new(6);
        let take = |last| places.try_take(address(last)).unwrap();
        let (lone, finished) = (take(9), take(1));
        finished.set(None, address(1));
        let crowd: Vec<Place> = [1, 2, 1, 1].into_iter().map(take).collect();
        let next = take(3);
        let gone: Vec<bool> = crowd.iter().map(is_evicted).collect();
        assert_eq!(gone, [true, false, false, false]);
        assert!(!is_evicted(&lone) && !is_evicted(&finished) && !is_evicted(&next));
    }

    #[test]
    fn half_sent_requests_are_evicted_before_idle_connections_and_these_before_guests() {
        let places = Places::new(3);
        let take = |last| places.try_take(address(last)).unwrap();
        let (guest, idle, kept) = (take(1), take(1), take(1));
        guest.set(Some(Unfinished::Guest), address(1));
        idle.set(Some(Unfinished::Idle), address(1));
        kept.set(None, address(1));
        let first = take(2);
        assert!(is_evicted(&idle) && !is_evicted(&guest));
        first.set(None, address(2));
        let second = take(2);
        assert!(is_evicted(&guest) && !is_evicted(&kept));
        second.set(None, address(2));
        assert!(places.try_take(address(3)).is_none());
        drop(kept);
        assert!(places.try_take(address(3)).is_some());
    }

    #[test]
    fn dropped_places_leave_nothing_behind() {
        let places = Places::new(2);
        let one = places.try_take(address(1)).unwrap();
        let two = places.try_take(address(1)).unwrap();
        let three = places.try_keep().unwrap();
        assert!(is_evicted(&one));
        // An evicted connection is not counted, whatever it does until its task ends.
        one.set(Some(Unfinished::Idle), address(1));
        drop((one, two, three));
        let state = places.0.state.lock();
        assert_eq!(state.taken, 0);
        assert!(state.kinds.iter().all(|kind| kind.addresses.is_empty() && kind.busiest.is_empty()));
    }
}
