//! Classes of requests, and what the server answered to those of one class.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use madang_proto::{ErrorBody, ErrorCode};
use serde::Serialize;

use crate::bench::figures::{histogram, micros};

/// Only refusals by the shedding say this.
const OVERLOADED: &str = "overloaded";

/// The classes in the order in which a server sheds them, with their names in its metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    Presence,
    Receipts,
    Push,
    History,
    Joins,
    Connections,
    Messages,
}

/// A count for each class.
pub(super) type ByClass = [u64; Class::ALL.len()];

impl Class {
    pub(super) const ALL: [Self; 7] = [
        Self::Presence,
        Self::Receipts,
        Self::Push,
        Self::History,
        Self::Joins,
        Self::Connections,
        Self::Messages,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Presence => "presence",
            Self::Receipts => "receipts",
            Self::Push => "push",
            Self::History => "history",
            Self::Joins => "joins",
            Self::Connections => "connections",
            Self::Messages => "messages",
        }
    }
}

/// What became of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    /// Refused because the server is overloaded, with a time after which to try again.
    Shed(u64),
    /// Refused for now for another reason.
    Limited(u64),
    Failed(String),
}

impl Outcome {
    /// That of a refusal, whose body is the same on the socket and over REST.
    pub(super) fn refused(body: &[u8]) -> Self {
        let failed = || Self::Failed(String::from_utf8_lossy(body).into_owned());
        let Ok(error) = serde_json::from_slice::<ErrorBody>(body) else { return failed() };
        match (error.code, error.retry_after_ms) {
            (ErrorCode::Unavailable, Some(wait_ms)) if error.message.contains(OVERLOADED) => {
                Self::Shed(wait_ms)
            }
            (ErrorCode::Unavailable | ErrorCode::Limited, Some(wait_ms)) => Self::Limited(wait_ms),
            _ => failed(),
        }
    }
}

/// Counts of the requests of one class so far.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) offered: AtomicU64,
    pub(super) done: AtomicU64,
    pub(super) shed: AtomicU64,
    pub(super) limited: AtomicU64,
    pub(super) failed: AtomicU64,
    /// Not made, because too many were in progress: the generator is bounded.
    pub(super) skipped: AtomicU64,
    /// Without an answer, because the connection ended or the run.
    pub(super) unanswered: AtomicU64,
    /// Connections that ended.
    pub(super) closed: AtomicU64,
    pub(super) longest_wait_ms: AtomicU64,
    /// Times of requests that were done, and of those that were shed, since the last take.
    times: Mutex<(Histogram<u64>, Histogram<u64>)>,
    first_error: Mutex<Option<String>>,
}

/// The counts at one time.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct Counts {
    pub(super) offered: u64,
    pub(super) done: u64,
    pub(super) shed: u64,
    pub(super) limited: u64,
    pub(super) failed: u64,
    pub(super) skipped: u64,
    pub(super) unanswered: u64,
    pub(super) closed: u64,
    pub(super) longest_wait_ms: u64,
}

impl Tally {
    pub(super) fn new() -> anyhow::Result<Arc<Self>> {
        let count = AtomicU64::default;
        Ok(Arc::new(Self {
            offered: count(),
            done: count(),
            shed: count(),
            limited: count(),
            failed: count(),
            skipped: count(),
            unanswered: count(),
            closed: count(),
            longest_wait_ms: count(),
            times: Mutex::new((histogram()?, histogram()?)),
            first_error: Mutex::default(),
        }))
    }

    /// A request was answered after this time.
    pub(super) fn end(&self, outcome: Outcome, took: Duration) {
        let took = micros(took);
        match outcome {
            Outcome::Done => {
                add(&self.done, 1);
                lock(&self.times).0.saturating_record(took);
            }
            Outcome::Shed(wait_ms) => {
                add(&self.shed, 1);
                lock(&self.times).1.saturating_record(took);
                self.longest_wait_ms.fetch_max(wait_ms, Ordering::Relaxed);
            }
            Outcome::Limited(_) => add(&self.limited, 1),
            Outcome::Failed(what) => {
                add(&self.failed, 1);
                self.note(what);
            }
        }
    }

    /// A connection has ended with this number of requests in progress.
    pub(super) fn close(&self, unanswered: u64, why: String) {
        add(&self.closed, 1);
        add(&self.unanswered, unanswered);
        self.note(why);
    }

    fn note(&self, what: String) {
        lock(&self.first_error).get_or_insert(what);
    }

    pub(super) fn first_error(&self) -> Option<String> {
        lock(&self.first_error).clone()
    }

    /// Moves the times since the last call into the sums.
    pub(super) fn take(&self, done: &mut Histogram<u64>, shed: &mut Histogram<u64>) -> anyhow::Result<()> {
        let mut times = lock(&self.times);
        done.add(&times.0)?;
        shed.add(&times.1)?;
        times.0.reset();
        times.1.reset();
        Ok(())
    }

    pub(super) fn counts(&self) -> Counts {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            offered: of(&self.offered),
            done: of(&self.done),
            shed: of(&self.shed),
            limited: of(&self.limited),
            failed: of(&self.failed),
            skipped: of(&self.skipped),
            unanswered: of(&self.unanswered),
            closed: of(&self.closed),
            longest_wait_ms: of(&self.longest_wait_ms),
        }
    }
}

impl Counts {
    /// What came since an earlier time.
    pub(super) const fn since(&self, before: &Self) -> Self {
        Self {
            offered: self.offered - before.offered,
            done: self.done - before.done,
            shed: self.shed - before.shed,
            limited: self.limited - before.limited,
            failed: self.failed - before.failed,
            skipped: self.skipped - before.skipped,
            unanswered: self.unanswered - before.unanswered,
            closed: self.closed - before.closed,
            longest_wait_ms: self.longest_wait_ms,
        }
    }
}

pub(super) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: &str, message: &str, wait: &str) -> Outcome {
        let body = format!(r#"{{"code":"{code}","message":"{message}","retryable":true{wait}}}"#);
        Outcome::refused(body.as_bytes())
    }

    #[test]
    fn refusals_of_an_overloaded_server_are_distinguished() {
        let said = "this node is overloaded; try again";
        assert_eq!(refused("unavailable", said, r#","retry_after_ms":900"#), Outcome::Shed(900));
        assert_eq!(refused("unavailable", "draining", r#","retry_after_ms":900"#), Outcome::Limited(900));
        assert_eq!(refused("limited", "", r#","retry_after_ms":9"#), Outcome::Limited(9));
        // A refusal without a time is an error of the server.
        assert!(matches!(refused("unavailable", said, ""), Outcome::Failed(_)));
        assert!(matches!(refused("forbidden", "", ""), Outcome::Failed(_)));
        assert!(matches!(Outcome::refused(b"<html>"), Outcome::Failed(_)));
    }

    #[test]
    fn outcomes_are_counted_and_times_are_taken_once() {
        let tally = Tally::new().unwrap();
        tally.end(Outcome::Done, Duration::from_millis(3));
        tally.end(Outcome::Shed(900), Duration::from_millis(1));
        tally.end(Outcome::Failed("no".to_owned()), Duration::ZERO);
        let counts = tally.counts();
        assert_eq!((counts.done, counts.shed, counts.failed, counts.longest_wait_ms), (1, 1, 1, 900));
        let (mut done, mut shed) = (histogram().unwrap(), histogram().unwrap());
        tally.take(&mut done, &mut shed).unwrap();
        tally.take(&mut done, &mut shed).unwrap();
        assert_eq!((done.len(), shed.len(), tally.first_error().as_deref()), (1, 1, Some("no")));
    }
}
