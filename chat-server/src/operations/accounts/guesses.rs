//! Limits the attempts on the password of an account.
//!
//! Addresses that guess one password share one bucket, so that many of them are as slow as one. This must not lock the user out:
//! at a place where a sign-in has succeeded lately, the account has a bucket of its own that strangers cannot empty.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use madang_engine::bucket::{Bucket, Rate};
use madang_ids::DeviceId;
use madang_proto::ErrorBody;
use madang_service::Clock;
use moka::sync::Cache;
use parking_lot::Mutex;

use crate::operations::callers::network;

/// 20 attempts at once, then one in 30 s: 2,900 a day, from any number of addresses.
const GUESSES: Rate = Rate { per_second: 1, burst: 20 * GUESS };
/// Tokens that one attempt costs.
const GUESS: u32 = 30;
/// The time that an empty bucket takes to fill, and a minute.
const REST: Duration = Duration::from_secs((GUESSES.burst + 60) as u64);
/// Accounts and places that are kept, of 150 bytes each.
const KEPT: u64 = 100_000;
/// The memory of all of them in bytes.
pub(crate) const GUESS_BYTES: u64 = 2 * KEPT * 150;
/// How long a place is known after its last sign-in.
const KNOWN: Duration = Duration::from_secs(30 * 86_400);

/// The buckets of accounts, and the places that they have signed in from.
#[derive(Debug)]
pub struct Guesses {
    is_on: bool,
    buckets: Cache<u64, Arc<Mutex<Bucket>>>,
    places: Cache<u64, ()>,
    /// With a random key, so that nobody can choose two handles with the same hash.
    hasher: RandomState,
    clock: Clock,
}

/// The place that a password is sent from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::operations) enum Place {
    /// An address.
    Address(IpAddr),
    /// A device that is signed in.
    Device(DeviceId),
}

/// An attempt. It is charged unless it is given back.
#[must_use = "a guess that was right is given back"]
pub(in crate::operations) struct Guess(Option<Arc<Mutex<Bucket>>>);

impl Guesses {
    /// All buckets are full.
    #[must_use]
    pub fn new(is_on: bool, clock: Clock) -> Self {
        let buckets = Cache::builder().max_capacity(KEPT).time_to_idle(REST).build();
        let places = Cache::builder().max_capacity(KEPT).time_to_live(KNOWN).build();
        Self { is_on, buckets, places, hasher: RandomState::new(), clock }
    }

    /// Whether `handle` has signed in from this place lately.
    pub(in crate::operations) fn is_known(&self, handle: &str, place: Place) -> bool {
        matches!(place, Place::Device(_)) || self.places.contains_key(&self.key(handle, Some(place)))
    }

    /// Remembers that `handle` has signed in, or refreshed its tokens, at this place.
    pub(in crate::operations) fn remember(&self, handle: &str, place: Place) {
        self.places.insert(self.key(handle, Some(place)), ());
    }

    /// Charges one attempt on the password of `handle`.
    ///
    /// # Errors
    /// `limited`, with the time to wait.
    pub(in crate::operations) fn take(&self, handle: &str, place: Place) -> Result<Guess, ErrorBody> {
        if !self.is_on {
            return Ok(Guess(None));
        }
        let now = self.clock.elapsed();
        let key = self.key(handle, self.is_known(handle, place).then_some(place));
        let bucket = self.buckets.get_with(key, || Arc::new(Mutex::new(Bucket::full(GUESSES, now))));
        let taken = bucket.lock().take(GUESSES, GUESS, now);
        match taken {
            Ok(()) => Ok(Guess(Some(bucket))),
            Err(retry_after_ms) => {
                let message = "too many wrong passwords for this account; wait, or log in from an address that was used before";
                Err(ErrorBody::limited(message, retry_after_ms))
            }
        }
    }

    fn key(&self, handle: &str, place: Option<Place>) -> u64 {
        match place {
            Some(Place::Address(address)) => self.hasher.hash_one((handle, network(address))),
            Some(Place::Device(device)) => self.hasher.hash_one((handle, device)),
            None => self.hasher.hash_one(handle),
        }
    }
}

impl Guess {
    /// The password was right, or was not compared.
    pub(in crate::operations) fn give_back(self) {
        if let Some(bucket) = self.0 {
            bucket.lock().give_back(GUESSES, GUESS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use madang_ids::Millis;

    #[test]
    fn strangers_at_many_addresses_share_one_limit_and_the_user_can_log_in() {
        let (clock, hand) = Clock::manual(Millis::new(1));
        let guesses = Guesses::new(true, clock);
        let address = |number: u8| Place::Address(IpAddr::from([10, 0, 0, number]));
        guesses.remember("ada", address(1));
        let wrong = |handle: &str, place| guesses.take(handle, place).map(drop);
        let tried = (2..=200).filter(|&number| wrong("ada", address(number)).is_ok()).count();
        assert_eq!(tried, 20);
        // The user, at a known place. Other accounts are not slowed down.
        guesses.take("ada", address(1)).unwrap().give_back();
        assert!(wrong("ada", Place::Device(DeviceId::from_raw(1))).is_ok());
        assert!(wrong("bob", address(2)).is_ok());
        // At a known place the attempts are limited as well.
        let tried = (0..100).filter(|_| wrong("ada", address(1)).is_ok()).count();
        assert_eq!(tried, 20);
        let wait = wrong("ada", address(7)).unwrap_err().retry_after_ms.unwrap();
        hand.advance(Duration::from_millis(wait));
        assert!(wrong("ada", address(7)).is_ok());
        // A right password is not charged.
        for _ in 0..100 {
            guesses.take("cy", address(9)).unwrap().give_back();
        }
        let unlimited = Guesses::new(false, Clock::manual(Millis::new(1)).0);
        assert!((0..100).all(|_| unlimited.take("ada", address(2)).is_ok()));
    }
}
