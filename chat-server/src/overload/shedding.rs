//! Sheds load by class when work waits for longer than 20 ms on this node.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use madang_engine::overload::{Class, Shed, Slot, Threshold, Wait};
use madang_engine::spread::spread_ms;
use madang_proto::ErrorBody;
use madang_service::Clock;
use parking_lot::Mutex;

use crate::metrics::ChatMetrics;

/// The wait of a refused caller grows with the level, by this much.
const WAIT_MS: u64 = 1_000;

/// What a node refuses because it is overloaded.
pub struct Shedding {
    /// `false`: nothing is ever shed.
    is_on: bool,
    clock: Clock,
    shed: Mutex<Shed>,
    threshold: AtomicU32,
    refused: AtomicU64,
    metrics: ChatMetrics,
}

impl Shedding {
    /// Nothing is shed.
    #[must_use]
    pub fn new(is_on: bool, clock: Clock, metrics: ChatMetrics) -> Self {
        let shed = Mutex::new(Shed::new(clock.elapsed()));
        let (threshold, refused) = (AtomicU32::new(0), AtomicU64::new(0));
        Self { is_on, clock, shed, threshold, refused, metrics }
    }

    /// How much is shed: 0 is nothing, 7 is a part of all classes, messages too.
    #[must_use]
    pub fn level(&self) -> u8 {
        u8::try_from(self.present().level()).unwrap_or(u8::MAX)
    }

    /// Admits a request of a caller (a user id, or the hash of an address), or refuses it for now.
    ///
    /// # Errors
    /// `unavailable`, with a pause that grows with the level.
    pub fn admit(&self, class: Class, caller: u64) -> Result<(), ErrorBody> {
        if self.admits(class, caller) {
            return Ok(());
        }
        let refused = self.refused.fetch_add(1, Ordering::Relaxed);
        let wait = spread_ms(WAIT_MS * u64::from(self.level().max(1)), refused);
        Err(ErrorBody::unavailable("this node is overloaded; try again", wait))
    }

    /// As [`Self::admit`], for what is dropped without an answer.
    pub fn admits(&self, class: Class, caller: u64) -> bool {
        if !self.is_on {
            return true;
        }
        let slot = Slot::of(caller, self.clock.now_ms());
        self.shed.lock().count(class, slot);
        let is_admitted = self.present().admits(class, slot);
        if !is_admitted {
            self.metrics.shed(class).inc();
        }
        is_admitted
    }

    fn present(&self) -> Threshold {
        Threshold::from_raw(self.threshold.load(Ordering::Relaxed))
    }

    /// This number of requests have waited this long for their turn, in the mean.
    pub fn observe(&self, requests: u32, wait: Wait) {
        if !self.is_on {
            return;
        }
        let mut shed = self.shed.lock();
        shed.observe(requests, wait);
        let threshold = shed.close_window(self.clock.elapsed());
        drop(shed);
        let before = self.threshold.swap(threshold.raw(), Ordering::Relaxed);
        let level = threshold.level();
        if level != Threshold::from_raw(before).level() {
            self.metrics.shed_level.set(i64::try_from(level).unwrap_or(i64::MAX));
            tracing::warn!(level, "the level of shedding has changed");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use madang_ids::Millis;
    use madang_service::Metrics;

    use super::*;

    const ALICE: u64 = 7;

    fn admitted(shedding: &Shedding) -> Vec<Class> {
        Class::ALL.into_iter().filter(|class| shedding.admits(*class, ALICE)).collect()
    }

    #[test]
    fn the_least_important_is_refused_first_and_everything_is_admitted_again() {
        let (clock, hand) = Clock::manual(Millis::new(1_800_000_000_000));
        let metrics = ChatMetrics::register(&Metrics::new());
        let shedding = Shedding::new(true, clock, metrics.clone());
        let second = |wait_ms| {
            // Other users, so that each class has traffic.
            for user in 0..200 {
                Class::ALL.iter().for_each(|class| _ = shedding.admits(*class, user));
            }
            hand.advance(Duration::from_secs(1));
            shedding.observe(1, Wait::of_all(Duration::from_millis(wait_ms)));
        };
        second(5);
        assert_eq!((admitted(&shedding), shedding.level()), (Class::ALL.to_vec(), 0));
        for _ in 0..60 {
            second(50);
            // What is admitted is the more important part.
            let left = admitted(&shedding);
            assert!(Class::ALL.ends_with(&left), "{left:?}");
        }
        assert!(shedding.level() >= 4, "{}", shedding.level());
        let refusal = shedding.admit(Class::Presence, ALICE).unwrap_err();
        let level = u64::from(shedding.level());
        let wait = refusal.retry_after_ms.unwrap();
        assert!(refusal.code.is_retryable() && (750 * level..=1_250 * level).contains(&wait), "{refusal:?}");
        assert!(metrics.shed(Class::Presence).get() > 0);
        for _ in 0..30 {
            second(1);
        }
        assert_eq!((admitted(&shedding), shedding.level()), (Class::ALL.to_vec(), 0));
    }
}
