//! What a message costs in a fleet: CPU of each role, calls of Redis and statements of the store, and the latency of its ack beside
//! a bare conditional batch on the same cluster.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use madang_client::Endpoint;
use madang_ids::ChannelId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::args::Fleet as Args;
use super::figures::{figure, histogram, median, print_conditions, quantile_ms, verdict};
use super::people::{self, Person};
use super::process;
use super::reader::{self, Seen};
use super::sender::{Plan, Sender};
use super::socket::{Socket, source};
use crate::fleet::{Fleet, Role};

const READ_BYTES: usize = 16 * 1024;
/// The ack of a quiet channel at its home beside the bare batch.
const TARGET: f64 = 1.5;
/// Commands that nodes send whether there are messages or not are measured for as long as a round and subtracted.
const IDLE: Duration = Duration::from_secs(5);

/// Counts commands for homes on other nodes.
const FORWARDED: &str = "home_forwarded_total";

/// One row of the table.
struct Scene {
    name: &'static str,
    /// Members of each channel; the first one sends.
    members: usize,
    channels: usize,
    /// Between two messages of a sender.
    pause: Duration,
    /// The sender is connected to the home of the channel, and not to any node.
    at_home: bool,
}

const SCENES: [Scene; 5] = [
    Scene {
        name: "quiet, at home: 10 direct channels",
        members: 2,
        channels: 10,
        pause: Duration::from_secs(1),
        at_home: true,
    },
    Scene {
        name: "quiet: 10 direct channels, 1/s each",
        members: 2,
        channels: 10,
        pause: Duration::from_secs(1),
        at_home: false,
    },
    Scene {
        name: "quiet: 2 groups of 50, 1/s each",
        members: 50,
        channels: 2,
        pause: Duration::from_secs(1),
        at_home: false,
    },
    Scene {
        name: "busy: 32 direct channels",
        members: 2,
        channels: 32,
        pause: Duration::ZERO,
        at_home: false,
    },
    Scene { name: "busy: one group of 50", members: 50, channels: 1, pause: Duration::ZERO, at_home: false },
];

/// Counters of everything that works for a message.
#[derive(Debug, Clone, Default)]
struct Counters {
    cpu_seconds: BTreeMap<Role, f64>,
    redis_commands: f64,
    statements: f64,
}

/// What one round showed.
struct Round {
    per_second: f64,
    delivered_per_second: f64,
    ack_ms: [f64; 2],
    delivery_ms: f64,
    /// Of one message, in milliseconds.
    cpu_ms: BTreeMap<Role, f64>,
    redis_commands: f64,
    statements: f64,
}

struct Bench {
    fleet: Fleet,
    /// Host and port of each chat node.
    nodes: Vec<String>,
    http: reqwest::Client,
}

/// Measures and prints the results.
pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let bench = Bench::open(&args)?;
    print_conditions(&format!(
        "fleet: {} chat nodes; members of a channel are connected to different nodes; texts of {} B; rounds of {} s. \
         CPU in ms a message",
        bench.nodes.len(),
        args.rounds.text,
        args.rounds.seconds
    ));
    let rest = people::rest(&format!("http://{}", bench.nodes[0]))?;
    let mut all = people::sign_up(&rest, 100).await?;
    println!(
        "{:<36} {:>7} {:>9} {:>15} {:>9} {:>6} {:>6} {:>6} {:>6} {:>6} {:>7}",
        "",
        "msgs/s",
        "deliv./s",
        "ack p50, p99 ms",
        "deliv. ms",
        "chat",
        "pres.",
        "redis",
        "cql",
        "Redis",
        "CQL"
    );
    let mut quiet_ms = f64::NAN;
    for scene in &SCENES {
        let mut channels = Vec::new();
        for members in all.chunks(scene.members).take(scene.channels) {
            let members: Vec<&Person> = members.iter().collect();
            channels.push(if scene.members == 2 {
                people::channel(&rest, super::args::Kind::Direct, &members).await?
            } else {
                people::group(&rest, &members).await?
            });
        }
        let mut rounds = Vec::new();
        for _ in 0..args.rounds.repeats {
            // What was sent before must not be delivered in this round.
            people::take_cursors(&rest, &mut all).await?;
            let channels: Vec<_> = channels.iter().copied().zip(all.chunks(scene.members)).collect();
            rounds.push(bench.round(&args, scene, &channels).await?);
        }
        let ack = print(scene, &rounds);
        if quiet_ms.is_nan() {
            quiet_ms = ack;
        }
    }
    if let Some(bare_ms) = args.bare_ms {
        let ratio = quiet_ms / bare_ms;
        println!(
            "ack of a quiet direct channel at its home beside a bare conditional batch ({bare_ms:.2} ms): {ratio:.2}, at most {TARGET}: {}",
            verdict(ratio <= TARGET)
        );
    }
    Ok(())
}

fn print(scene: &Scene, rounds: &[Round]) -> f64 {
    let of = |figure: fn(&Round) -> f64| median(rounds.iter().map(figure));
    let cpu = |role: Role| median(rounds.iter().map(|round| round.cpu_ms.get(&role).copied().unwrap_or(0.0)));
    let ack = of(|round| round.ack_ms[0]);
    println!(
        "{:<36} {:>7.0} {:>9.0} {ack:>8.2} {:>6.1} {:>9.1} {:>6.2} {:>6.2} {:>6.2} {:>6.2} {:>6.1} {:>7.1}",
        scene.name,
        of(|round| round.per_second),
        of(|round| round.delivered_per_second),
        of(|round| round.ack_ms[1]),
        of(|round| round.delivery_ms),
        cpu(Role::Chat),
        cpu(Role::Presence),
        cpu(Role::Redis),
        cpu(Role::Cql),
        of(|round| round.redis_commands),
        of(|round| round.statements),
    );
    ack
}

impl Bench {
    fn open(args: &Args) -> anyhow::Result<Self> {
        let fleet = Fleet::open(&args.dir)?;
        let urls = fleet.calls()?;
        let nodes = urls.iter().map(|url| {
            let endpoint = Endpoint::parse(url)?;
            ensure!(endpoint.is_loopback_v4(), "{url} is not on this machine: its CPU cannot be measured");
            Ok(url.trim_start_matches("http://").trim_end_matches('/').to_owned())
        });
        let nodes = nodes.collect::<anyhow::Result<_>>()?;
        let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build()?;
        Ok(Self { fleet, nodes, http })
    }

    async fn round(
        &self,
        args: &Args,
        scene: &Scene,
        channels: &[(ChannelId, &[Person])],
    ) -> anyhow::Result<Round> {
        let (mut readers, mut senders, seen) = (JoinSet::new(), Vec::new(), Seen::new()?);
        for (number, (channel, members)) in channels.iter().enumerate() {
            for (index, member) in members.iter().enumerate().skip(1) {
                readers.spawn(reader::read(self.socket(member, number + index).await?, Arc::clone(&seen)));
            }
            let plan = Plan {
                channel: *channel,
                sender: number,
                text_bytes: args.rounds.text,
                in_flight: 1,
                lasts: args.rounds.lasts(),
                pause: scene.pause,
            };
            let node = match scene.at_home {
                true => self.home_of(*channel, &members[0]).await?,
                false => number,
            };
            let socket = self.socket(&members[0], node).await?;
            senders.push(Sender::new(socket, plan, Arc::clone(&seen))?);
        }
        let idle = self.idle().await?;
        let (begun, before) = (Instant::now(), self.counters().await?);
        // Senders with a pause take turns, so that one does not wait for another.
        let turn = scene.pause / u32::try_from(senders.len())?;
        let in_turn = |(number, sender): (u32, Sender)| async move {
            sleep(turn * number).await;
            sender.run().await
        };
        let mut running: JoinSet<_> = (0..).zip(senders).map(in_turn).collect();
        let (mut acked, mut latency) = (0, histogram()?);
        while let Some(sent) = running.join_next().await {
            let sent = sent??;
            acked += sent.acked;
            latency.add(sent.latency)?;
        }
        let seconds = begun.elapsed().as_secs_f64();
        let after = self.counters().await?;
        let delivered = figure(seen.counts().messages);
        readers.shutdown().await;
        let messages = figure(acked);
        ensure!(acked > 0, "nothing was acked");
        let cpu_ms = after.cpu_seconds.iter().map(|(role, now)| {
            let used = now - before.cpu_seconds.get(role).unwrap_or(&0.0) - idle.cpu_seconds[role] * seconds;
            (*role, used.max(0.0) * 1_000.0 / messages)
        });
        let delivery = seen.take_latency()?;
        Ok(Round {
            per_second: messages / seconds,
            delivered_per_second: delivered / seconds,
            ack_ms: [quantile_ms(&latency, 0.5), quantile_ms(&latency, 0.99)],
            delivery_ms: quantile_ms(&delivery, 0.5),
            cpu_ms: cpu_ms.collect(),
            redis_commands: (after.redis_commands - before.redis_commands - idle.redis_commands * seconds)
                .max(0.0)
                / messages,
            statements: (after.statements - before.statements - idle.statements * seconds).max(0.0)
                / messages,
        })
    }

    /// What is used in a second without messages.
    async fn idle(&self) -> anyhow::Result<Counters> {
        let (begun, before) = (Instant::now(), self.counters().await?);
        sleep(IDLE).await;
        let after = self.counters().await?;
        let seconds = begun.elapsed().as_secs_f64();
        let cpu = after.cpu_seconds.iter();
        Ok(Counters {
            cpu_seconds: cpu
                .map(|(role, now)| (*role, (now - before.cpu_seconds.get(role).unwrap_or(&0.0)) / seconds))
                .collect(),
            redis_commands: (after.redis_commands - before.redis_commands) / seconds,
            statements: (after.statements - before.statements) / seconds,
        })
    }

    async fn counters(&self) -> anyhow::Result<Counters> {
        let mut counters = Counters::default();
        for member in self.fleet.members()? {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", member.pid()))?;
            let used = process::cpu_seconds(&stat).context("no times in stat")?;
            *counters.cpu_seconds.entry(member.role).or_default() += used;
            if member.role == Role::Redis {
                let url = member.url().context("Redis has no address")?;
                counters.redis_commands += redis_commands(url).await?;
            }
        }
        for node in &self.nodes {
            counters.statements += sum_of(&self.metrics(node).await?, "store_statement_seconds_count");
        }
        Ok(counters)
    }

    /// The node that forwards no message for this channel.
    async fn home_of(&self, channel: ChannelId, person: &Person) -> anyhow::Result<usize> {
        for (number, node) in self.nodes.iter().enumerate() {
            let before = sum_of(&self.metrics(node).await?, FORWARDED);
            people::say(&people::rest(&format!("http://{node}"))?, person, channel, 1).await?;
            if sum_of(&self.metrics(node).await?, FORWARDED) <= before {
                return Ok(number);
            }
        }
        bail!("each node forwards what is sent to {channel}")
    }

    async fn metrics(&self, node: &str) -> anyhow::Result<String> {
        Ok(self.http.get(format!("http://{node}/metrics")).send().await?.text().await?)
    }

    async fn socket(&self, person: &Person, number: usize) -> anyhow::Result<Socket> {
        let addr = &self.nodes[number % self.nodes.len()];
        Socket::welcome(addr, source(number), READ_BYTES, &person.token, person.cursor.clone()).await
    }
}

/// Calls that a server has carried out from outside. The statistics count those within scripts too, so commands that scripts use are
/// left out.
async fn redis_commands(addr: &str) -> anyhow::Result<f64> {
    let mut stream = TcpStream::connect(addr).await.context("cannot reach Redis")?;
    stream.write_all(b"INFO commandstats\r\nQUIT\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let calls = |name: &str| -> f64 {
        let line = answer.lines().find(|line| line.starts_with(&format!("cmdstat_{name}:calls=")));
        let calls = line.and_then(|line| line.split_once("calls=")?.1.split(',').next()?.parse().ok());
        calls.unwrap_or(0.0)
    };
    Ok(["evalsha", "xread", "set", "ping"].into_iter().map(calls).sum())
}

/// The sum of a metric over its labels.
fn sum_of(text: &str, name: &str) -> f64 {
    let of = |line: &str| {
        let rest = line.strip_prefix(name)?;
        let is_whole = rest.starts_with(['{', ' ']);
        rest.rsplit(' ').next().filter(|_| is_whole)?.parse::<f64>().ok()
    };
    text.lines().filter_map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_summed_over_its_labels() {
        let text = "# TYPE a counter\na{class=\"read\"} 3\na{class=\"write\"} 4.5\na_total 9\na 1\n";
        assert!((sum_of(text, "a") - 8.5).abs() < f64::EPSILON);
    }
}
