//! Requests of one class at a rate that may change, whatever the server answers: presence, history, joins, and new
//! connections. The number of requests in progress is bounded; what is due beyond is not made, and counted.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use madang_ids::ChannelId;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::tally::{Outcome, Tally, add, lock};
use crate::bench::people::Person;
use crate::bench::socket::{Socket, UpgradeRefused, source};
use crate::instruments::http::Http;

/// Requests in progress at the same time, of each stream.
const IN_PROGRESS: usize = 128;
/// Requests that are due are made in steps of this length.
const STEP: Duration = Duration::from_millis(5);
/// Source addresses of new connections. The server sheds connections by their address.
const ADDRESSES: u8 = 200;
/// Bytes of the first read of a new connection.
const READ_BYTES: usize = 2 * 1024;

/// What the requests do.
#[derive(Debug)]
pub(super) enum Plan {
    /// Calls without side effects, each of one user.
    Read(Vec<(String, Person)>),
    /// Users who join a channel, and leave it.
    Joins(Vec<Visitor>),
    /// Users who connect and leave.
    Connections(Vec<Person>),
}

/// A user who joins and leaves.
#[derive(Debug)]
pub(super) struct Visitor {
    person: Person,
    channel: ChannelId,
    is_member: AtomicBool,
    is_busy: AtomicBool,
}

#[derive(Debug)]
pub(super) struct Stream {
    addr: String,
    plan: Plan,
    /// Requests a second.
    pub(super) rate: AtomicU32,
    next: AtomicUsize,
    /// Permits: a connection, or none if it must be opened first.
    idle: Mutex<Vec<Option<Http>>>,
    pub(super) tally: Arc<Tally>,
}

impl Visitor {
    pub(super) fn new(person: Person, channel: ChannelId) -> Self {
        Self { person, channel, is_member: false.into(), is_busy: false.into() }
    }
}

impl Stream {
    pub(super) fn new(addr: &str, plan: Plan) -> anyhow::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            addr: addr.to_owned(),
            plan,
            rate: AtomicU32::new(0),
            next: AtomicUsize::new(0),
            idle: Mutex::new((0..IN_PROGRESS).map(|_| None).collect()),
            tally: Tally::new()?,
        }))
    }

    /// Makes requests until it is dropped.
    pub(super) async fn run(self: Arc<Self>) {
        let mut steps = interval(STEP);
        steps.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let (mut last, mut due, mut requests) = (Instant::now(), 0.0, JoinSet::new());
        loop {
            steps.tick().await;
            while requests.try_join_next().is_some() {}
            let now = Instant::now();
            due += (now - last).as_secs_f64() * f64::from(self.rate.load(Ordering::Relaxed));
            last = now;
            while due >= 1.0 {
                due -= 1.0;
                self.begin(&mut requests);
            }
        }
    }

    fn begin(self: &Arc<Self>, requests: &mut JoinSet<()>) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let Some(http) = lock(&self.idle).pop() else { return add(&self.tally.skipped, 1) };
        let this = Arc::clone(self);
        requests.spawn(async move {
            let http = this.make(number, http).await;
            lock(&this.idle).push(http);
        });
    }

    /// Makes one request. Returns the connection, if there is still one.
    async fn make(&self, number: usize, http: Option<Http>) -> Option<Http> {
        match &self.plan {
            Plan::Read(calls) => {
                let (line, person) = &calls[number % calls.len()];
                self.call(http, line, person, true).await.1
            }
            Plan::Joins(visitors) => self.visit(http, &visitors[number % visitors.len()]).await,
            Plan::Connections(people) => {
                self.connect(number, &people[number % people.len()]).await;
                None
            }
        }
    }

    /// A user joins, or leaves again. To leave is not shed and not counted.
    async fn visit(&self, http: Option<Http>, visitor: &Visitor) -> Option<Http> {
        if visitor.is_busy.swap(true, Ordering::AcqRel) {
            add(&self.tally.skipped, 1);
            return http;
        }
        let Visitor { person, channel, .. } = visitor;
        let is_member = visitor.is_member.load(Ordering::Acquire);
        let line = if is_member {
            format!("DELETE /v1/channels/{channel}/members/{}", person.id)
        } else {
            format!("PUT /v1/channels/{channel}/membership")
        };
        let (is_done, http) = self.call(http, &line, person, !is_member).await;
        if is_done {
            visitor.is_member.store(!is_member, Ordering::Release);
        }
        visitor.is_busy.store(false, Ordering::Release);
        http
    }

    async fn call(
        &self,
        http: Option<Http>,
        line: &str,
        person: &Person,
        is_counted: bool,
    ) -> (bool, Option<Http>) {
        if is_counted {
            add(&self.tally.offered, 1);
        }
        let begun = Instant::now();
        let is_used = http.is_some();
        let mut called = self.try_to_call(http, line, person).await;
        // The server closes connections that are idle for long. To repeat these calls is harmless.
        if called.is_err() && is_used {
            called = self.try_to_call(None, line, person).await;
        }
        let (outcome, http) = match called {
            Ok((outcome, http)) => (outcome, Some(http)),
            Err(error) => (Outcome::Failed(format!("{line}: {error:#}")), None),
        };
        let is_done = outcome == Outcome::Done;
        if is_counted || matches!(outcome, Outcome::Failed(_)) {
            self.tally.end(outcome, begun.elapsed());
        }
        (is_done, http)
    }

    async fn try_to_call(
        &self,
        http: Option<Http>,
        line: &str,
        person: &Person,
    ) -> anyhow::Result<(Outcome, Http)> {
        let mut http = match http {
            Some(http) => http,
            None => Http::connect(&self.addr, source(0)).await?,
        };
        let answer = http.call(line, Some(&person.token)).await?;
        let outcome = match answer.status {
            200..300 => Outcome::Done,
            _ => Outcome::refused(answer.body),
        };
        Ok((outcome, http))
    }

    async fn connect(&self, number: usize, person: &Person) {
        let last = u8::try_from(number % usize::from(ADDRESSES)).unwrap_or_default();
        let source = IpAddr::V4(Ipv4Addr::new(127, 1, 0, 1 + last));
        add(&self.tally.offered, 1);
        let begun = Instant::now();
        let connected = Socket::welcome(&self.addr, source, READ_BYTES, &person.token, None).await;
        let outcome = match &connected {
            Ok(_) => Outcome::Done,
            Err(error) => match error.downcast_ref::<UpgradeRefused>() {
                Some(refused) => Outcome::refused(refused.body.as_bytes()),
                None => Outcome::Failed(format!("{error:#}")),
            },
        };
        self.tally.end(outcome, begun.elapsed());
        if let Ok(socket) = connected {
            // Fails if the server has closed it already.
            let _ = socket.close().await;
        }
    }
}
