//! The course of a run, on a server that the stage has filled.

use std::sync::Arc;
use std::time::{Duration, Instant};

use madang_ids::ChannelId;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::FIRST;
use super::args::Hot;
use super::calls::{Calls, Plan};
use super::check::Outcome;
use super::level::Levels;
use super::recorder::{Latencies, Recorder, Second, Sources, Totals, difference};
use super::report::{CallFigures, Figures, LevelFigures, Phase, ReaderFigures, Sends};
use super::senders::{Acks, Senders, Speaker};
use super::stage::Stage;
use crate::bench::figures::figure;
use crate::bench::pace::Pace;
use crate::instruments::history::{self, Acked};
use crate::instruments::usage::ServerProcess;

/// Time in which only the bystanders talk.
const QUIET: Duration = Duration::from_secs(10);
/// Time after the storm within which every reader must have everything.
const DRAIN: Duration = Duration::from_secs(60);
/// Time between two looks at the bystanders.
const LOOK: Duration = Duration::from_millis(100);
/// Bytes of text of a bystander.
const BYSTANDER_BYTES: usize = 100;

/// What the phases found.
#[derive(Debug)]
struct Found {
    quiet: Latencies,
    /// Of the first seconds of the storm, and of the rest.
    storm: (Latencies, Latencies),
    before: Totals,
    after: Totals,
    begun: Instant,
    ended: Instant,
    /// When the readers had everything, or were given up.
    drained: Instant,
    is_drained: bool,
    /// The heads of the channel before and after the storm.
    base: u64,
    head: u64,
    acked: Vec<Acked>,
    /// The acked messages of each pair of bystanders.
    talked: Vec<Vec<Acked>>,
}

/// Everything that acts or is measured.
#[derive(Debug)]
struct Course<'a> {
    args: &'a Hot,
    joins: Arc<Calls>,
    fetches: Arc<Calls>,
    acks: Arc<Acks>,
    bystander_acks: Arc<Acks>,
    levels: Arc<Levels>,
}

/// Plays all phases. Returns what happened in each second, and the figures.
pub(super) async fn play(
    args: &Hot,
    mut stage: Stage,
    server: ServerProcess,
) -> anyhow::Result<(Vec<Second>, Figures)> {
    let (addr, channel) = (&stage.addrs[0], stage.channel);
    let visitors = Plan::membership(channel, std::mem::take(&mut stage.visitors));
    let course = Course {
        args,
        joins: Calls::connect(addr, visitors, args.joins).await?,
        fetches: Calls::connect(addr, Plan::fetch(channel, stage.members.clone()), args.fetch_storm).await?,
        acks: Acks::new()?,
        bystander_acks: Acks::new()?,
        levels: Arc::clone(&stage.levels),
    };
    let sources = Sources {
        readers: std::mem::take(&mut stage.readers),
        listeners: std::mem::take(&mut stage.listeners),
        acks: Arc::clone(&course.acks),
        bystander_acks: Arc::clone(&course.bystander_acks),
        joins: Arc::clone(&course.joins),
        fetches: Arc::clone(&course.fetches),
        levels: Arc::clone(&course.levels),
        server,
    };
    let storm_at = Instant::now() + QUIET;
    let mut recorder = Recorder::start(sources, storm_at).await?;
    let found = course.storm(&mut stage, &mut recorder, storm_at).await?;
    if !args.no_level {
        println!("end: the level falls");
        recorder.during(course.levels.wait_until_normal()).await?;
    }
    let figures = course.figures(&stage, &mut recorder, found).await?;
    Ok((recorder.seconds, figures))
}

impl Course<'_> {
    /// The quiet phase, the storm, and the time until all readers have everything.
    async fn storm(
        &self,
        stage: &mut Stage,
        recorder: &mut Recorder,
        storm_at: Instant,
    ) -> anyhow::Result<Found> {
        println!("quiet: {} s", QUIET.as_secs());
        let talkers = self.talkers(std::mem::take(&mut stage.talkers));
        let talkers = Senders::start(talkers, &self.bystander_acks);
        recorder.during(sleep_until(storm_at)).await?;
        let (quiet, base) = (recorder.take_phase().await?, head(stage).await?);
        let before = recorder.sources.totals().await?;
        println!("storm: {} s", self.args.seconds);
        let begun = Instant::now();
        let senders = std::mem::take(&mut stage.senders).into_iter().map(|speaker| (speaker, stage.channel));
        let senders = Senders::start(self.senders(senders.collect()), &self.acks);
        let mut calls = JoinSet::new();
        calls.spawn(Arc::clone(&self.joins).run(self.args.joins, self.args.storm()));
        calls.spawn(Arc::clone(&self.fetches).run(self.args.fetch_storm, self.args.storm()));
        recorder.during(sleep_until(begun + FIRST)).await?;
        let first = recorder.take_phase().await?;
        recorder.during(sleep_until(begun + self.args.storm())).await?;
        let ended = Instant::now();
        println!("end: the readers catch up");
        let acked = recorder.during(senders.finish()).await?.concat();
        recorder.during(calls.join_all()).await?;
        let head = head(stage).await?;
        let is_drained = recorder.drain(head, DRAIN).await?;
        let (drained, after) = (Instant::now(), recorder.sources.totals().await?);
        let talked = recorder.during(talkers.finish()).await?;
        await_listeners(recorder, &talked).await?;
        let storm = (first, recorder.take_phase().await?);
        Ok(Found {
            quiet,
            storm,
            before,
            after,
            begun,
            ended,
            drained,
            is_drained,
            base,
            head,
            acked,
            talked,
        })
    }

    /// The bystanders send one message a second until the storm ends.
    fn talkers(&self, speakers: Vec<(Speaker, ChannelId)>) -> Vec<(Speaker, Pace)> {
        let writes = QUIET.as_secs() + self.args.seconds;
        paces(speakers, BYSTANDER_BYTES, Duration::from_secs(1), writes)
    }

    /// The senders of the storm reach the rate together.
    fn senders(&self, speakers: Vec<(Speaker, ChannelId)>) -> Vec<(Speaker, Pace)> {
        let (rate, senders) = (self.args.rate, self.args.senders());
        let writes = self.args.seconds * u64::from(rate) / u64::from(senders);
        paces(speakers, self.args.text, Duration::from_secs(1) * senders / rate, writes)
    }

    /// The figures, after the checks of the readers and of the history.
    async fn figures(&self, stage: &Stage, recorder: &mut Recorder, found: Found) -> anyhow::Result<Figures> {
        println!("check: {} acked messages in history", found.acked.len());
        let stored =
            history::check(&stage.rest, &stage.owner.token, stage.channel, found.base, found.acked.clone());
        let stored = stored.await?;
        let readers = outcomes(recorder, &found).await?;
        let (mut storm, (before, after)) = (found.storm.0.clone(), (found.before, found.after));
        storm.add(&found.storm.1)?;
        let deliveries = after.deliveries - before.deliveries;
        let machine = after.machine.zip(before.machine).map(|(after, before)| after - before);
        let generator_cpu_seconds = after.generator_cpu_seconds - before.generator_cpu_seconds;
        let server_cpu_seconds = difference(after.server_cpu_seconds, before.server_cpu_seconds);
        Ok(Figures {
            quiet: Phase::of(&found.quiet),
            storm: Phase::of(&storm),
            freshness_later_p99_ms: Phase::of(&found.storm.1).freshness_p99_ms,
            deliveries,
            deliveries_per_second: figure(deliveries) / (found.drained - found.begun).as_secs_f64(),
            entries_per_frame: figure(deliveries) / figure((after.frames - before.frames).max(1)),
            mib_delivered: figure(after.bytes - before.bytes) / 1_048_576.0,
            server_cpu_seconds,
            deliveries_per_cpu_second: server_cpu_seconds.map(|cpu| figure(deliveries) / cpu),
            server_rss_max_mib: rss_max(&recorder.seconds),
            generator_cpu_seconds,
            other_cpu_seconds: difference(machine.map(|machine| machine.busy), server_cpu_seconds)
                .map(|cpu| cpu - generator_cpu_seconds),
            stolen_cpu_seconds: machine.map(|machine| machine.stolen),
            drained_after_s: found.is_drained.then(|| (found.drained - found.ended).as_secs_f64()),
            sends: Sends::of(&self.acks),
            bystander_sends: Sends::of(&self.bystander_acks),
            joins: CallFigures::of(&self.joins),
            fetches: CallFigures::of(&self.fetches),
            levels: self.level_figures(&found),
            readers: ReaderFigures::of(&readers.0),
            bystanders: ReaderFigures::of(&readers.1),
            stored,
        })
    }

    fn level_figures(&self, found: &Found) -> LevelFigures {
        let hot_at = self.levels.first_above(found.begun);
        let normal_at = self.levels.normal_since();
        LevelFigures {
            highest: self.levels.highest(found.begun),
            hot_after_s: hot_at.map(|at| (at - found.begun).as_secs_f64()),
            normal_after_s: normal_at.map(|at| at.saturating_duration_since(found.ended).as_secs_f64()),
            failure: self.levels.failure(),
        }
    }
}

/// Gives each sender a number and a pace. They are spread evenly over the time between two messages.
fn paces(
    senders: Vec<(Speaker, ChannelId)>,
    text_bytes: usize,
    every: Duration,
    writes: u64,
) -> Vec<(Speaker, Pace)> {
    let count = figure(senders.len() as u64);
    let pace_of = |(sender, (speaker, channel)): (usize, (Speaker, ChannelId))| {
        let after = every.mul_f64(figure(sender as u64) / count);
        (speaker, Pace { channel, sender, text_bytes, burst: 1, every, after, writes })
    };
    senders.into_iter().enumerate().map(pace_of).collect()
}

async fn sleep_until(at: Instant) {
    tokio::time::sleep_until(at.into()).await;
}

async fn head(stage: &Stage) -> anyhow::Result<u64> {
    Ok(stage.rest.channel(&stage.owner.token, stage.channel).await?.head_seq.get())
}

/// Waits until each bystander has received what was acked to the other one, or until `DRAIN` is over.
async fn await_listeners(recorder: &mut Recorder, talked: &[Vec<Acked>]) -> anyhow::Result<()> {
    let begun = Instant::now();
    while begun.elapsed() < DRAIN {
        let outcomes: Vec<Vec<Outcome>> = recorder.sources.listeners.ask("outcomes").await?;
        let is_behind = |(outcome, acked): (&Outcome, &Vec<Acked>)| outcome.last < last(acked);
        if !outcomes.iter().flatten().zip(talked).any(is_behind) {
            break;
        }
        recorder.during(sleep(LOOK)).await?;
    }
    Ok(())
}

/// The outcomes of the readers of the channel, and of the bystanders. What is missing up to the head counts as lost.
async fn outcomes(recorder: &mut Recorder, found: &Found) -> anyhow::Result<(Vec<Outcome>, Vec<Outcome>)> {
    let mut readers = recorder.sources.readers.ask::<Vec<Outcome>>("outcomes").await?.concat();
    readers.iter_mut().for_each(|outcome| outcome.end_at(found.head));
    let mut listeners = recorder.sources.listeners.ask::<Vec<Outcome>>("outcomes").await?.concat();
    for (outcome, acked) in listeners.iter_mut().zip(&found.talked) {
        outcome.end_at(last(acked));
    }
    Ok((readers, listeners))
}

/// The greatest place; 0 if nothing was acked.
fn last(acked: &[Acked]) -> u64 {
    acked.iter().map(|acked| acked.seq).max().unwrap_or_default()
}

fn rss_max(seconds: &[Second]) -> Option<f64> {
    seconds.iter().filter_map(|second| second.server_rss_mib).reduce(f64::max)
}
