//! The final check: every channel is read over REST and compared with the acks and with what each device received.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::Context;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use madang_client::{ClientError, Rest};
use madang_ids::Seq;
use madang_proto::rest::HistoryQuery;
use madang_proto::{Entry, limits};
use tokio::time::Instant;

use super::moves::insist;
use super::progress::Progress;
use super::world::{World, lock};
use crate::judge::absence::Absences;
use crate::judge::book::latencies;
use crate::judge::faults::FaultKind;
use crate::judge::record::Record;
use crate::report::{Changes, Conditions, Latencies, Latency, Report, ServerRss};
use crate::server::ENVIRONMENT;

/// Channels that are read at the same time.
const READS: usize = 4;

/// Compares everything and summarises it.
pub(crate) async fn check(
    world: &Arc<World>,
    progress: &Progress,
    rss: Option<ServerRss>,
) -> anyhow::Result<Report> {
    let duration_s = world.started.elapsed().as_secs_f64();
    let started = Instant::now();
    let expected: Vec<u64> = stream::iter(0..world.day_count())
        .map(|day| async move {
            let expected = check_day(world, day).await;
            progress.checked();
            expected
        })
        .buffered(READS)
        .try_collect()
        .await?;
    let conditions = Conditions {
        command: std::env::args().collect(),
        version: env!("CARGO_PKG_VERSION"),
        days: u64::from(world.day_count()),
        lines: world.lines(),
        setup_s: world.setup_time.as_secs_f64(),
        duration_s,
        check_s: started.elapsed().as_secs_f64(),
        server_environment: environment(world),
        server_rss_kib: rss,
        trouble: lock(&world.trouble).clone(),
    };
    report(world, expected.iter().sum(), conditions)
}

/// Compares one day. Returns the number of deliveries that the channel's history requires.
async fn check_day(world: &World, day: u32) -> anyhow::Result<u64> {
    let context = || format!("could not read the history of day {day}");
    let history = history(world, day).await.with_context(context)?;
    compare_nodes(world, day, &history).await.with_context(context)?;
    let book = lock(&world.day(day).book);
    let verdict = book.judge_history(&history, &world.faults);
    let plan = world.day(day);
    let mut expected = 0;
    for nick in &plan.members {
        let devices = &world.devices[nick.get()];
        let absences = devices.first().filter(|_| book.is_moving).map(|device| {
            let starts_away = plan.latecomers.contains(nick);
            Absences::of(device.user.raw(), &history, book.base, starts_away, book.is_open)
        });
        for device in devices {
            let memory = lock(&device.memory);
            let nothing = Record::default();
            let record = memory.records.get(&day).unwrap_or(&nothing);
            let (name, absences) = (&device.name, absences.as_ref());
            expected += book.judge_device(&verdict, record, name, absences, &world.faults);
        }
    }
    let strangers =
        world.devices.iter().enumerate().filter(|(nick, _)| !plan.members.iter().any(|it| it.get() == *nick));
    for device in strangers.flat_map(|(_, devices)| devices) {
        if let Some(record) = lock(&device.memory).records.get(&day) {
            book.judge_stranger(record, &device.name, &world.faults);
        }
    }
    Ok(expected)
}

/// The whole log of a channel, as its owner reads it.
async fn history(world: &World, day: u32) -> Result<Vec<Entry>, ClientError> {
    let Some(reader) = world.devices_of(day).next() else { return Ok(Vec::new()) };
    let channel = lock(&world.day(day).book).channel;
    let mut entries: Vec<Entry> = Vec::new();
    loop {
        let after = entries.last().map_or(Seq::ZERO, |entry| entry.seq);
        let query =
            HistoryQuery { after: Some(after), limit: Some(limits::HISTORY_PAGE), ..HistoryQuery::default() };
        let read = |rest: Rest, token: String| {
            let query = query.clone();
            async move { rest.history(&token, channel, &query).await }
        };
        let page = insist(world, reader, read).await?;
        let is_empty = page.entries.is_empty();
        entries.extend(page.entries);
        if is_empty || !page.more_after {
            return Ok(entries);
        }
    }
}

/// Every node must serve the same log: its last entry is the same, and no entry follows.
async fn compare_nodes(world: &World, day: u32, history: &[Entry]) -> Result<(), ClientError> {
    let (Some(reader), Some(last)) = (world.devices_of(day).next(), history.last()) else { return Ok(()) };
    let channel = lock(&world.day(day).book).channel;
    let before = history.iter().rev().nth(1).map_or(Seq::ZERO, |entry| entry.seq);
    let query = HistoryQuery { after: Some(before), limit: Some(2), ..HistoryQuery::default() };
    for node in world.reach.rests().iter().filter(|_| world.args.is_fleet()) {
        let read = |_: Rest, token: String| {
            let query = query.clone();
            async move { node.history(&token, channel, &query).await }
        };
        let page = insist(world, reader, read).await?;
        let seqs: Vec<u64> = page.entries.iter().map(|entry| entry.seq.get()).collect();
        if seqs != [last.seq.get()] {
            let what = format!("another node serves {seqs:?} after seq {before}");
            let fault = lock(&world.day(day).book).fault(last.seq.get(), what);
            world.faults.note(FaultKind::Conflict, fault);
        }
    }
    Ok(())
}

fn environment(world: &World) -> Vec<String> {
    if world.args.server.is_none() {
        return Vec::new();
    }
    let value = |(name, default): (&str, &str)| {
        format!("{name}={}", std::env::var(name).unwrap_or(default.to_owned()))
    };
    ENVIRONMENT.into_iter().map(value).collect()
}

fn report(world: &World, deliveries_expected: u64, conditions: Conditions) -> anyhow::Result<Report> {
    let (mut live, mut after_resume) = (0, 0);
    let (mut to_ack, mut to_deliver) = (latencies()?, latencies()?);
    for day in &world.days {
        let book = lock(&day.book);
        live += book.deliveries.live;
        after_resume += book.deliveries.after_resume;
        to_ack.add(&book.to_ack)?;
        to_deliver.add(&book.to_deliver)?;
    }
    let counters = &world.counters;
    let of = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    Ok(Report {
        users: world.devices.len() as u64,
        devices: world.devices.iter().map(|devices| devices.len() as u64).sum(),
        sent: of(&counters.sent),
        acked: of(&counters.acked),
        retried: of(&counters.retried),
        acked_by_retry: of(&counters.acked_by_retry),
        deliveries_expected,
        deliveries_live: live,
        deliveries_after_resume: after_resume,
        lost: world.faults.count(FaultKind::Lost),
        duplicated: world.faults.count(FaultKind::Duplicated),
        reordered: world.faults.count(FaultKind::Reordered),
        holes: world.faults.count(FaultKind::Hole),
        conflicts: world.faults.count(FaultKind::Conflict),
        kills: of(&counters.kills),
        kills_with_appends_in_flight: of(&counters.kills_in_flight),
        kills_by_role: lock(&world.kills).clone(),
        resumes: of(&counters.resumes),
        resyncs: of(&counters.resyncs),
        changes: Changes {
            edits: of(&counters.edits),
            deletes: of(&counters.deletes),
            reactions: of(&counters.reactions),
            retried: of(&counters.changes_retried),
            joins: of(&counters.joins),
            leaves: of(&counters.leaves),
            bans: of(&counters.bans),
            gaps: of(&counters.gaps),
        },
        stale: world.faults.count(FaultKind::Stale),
        edit_lost: world.faults.count(FaultKind::EditLost),
        reaction_lost: world.faults.count(FaultKind::ReactionLost),
        undeleted: world.faults.count(FaultKind::Undeleted),
        leaked: world.faults.count(FaultKind::Leaked),
        snapshots: world.faults.count(FaultKind::Snapshot),
        snapshots_taken: lock(&world.snapshots).clone(),
        latency_ms: Latencies {
            send_to_ack: Latency::of(&to_ack),
            send_to_deliver: Latency::of(&to_deliver),
        },
        conditions,
        broken: world.faults.named(),
    })
}
