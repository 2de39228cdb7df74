//! Records each second of a run: what the server says about itself, what it answered, and what it uses.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::ensure;
use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::stage::{Stage, Streams};
use super::talk::Crowd;
use super::tally::{ByClass, Class, lock};
use crate::bench::figures::quantile_ms;
use crate::bench::socket::source;
use crate::instruments::http::Http;
use crate::instruments::usage::{Machine, ServerProcess, cpu_seconds_of};
use crate::server::rss_of;

/// Time within which the server must say how it is.
const PATIENCE: Duration = Duration::from_secs(5);

/// The phases of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Phase {
    /// Light load.
    Quiet,
    /// The search for the capacity.
    Search,
    /// Light load until nothing waits.
    Rest,
    Overload,
    /// Light load.
    Recovery,
    /// The recorder ends.
    End,
}

/// One second of a run. Latencies are absent if nothing arrived.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Second {
    pub(super) phase: Phase,
    /// The end of the second, in seconds after the overload began.
    pub(super) at: f64,
    /// Its true length in seconds: it is longer if the machine was busy.
    pub(super) length: f64,
    /// `None`: the server did not answer in time.
    pub(super) shed_level: Option<u64>,
    /// By class in the order of shedding: requests of the generator, and refusals as the server counts them.
    pub(super) offered: ByClass,
    pub(super) shed: ByClass,
    pub(super) acked: u64,
    pub(super) refused: u64,
    pub(super) skipped: u64,
    pub(super) ack_p50_ms: Option<f64>,
    pub(super) ack_p99_ms: Option<f64>,
    pub(super) probe_ack_p99_ms: Option<f64>,
    pub(super) probe_delivery_p99_ms: Option<f64>,
    pub(super) server_cpu_seconds: Option<f64>,
    pub(super) server_rss_mib: Option<f64>,
    pub(super) generator_cpu_seconds: f64,
    pub(super) generator_rss_mib: f64,
    /// Of all other processes, and what the host gave to other machines.
    pub(super) other_cpu_seconds: Option<f64>,
    pub(super) stolen_cpu_seconds: Option<f64>,
    #[serde(skip)]
    pub(super) ended: Instant,
    #[serde(skip)]
    pub(super) times: Times,
}

/// Times of requests in a second.
#[derive(Debug, Clone)]
pub(super) struct Times {
    pub(super) ack: Histogram<u64>,
    pub(super) probe_ack: Histogram<u64>,
    pub(super) probe_delivery: Histogram<u64>,
    /// Refusals of all classes.
    pub(super) refusal: Histogram<u64>,
}

/// Totals at one time.
#[derive(Debug, Clone, Copy, Default)]
struct Totals {
    offered: ByClass,
    shed: ByClass,
    acked: u64,
    refused: u64,
    skipped: u64,
    server_cpu_seconds: Option<f64>,
    generator_cpu_seconds: f64,
    machine: Option<Machine>,
}

#[derive(Debug)]
pub(super) struct Recorder {
    addr: String,
    http: Option<Http>,
    crowd: Crowd,
    probe: Crowd,
    streams: Streams,
    server: ServerProcess,
    /// The last counters of the server.
    shed: ByClass,
    level: Option<u64>,
    last: (Instant, Totals),
}

impl Times {
    pub(super) fn new() -> anyhow::Result<Self> {
        // Two digits are enough, and many seconds are kept.
        let empty = Histogram::new_with_bounds(1, 60_000_000, 2)?;
        Ok(Self {
            ack: empty.clone(),
            probe_ack: empty.clone(),
            probe_delivery: empty.clone(),
            refusal: empty,
        })
    }

    pub(super) fn add(&mut self, other: &Self) -> anyhow::Result<()> {
        self.ack.add(&other.ack)?;
        self.probe_ack.add(&other.probe_ack)?;
        self.probe_delivery.add(&other.probe_delivery)?;
        Ok(self.refusal.add(&other.refusal)?)
    }
}

impl Recorder {
    pub(super) fn new(stage: &Stage, server: ServerProcess) -> Self {
        Self {
            addr: stage.addr.clone(),
            http: None,
            crowd: stage.crowd.clone(),
            probe: stage.probe.clone(),
            streams: stage.streams.clone(),
            server,
            shed: ByClass::default(),
            level: None,
            last: (Instant::now(), Totals::default()),
        }
    }

    /// Records until the phase is [`Phase::End`].
    pub(super) async fn run(mut self, phase: watch::Receiver<Phase>) -> anyhow::Result<Vec<Second>> {
        let mut ticks = interval(Duration::from_secs(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        self.ask().await;
        self.last = (Instant::now(), self.totals());
        let mut seconds = Vec::new();
        loop {
            // A second belongs to the phase in which it begins.
            let now = *phase.borrow();
            if now == Phase::End {
                return Ok(seconds);
            }
            ticks.tick().await;
            seconds.push(self.second(now).await?);
        }
    }

    async fn second(&mut self, phase: Phase) -> anyhow::Result<Second> {
        self.ask().await;
        let (now, totals) = (Instant::now(), self.totals());
        let (from, before) = std::mem::replace(&mut self.last, (now, totals));
        let mut times = Times::new()?;
        self.crowd.messages.take(&mut times.ack, &mut times.refusal)?;
        self.probe.messages.take(&mut times.probe_ack, &mut times.refusal)?;
        let mut other = Times::new()?.ack;
        let streams = self.streams.all();
        let tallies = streams.iter().map(|stream| &stream.tally).chain([&self.crowd.receipts]);
        for tally in tallies {
            tally.take(&mut other, &mut times.refusal)?;
        }
        if let Some(delivery) = &self.probe.delivery {
            let mut delivery = lock(delivery);
            times.probe_delivery.add(&*delivery)?;
            delivery.reset();
        }
        let server_cpu_seconds =
            totals.server_cpu_seconds.zip(before.server_cpu_seconds).map(|(to, from)| to - from);
        let generator_cpu_seconds = totals.generator_cpu_seconds - before.generator_cpu_seconds;
        let machine = totals.machine.zip(before.machine).map(|(to, from)| to - from);
        let other_cpu_seconds = machine
            .zip(server_cpu_seconds)
            .map(|(machine, server)| machine.busy - server - generator_cpu_seconds);
        let quantile = |histogram: &Histogram<u64>, quantile| {
            (!histogram.is_empty()).then(|| quantile_ms(histogram, quantile))
        };
        Ok(Second {
            phase,
            at: 0.0,
            length: (now - from).as_secs_f64(),
            shed_level: self.level,
            offered: difference(&totals.offered, &before.offered),
            shed: difference(&totals.shed, &before.shed),
            acked: totals.acked - before.acked,
            refused: totals.refused - before.refused,
            skipped: totals.skipped - before.skipped,
            ack_p50_ms: quantile(&times.ack, 0.5),
            ack_p99_ms: quantile(&times.ack, 0.99),
            probe_ack_p99_ms: quantile(&times.probe_ack, 0.99),
            probe_delivery_p99_ms: quantile(&times.probe_delivery, 0.99),
            server_cpu_seconds,
            server_rss_mib: self.server.usage().map(|usage| usage.rss_mib),
            generator_cpu_seconds,
            generator_rss_mib: own_rss_mib(),
            other_cpu_seconds,
            stolen_cpu_seconds: machine.map(|machine| machine.stolen),
            ended: now,
            times,
        })
    }

    /// Asks the server how it is. Without an answer the counters stay, and the level is not known.
    async fn ask(&mut self) {
        self.level = None;
        match timeout(PATIENCE, self.try_to_ask()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => self.http = None,
        }
    }

    async fn try_to_ask(&mut self) -> anyhow::Result<()> {
        let mut http = match self.http.take() {
            Some(http) => http,
            None => Http::connect(&self.addr, source(0)).await?,
        };
        let ready = http.call("GET /readyz", None).await?;
        ensure!(ready.status == 200, "GET /readyz was answered with {}", ready.status);
        let level = level(ready.body);
        let metrics = http.call("GET /metrics", None).await?;
        ensure!(metrics.status == 200, "GET /metrics was answered with {}", metrics.status);
        self.shed = shed(&String::from_utf8_lossy(metrics.body));
        self.level = level;
        self.http = Some(http);
        Ok(())
    }

    fn totals(&self) -> Totals {
        let (crowd, probe) = (self.crowd.messages.counts(), self.probe.messages.counts());
        Totals {
            offered: offered(&self.crowd, &self.probe, &self.streams),
            shed: self.shed,
            acked: crowd.done + probe.done,
            refused: crowd.shed,
            skipped: crowd.skipped,
            server_cpu_seconds: self.server.usage().map(|usage| usage.cpu_seconds),
            generator_cpu_seconds: cpu_seconds_of([std::process::id()]),
            machine: Machine::now(),
        }
    }
}

/// Requests by class so far. Alerts are not offered: nobody has a device for them.
fn offered(crowd: &Crowd, probe: &Crowd, streams: &Streams) -> ByClass {
    let count = |class| match class {
        // Both crowds count in the same place.
        Class::Presence => crowd.typing.load(Ordering::Relaxed) + streams.presence.tally.counts().offered,
        Class::Receipts => crowd.receipts.counts().offered,
        Class::Push => 0,
        Class::History => streams.history.tally.counts().offered,
        Class::Joins => streams.joins.tally.counts().offered,
        Class::Connections => streams.connections.tally.counts().offered,
        Class::Messages => crowd.messages.counts().offered + probe.messages.counts().offered,
    };
    Class::ALL.map(count)
}

fn level(body: &[u8]) -> Option<u64> {
    serde_json::from_slice::<serde_json::Value>(body).ok()?.get("shed_level")?.as_u64()
}

/// The counters of refusals. A class without a counter has none.
fn shed(metrics: &str) -> ByClass {
    let counter = |class: Class| {
        let start = format!(r#"shed_total{{class="{}"}} "#, class.name());
        metrics
            .lines()
            .find_map(|line| line.strip_prefix(start.as_str())?.trim().parse().ok())
            .unwrap_or_default()
    };
    Class::ALL.map(counter)
}

/// A counter that is less than before belongs to a server that was started again.
fn difference(after: &ByClass, before: &ByClass) -> ByClass {
    std::array::from_fn(|class| after[class].saturating_sub(before[class]))
}

fn own_rss_mib() -> f64 {
    crate::bench::figures::figure(rss_of(std::process::id()).unwrap_or_default()) / 1024.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_counters_of_the_server_are_parsed() {
        assert_eq!(level(br#"{"ready":true,"reasons":[],"shed_level":3}"#), Some(3));
        assert_eq!(level(br#"{"ready":true}"#), None);
        let metrics = "# TYPE shed counter\nshed_total{class=\"presence\"} 12\nshed_total{class=\"messages\"} 1\nshed_level 7\n";
        assert_eq!(shed(metrics), [12, 0, 0, 0, 0, 0, 1]);
        assert_eq!(difference(&[5; 7], &[3, 9, 5, 0, 0, 0, 0]), [2, 0, 0, 5, 5, 5, 5]);
    }
}
