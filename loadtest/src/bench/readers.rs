//! Processes that read connections. One process may open 20,000 files only, and reading should not count as work of the
//! server.
//!
//! The parent writes a line, the child answers with a line: `count` for the totals so far, `take` for the latencies
//! since the last time.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use anyhow::{Context, ensure};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use hdrhistogram::Histogram;
use madang_ids::ChannelId;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::JoinSet;

use super::args::Readers as Args;
use super::figures::histogram;
use super::folder::Folder;
use super::reader::{self, Counts, Seen};
use super::socket::{Socket, source};

/// Connections of one process, far below the number of files that it may open.
const PER_PROCESS: usize = 8_000;
/// Bytes of one read of a connection.
const READ_BYTES: usize = 16 * 1024;
/// Concurrent handshakes.
const HANDSHAKES: usize = 64;
/// Stands for an absent value.
const NOTHING: &str = "-";

/// A connection to be read.
#[derive(Debug, Clone)]
pub(super) enum Read<'a> {
    /// Sends nothing: for bare servers.
    Bare,
    /// Sends `hello`, and subscribes if an open channel is given.
    Welcome { token: &'a str, subscribe: Option<ChannelId> },
}

/// Child processes that read.
#[derive(Debug)]
pub(super) struct Readers(Vec<Reading>);

#[derive(Debug)]
struct Reading {
    /// The child is killed when this is dropped.
    _child: Child,
    asks: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Readers {
    /// Opens all connections.
    pub(super) async fn start(addr: &str, reads: &[Read<'_>], folder: &Folder) -> anyhow::Result<Self> {
        let mut children = Vec::new();
        for (number, chunk) in reads.chunks(PER_PROCESS).enumerate() {
            let list = folder.join(&format!("readers-{number}"));
            let line = |(index, read): (usize, &Read<'_>)| read.line(number * PER_PROCESS + index);
            std::fs::write(&list, chunk.iter().enumerate().map(line).collect::<String>())?;
            children.push(Reading::start(addr, &list)?);
        }
        for child in &mut children {
            let said = child.answers.next_line().await?.context("the readers exited during start-up")?;
            ensure!(said == "ready", "the readers did not start: {said}");
        }
        Ok(Self(children))
    }

    /// The totals of all readers.
    pub(super) async fn counts(&mut self) -> anyhow::Result<Counts> {
        let mut sum = Counts::default();
        for child in &mut self.0 {
            let counts: Counts = serde_json::from_str(&child.ask("count").await?)?;
            sum.messages += counts.messages;
            sum.frames += counts.frames;
            sum.bytes += counts.bytes;
        }
        Ok(sum)
    }

    /// The latencies since the previous call.
    pub(super) async fn take_latency(&mut self) -> anyhow::Result<Histogram<u64>> {
        let mut sum = histogram()?;
        for child in &mut self.0 {
            let pairs: Vec<(u64, u64)> = serde_json::from_str(&child.ask("take").await?)?;
            pairs.into_iter().for_each(|(value, count)| sum.saturating_record_n(value, count));
        }
        Ok(sum)
    }
}

impl Read<'_> {
    fn line(&self, number: usize) -> String {
        match self {
            Self::Bare => format!("{number} {NOTHING} {NOTHING}\n"),
            Self::Welcome { token, subscribe } => {
                let channel = subscribe.map_or_else(|| NOTHING.to_owned(), |channel| channel.to_string());
                format!("{number} {token} {channel}\n")
            }
        }
    }
}

impl Reading {
    fn start(addr: &str, list: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["reference", "readers", "--addr", addr, "--list"]).arg(list);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().context("cannot start the readers")?;
        let asks = child.stdin.take().context("the readers have no input")?;
        let answers = child.stdout.take().context("the readers have no output")?;
        Ok(Self { _child: child, asks, answers: BufReader::new(answers).lines() })
    }

    async fn ask(&mut self, what: &str) -> anyhow::Result<String> {
        self.asks.write_all(format!("{what}\n").as_bytes()).await?;
        self.answers.next_line().await?.context("the readers have exited")
    }
}

/// The child: connects, reads, and answers until its input ends.
pub(super) async fn serve(args: Args) -> anyhow::Result<()> {
    let seen = Seen::new()?;
    let list = std::fs::read_to_string(&args.list)?;
    let connected = stream::iter(list.lines())
        .map(|line| connect(&args.addr, line))
        .buffer_unordered(HANDSHAKES)
        .try_collect::<Vec<Socket>>()
        .await;
    let sockets = match connected {
        Ok(sockets) => sockets,
        Err(error) => {
            println!("{error:#}");
            return Err(error);
        }
    };
    let mut reading = JoinSet::new();
    for socket in sockets {
        reading.spawn(reader::read(socket, Arc::clone(&seen)));
    }
    println!("ready");
    tokio::task::spawn_blocking(move || answer(&seen)).await?
}

fn answer(seen: &Seen) -> anyhow::Result<()> {
    for line in std::io::stdin().lines() {
        if line? == "take" {
            let latency = seen.take_latency()?;
            let pairs: Vec<(u64, u64)> = latency
                .iter_recorded()
                .map(|value| (value.value_iterated_to(), value.count_at_value()))
                .collect();
            println!("{}", serde_json::to_string(&pairs)?);
        } else {
            println!("{}", serde_json::to_string(&seen.counts())?);
        }
    }
    Ok(())
}

async fn connect(addr: &str, line: &str) -> anyhow::Result<Socket> {
    let mut words = line.split(' ');
    let number: usize = words.next().context("a line without a number")?.parse()?;
    let (token, channel) = (words.next().unwrap_or(NOTHING), words.next().unwrap_or(NOTHING));
    if token == NOTHING {
        return Socket::connect(addr, source(number), READ_BYTES).await;
    }
    let mut socket = Socket::welcome(addr, source(number), READ_BYTES, token, None).await?;
    if channel != NOTHING {
        socket.subscribe(channel.parse()?).await?;
    }
    Ok(socket)
}
