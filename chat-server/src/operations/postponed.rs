//! What failed and is tried again later, each by itself: soon at first, then once a minute, so that one that cannot be
//! done costs little and holds up no other.

use std::collections::HashMap;
use std::hash::Hash;

use madang_ids::Millis;
use parking_lot::Mutex;

const FIRST_MS: u64 = 1_000;
const LAST_MS: u64 = 60_000;
/// Of more than these the others are tried in each round.
const MOST: usize = 1_000;

/// Work that failed, by what it is about.
#[derive(Debug)]
pub(super) struct Postponed<K>(Mutex<HashMap<K, Retry>>);

#[derive(Debug, Clone, Copy)]
struct Retry {
    at: Millis,
    wait_ms: u64,
}

impl<K> Default for Postponed<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Hash + Eq> Postponed<K> {
    /// It failed at `now`.
    pub(super) fn failed(&self, key: K, now: Millis) {
        let mut waiting = self.0.lock();
        let before = waiting.get(&key).map(|retry| retry.wait_ms);
        if before.is_some() || waiting.len() < MOST {
            let wait_ms = before.map_or(FIRST_MS, |wait_ms| LAST_MS.min(wait_ms * 2));
            waiting.insert(key, Retry { at: now.plus(wait_ms), wait_ms });
        }
    }

    /// It is done, or there is nothing to do any more.
    pub(super) fn done(&self, key: &K) {
        self.0.lock().remove(key);
    }

    /// Whether it may be tried at `now`.
    pub(super) fn is_due(&self, key: &K, now: Millis) -> bool {
        self.0.lock().get(key).is_none_or(|retry| retry.at <= now)
    }

    /// Whether something that failed is to be tried at `now`; of what has no place here nobody knows.
    pub(super) fn has_due(&self, now: Millis) -> bool {
        let waiting = self.0.lock();
        waiting.len() >= MOST || waiting.values().any(|retry| retry.at <= now)
    }

    /// How many there are; so many more are to be read where those that can be done lie behind them.
    pub(super) fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// Forgets all but those that were found to be there still.
    pub(super) fn keep(&self, is_there: impl Fn(&K) -> bool) {
        self.0.lock().retain(|key, _| is_there(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_tried_soon_and_then_once_a_minute() {
        let postponed = Postponed::default();
        let mut tries = Vec::new();
        for second in 0..300 {
            let now = Millis::new(second * 1_000);
            if postponed.is_due(&7, now) {
                assert_eq!(postponed.has_due(now), second > 0);
                tries.push(second);
                postponed.failed(7, now);
            }
        }
        assert_eq!(tries, [0, 1, 3, 7, 15, 31, 63, 123, 183, 243]);
        assert!(postponed.is_due(&8, Millis::ZERO), "another one does not wait");
        postponed.done(&7);
        assert!(postponed.is_due(&7, Millis::ZERO) && !postponed.has_due(Millis::new(u64::MAX)));
    }

    #[test]
    fn it_is_bounded_and_forgets_what_is_gone() {
        let postponed = Postponed::default();
        for key in 0..2 * MOST {
            postponed.failed(key, Millis::ZERO);
        }
        assert_eq!(postponed.len(), MOST);
        assert!(postponed.has_due(Millis::ZERO), "the others are to be tried");
        assert!(!postponed.is_due(&0, Millis::ZERO) && postponed.is_due(&MOST, Millis::ZERO));
        postponed.keep(|key| *key == 3);
        assert_eq!(postponed.len(), 1);
    }
}
