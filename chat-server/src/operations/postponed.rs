//! What failed and is tried again later, each by itself: soon at first, then once a minute, so that one that cannot be
//! done costs little and holds up no other.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use parking_lot::Mutex;

/// Before the second try; each further wait is twice as long …
const FIRST: Duration = Duration::from_secs(1);
/// … up to this.
const LAST: Duration = Duration::from_secs(60);
/// Of more than these the others are tried in each round.
const MOST: usize = 1_000;

/// Work that failed, by what it is about. All times are of the steady clock: a wall clock that steps back postpones nothing.
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
    /// It failed at `now`.
    pub(super) fn failed(&self, key: K, now: Duration) {
        let mut waiting = self.0.lock();
        let before = waiting.get(&key).map(|retry| retry.wait);
        if before.is_some() || waiting.len() < MOST {
            let wait = before.map_or(FIRST, |wait| LAST.min(wait * 2));
            waiting.insert(key, Retry { at: now + wait, wait });
        }
    }

    /// It is done, or there is nothing to do any more.
    pub(super) fn done(&self, key: &K) {
        self.0.lock().remove(key);
    }

    /// Whether it may be tried at `now`.
    pub(super) fn is_due(&self, key: &K, now: Duration) -> bool {
        self.0.lock().get(key).is_none_or(|retry| retry.at <= now)
    }

    /// Whether something that failed is to be tried at `now`. Once all places are taken this is always so, since what found none may be due.
    pub(super) fn has_due(&self, now: Duration) -> bool {
        let waiting = self.0.lock();
        waiting.len() >= MOST || waiting.values().any(|retry| retry.at <= now)
    }

    /// How many there are. A page of work must hold this many more, so that what can be done is in it.
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
    fn it_is_bounded_and_forgets_what_is_gone() {
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
