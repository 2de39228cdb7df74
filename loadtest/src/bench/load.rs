//! A server with readers under a load of messages: how much is delivered, how soon, and at what cost, compared with a
//! bare loop that makes the same writes.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::args::Reference;
use super::figures::{figure, quantile_ms};
use super::folder::Folder;
use super::pace::{self, Pace};
use super::process::Process;
use super::readers::{Read, Readers};
use super::socket::Socket;

/// Time after the last ack at which missing deliveries count as lost.
const PATIENCE: Duration = Duration::from_secs(120);
/// The resolution of processor time on Linux, in seconds.
const TICK: f64 = 0.01;
/// Interval between two checks whether everything was delivered.
const LOOK: Duration = Duration::from_millis(20);

/// Results of one round.
#[derive(Debug, Clone, Copy)]
pub(super) struct Round {
    pub(super) per_second: f64,
    pub(super) cpu_seconds: f64,
    pub(super) per_cpu_second: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) messages_per_frame: f64,
    pub(super) frames_per_write: f64,
    pub(super) bytes_per_write: f64,
    pub(super) resyncs: f64,
    pub(super) bare_cpu_seconds: f64,
}

/// The senders and readers of a measurement.
#[derive(Debug)]
pub(super) struct Load<'a> {
    pub(super) server: &'a Process,
    pub(super) readers: &'a mut Readers,
    /// Number of connections that read.
    pub(super) connections: usize,
    /// Number of connections that receive each message.
    pub(super) receivers: u64,
}

impl Load<'_> {
    /// Sends at these paces until everything is delivered. Returns the senders.
    pub(super) async fn round(
        &mut self,
        senders: Vec<(Socket, Pace)>,
        folder: &Folder,
    ) -> anyhow::Result<(Round, Vec<Socket>)> {
        let (before, counters) = (self.readers.counts().await?, counters(self.server).await?);
        self.readers.take_latency().await?;
        let (begun, cpu) = (Instant::now(), self.server.usage()?.cpu_seconds);
        let mut tasks = JoinSet::new();
        for (socket, pace) in senders {
            tasks.spawn(pace::send(socket, pace));
        }
        let (mut sockets, mut sent) = (Vec::new(), 0);
        while let Some(done) = tasks.join_next().await {
            let (socket, messages) = done??;
            sockets.push(socket);
            sent += messages;
        }
        let expected = sent * self.receivers;
        let all_sent = Instant::now();
        let mut after = self.readers.counts().await?;
        while after.messages < before.messages + expected {
            let delivered = after.messages - before.messages;
            ensure!(all_sent.elapsed() < PATIENCE, "only {delivered} of {expected} deliveries arrived");
            sleep(LOOK).await;
            after = self.readers.counts().await?;
        }
        let seconds = begun.elapsed().as_secs_f64();
        let cpu_seconds = (self.server.usage()?.cpu_seconds - cpu).max(TICK);
        let now = self::counters(self.server).await?;
        let latency = self.readers.take_latency().await?;
        let messages = figure(after.messages - before.messages);
        let frames = figure(after.frames - before.frames);
        let bytes = figure(after.bytes - before.bytes);
        // The acks to the senders are writes too.
        let writes = (now.writes - counters.writes).max(1.0);
        let mut round = Round {
            per_second: messages / seconds,
            cpu_seconds,
            per_cpu_second: messages / cpu_seconds,
            p50_ms: quantile_ms(&latency, 0.5),
            p99_ms: quantile_ms(&latency, 0.99),
            messages_per_frame: messages / frames,
            frames_per_write: frames / writes,
            bytes_per_write: bytes / writes,
            resyncs: now.resyncs - counters.resyncs,
            bare_cpu_seconds: f64::NAN,
        };
        let rate = writes / seconds / figure(self.connections as u64);
        let bare = bare(self.connections, &round, rate, seconds, folder).await?;
        round.bare_cpu_seconds = bare;
        Ok((round, sockets))
    }
}

#[derive(Debug, Clone, Copy)]
struct Counters {
    writes: f64,
    resyncs: f64,
}

async fn counters(server: &Process) -> anyhow::Result<Counters> {
    let text = server.metrics().await?;
    let counter = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        line.with_context(|| format!("the server has no metric {name}"))
    };
    Ok(Counters { writes: counter("outbound_writes_total ")?, resyncs: counter("outbound_resyncs_total ")? })
}

/// CPU seconds of the bare loop for the writes of the round: with as many connections, bytes and writes per second.
async fn bare(
    connections: usize,
    round: &Round,
    rate: f64,
    seconds: f64,
    folder: &Folder,
) -> anyhow::Result<f64> {
    let whole_seconds = whole(seconds);
    let reference = Reference::Fanout {
        connections,
        write_bytes: whole(round.bytes_per_write),
        frames: whole(round.frames_per_write),
        rate,
        seconds: whole_seconds as u64,
    };
    let server = Process::reference(&reference, folder).await?;
    let mut readers = Readers::start(&server.addr, &vec![Read::Bare; connections], folder).await?;
    sleep(Duration::from_secs(whole_seconds as u64) + Duration::from_millis(500)).await;
    let cpu = server.usage()?.cpu_seconds.max(TICK);
    let bytes = figure(readers.counts().await?.bytes);
    server.kill().await?;
    // The loop need not have kept its rate: the cost per byte counts.
    let wanted = round.bytes_per_write * rate * seconds * figure(connections as u64);
    Ok(cpu * wanted / bytes.max(1.0))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small positive figure")]
fn whole(figure: f64) -> usize {
    figure.round().max(1.0) as usize
}
