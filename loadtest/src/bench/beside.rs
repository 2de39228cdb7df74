//! Users who talk in direct channels while something else happens on the server: how long their acks take, compared
//! with an idle server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use madang_ids::ChannelId;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::figures::{histogram, quantile_ms, verdict};
use super::people::{self, Person};
use super::reader::Seen;
use super::sender::{Plan, Sender};
use super::socket::{Socket, source};

/// Senders, each with one message in flight.
pub(super) const SENDERS: usize = 8;
/// How long the idle server is measured.
const QUIET: Duration = Duration::from_secs(5);
/// Pause before each message; slower than the rate limits of a user and of a connection.
const PAUSE: Duration = Duration::from_millis(60);
const TEXT_BYTES: usize = 100;
/// Bytes of one read of a connection.
const READ_BYTES: usize = 4 * 1024;
/// An ack under load may take at most this many times as long as on an idle server.
const TARGET: f64 = 3.0;

/// The pairs of users who talk.
#[derive(Debug)]
pub(super) struct Beside {
    senders: Vec<(Person, ChannelId)>,
}

impl Beside {
    /// Creates the direct channels. The first user of each pair talks to the second, who is not connected.
    pub(super) async fn meet(url: &str, people: Vec<Person>) -> anyhow::Result<Self> {
        let pairs: Vec<(Person, Person)> =
            people.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
        let rest = people::rest(url)?;
        let channels = people::directs(&rest, &pairs).await?;
        let mut senders: Vec<Person> = pairs.into_iter().map(|(from, _)| from).collect();
        people::take_cursors(&rest, &mut senders).await?;
        Ok(Self { senders: senders.into_iter().zip(channels).collect() })
    }

    /// Latencies of acks on a server that does nothing else.
    pub(super) async fn quiet(&self, addr: &str) -> anyhow::Result<Histogram<u64>> {
        let talk = self.begin(addr).await?;
        sleep(QUIET).await;
        talk.end().await
    }

    /// Starts to talk, until [`Talk::end`].
    pub(super) async fn begin(&self, addr: &str) -> anyhow::Result<Talk> {
        let (goes_on, mut tasks) = (Arc::new(AtomicBool::new(true)), JoinSet::new());
        for (number, (person, channel)) in self.senders.iter().enumerate() {
            let from = source(number);
            let socket =
                Socket::welcome(addr, from, READ_BYTES, &person.token, person.cursor.clone()).await?;
            let (lasts, pause, channel) = (Duration::MAX, PAUSE, *channel);
            let plan = Plan { channel, sender: number, text_bytes: TEXT_BYTES, in_flight: 1, lasts, pause };
            let (sender, goes_on) = (Sender::new(socket, plan, Seen::new()?)?, Arc::clone(&goes_on));
            tasks.spawn(sender.run_while(move || goes_on.load(Ordering::Relaxed)));
        }
        Ok(Talk { goes_on, tasks })
    }
}

/// Users who are talking.
#[derive(Debug)]
pub(super) struct Talk {
    goes_on: Arc<AtomicBool>,
    tasks: JoinSet<anyhow::Result<super::sender::Sent>>,
}

impl Talk {
    /// Stops talking; returns the latencies of all acks.
    pub(super) async fn end(mut self) -> anyhow::Result<Histogram<u64>> {
        self.goes_on.store(false, Ordering::Relaxed);
        let mut latency = histogram()?;
        while let Some(sent) = self.tasks.join_next().await {
            latency.add(sent??.latency)?;
        }
        Ok(latency)
    }
}

/// Prints both latencies, and whether the target is met.
pub(super) fn print(quiet: &Histogram<u64>, beside: &Histogram<u64>) {
    let p99 = |latency| quantile_ms(latency, 0.99);
    let ratio = p99(beside) / p99(quiet);
    println!(
        "acks of {SENDERS} senders: p50 {:.2} ms, p99 {:.2} ms on the quiet server ({} acks); p50 {:.2} ms, p99 {:.2} ms while they \
         return ({} acks)",
        quantile_ms(quiet, 0.5),
        p99(quiet),
        quiet.len(),
        quantile_ms(beside, 0.5),
        p99(beside),
        beside.len()
    );
    println!(
        "target: p99 at most {TARGET} times that of the quiet server: {} ({ratio:.2})",
        verdict(ratio <= TARGET)
    );
}
