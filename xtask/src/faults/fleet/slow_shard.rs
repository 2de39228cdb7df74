//! The shard of a hot channel is slow: what others wait for in their own channels must not become longer.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::super::report::millis;
use super::super::socket::Socket;
use super::super::{Figures, Tools};
use super::partition::SlowPartition;
use super::stage::Stage;
use super::user::User;

/// By how much each request for the channel is delayed.
const DELAY: Duration = Duration::from_millis(500);
/// Members who send into the hot channel, members who read its history, and pairs who talk in channels of their own.
const SENDERS: u32 = 8;
const READERS: u32 = 40;
const PAIRS: u32 = 12;
/// The pauses of each of them.
const SENDS_EVERY: Duration = Duration::from_millis(150);
const READS_EVERY: Duration = Duration::from_millis(250);
const TALKS_EVERY: Duration = Duration::from_millis(40);
/// The time until all are warm and the channel is hot, and that of each measurement.
const WARM_UP: Duration = Duration::from_secs(8);
const MEASURED: Duration = Duration::from_secs(20);
/// What others wait may become this much longer than it is without the hot channel.
const BOUND: f64 = 1.5;
/// And none of them waits longer than this.
const STALL: Duration = Duration::from_secs(2);
/// A call waits for its answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Others alone; beside the hot channel; and while its shard is slow.
const PHASES: [&str; 3] = ["quiet", "hot", "slow"];

/// What was measured in one phase.
#[derive(Default)]
struct Phase {
    sends: Vec<Duration>,
    reads: Vec<Duration>,
    hot_sends: Vec<Duration>,
}

/// Everyone writes here; the phase is taken out at its end.
#[derive(Default)]
struct Measured {
    phase: Mutex<Phase>,
    /// Answers of the hot channel that were no success.
    refused: AtomicU64,
    is_over: AtomicBool,
}

impl Measured {
    fn take(&self) -> Phase {
        std::mem::take(&mut *self.phase.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    fn note(&self, kind: impl Fn(&mut Phase) -> &mut Vec<Duration>, took: Duration) {
        kind(&mut self.phase.lock().unwrap_or_else(std::sync::PoisonError::into_inner)).push(took);
    }

    /// Repeats `act` with pauses until the end, and ends everything if it fails.
    fn repeat(&self, every: Duration, mut act: impl FnMut(u64) -> Result<()>) -> Result<()> {
        for round in 1.. {
            if self.is_over.load(Ordering::SeqCst) {
                break;
            }
            if let Err(error) = act(round) {
                self.is_over.store(true, Ordering::SeqCst);
                return Err(error);
            }
            thread::sleep(every);
        }
        Ok(())
    }
}

/// A user with a socket, and a channel.
struct Talker {
    number: u32,
    socket: Socket,
    channel: String,
}

impl Talker {
    fn send(&mut self, round: u64) -> Result<(Value, Duration)> {
        let id = format!("s{round}");
        let key = format!("00000000-0000-4000-8000-{:04x}{round:08x}", self.number);
        let frame = json!({
            "type": "send", "id": id, "channel_id": self.channel, "client_msg_id": key, "body": { "text": "la la la" }
        });
        self.ask(&frame)
    }

    fn read(&mut self, round: u64, before: u64) -> Result<(Value, Duration)> {
        let id = format!("h{round}");
        self.ask(&json!({ "type": "history", "id": id, "channel_id": self.channel, "before": before, "limit": 20 }))
    }

    fn ask(&mut self, frame: &Value) -> Result<(Value, Duration)> {
        let begun = Instant::now();
        let answer = self.socket.ask(frame, PATIENCE)?;
        Ok((answer, begun.elapsed()))
    }
}

/// A hot channel whose partition is slow, and others.
pub(super) fn of_a_hot_channel(tools: &Tools) -> Result<Figures> {
    let stage = Stage::new(tools, "fleet-slow-shard")?;
    let shard = SlowPartition::before(stage.place.cassandra(1)?[0])?;
    stage.start(|shape| shape.store_through = Some(shard.addr))?;
    let addrs = (1..=3).map(|node| stage.addr(&format!("chat-{node}"))).collect::<Result<Vec<_>>>()?;
    let addr_of = |number: u32| addrs[number as usize % addrs.len()];
    let talker = |user: &User, number: u32, channel: String| -> Result<Talker> {
        Ok(Talker { number, socket: Socket::open(addr_of(number), &user.token)?, channel })
    };
    let owner = User::sign_up(addrs[0], "owner")?;
    let hot = owner.make_channel(&json!({ "kind": "open", "name": "Concert" }))?;
    let mut crowd = Vec::new();
    for number in 0..SENDERS + READERS {
        let user = User::sign_up(addr_of(number), &format!("crowd{number}"))?;
        user.call("PUT", &format!("/v1/channels/{hot}/membership"), None)?;
        crowd.push((user, number));
    }
    let mut pairs = Vec::new();
    for number in 0..PAIRS {
        let [one, other] =
            ["one", "other"].map(|side| User::sign_up(addr_of(number), &format!("{side}{number}")));
        let (one, other) = (one?, other?);
        let channel = one.make_channel(&json!({ "kind": "direct", "members": [other.id] }))?;
        pairs.push(talker(&one, SENDERS + READERS + number, channel)?);
    }

    let readers = crowd.split_off(SENDERS as usize);
    let measured = Measured::default();
    let phases = thread::scope(|scope| -> Result<[Phase; 3]> {
        let measured = &measured;
        let mut tasks = Vec::new();
        tasks.extend(pairs.into_iter().map(|pair| scope.spawn(move || talk(pair, measured))));
        thread::sleep(WARM_UP);
        measured.take();
        thread::sleep(MEASURED);
        let quiet = measured.take();
        // Their sockets are opened now: a silent one is closed.
        let (talker, hot) = (&talker, &hot);
        tasks.extend(crowd.into_iter().map(|(user, number)| {
            scope.spawn(move || send_hot(talker(&user, number, hot.clone())?, measured))
        }));
        tasks.extend(readers.into_iter().map(|(user, number)| {
            scope.spawn(move || read_hot(talker(&user, number, hot.clone())?, measured))
        }));
        thread::sleep(WARM_UP);
        let hot_only = measured.take();
        shard.slow_down(hot.parse().context("an id is a number")?, DELAY);
        thread::sleep(MEASURED);
        let slow = measured.take();
        measured.is_over.store(true, Ordering::SeqCst);
        for task in tasks {
            task.join().ok().context("a thread failed")??;
        }
        Ok([quiet, hot_only, slow])
    })?;
    let figures = judge(phases, &shard, &measured)?;
    Ok(figures)
}

fn send_hot(mut sender: Talker, measured: &Measured) -> Result<()> {
    measured.repeat(SENDS_EVERY, |round| {
        let (answer, took) = sender.send(round)?;
        match answer["type"].as_str() {
            Some("ack") => measured.note(|phase| &mut phase.hot_sends, took),
            _ => drop(measured.refused.fetch_add(1, Ordering::SeqCst)),
        }
        Ok(())
    })
}

/// Reads different pages, so that each is a read of the store.
fn read_hot(mut reader: Talker, measured: &Measured) -> Result<()> {
    measured.repeat(READS_EVERY, |round| {
        let before = 20 + (round * 31 + u64::from(reader.number) * 7) % 200;
        let (answer, _) = reader.read(round, before)?;
        if answer["type"] != "history" {
            measured.refused.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    })
}

fn talk(mut pair: Talker, measured: &Measured) -> Result<()> {
    measured.repeat(TALKS_EVERY, |round| {
        let (answer, took) = pair.send(round)?;
        ensure!(answer["type"] == "ack", "a message in another channel was refused: {answer}");
        measured.note(|phase| &mut phase.sends, took);
        let head = answer["seq"].as_u64().context("no seq")?;
        let (answer, took) = pair.read(round, head)?;
        ensure!(answer["type"] == "history", "a read of another channel was refused: {answer}");
        measured.note(|phase| &mut phase.reads, took);
        Ok(())
    })
}

fn judge(phases: [Phase; 3], shard: &SlowPartition, measured: &Measured) -> Result<Figures> {
    let mut figures = Figures::new();
    figures.insert("delayed_requests".to_owned(), shard.delayed().into());
    figures.insert("refused_in_the_hot_channel".to_owned(), measured.refused.load(Ordering::SeqCst).into());
    let mut seen = BTreeMap::new();
    for (name, phase) in PHASES.into_iter().zip(phases) {
        let Phase { sends, reads, hot_sends } = phase;
        for (what, took) in [("sends", sends), ("reads", reads), ("hot_sends", hot_sends)] {
            let waits = Waits::of(took);
            figures.insert(format!("{name}_{what}"), waits.count.into());
            for (figure, wait) in [("p50", waits.p50), ("p99", waits.p99), ("longest", waits.longest)] {
                figures.insert(format!("{name}_{what}_{figure}_ms"), millis(wait).into());
            }
            seen.insert((name, what), waits);
        }
    }
    for what in ["sends", "reads"] {
        let [quiet, slow] = ["quiet", "slow"].map(|phase| &seen[&(phase, what)]);
        ensure!(
            slow.p99.as_secs_f64() <= BOUND * quiet.p99.as_secs_f64(),
            "{what} of others took more than {BOUND} times as long: {figures:?}"
        );
        // Each pair waits for its answers, so a stall shows in their number and in the longest one, not in the p99.
        ensure!(
            slow.longest <= STALL && slow.count * 10 >= quiet.count * 8,
            "{what} of others stalled: {figures:?}"
        );
    }
    ensure!(seen[&("slow", "hot_sends")].p50 >= DELAY, "the hot channel was not slow: {figures:?}");
    Ok(figures)
}

/// What some requests waited.
struct Waits {
    count: usize,
    p50: Duration,
    p99: Duration,
    longest: Duration,
}

impl Waits {
    fn of(mut took: Vec<Duration>) -> Self {
        took.sort_unstable();
        let count = took.len();
        let at = |percent| took.get(count * percent / 100).or(took.last()).copied().unwrap_or_default();
        Self { count, p50: at(50), p99: at(99), longest: at(100) }
    }
}
