//! A bounded number of connections. When places run short, a connection that has not finished its part gives its place
//! to the next one: of the address that has the most of them, the oldest. A finished connection keeps its place.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::operations::network;

/// What a connection has not finished. The first kind is evicted first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unfinished {
    /// A TLS handshake, the head or the body of a request, or `hello`.
    Request = 0,
    /// It asked and was answered, and asks nothing now.
    Idle = 1,
    /// A caller without a valid token is being answered.
    Guest = 2,
}

const KINDS: usize = 3;

/// All places. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Places(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limit: usize,
    state: Mutex<State>,
    /// A place may be had.
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
    /// By age.
    addresses: HashMap<IpAddr, BTreeMap<u64, Arc<Eviction>>>,
    /// Addresses by the number of theirs.
    busiest: BTreeSet<(usize, IpAddr)>,
}

#[derive(Debug, Default)]
struct Eviction {
    is_evicted: AtomicBool,
    wake: Notify,
}

/// One connection's place; given back when dropped.
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

    /// Takes out the oldest of the busiest address.
    fn pop(&mut self) -> Option<Arc<Eviction>> {
        let &(_, address) = self.busiest.last()?;
        let oldest = *self.addresses.get(&address)?.keys().next()?;
        self.remove(address, oldest)
    }
}

impl State {
    /// Whether a place became free.
    fn evict(&mut self) -> bool {
        let Some(eviction) = self.kinds.iter_mut().find_map(Kind::pop) else { return false };
        eviction.is_evicted.store(true, Ordering::Release);
        eviction.wake.notify_one();
        self.taken -= 1;
        true
    }
}

impl Places {
    pub(crate) fn new(limit: usize) -> Self {
        Self(Arc::new(Shared { limit, state: Mutex::default(), freed: Notify::new() }))
    }

    /// A place for a connection of `address` that has finished nothing, if there is one.
    pub(crate) fn try_take(&self, address: IpAddr) -> Option<Place> {
        let place = self.reserve()?;
        place.set(Some(Unfinished::Request), address);
        Some(place)
    }

    /// A place for a connection that keeps it, such as a proxy's.
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

    /// Waits until a place may be had. For one waiter. Cancel safe.
    pub(crate) async fn freed(&self) {
        self.0.freed.notified().await;
    }
}

impl Place {
    /// What the connection has not finished, and for which address; `None` keeps the place.
    pub(crate) fn set(&self, unfinished: Option<Unfinished>, address: IpAddr) {
        let entry = unfinished.map(|kind| (kind, network(address)));
        let mut listed = self.listed.lock();
        if *listed == entry {
            return;
        }
        let mut state = self.shared.state.lock();
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
            self.shared.freed.notify_one();
        }
    }

    /// Waits until somebody else was given this place. For one waiter. Cancel safe.
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
    fn who_asks_goes_before_who_was_answered_and_who_was_answered_before_who_is_being_answered() {
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
    fn nothing_is_left_of_who_has_gone() {
        let places = Places::new(2);
        let one = places.try_take(address(1)).unwrap();
        let two = places.try_take(address(1)).unwrap();
        let three = places.try_keep().unwrap();
        assert!(is_evicted(&one));
        // An evicted connection counts no more, whatever it does until its task ends.
        one.set(Some(Unfinished::Idle), address(1));
        drop((one, two, three));
        let state = places.0.state.lock();
        assert_eq!(state.taken, 0);
        assert!(state.kinds.iter().all(|kind| kind.addresses.is_empty() && kind.busiest.is_empty()));
    }
}
