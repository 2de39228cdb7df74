//! Deliveries in one group, all of whose members are connected.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures_util::FutureExt;
use madang_client::Rest;
use madang_ids::ChannelId;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::args::{Fanout, Reference};
use super::figures::{figure, median, print_conditions, quantile_ms, verdict};
use super::folder::Folder;
use super::people::{self, Person};
use super::process::Process;
use super::reader::{self, ENTRIES, Seen, Taken};
use super::sender::{Plan, Sender, Until};
use super::socket::{Socket, source};

/// What one reader reads at once.
const READ_BYTES: usize = 64 * 1024;
/// A round that is not over by then is never.
const PATIENCE: Duration = Duration::from_secs(120);
/// Of what the bare loop delivers per CPU second.
const TARGET: f64 = 0.8;

/// What one round came to.
#[derive(Debug, Clone, Copy)]
struct Round {
    per_second: f64,
    per_cpu_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    /// Messages in a frame of entries.
    messages_per_frame: f64,
    frames_per_write: f64,
    bytes_per_write: f64,
    bytes_per_delivery: f64,
    /// Writes to one connection.
    writes_per_second: f64,
    resyncs: f64,
    bare_per_cpu_second: f64,
}

struct Group {
    server: Process,
    channel: ChannelId,
    seen: Arc<Seen>,
    senders: Vec<Socket>,
    /// Ends with this.
    _readers: JoinSet<()>,
}

/// Measures and prints.
pub(super) async fn run(args: Fanout) -> anyhow::Result<()> {
    let folder = Folder::new()?;
    print_conditions(&format!(
        "fanout: a group of {} members with one socket each, {} of whom send texts of {} B; durable; rounds of {} s; \
         a message is under way until its sender has it back",
        args.members, args.senders, args.rounds.text, args.rounds.seconds
    ));
    let mut group = Group::open(&args, &folder).await?;
    println!(
        "{:>9} {:>12} {:>14} {:>9} {:>9} {:>10} {:>10} {:>9} {:>8} {:>14} {:>6}",
        "in flight",
        "deliveries/s",
        "per CPU second",
        "p50 ms",
        "p99 ms",
        "msgs/frame",
        "fr./write",
        "B/write",
        "resyncs",
        "bare/CPU s",
        "ratio"
    );
    let mut best = f64::NEG_INFINITY;
    for in_flight in args.in_flight.clone() {
        let mut rounds = Vec::new();
        for _ in 0..args.rounds.repeats {
            rounds.push(group.round(&args, in_flight, &folder).await?);
        }
        best = best.max(print(in_flight, &rounds));
    }
    println!(
        "target: at least {TARGET} of the bare loop per CPU second: {} ({best:.2} at best)",
        verdict(best >= TARGET)
    );
    Ok(())
}

fn print(in_flight: usize, rounds: &[Round]) -> f64 {
    let of = |figure: fn(&Round) -> f64| median(rounds.iter().map(figure));
    let ratio = of(|round| round.per_cpu_second / round.bare_per_cpu_second);
    println!(
        "{in_flight:>9} {:>12.0} {:>14.0} {:>9.2} {:>9.2} {:>10.2} {:>10.2} {:>9.0} {:>8.0} {:>14.0} {ratio:>6.2}",
        of(|round| round.per_second),
        of(|round| round.per_cpu_second),
        of(|round| round.p50_ms),
        of(|round| round.p99_ms),
        of(|round| round.messages_per_frame),
        of(|round| round.frames_per_write),
        of(|round| round.bytes_per_write),
        of(|round| round.resyncs),
        of(|round| round.bare_per_cpu_second),
    );
    ratio
}

impl Group {
    async fn open(args: &Fanout, folder: &Folder) -> anyhow::Result<Self> {
        let server = Process::madang(&folder.join("data"), folder).await?;
        let rest: Rest = people::rest(&server.url())?;
        let people = people::sign_up(&rest, args.members).await?;
        let channel = people::group(&rest, &people.iter().collect::<Vec<&Person>>()).await?;
        let cursor = people::cursor(&rest, people.first().context("there must be members")?).await?;
        let (seen, mut senders, mut readers) = (Seen::new()?, Vec::new(), JoinSet::new());
        for (number, person) in people.iter().enumerate() {
            let socket =
                Socket::welcome(&server.addr, source(number), READ_BYTES, &person.token, cursor).await?;
            if number < args.senders {
                senders.push(socket);
            } else {
                readers.spawn(reader::read(socket, Arc::clone(&seen)));
            }
        }
        Ok(Self { server, channel, seen, senders, _readers: readers })
    }

    async fn round(&mut self, args: &Fanout, in_flight: usize, folder: &Folder) -> anyhow::Result<Round> {
        let (counts, counters) = (self.seen.counts(), self.counters().await?);
        let (begun, cpu) = (Instant::now(), self.server.usage()?.cpu_seconds);
        self.seen.take_latency()?;
        let sent = self.send(args, in_flight).await?;
        let expected = counts.messages + sent * args.members as u64;
        while self.seen.counts().messages < expected {
            ensure!(begun.elapsed() < PATIENCE, "not everything was delivered");
            self.read_on()?;
            sleep(Duration::from_millis(1)).await;
        }
        let seconds = begun.elapsed().as_secs_f64();
        let cpu = self.server.usage()?.cpu_seconds - cpu;
        let (counted, now) = (self.seen.counts(), self.counters().await?);
        let messages = figure(counted.messages - counts.messages);
        let frames = figure(counted.frames - counts.frames);
        let bytes = figure(counted.bytes - counts.bytes);
        let writes = now.writes - counters.writes;
        let latency = self.seen.take_latency()?;
        let (bytes_per_write, frames_per_write) = (bytes / writes, frames / writes);
        let mut round = Round {
            per_second: messages / seconds,
            per_cpu_second: messages / cpu,
            p50_ms: quantile_ms(&latency, 0.5),
            p99_ms: quantile_ms(&latency, 0.99),
            messages_per_frame: messages / frames,
            frames_per_write,
            bytes_per_write,
            bytes_per_delivery: bytes / messages,
            writes_per_second: writes / seconds / figure(args.members as u64),
            resyncs: now.resyncs - counters.resyncs,
            bare_per_cpu_second: f64::NAN,
        };
        round.bare_per_cpu_second = bare(args, &round, folder).await?;
        Ok(round)
    }

    /// How many messages were acked.
    async fn send(&mut self, args: &Fanout, in_flight: usize) -> anyhow::Result<u64> {
        let mut tasks = JoinSet::new();
        for (sender, socket) in self.senders.drain(..).enumerate() {
            let plan = Plan {
                channel: self.channel,
                sender,
                text_bytes: args.rounds.text,
                in_flight: in_flight as u64,
                until: Until::Delivered,
                lasts: args.rounds.lasts(),
            };
            tasks.spawn(Sender::new(socket, plan, Arc::clone(&self.seen))?.run());
        }
        let mut acked = 0;
        while let Some(sent) = tasks.join_next().await {
            let sent = sent??;
            acked += sent.acked;
            self.senders.push(sent.socket);
        }
        Ok(acked)
    }

    /// Counts what comes to senders who are done, from the others.
    fn read_on(&mut self) -> anyhow::Result<()> {
        let mut taken = Taken::default();
        for (sender, socket) in self.senders.iter_mut().enumerate() {
            if let Some(bytes) = socket.fill().now_or_never() {
                taken.bytes += bytes? as u64;
            }
            socket.frames(|payload| {
                if payload.starts_with(ENTRIES) {
                    self.seen.take_frame(payload, sender, &mut taken);
                }
            })?;
        }
        self.seen.add(&mut taken);
        Ok(())
    }

    async fn counters(&self) -> anyhow::Result<Counters> {
        let text = self.server.metrics().await?;
        let counter = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
            line.with_context(|| format!("the server does not count {name}"))
        };
        Ok(Counters {
            writes: counter("outbound_writes_total ")?,
            resyncs: counter("outbound_resyncs_total ")?,
        })
    }
}

#[derive(Debug, Clone, Copy)]
struct Counters {
    writes: f64,
    resyncs: f64,
}

/// Deliveries per CPU second of the bare loop, with the round's bytes and frames a write and its writes a second.
async fn bare(args: &Fanout, round: &Round, folder: &Folder) -> anyhow::Result<f64> {
    let reference = Reference::Fanout {
        connections: args.members,
        write_bytes: whole(round.bytes_per_write),
        frames: whole(round.frames_per_write),
        rate: round.writes_per_second,
        seconds: args.rounds.seconds,
    };
    let server = Process::reference(&reference, folder).await?;
    let (seen, mut readers) = (Seen::new()?, JoinSet::new());
    for number in 0..args.members {
        let socket = Socket::connect(&server.addr, source(number), READ_BYTES).await?;
        readers.spawn(reader::read(socket, Arc::clone(&seen)));
    }
    sleep(args.rounds.lasts() + Duration::from_millis(500)).await;
    let cpu = server.usage()?.cpu_seconds;
    server.kill().await?;
    while readers.join_next().await.is_some() {}
    Ok(figure(seen.counts().bytes) / round.bytes_per_delivery / cpu)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small positive figure")]
fn whole(figure: f64) -> usize {
    figure.round().max(1.0) as usize
}
