//! How much each address has open, so that one alone cannot take every place.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::operations::network;

/// Connections of each address that speak HTTP now, and requests that trusted proxies bring for it; as many as there
/// are places at the listener, at most.
#[derive(Debug, Clone, Default)]
pub(crate) struct Addresses(Arc<Mutex<HashMap<IpAddr, u32>>>);

/// A connection among those of its address; leaves them when dropped.
#[derive(Debug)]
pub(crate) struct Counted {
    addresses: Addresses,
    address: IpAddr,
}

impl Addresses {
    /// Counts a connection in, unless its address has `limit` already.
    pub(crate) fn count(&self, address: IpAddr, limit: u32) -> Option<Counted> {
        let address = network(address);
        let mut counts = self.0.lock();
        let count = counts.entry(address).or_default();
        if *count >= limit {
            return None;
        }
        *count += 1;
        Some(Counted { addresses: self.clone(), address })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.addresses.0.lock();
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_counted_until_its_last_connection_ends() {
        let addresses = Addresses::default();
        let count = |address: &str| addresses.count(address.parse().unwrap(), 2);
        let (first, second) = (count("2001:db8::1"), count("2001:db8::ffff:2"));
        assert!(first.is_some() && second.is_some());
        // Its whole /64 is one caller, and no other is.
        assert!(count("2001:db8::3").is_none());
        let others = [count("2001:db8:0:1::1"), count("10.0.0.1"), count("::ffff:10.0.0.1")];
        assert!(others.iter().all(Option::is_some));
        assert!(count("10.0.0.1").is_none());
        drop(first);
        let third = count("2001:db8::3");
        assert!(third.is_some() && count("2001:db8::4").is_none());
        drop((second, third, others));
        assert!(addresses.0.lock().is_empty());
    }
}
