//! Counts what each address has open, so that one address cannot take every place.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::operations::network;

/// Counts by address: HTTP connections that are open now, and requests that trusted proxies forward for the address. The map has
/// at most as many entries as the listener has places.
#[derive(Debug, Clone, Default)]
pub(crate) struct Addresses(Arc<Mutex<HashMap<IpAddr, u32>>>);

/// One counted connection or request. It is subtracted when dropped.
#[derive(Debug)]
pub(crate) struct Counted {
    addresses: Addresses,
    address: IpAddr,
}

impl Addresses {
    /// Adds one to the count of `address`. `None` if the count is `limit` already.
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
        // A whole /64 of IPv6 counts as one address, and no other network does.
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
