//! Retries of failed work, each item by itself: after a short wait at first, later once a minute. An item that cannot be done
//! costs little and holds up no other one.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use parking_lot::Mutex;

/// The wait before the second try. Each further wait is twice as long, up to [`LAST`].
const FIRST: Duration = Duration::from_secs(1);
/// The longest wait.
const LAST: Duration = Duration::from_secs(60);
/// Items that are kept. What fails above this is tried again in each round.
const MOST: usize = 1_000;

/// Failed items by key. All times are of the steady clock, so a wall clock that steps back postpones nothing.
#[derive(Debug)]
pub(super) struct Postponed<K>(Mutex<HashMap<K, Retry>>);

#[derive(Debug, Clone, Copy)]
struct Retry {
    at: Duration,
    wait: Duration,
}

impl<K> Default for Postponed<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Hash + Eq> Postponed<K> {
    /// Work on the item failed at `now`.
    pub(super) fn failed(&self, key: K, now: Duration) {
        let mut waiting = self.0.lock();
        let before = waiting.get(&key).map(|retry| retry.wait);
        if before.is_some() || waiting.len() < MOST {
            let wait = before.map_or(FIRST, |wait| LAST.min(wait * 2));
            waiting.insert(key, Retry { at: now + wait, wait });
        }
    }

    /// Work on the item is done, or is not needed any more.
    pub(super) fn done(&self, key: &K) {
        self.0.lock().remove(key);
    }

    /// Whether the item may be tried at `now`.
    pub(super) fn is_due(&self, key: &K, now: Duration) -> bool {
        self.0.lock().get(key).is_none_or(|retry| retry.at <= now)
    }

    /// Whether any item may be tried at `now`. Always `true` when all places are taken, because items that found none are due
    /// too.
    pub(super) fn has_due(&self, now: Duration) -> bool {
        let waiting = self.0.lock();
        waiting.len() >= MOST || waiting.values().any(|retry| retry.at <= now)
    }

    /// The number of items. A page of work must hold this many more, so that it contains items that can be done.
    pub(super) fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// Keeps only the items that still exist.
    pub(super) fn keep(&self, is_there: impl Fn(&K) -> bool) {
        self.0.lock().retain(|key, _| is_there(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_items_are_tried_soon_and_then_once_a_minute() {
        let postponed = Postponed::default();
        let mut tries = Vec::new();
        for second in 0..300 {
            let now = Duration::from_secs(second);
            if postponed.is_due(&7, now) {
                assert_eq!(postponed.has_due(now), second > 0);
                tries.push(second);
                postponed.failed(7, now);
            }
        }
        assert_eq!(tries, [0, 1, 3, 7, 15, 31, 63, 123, 183, 243]);
        assert!(postponed.is_due(&8, Duration::ZERO), "another one does not wait");
        postponed.done(&7);
        assert!(postponed.is_due(&7, Duration::ZERO) && !postponed.has_due(Duration::MAX));
    }

    #[test]
    fn the_number_of_items_is_bounded_and_missing_items_are_removed() {
        let postponed = Postponed::default();
        for key in 0..2 * MOST {
            postponed.failed(key, Duration::ZERO);
        }
        assert_eq!(postponed.len(), MOST);
        assert!(postponed.has_due(Duration::ZERO), "the others are to be tried");
        assert!(!postponed.is_due(&0, Duration::ZERO) && postponed.is_due(&MOST, Duration::ZERO));
        postponed.keep(|key| *key == 3);
        assert_eq!(postponed.len(), 1);
    }
}
