//! What the sandbox has taken and refused. Tests read it, and wait on it without polling.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{broadcast, watch};

use crate::clock::Now;
use crate::notice::{Blame, Counters, Event, Face, Notice, Refusal};

/// Refusals that are kept.
const REFUSALS: usize = 10_000;
/// Events that a slow reader of [`Ledger::events`] may be behind before it misses some.
const EVENTS: usize = 4_096;

#[derive(Debug, Default)]
struct AtomicCounters {
    connections: AtomicU64,
    requests: AtomicU64,
    notices: AtomicU64,
    provider_tokens: AtomicU64,
}

/// The notices did not come in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not within {patience:?}: {notices} notices; last refusal: {last_refusal}")]
pub struct TimedOut {
    /// The time that was waited.
    pub patience: Duration,
    /// Notices that are there.
    pub notices: usize,
    /// The last refusal, because it is the usual cause.
    pub last_refusal: String,
}

/// Everything that was taken and refused, in the order of arrival. Cheap to share.
pub struct Ledger {
    now: Now,
    kept: usize,
    notices: Mutex<Vec<Arc<Notice>>>,
    refusals: Mutex<Vec<Arc<Refusal>>>,
    counters: [AtomicCounters; Face::COUNT],
    /// Marked as changed after each notice.
    changes: watch::Sender<()>,
    events: broadcast::Sender<Event>,
}

impl Ledger {
    /// `kept` is the number of notices that are kept at least.
    pub(crate) fn new(now: Now, kept: usize) -> Self {
        Self {
            now,
            kept,
            notices: Mutex::default(),
            refusals: Mutex::default(),
            counters: Default::default(),
            changes: watch::Sender::new(()),
            events: broadcast::Sender::new(EVENTS),
        }
    }

    /// The notices that are kept.
    #[must_use]
    pub fn notices(&self) -> Vec<Arc<Notice>> {
        self.notices.lock().clone()
    }

    /// The refusals that are kept, whatever their cause.
    #[must_use]
    pub fn refusals(&self) -> Vec<Arc<Refusal>> {
        self.refusals.lock().clone()
    }

    /// Refusals of requests that are wrong. A test asserts that there are none.
    #[must_use]
    pub fn wrong_requests(&self) -> Vec<Arc<Refusal>> {
        let refusals = self.refusals.lock();
        refusals.iter().filter(|refusal| refusal.blame == Blame::Request).cloned().collect()
    }

    /// Waits until the notices satisfy `is_enough`, and returns them. `is_enough` runs under the lock of the ledger, at most once
    /// for each notice: it should be fast. Cancel safe.
    ///
    /// # Errors
    /// [`TimedOut`] after `patience`.
    pub async fn wait_for(
        &self,
        mut is_enough: impl FnMut(&[Arc<Notice>]) -> bool,
        patience: Duration,
    ) -> Result<Vec<Arc<Notice>>, TimedOut> {
        let mut changes = self.changes.subscribe();
        let waiting = async {
            loop {
                changes.mark_unchanged();
                if let Some(notices) = self.notices_if(&mut is_enough) {
                    return notices;
                }
                // The sender is a field of `self`, so that this cannot fail.
                let _ = changes.changed().await;
            }
        };
        match tokio::time::timeout(patience, waiting).await {
            Ok(notices) => Ok(notices),
            Err(_) => Err(self.timed_out(patience)),
        }
    }

    fn notices_if(&self, is_enough: &mut impl FnMut(&[Arc<Notice>]) -> bool) -> Option<Vec<Arc<Notice>>> {
        let notices = self.notices.lock();
        is_enough(&notices).then(|| notices.clone())
    }

    fn timed_out(&self, patience: Duration) -> TimedOut {
        let last = self.refusals.lock().last().cloned();
        let last_refusal = last.map_or_else(|| "none".to_owned(), |last| last.to_json().to_string());
        TimedOut { patience, notices: self.notices.lock().len(), last_refusal }
    }

    /// What is recorded from now on. A reader that is more than 4,096 events behind misses the oldest.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// Counts of a face since the start.
    #[must_use]
    pub fn counters(&self, face: Face) -> Counters {
        let counters = &self.counters[face.index()];
        Counters {
            connections: counters.connections.load(Ordering::Relaxed),
            requests: counters.requests.load(Ordering::Relaxed),
            notices: counters.notices.load(Ordering::Relaxed),
            provider_tokens: counters.provider_tokens.load(Ordering::Relaxed),
        }
    }

    /// Removes all notices and refusals. Counters stay.
    pub fn clear(&self) {
        self.notices.lock().clear();
        self.refusals.lock().clear();
    }

    pub(crate) fn take(&self, mut notice: Notice) {
        notice.at_ms = self.now.ms();
        let notice = Arc::new(notice);
        self.counters[notice.face.index()].notices.fetch_add(1, Ordering::Relaxed);
        push_bounded(&mut self.notices.lock(), Arc::clone(&notice), self.kept);
        self.changes.send_replace(());
        // Fails if nobody listens.
        let _ = self.events.send(Event::Notice(notice));
    }

    pub(crate) fn refuse(
        &self,
        face: Face,
        path: &str,
        (status, reason): (u16, &str),
        detail: &str,
        blame: Blame,
    ) {
        let refusal = Arc::new(Refusal {
            face,
            path: path.to_owned(),
            status,
            reason: reason.to_owned(),
            detail: detail.to_owned(),
            blame,
            at_ms: self.now.ms(),
        });
        push_bounded(&mut self.refusals.lock(), Arc::clone(&refusal), REFUSALS);
        let _ = self.events.send(Event::Refusal(refusal));
    }

    pub(crate) fn count_connection(&self, face: Face) {
        self.counters[face.index()].connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_request(&self, face: Face) {
        self.counters[face.index()].requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_provider_token(&self, face: Face) {
        self.counters[face.index()].provider_tokens.fetch_add(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger").field("notices", &self.notices.lock().len()).finish_non_exhaustive()
    }
}

/// Keeps the last `kept` items and up to a tenth more, so that the cost of moving them is spread over many pushes.
fn push_bounded<T>(items: &mut Vec<T>, item: T, kept: usize) {
    let spare = (kept / 10).max(1);
    if items.len() >= kept + spare {
        items.drain(..spare);
    }
    items.push(item);
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn alert(target: &str) -> Notice {
        Notice::new(Face::Apns, target, Value::Null)
    }

    fn ledger(kept: usize) -> Ledger {
        Ledger::new(Now::from_fn(|| 7), kept)
    }

    #[test]
    fn the_last_notices_are_kept_and_all_are_counted() {
        let ledger = ledger(20);
        for number in 0..100 {
            ledger.take(alert(&number.to_string()));
        }
        let notices = ledger.notices();
        assert!((20..=22).contains(&notices.len()), "{}", notices.len());
        assert_eq!(notices.last().unwrap().target, "99");
        assert_eq!(notices.last().unwrap().at_ms, 7);
        assert_eq!(ledger.counters(Face::Apns).notices, 100);
        ledger.clear();
        assert_eq!((ledger.notices().len(), ledger.counters(Face::Apns).notices), (0, 100));
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiting_test_is_woken_or_its_patience_ends() {
        let ledger = ledger(9);
        let patience = Duration::from_secs(60);
        let wait = ledger.wait_for(|notices| notices.len() == 2, patience);
        let send = async {
            ledger.take(alert("a"));
            tokio::task::yield_now().await;
            ledger.take(alert("b"));
        };
        let (notices, ()) = tokio::join!(wait, send);
        assert_eq!(notices.unwrap().len(), 2);
        ledger.refuse(Face::Fcm, "/x", (404, "UNREGISTERED"), "gone", Blame::State);
        let error = ledger.wait_for(|notices| notices.len() == 3, patience).await.unwrap_err();
        assert_eq!((error.notices, error.last_refusal.contains("UNREGISTERED")), (2, true));
    }

    #[test]
    fn only_wrong_requests_are_a_bug_of_the_sender() {
        let ledger = ledger(9);
        let mut events = ledger.events();
        ledger.refuse(Face::Fcm, "/x", (404, "UNREGISTERED"), "", Blame::State);
        ledger.refuse(Face::Fcm, "/x", (400, "INVALID_ARGUMENT"), "", Blame::Request);
        ledger.refuse(Face::Fcm, "/x", (500, "fault"), "", Blame::Fault);
        let wrong = ledger.wrong_requests();
        assert_eq!((wrong.len(), wrong[0].status, ledger.refusals().len()), (1, 400, 3));
        assert!(matches!(events.try_recv(), Ok(Event::Refusal(refusal)) if refusal.status == 404));
    }
}
