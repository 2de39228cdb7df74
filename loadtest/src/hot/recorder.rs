//! Records what happens in each second of a run, and the latencies of each phase.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep};

use super::calls::Calls;
use super::level::{Level, Levels};
use super::senders::Acks;
use crate::bench::figures::{figure, histogram, quantile_ms};
use crate::bench::readers::Readers;
use crate::instruments::usage::{Machine, ServerProcess, cpu_seconds_of};

/// Time between two checks whether all readers have everything.
const LOOK: Duration = Duration::from_millis(200);

/// One second of a run. Latencies are absent if nothing arrived.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Second {
    /// The end of the second, in seconds after the storm began.
    pub(super) at: f64,
    /// Its true length in seconds: it is longer if the machine was busy.
    pub(super) length: f64,
    pub(super) level: Level,
    pub(super) freshness_p50_ms: Option<f64>,
    pub(super) freshness_p99_ms: Option<f64>,
    pub(super) deliveries_per_second: f64,
    pub(super) sends_acked: u64,
    pub(super) sends_refused: u64,
    pub(super) send_ack_p99_ms: Option<f64>,
    pub(super) bystander_ack_p99_ms: Option<f64>,
    pub(super) bystander_delivery_p99_ms: Option<f64>,
    pub(super) joined: u64,
    pub(super) left: u64,
    pub(super) calls_refused: u64,
    pub(super) calls_skipped: u64,
    pub(super) fetched: u64,
    pub(super) server_cpu_seconds: Option<f64>,
    pub(super) server_rss_mib: Option<f64>,
    pub(super) generator_cpu_seconds: f64,
}

/// The latencies of a phase or of a second.
#[derive(Debug, Clone)]
pub(super) struct Latencies {
    /// Send to delivery in the channel.
    pub(super) freshness: Histogram<u64>,
    /// Send to ack in the channel.
    pub(super) send_ack: Histogram<u64>,
    /// Send to ack of the bystanders.
    pub(super) ack: Histogram<u64>,
    /// Send to delivery of the bystanders.
    pub(super) delivery: Histogram<u64>,
}

/// Sources of the figures.
#[derive(Debug)]
pub(super) struct Sources {
    pub(super) readers: Readers,
    pub(super) listeners: Readers,
    pub(super) acks: Arc<Acks>,
    pub(super) bystander_acks: Arc<Acks>,
    pub(super) joins: Arc<Calls>,
    pub(super) fetches: Arc<Calls>,
    pub(super) levels: Arc<Levels>,
    pub(super) server: ServerProcess,
}

/// Totals at one time.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Totals {
    pub(super) deliveries: u64,
    pub(super) frames: u64,
    pub(super) bytes: u64,
    pub(super) acked: u64,
    refused: u64,
    joined: u64,
    left: u64,
    calls_refused: u64,
    calls_skipped: u64,
    fetched: u64,
    pub(super) server_cpu_seconds: Option<f64>,
    server_rss_mib: Option<f64>,
    pub(super) generator_cpu_seconds: f64,
    pub(super) machine: Option<Machine>,
}

/// Drive it with [`Self::during`] in each phase and call [`Self::take_phase`] between two phases.
#[derive(Debug)]
pub(super) struct Recorder {
    pub(super) sources: Sources,
    storm: Instant,
    ticks: Interval,
    /// The last row's time and totals.
    last: (Instant, Totals),
    second: Latencies,
    phase: Latencies,
    pub(super) seconds: Vec<Second>,
}

impl Latencies {
    fn new() -> anyhow::Result<Self> {
        let empty = histogram()?;
        Ok(Self { freshness: empty.clone(), send_ack: empty.clone(), ack: empty.clone(), delivery: empty })
    }

    pub(super) fn add(&mut self, other: &Self) -> anyhow::Result<()> {
        self.freshness.add(&other.freshness)?;
        self.send_ack.add(&other.send_ack)?;
        self.ack.add(&other.ack)?;
        Ok(self.delivery.add(&other.delivery)?)
    }
}

impl Sources {
    /// Moves all latencies since the last call into `sum`.
    async fn take(&mut self, sum: &mut Latencies) -> anyhow::Result<()> {
        sum.freshness.add(self.readers.take_latency().await?)?;
        sum.delivery.add(self.listeners.take_latency().await?)?;
        self.acks.take_latency(&mut sum.send_ack)?;
        self.bystander_acks.take_latency(&mut sum.ack)
    }

    pub(super) async fn totals(&mut self) -> anyhow::Result<Totals> {
        let (counts, usage) = (self.readers.counts().await?, self.server.usage());
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (joins, fetches) = (&self.joins.counts, &self.fetches.counts);
        let own = std::iter::once(std::process::id());
        let generator = own.chain(self.readers.pids()).chain(self.listeners.pids());
        Ok(Totals {
            deliveries: counts.messages,
            frames: counts.frames,
            bytes: counts.bytes,
            acked: of(&self.acks.acked),
            refused: of(&self.acks.refused),
            joined: of(&joins.joined),
            left: of(&joins.left),
            calls_refused: of(&joins.refused),
            calls_skipped: of(&joins.skipped),
            fetched: of(&fetches.fetched),
            server_cpu_seconds: usage.map(|usage| usage.cpu_seconds),
            server_rss_mib: usage.map(|usage| usage.rss_mib),
            generator_cpu_seconds: cpu_seconds_of(generator),
            machine: Machine::now(),
        })
    }
}

impl Recorder {
    /// Begins to record. The storm begins at `storm`, later than now.
    pub(super) async fn start(mut sources: Sources, storm: Instant) -> anyhow::Result<Self> {
        sources.take(&mut Latencies::new()?).await?;
        let totals = sources.totals().await?;
        let mut ticks = interval(Duration::from_secs(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick comes at once.
        ticks.tick().await;
        let (second, phase) = (Latencies::new()?, Latencies::new()?);
        Ok(Self { sources, storm, ticks, last: (Instant::now(), totals), second, phase, seconds: Vec::new() })
    }

    /// Records until the work is done.
    pub(super) async fn during<T>(&mut self, work: impl Future<Output = T>) -> anyhow::Result<T> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Ok(done),
                _ = self.ticks.tick() => self.end_second().await?,
            }
        }
    }

    /// Records until all readers have everything up to their head, for at most `patience`. Returns whether they have.
    pub(super) async fn drain(&mut self, head: u64, patience: Duration) -> anyhow::Result<bool> {
        let begun = Instant::now();
        while begun.elapsed() < patience {
            let behind: Vec<u64> = self.sources.readers.ask(&format!("behind {head}")).await?;
            if behind.iter().all(|count| *count == 0) {
                return Ok(true);
            }
            self.during(sleep(LOOK)).await?;
        }
        Ok(false)
    }

    /// The latencies since the last phase began. A new phase begins; the present second goes on.
    pub(super) async fn take_phase(&mut self) -> anyhow::Result<Latencies> {
        self.take().await?;
        Ok(std::mem::replace(&mut self.phase, Latencies::new()?))
    }

    async fn take(&mut self) -> anyhow::Result<()> {
        let mut taken = Latencies::new()?;
        self.sources.take(&mut taken).await?;
        self.second.add(&taken)?;
        self.phase.add(&taken)
    }

    async fn end_second(&mut self) -> anyhow::Result<()> {
        self.take().await?;
        let (now, totals) = (Instant::now(), self.sources.totals().await?);
        let second = std::mem::replace(&mut self.second, Latencies::new()?);
        let (from, before) = std::mem::replace(&mut self.last, (now, totals));
        // One of the two is zero: `duration_since` of a later time is.
        let at = now.duration_since(self.storm).as_secs_f64() - self.storm.duration_since(now).as_secs_f64();
        let quantile = |histogram: &Histogram<u64>, quantile| {
            (!histogram.is_empty()).then(|| quantile_ms(histogram, quantile))
        };
        self.seconds.push(Second {
            at,
            length: (now - from).as_secs_f64(),
            level: self.sources.levels.now(),
            freshness_p50_ms: quantile(&second.freshness, 0.5),
            freshness_p99_ms: quantile(&second.freshness, 0.99),
            deliveries_per_second: figure(totals.deliveries - before.deliveries) / (now - from).as_secs_f64(),
            sends_acked: totals.acked - before.acked,
            sends_refused: totals.refused - before.refused,
            send_ack_p99_ms: quantile(&second.send_ack, 0.99),
            bystander_ack_p99_ms: quantile(&second.ack, 0.99),
            bystander_delivery_p99_ms: quantile(&second.delivery, 0.99),
            joined: totals.joined - before.joined,
            left: totals.left - before.left,
            calls_refused: totals.calls_refused - before.calls_refused,
            calls_skipped: totals.calls_skipped - before.calls_skipped,
            fetched: totals.fetched - before.fetched,
            server_cpu_seconds: difference(totals.server_cpu_seconds, before.server_cpu_seconds),
            server_rss_mib: totals.server_rss_mib,
            generator_cpu_seconds: totals.generator_cpu_seconds - before.generator_cpu_seconds,
        });
        Ok(())
    }
}

/// The difference of two figures, if both are known.
pub(super) fn difference(after: Option<f64>, before: Option<f64>) -> Option<f64> {
    Some(after? - before?)
}
