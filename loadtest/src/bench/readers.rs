//! Processes that read connections. One process may open 20,000 files only, and reading should not count as work of the
//! server.
//!
//! The parent writes a line, the child answers with a line: `count` for the totals so far, `take` for the latencies
//! since the last time. Readers that [watch](crate::hot) one channel each know more questions.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use anyhow::{Context, ensure};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use hdrhistogram::Histogram;
use madang_ids::{ChannelId, Seq};
use serde::de::DeserializeOwned;
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
pub(crate) enum Read<'a> {
    /// Sends nothing: for bare servers.
    Bare,
    /// Sends `hello`, and subscribes if an open channel is given.
    Welcome { token: &'a str, subscribe: Option<ChannelId> },
    /// Sends `hello`, and reads a direct channel whose last entry is `head`. Only for [`Kind::Watch`].
    Direct { token: &'a str, channel: ChannelId, head: Seq },
}

/// What the child processes do with what they read.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// They count messages.
    Count,
    /// They check that each connection receives every entry of its channel.
    Watch,
}

/// Child processes that read.
#[derive(Debug, Default)]
pub(crate) struct Readers(Vec<Reading>);

#[derive(Debug)]
struct Reading {
    /// It is killed when this is dropped.
    child: Child,
    asks: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Readers {
    /// Opens all connections.
    pub(crate) async fn start(addr: &str, reads: &[Read<'_>], folder: &Folder) -> anyhow::Result<Self> {
        let mut readers = Self::default();
        readers.add(Kind::Count, addr, reads, folder, "readers").await?;
        Ok(readers)
    }

    /// Opens connections in further processes. No two calls of a measurement have the same `name`.
    pub(crate) async fn add(
        &mut self,
        kind: Kind,
        addr: &str,
        reads: &[Read<'_>],
        folder: &Folder,
        name: &str,
    ) -> anyhow::Result<()> {
        let mut children = Vec::new();
        for (number, chunk) in reads.chunks(PER_PROCESS).enumerate() {
            let list = folder.join(&format!("{name}-{number}"));
            let line = |(index, read): (usize, &Read<'_>)| read.line(number * PER_PROCESS + index);
            std::fs::write(&list, chunk.iter().enumerate().map(line).collect::<String>())?;
            children.push(Reading::start(kind, addr, &list)?);
        }
        for child in &mut children {
            let said = child.answers.next_line().await?.context("the readers exited during start-up")?;
            ensure!(said == "ready", "the readers did not start: {said}");
        }
        self.0.extend(children);
        Ok(())
    }

    /// The ids of the processes.
    pub(crate) fn pids(&self) -> impl Iterator<Item = u32> {
        self.0.iter().filter_map(|reading| reading.child.id())
    }

    /// Asks every process the same question.
    pub(crate) async fn ask<T: DeserializeOwned>(&mut self, question: &str) -> anyhow::Result<Vec<T>> {
        let mut answers = Vec::new();
        for child in &mut self.0 {
            answers.push(serde_json::from_str(&child.ask(question).await?)?);
        }
        Ok(answers)
    }

    /// The totals of all readers.
    pub(crate) async fn counts(&mut self) -> anyhow::Result<Counts> {
        let mut sum = Counts::default();
        for counts in self.ask::<Counts>("count").await? {
            sum.messages += counts.messages;
            sum.frames += counts.frames;
            sum.bytes += counts.bytes;
        }
        Ok(sum)
    }

    /// The latencies since the previous call.
    pub(crate) async fn take_latency(&mut self) -> anyhow::Result<Histogram<u64>> {
        let mut sum = histogram()?;
        for pairs in self.ask::<Vec<(u64, u64)>>("take").await? {
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
            Self::Direct { token, channel, head } => format!("{number} {token} {channel} {head}\n"),
        }
    }
}

impl Reading {
    fn start(kind: Kind, addr: &str, list: &Path) -> anyhow::Result<Self> {
        let program = match kind {
            Kind::Count => "readers",
            Kind::Watch => "watchers",
        };
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["reference", program, "--addr", addr, "--list"]).arg(list);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().context("cannot start the readers")?;
        let asks = child.stdin.take().context("the readers have no input")?;
        let answers = child.stdout.take().context("the readers have no output")?;
        Ok(Self { child, asks, answers: BufReader::new(answers).lines() })
    }

    async fn ask(&mut self, what: &str) -> anyhow::Result<String> {
        self.asks.write_all(format!("{what}\n").as_bytes()).await?;
        self.answers.next_line().await?.context("the readers have exited")
    }
}

/// The child: connects, reads, and answers until its input ends.
pub(crate) async fn serve(args: Args) -> anyhow::Result<()> {
    let seen = Seen::new()?;
    let sockets = open_all(&args, |line| connect(&args.addr, line)).await?;
    let mut reading = JoinSet::new();
    for socket in sockets {
        reading.spawn(reader::read(socket, Arc::clone(&seen)));
    }
    serve_questions(move |question| answer(&seen, question)).await
}

/// Opens the connections of the list, and returns them in its order. If one fails, the parent reads why.
pub(crate) async fn open_all<'a, T, F>(args: &'a Args, open: impl Fn(String) -> F) -> anyhow::Result<Vec<T>>
where
    F: Future<Output = anyhow::Result<T>> + 'a,
{
    let list = std::fs::read_to_string(&args.list)?;
    let lines = list.lines().map(str::to_owned);
    let opened = stream::iter(lines).map(open).buffered(HANDSHAKES).try_collect().await;
    opened.inspect_err(|error| println!("{error:#}"))
}

/// Notifies the parent that all connections are open, and answers it until its questions end.
pub(crate) async fn serve_questions(
    answer: impl Fn(&str) -> anyhow::Result<String> + Send + 'static,
) -> anyhow::Result<()> {
    println!("ready");
    let serve = move || {
        for question in std::io::stdin().lines() {
            println!("{}", answer(&question?)?);
        }
        Ok(())
    };
    tokio::task::spawn_blocking(serve).await?
}

/// The answer to a question about the totals of this process.
pub(crate) fn answer(seen: &Seen, question: &str) -> anyhow::Result<String> {
    if question != "take" {
        return Ok(serde_json::to_string(&seen.counts())?);
    }
    let latency = seen.take_latency()?;
    let recorded = latency.iter_recorded();
    let pairs: Vec<(u64, u64)> =
        recorded.map(|value| (value.value_iterated_to(), value.count_at_value())).collect();
    Ok(serde_json::to_string(&pairs)?)
}

async fn connect(addr: &str, line: String) -> anyhow::Result<Socket> {
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
