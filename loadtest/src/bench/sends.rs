//! Durable sends to distinct direct channels, compared with a bare loop of group commits on the same disk.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use madang_ids::ChannelId;
use tokio::process::Command;
use tokio::task::JoinSet;

use super::args::Sends;
use super::figures::{figure, histogram, median, print_conditions, quantile_ms, verdict};
use super::folder::{Folder, programs};
use super::people::{self, Person};
use super::process::Process;
use super::reader::{self, Seen};
use super::sender::{Plan, Sender};
use super::socket::{Socket, source};

/// Bytes of one read of a connection.
const READ_BYTES: usize = 4 * 1024;
/// Least share of what the bare loop commits, with the largest number in flight.
const TARGET: f64 = 0.5;

/// Results of one round.
#[derive(Debug, Clone, Copy)]
struct Round {
    per_second: f64,
    per_cpu_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    bare: f64,
}

struct Pairs {
    server: Process,
    pairs: Vec<(Person, Person)>,
    channels: Vec<ChannelId>,
}

/// Measures and prints the results.
pub(super) async fn run(args: Sends) -> anyhow::Result<()> {
    let folder = Folder::new()?;
    let receivers = if args.receivers { "connected" } else { "not connected" };
    print_conditions(&format!(
        "sends: each connection is another sender with its own direct channel and one text of {} B in flight; \
         receivers \
         {receivers}; durable; rounds of {} s",
        args.rounds.text, args.rounds.seconds
    ));
    let most = args.in_flight.iter().copied().max().context("nothing to measure")?;
    let pairs = Pairs::open(most, &folder).await?;
    println!(
        "{:>9} {:>9} {:>14} {:>9} {:>9} {:>9} {:>6}",
        "in flight", "sends/s", "per CPU second", "p50 ms", "p99 ms", "bare/s", "ratio"
    );
    let mut last = f64::NAN;
    for in_flight in args.in_flight.clone() {
        let mut rounds = Vec::new();
        for _ in 0..args.rounds.repeats {
            rounds.push(pairs.round(&args, in_flight, &folder).await?);
        }
        last = print(in_flight, &rounds);
    }
    println!(
        "target: at least {TARGET} of the bare loop with the most in flight: {} ({last:.2})",
        verdict(last >= TARGET)
    );
    Ok(())
}

fn print(in_flight: usize, rounds: &[Round]) -> f64 {
    let of = |figure: fn(&Round) -> f64| median(rounds.iter().map(figure));
    let ratio = of(|round| round.per_second / round.bare);
    println!(
        "{in_flight:>9} {:>9.0} {:>14.0} {:>9.2} {:>9.2} {:>9.0} {ratio:>6.2}",
        of(|round| round.per_second),
        of(|round| round.per_cpu_second),
        of(|round| round.p50_ms),
        of(|round| round.p99_ms),
        of(|round| round.bare),
    );
    ratio
}

impl Pairs {
    async fn open(count: usize, folder: &Folder) -> anyhow::Result<Self> {
        let server = Process::madang(&folder.join("data"), folder).await?;
        let rest = people::rest(&server.url())?;
        let mut senders = people::sign_up(&rest, count * 2).await?;
        people::take_cursors(&rest, &mut senders).await?;
        let receivers = senders.split_off(count);
        let pairs: Vec<(Person, Person)> = senders.into_iter().zip(receivers).collect();
        let channels = people::directs(&rest, &pairs).await?;
        Ok(Self { server, pairs, channels })
    }

    async fn round(&self, args: &Sends, in_flight: usize, folder: &Folder) -> anyhow::Result<Round> {
        let mut readers = JoinSet::new();
        let mut senders = JoinSet::new();
        let seen = Seen::new()?;
        for (number, ((from, to), channel)) in
            self.pairs.iter().zip(&self.channels).take(in_flight).enumerate()
        {
            if args.receivers {
                readers.spawn(reader::read(self.socket(to, number).await?, Arc::clone(&seen)));
            }
            let plan = Plan {
                channel: *channel,
                sender: number,
                text_bytes: args.rounds.text,
                in_flight: 1,
                lasts: args.rounds.lasts(),
                pause: Duration::ZERO,
            };
            senders.spawn(Sender::new(self.socket(from, number).await?, plan, Arc::clone(&seen))?.run());
        }
        let (begun, cpu) = (Instant::now(), self.server.usage()?.cpu_seconds);
        let (mut acked, mut latency) = (0, histogram()?);
        while let Some(sent) = senders.join_next().await {
            let sent = sent??;
            acked += sent.acked;
            latency.add(sent.latency)?;
        }
        let seconds = begun.elapsed().as_secs_f64();
        let cpu = self.server.usage()?.cpu_seconds - cpu;
        readers.shutdown().await;
        Ok(Round {
            per_second: figure(acked) / seconds,
            per_cpu_second: figure(acked) / cpu,
            p50_ms: quantile_ms(&latency, 0.5),
            p99_ms: quantile_ms(&latency, 0.99),
            bare: bare(in_flight, folder).await?,
        })
    }

    async fn socket(&self, person: &Person, number: usize) -> anyhow::Result<Socket> {
        let Person { token, cursor, .. } = person;
        Socket::welcome(&self.server.addr, source(number), READ_BYTES, token, cursor.clone()).await
    }
}

/// Rows per second of the bare loop, with the same number of rows per commit.
async fn bare(in_flight: usize, folder: &Folder) -> anyhow::Result<f64> {
    let program = programs()?.join("examples").join("appends");
    let mut command = Command::new(&program);
    command.args(["bare", &in_flight.to_string()]).current_dir(folder.path()).kill_on_drop(true);
    let output = command.output().await.with_context(|| format!("cannot run {}", program.display()))?;
    ensure!(output.status.success(), "the bare loop failed: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().parse().context("the bare loop does not print a number")
}
