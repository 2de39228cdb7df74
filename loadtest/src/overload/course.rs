//! The course of a run, on a server that the stage has filled.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Context;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use madang_proto::Content;
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::args::Overload;
use super::recorder::{Phase, Recorder, Second};
use super::stage::{PROBES, Stage};
use super::talk::Load;
use super::tally::Counts;
use crate::bench::figures::figure;
use crate::instruments::history::{self, Acked, sent_us};
use crate::instruments::usage::ServerProcess;

/// Time with light load before the search.
const QUIET: Duration = Duration::from_secs(10);
/// Time of the light load before the overload, and the most for which the level is awaited to fall.
const REST: Duration = Duration::from_secs(10);
const COOL: Duration = Duration::from_secs(60);
/// Time that is observed after the overload. The server must have recovered within 30 s.
const RECOVERY: Duration = Duration::from_secs(40);
/// The first part of a step in which the load settles. It is not measured.
const SETTLE: Duration = Duration::from_secs(2);
/// Time between two changes of the rates of the other requests in a step.
const FOLLOW: Duration = Duration::from_millis(500);
/// A step must bring this much more than the best one before. The search ends after this number of steps that do not: one
/// alone may be slow because of other work of the machine.
const WORTHWHILE: f64 = 1.05;
const IN_VAIN: u32 = 2;
const FIRST_PAIRS: usize = 2;

/// Other requests of a normal day, for each message; a message also has a read marker, and a typing event if one is due.
const PRESENCE: f64 = 0.25;
const HISTORY: f64 = 0.25;
const JOINS: f64 = 0.05;
const CONNECTIONS: f64 = 0.05;

/// Channels that are checked at the same time.
const CHECKS: usize = 8;

/// One step of the search.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Step {
    /// Pairs that send, one message at a time each.
    pub(super) pairs: usize,
    pub(super) acks_per_second: f64,
    /// Requests that were refused: such a step is above the capacity.
    pub(super) shed: u64,
}

/// What history contains at the end.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Stored {
    pub(super) messages: u64,
    pub(super) acked: u64,
    /// Acked messages that are not at the place which the ack gave.
    pub(super) missing: u64,
    /// Messages that are there twice, or before an earlier one of the same sender.
    pub(super) twice: u64,
    pub(super) reordered: u64,
    pub(super) holes: u64,
}

/// Everything that a run has found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) steps: Vec<Step>,
    pub(super) capacity: f64,
    pub(super) seconds: Vec<Second>,
    /// Begin and end of the overload.
    pub(super) begun: Instant,
    pub(super) ended: Instant,
    /// The answers to the pairs, the quiet pair, and the streams, in the whole run.
    pub(super) answers: Vec<(&'static str, Counts, Option<String>)>,
    /// Answers to messages of the pairs in the overload.
    pub(super) overload: Counts,
    pub(super) stored: Stored,
    /// Whether the same processes of the server run as at the begin; `None` if they are not known.
    pub(super) has_run: Option<bool>,
}

/// Everything that acts.
#[derive(Debug)]
struct Course<'a> {
    args: &'a Overload,
    stage: Stage,
    phase: watch::Sender<Phase>,
    recorder: JoinSet<anyhow::Result<Vec<Second>>>,
    talks: JoinSet<(usize, Vec<Acked>)>,
    /// Ends the streams when it is dropped.
    _streams: JoinSet<()>,
}

/// Plays all phases.
pub(super) async fn play(args: &Overload, mut stage: Stage, server: ServerProcess) -> anyhow::Result<Found> {
    let runs = server.runs();
    let (phase, phases) = watch::channel(Phase::Quiet);
    let mut recorder = JoinSet::new();
    recorder.spawn(Recorder::new(&stage, server).run(phases));
    let mut talks = JoinSet::new();
    for (number, talk) in std::mem::take(&mut stage.talks).into_iter().enumerate() {
        talks.spawn(async move {
            let (_, acked) = talk.run().await;
            (number, acked)
        });
    }
    let mut streams = JoinSet::new();
    for stream in stage.streams.all() {
        streams.spawn(std::sync::Arc::clone(stream).run());
    }
    stage.probing.send_replace(Load::Open { per_second: PROBES });
    let course = Course { args, stage, phase, recorder, talks, _streams: streams };
    let mut found = course.run().await?;
    found.has_run = runs.zip(server.runs()).map(|(before, after)| !before.is_empty() && before == after);
    Ok(found)
}

impl Course<'_> {
    async fn run(self) -> anyhow::Result<Found> {
        println!("quiet: {} s with {} messages a second", QUIET.as_secs(), self.args.light);
        self.light();
        sleep(QUIET).await;
        let steps = match self.args.capacity {
            Some(_) => Vec::new(),
            None => self.search().await?,
        };
        let best =
            steps.iter().filter(|step| step.shed == 0).map(|step| step.acks_per_second).fold(0.0, f64::max);
        let capacity = self.args.capacity.map_or(best, f64::from);
        anyhow::ensure!(
            capacity > 0.0,
            "the capacity is not known: the server refuses requests in every step"
        );
        self.phase.send_replace(Phase::Rest);
        self.light();
        sleep(REST).await;
        self.cool().await;
        let per_second = capacity * self.args.factor;
        println!("overload: {} s with {per_second:.0} messages a second", self.args.seconds);
        let before = self.stage.crowd.messages.counts();
        self.phase.send_replace(Phase::Overload);
        let begun = Instant::now();
        self.offer(per_second);
        sleep(self.args.lasts()).await;
        let ended = Instant::now();
        println!("recovery: {} s with {} messages a second", RECOVERY.as_secs(), self.args.light);
        self.phase.send_replace(Phase::Recovery);
        self.light();
        let overload = self.stage.crowd.messages.counts().since(&before);
        sleep(RECOVERY.saturating_sub(ended.elapsed())).await;
        self.end(Found {
            steps,
            capacity,
            seconds: Vec::new(),
            begun,
            ended,
            answers: Vec::new(),
            overload,
            stored: Stored::default(),
            has_run: None,
        })
        .await
    }

    /// Raises the number of senders that wait for their acks, until the rate does not rise any more or the server refuses
    /// requests.
    async fn search(&self) -> anyhow::Result<Vec<Step>> {
        self.phase.send_replace(Phase::Search);
        let (mut steps, mut best): (Vec<Step>, f64) = (Vec::new(), 0.0);
        let (mut pairs, mut in_vain) = (FIRST_PAIRS, 0);
        loop {
            let pairs_now = pairs.min(self.args.pairs);
            let step = self.step(pairs_now).await;
            println!(
                "search: {} senders: {:.0} acks a second, {} requests shed",
                step.pairs, step.acks_per_second, step.shed
            );
            let (rate, shed) = (step.acks_per_second, step.shed);
            steps.push(step);
            in_vain = if rate < best * WORTHWHILE { in_vain + 1 } else { 0 };
            if shed > 0 || in_vain == IN_VAIN || pairs_now == self.args.pairs {
                return Ok(steps);
            }
            (best, pairs) = (best.max(rate), pairs * 2);
        }
    }

    async fn step(&self, pairs: usize) -> Step {
        self.stage.load.send_replace(Load::Closed { pairs });
        self.follow(SETTLE).await;
        let (begun, acked, shed) = (Instant::now(), self.acked(), self.shed());
        self.follow(Duration::from_secs(self.args.step).saturating_sub(SETTLE)).await;
        let acks_per_second = figure(self.acked() - acked) / begun.elapsed().as_secs_f64();
        Step { pairs, acks_per_second, shed: self.shed() - shed }
    }

    /// Sets the rates of the other requests by that of the acks.
    async fn follow(&self, lasts: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < lasts {
            let (since, acked) = (Instant::now(), self.acked());
            sleep(FOLLOW).await;
            self.others(figure(self.acked() - acked) / since.elapsed().as_secs_f64());
        }
    }

    fn light(&self) {
        self.offer(f64::from(self.args.light));
    }

    fn offer(&self, per_second: f64) {
        self.stage.load.send_replace(Load::Open { per_second });
        self.others(per_second);
    }

    /// Other requests beside this number of messages a second.
    fn others(&self, messages: f64) {
        let streams = &self.stage.streams;
        // Every second visit is a leave.
        let rates = [
            (&streams.presence, PRESENCE),
            (&streams.history, HISTORY),
            (&streams.joins, 2.0 * JOINS),
            (&streams.connections, CONNECTIONS),
        ];
        for (stream, share) in rates {
            stream.rate.store((messages * share).ceil() as u32, Ordering::Relaxed);
        }
    }

    /// Waits until the server refuses nothing any more.
    async fn cool(&self) {
        let begun = Instant::now();
        let mut shed = self.shed();
        while begun.elapsed() < COOL {
            sleep(Duration::from_secs(3)).await;
            let now = self.shed();
            if now == shed {
                return;
            }
            shed = now;
        }
    }

    fn acked(&self) -> u64 {
        self.stage.crowd.messages.counts().done
    }

    fn shed(&self) -> u64 {
        let streams: u64 = self.stage.streams.all().iter().map(|stream| stream.tally.counts().shed).sum();
        streams + self.stage.crowd.messages.counts().shed
    }

    /// Waits for the missing answers, and checks the history.
    async fn end(mut self, mut found: Found) -> anyhow::Result<Found> {
        self.phase.send_replace(Phase::End);
        for load in [&self.stage.load, &self.stage.probing] {
            load.send_replace(Load::End);
        }
        found.seconds = self.recorder.join_next().await.context("the recorder has ended")???;
        for second in &mut found.seconds {
            let (at, begun) = (second.ended, found.begun);
            // One of the two is zero: `duration_since` of a later time is.
            second.at = at.duration_since(begun).as_secs_f64() - begun.duration_since(at).as_secs_f64();
        }
        let acked: HashMap<usize, Vec<Acked>> = self.talks.join_all().await.into_iter().collect();
        println!("check: {} acked messages in history", acked.values().map(Vec::len).sum::<usize>());
        found.stored = check(&self.stage, acked).await?;
        let (stage, streams) = (&self.stage, &self.stage.streams);
        let tallies = [
            ("messages", &stage.crowd.messages),
            ("quiet pair", &stage.probe.messages),
            ("receipts", &stage.crowd.receipts),
            ("presence", &streams.presence.tally),
            ("history", &streams.history.tally),
            ("joins", &streams.joins.tally),
            ("connections", &streams.connections.tally),
        ];
        found.answers =
            tallies.into_iter().map(|(name, tally)| (name, tally.counts(), tally.first_error())).collect();
        Ok(found)
    }
}

async fn check(stage: &Stage, mut acked: HashMap<usize, Vec<Acked>>) -> anyhow::Result<Stored> {
    let channels: Vec<(usize, Vec<Acked>)> =
        (0..stage.channels.len()).map(|number| (number, acked.remove(&number).unwrap_or_default())).collect();
    let stored: Vec<Stored> = stream::iter(channels)
        .map(|(number, acked)| check_channel(stage, number, acked))
        .buffer_unordered(CHECKS)
        .try_collect()
        .await?;
    Ok(stored.iter().fold(Stored::default(), |sum, one| Stored {
        messages: sum.messages + one.messages,
        acked: sum.acked + one.acked,
        missing: sum.missing + one.missing,
        twice: sum.twice + one.twice,
        reordered: sum.reordered + one.reordered,
        holes: sum.holes + one.holes,
    }))
}

/// One user sends in each channel, so the times of the messages rise with their places.
async fn check_channel(stage: &Stage, number: usize, acked: Vec<Acked>) -> anyhow::Result<Stored> {
    let (channel, talker) = &stage.channels[number];
    let mut stored = Stored { acked: acked.len() as u64, ..Stored::default() };
    let mut waiting: HashMap<u64, u64> = acked.iter().map(|acked| (acked.seq, acked.sent_us)).collect();
    // Two acks for one place: one of the messages is nowhere.
    stored.missing += (acked.len() - waiting.len()) as u64;
    let (mut place, mut last) = (0, 0);
    history::read(&stage.rest, &talker.token, *channel, 0, |entry| {
        let seq = entry.seq.get();
        stored.holes += u64::from(seq != place + 1);
        place = seq;
        let Content::Message(message) = &entry.content else { return };
        let Some(at) = sent_us(&message.body.text).filter(|_| message.sender_id == talker.id) else { return };
        stored.messages += 1;
        stored.twice += u64::from(at == last);
        stored.reordered += u64::from(at < last);
        last = last.max(at);
        if waiting.get(&seq) == Some(&at) {
            waiting.remove(&seq);
        }
    })
    .await?;
    stored.missing += waiting.len() as u64;
    Ok(stored)
}
