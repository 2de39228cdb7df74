//! REST calls at a steady rate, whatever the server answers: users who join and leave, and reads of history.
//!
//! The number of calls in progress is bounded. A call that is due while all connections are busy is not made, and counted
//! as skipped: the server was slower than the rate.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use madang_ids::ChannelId;
use madang_proto::{ErrorBody, ErrorCode};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::bench::figures::{histogram, micros};
use crate::bench::people::Person;
use crate::bench::socket::source;
use crate::instruments::http::{Answer, Http};

/// Calls in progress at the same time: the connections that a server with limits allows one address.
pub(super) const IN_PROGRESS: usize = 256;
/// Calls that are due are made in steps of this length.
const STEP: Duration = Duration::from_millis(2);

/// A call that is due.
#[derive(Debug)]
pub(super) struct Call {
    /// Such as `PUT /v1/channels/7/membership`.
    line: String,
    person: usize,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Join,
    Leave,
    Fetch,
}

/// What the calls do.
#[derive(Debug)]
pub(super) enum Plan {
    /// Each user in turn joins if they are not a member, and leaves if they are.
    Membership { channel: ChannelId, users: Vec<Visitor>, next: AtomicUsize },
    /// All read the same page.
    Fetch { line: String, users: Vec<Person>, next: AtomicUsize },
}

/// A user who joins and leaves.
#[derive(Debug)]
pub(super) struct Visitor {
    person: Person,
    is_member: AtomicBool,
    is_busy: AtomicBool,
}

/// Counts of calls so far.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) joined: AtomicU64,
    pub(super) left: AtomicU64,
    pub(super) fetched: AtomicU64,
    /// Refused for now, with a time after which to try again, or because no seat is free.
    pub(super) refused: AtomicU64,
    pub(super) skipped: AtomicU64,
    pub(super) errors: AtomicU64,
}

/// Calls of one kind on connections of their own.
#[derive(Debug)]
pub(super) struct Calls {
    addr: String,
    plan: Plan,
    /// Used in turn: the server closes a connection that is idle for long.
    idle: Mutex<VecDeque<Http>>,
    pub(super) counts: Counts,
    /// Of calls that were answered.
    latency: Mutex<Histogram<u64>>,
    /// The longest `retry_after_ms`.
    pub(super) longest_wait_ms: AtomicU64,
    first_error: Mutex<Option<String>>,
}

impl Plan {
    pub(super) fn membership(channel: ChannelId, people: Vec<Person>) -> Self {
        let visitor = |person| Visitor { person, is_member: false.into(), is_busy: false.into() };
        let users = people.into_iter().map(visitor).collect();
        Self::Membership { channel, users, next: AtomicUsize::new(0) }
    }

    /// Reads the oldest entries of a channel: the same ones in each call.
    pub(super) fn fetch(channel: ChannelId, users: Vec<Person>) -> Self {
        let line = format!("GET /v1/channels/{channel}/entries?after=0&limit=200");
        Self::Fetch { line, users, next: AtomicUsize::new(0) }
    }

    /// The next call, unless its user has one in progress.
    fn next(&self) -> Option<Call> {
        match self {
            Self::Membership { channel, users, next } => {
                let person = next.fetch_add(1, Ordering::Relaxed) % users.len();
                let visitor = &users[person];
                if visitor.is_busy.swap(true, Ordering::AcqRel) {
                    return None;
                }
                if visitor.is_member.load(Ordering::Acquire) {
                    let line = format!("DELETE /v1/channels/{channel}/members/{}", visitor.person.id);
                    return Some(Call { line, person, kind: Kind::Leave });
                }
                let line = format!("PUT /v1/channels/{channel}/membership");
                Some(Call { line, person, kind: Kind::Join })
            }
            Self::Fetch { line, users, next } => {
                let person = next.fetch_add(1, Ordering::Relaxed) % users.len();
                Some(Call { line: line.clone(), person, kind: Kind::Fetch })
            }
        }
    }

    fn token(&self, call: &Call) -> &str {
        match self {
            Self::Membership { users, .. } => &users[call.person].person.token,
            Self::Fetch { users, .. } => &users[call.person].token,
        }
    }

    fn end(&self, call: &Call, is_done: bool) {
        let Self::Membership { users, .. } = self else { return };
        let visitor = &users[call.person];
        if is_done {
            visitor.is_member.store(call.kind == Kind::Join, Ordering::Release);
        }
        visitor.is_busy.store(false, Ordering::Release);
    }
}

impl Calls {
    /// Opens the connections; none if no calls will be made.
    pub(super) async fn connect(addr: &str, plan: Plan, rate: u32) -> anyhow::Result<Arc<Self>> {
        let connections = if rate == 0 { 0 } else { IN_PROGRESS };
        let mut idle = VecDeque::with_capacity(connections);
        for _ in 0..connections {
            idle.push_back(Http::connect(addr, source(0)).await?);
        }
        Ok(Arc::new(Self {
            addr: addr.to_owned(),
            plan,
            idle: Mutex::new(idle),
            counts: Counts::default(),
            latency: Mutex::new(histogram()?),
            longest_wait_ms: AtomicU64::new(0),
            first_error: Mutex::new(None),
        }))
    }

    /// Makes `rate` calls a second, and waits for the last ones.
    pub(super) async fn run(self: Arc<Self>, rate: u32, lasts: Duration) {
        let mut steps = interval(STEP);
        steps.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let (begun, mut due, mut calls) = (Instant::now(), 0.0, JoinSet::new());
        loop {
            steps.tick().await;
            while calls.try_join_next().is_some() {}
            let elapsed = begun.elapsed().min(lasts);
            while due < elapsed.as_secs_f64() * f64::from(rate) {
                due += 1.0;
                self.begin(&mut calls);
            }
            if elapsed == lasts {
                break;
            }
        }
        calls.join_all().await;
    }

    pub(super) fn first_error(&self) -> Option<String> {
        lock(&self.first_error).clone()
    }

    pub(super) fn latency(&self) -> Histogram<u64> {
        lock(&self.latency).clone()
    }

    fn begin(self: &Arc<Self>, calls: &mut JoinSet<()>) {
        let Some(http) = lock(&self.idle).pop_front() else {
            self.counts.skipped.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let Some(call) = self.plan.next() else {
            lock(&self.idle).push_back(http);
            self.counts.skipped.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let this = Arc::clone(self);
        calls.spawn(async move { this.make(http, &call).await });
    }

    async fn make(&self, mut http: Http, call: &Call) {
        let begun = Instant::now();
        // The server closes connections that are idle for long. As a browser does, such a call is made once more; all are idempotent.
        for is_last in [false, true] {
            match http.call(&call.line, Some(self.plan.token(call))).await {
                Ok(answer) => {
                    lock(&self.latency).saturating_record(micros(begun.elapsed()));
                    self.plan.end(call, self.count(call.kind, &answer));
                    lock(&self.idle).push_back(http);
                    return;
                }
                Err(error) if is_last => self.fail(format!("{}: {error:#}", call.line)),
                Err(_) => {}
            }
            // A connection that cannot be replaced is one less; without any, all further calls count as skipped.
            match Http::connect(&self.addr, source(0)).await {
                Ok(another) => http = another,
                Err(error) => {
                    self.fail(format!("{}: {error:#}", call.line));
                    return self.plan.end(call, false);
                }
            }
        }
        self.plan.end(call, false);
        lock(&self.idle).push_back(http);
    }

    /// Counts an answer. Returns whether the call succeeded.
    fn count(&self, kind: Kind, answer: &Answer<'_>) -> bool {
        let add = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
        if (200..300).contains(&answer.status) {
            match kind {
                Kind::Join => add(&self.counts.joined),
                Kind::Leave => add(&self.counts.left),
                Kind::Fetch => add(&self.counts.fetched),
            };
            return true;
        }
        match wait_ms(answer.body) {
            Some(wait_ms) => {
                add(&self.counts.refused);
                self.longest_wait_ms.fetch_max(wait_ms, Ordering::Relaxed);
            }
            None => self.fail(format!("{}: {}", answer.status, String::from_utf8_lossy(answer.body))),
        }
        false
    }

    fn fail(&self, what: String) {
        self.counts.errors.fetch_add(1, Ordering::Relaxed);
        lock(&self.first_error).get_or_insert(what);
    }
}

/// Milliseconds to wait after a refusal that is no error: the server is busy, or no seat is free. A frame of the socket
/// has the same fields.
pub(super) fn wait_ms(body: &[u8]) -> Option<u64> {
    let error: ErrorBody = serde_json::from_slice(body).ok()?;
    match (error.code, error.retry_after_ms) {
        (ErrorCode::Limited | ErrorCode::Unavailable, Some(wait_ms)) => Some(wait_ms),
        (ErrorCode::Full, wait_ms) => Some(wait_ms.unwrap_or_default()),
        _ => None,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_with_a_time_to_wait_are_no_errors() {
        let limited = br#"{"type":"error","id":"1","code":"limited","message":"","retryable":true,"retry_after_ms":250}"#;
        assert_eq!(wait_ms(limited), Some(250));
        let full = br#"{"code":"full","message":"","retryable":false}"#;
        assert_eq!(wait_ms(full), Some(0));
        let no_wait = br#"{"code":"unavailable","message":"","retryable":true}"#;
        assert_eq!(wait_ms(no_wait), None);
        let forbidden = br#"{"code":"forbidden","message":"","retryable":false,"retry_after_ms":1}"#;
        assert_eq!(wait_ms(forbidden), None);
        assert_eq!(wait_ms(b"<html>"), None);
    }

    #[test]
    fn users_join_and_leave_in_turn() {
        let person = |id: &str| Person { id: id.parse().unwrap(), token: String::new(), cursor: None };
        let plan = Plan::membership("7".parse().unwrap(), vec![person("1"), person("2")]);
        let first = plan.next().unwrap();
        assert_eq!((first.person, first.kind), (0, Kind::Join));
        assert_eq!(plan.next().unwrap().person, 1);
        // The first user's call is still in progress.
        assert!(plan.next().is_none());
        plan.end(&first, true);
        assert!(plan.next().is_none());
        let second = plan.next().unwrap();
        assert_eq!((second.kind, second.line.as_str()), (Kind::Leave, "DELETE /v1/channels/7/members/1"));
        plan.end(&second, false);
        plan.next();
        assert_eq!(plan.next().unwrap().kind, Kind::Leave);
    }
}
