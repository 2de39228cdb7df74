//! Memory of idle connections, and the cost of their heartbeats.
//!
//! Sign-ups open channels and fill caches, so the server is restarted on its folder before its memory is measured.

use std::path::Path;
use std::time::Duration;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::args::{Connections, Reference};
use super::figures::{figure, median, print_conditions, verdict};
use super::folder::Folder;
use super::people::{self, Person};
use super::process::{Process, Usage};
use super::socket::{Socket, source};

const HEARTBEAT: Duration = Duration::from_secs(5);
const HEARTBEAT_FRAME: &str = r#"{"type":"heartbeat"}"#;
/// Prefix of the answer to a heartbeat.
const HEARTBEAT_ANSWER: &[u8] = br#"{"type":"heartbeat""#;
/// Concurrent handshakes.
const HANDSHAKES: usize = 64;
/// Bytes of one read of a client.
const CLIENT_BUFFER_BYTES: usize = 1024;
/// Tasks among which the heartbeats are divided.
const BEATERS: usize = 100;
/// Most bytes that a connection may use.
const TARGET_BYTES: f64 = 6.0 * 1024.0;
/// Time after which freed memory has been returned to the system.
const SETTLE: Duration = Duration::from_secs(3);

/// Bytes per connection.
#[derive(Debug, Clone, Copy)]
struct Weight {
    rss: f64,
    anon: f64,
}

/// Measures and prints the results.
pub(super) async fn run(args: Connections) -> anyhow::Result<()> {
    let folder = Folder::new()?;
    let data = folder.join("data");
    let (count, groups, members) = (args.count, args.channels, args.members);
    print_conditions(&format!(
        "connections: {count} of distinct users, {groups} groups of {members} each, whose members receive each \
         other's presence"
    ));
    let people = fill(&args, &data, &folder).await?;
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for repeat in 1..=args.repeats {
        let beats = if repeat == args.repeats { args.heartbeat_seconds } else { 0 };
        let weight = weigh_madang(&data, &folder, &people, beats).await?;
        let reference = weigh_reference(&folder, count).await?;
        println!(
            "  repeat {repeat}: {:.0} B a connection by RSS, {:.0} B by RssAnon; bare {:.0} B, {:.0} B",
            weight.rss, weight.anon, reference.rss, reference.anon
        );
        ours.push(weight);
        bare.push(reference);
    }
    let rss = median(ours.iter().map(|weight| weight.rss));
    let anon = median(ours.iter().map(|weight| weight.anon));
    let reference = median(bare.iter().map(|weight| weight.rss));
    println!(
        "a connection: {rss:.0} B by RSS ({anon:.0} B anonymous), {:.2} of the bare {reference:.0} B",
        rss / reference
    );
    println!("target: at most {TARGET_BYTES:.0} B: {}", verdict(rss <= TARGET_BYTES));
    Ok(())
}

/// Creates users and channels; their cursors are after everything that this appends.
async fn fill(args: &Connections, data: &Path, folder: &Folder) -> anyhow::Result<Vec<Person>> {
    let started = Instant::now();
    let server = Process::madang(data, folder).await?;
    let rest = people::rest(&server.url())?;
    let mut people = people::sign_up(&rest, args.count).await?;
    let signed_up = started.elapsed();
    people::groups(&rest, &people, args.channels, args.members).await?;
    people::take_cursors(&rest, &mut people).await?;
    let (took, first) = (started.elapsed().as_secs_f64(), signed_up.as_secs_f64());
    println!(
        "  filled in {took:.0} s (sign-ups {first:.0} s); RSS after it {:.0} MiB",
        mib(server.usage()?.rss_bytes)
    );
    server.stop().await?;
    Ok(people)
}

async fn weigh_madang(data: &Path, folder: &Folder, people: &[Person], beats: u64) -> anyhow::Result<Weight> {
    let server = Process::madang(data, folder).await?;
    sleep(SETTLE).await;
    let before = server.usage()?;
    let sockets = stream::iter(people.iter().enumerate())
        .map(|(number, person)| {
            let cursor = person.cursor.clone();
            Socket::welcome(&server.addr, source(number), CLIENT_BUFFER_BYTES, &person.token, cursor)
        })
        .buffer_unordered(HANDSHAKES)
        .try_collect::<Vec<_>>()
        .await?;
    let connected = server.usage()?;
    sleep(SETTLE).await;
    let after = server.usage()?;
    println!(
        "    RSS {:.1} MiB before, {:.1} MiB after; {:.0} connections and hellos per server CPU second",
        mib(before.rss_bytes),
        mib(after.rss_bytes),
        figure(sockets.len() as u64) / (connected.cpu_seconds - before.cpu_seconds)
    );
    let weight = per_connection(before, after, sockets.len());
    if beats > 0 {
        beat(&server, sockets, before, beats).await?;
    }
    server.kill().await?;
    Ok(weight)
}

/// Sends a heartbeat every five seconds on each connection.
async fn beat(server: &Process, sockets: Vec<Socket>, before: Usage, seconds: u64) -> anyhow::Result<()> {
    let (begun, count) = (Instant::now(), sockets.len());
    let first = server.usage()?;
    let until = begun + Duration::from_secs(seconds);
    let mut tasks = JoinSet::new();
    let mut sockets = sockets.into_iter();
    for number in 0..BEATERS {
        let chunk: Vec<Socket> = sockets.by_ref().take(count.div_ceil(BEATERS)).collect();
        let step = HEARTBEAT / u32::try_from(BEATERS)?;
        tasks.spawn(beat_some(chunk, begun + step * u32::try_from(number)?, until));
    }
    let mut held = Vec::new();
    let (mut beats, mut others) = (0, 0);
    while let Some(done) = tasks.join_next().await {
        let (sockets, answered, told) = done??;
        held.push(sockets);
        beats += answered;
        others += told;
    }
    let last = server.usage()?;
    let (cpu, took) = (last.cpu_seconds - first.cpu_seconds, begun.elapsed().as_secs_f64());
    println!(
        "    after {took:.0} s of heartbeats: {:.0} B a connection by RSS; {beats} heartbeats took {cpu:.2} CPU s \
         ({:.1} µs each, {:.1} % of a core); {others} presence frames came",
        per_connection(before, last, count).rss,
        cpu * 1e6 / figure(beats),
        100.0 * cpu / took
    );
    Ok(())
}

async fn beat_some(
    mut sockets: Vec<Socket>,
    first: Instant,
    until: Instant,
) -> anyhow::Result<(Vec<Socket>, u64, u64)> {
    let (mut at, mut beats, mut others) = (first, 0, 0);
    while at < until {
        sleep_until(at).await;
        for socket in &mut sockets {
            socket.send(HEARTBEAT_FRAME).await?;
        }
        for socket in &mut sockets {
            let mut answers = 0;
            while answers == 0 {
                socket.fill().await?;
                socket.frames(|payload| match payload.starts_with(HEARTBEAT_ANSWER) {
                    true => answers += 1,
                    false => others += 1,
                })?;
            }
            beats += 1;
        }
        at += HEARTBEAT;
    }
    Ok((sockets, beats, others))
}

async fn weigh_reference(folder: &Folder, count: usize) -> anyhow::Result<Weight> {
    let server = Process::reference(&Reference::Idle, folder).await?;
    let before = server.usage()?;
    let addr = server.addr.as_str();
    let sockets = stream::iter(0..count)
        .map(|number| async move {
            let mut socket = Socket::connect(addr, source(number), CLIENT_BUFFER_BYTES).await?;
            socket.upgrade(addr).await.map(|()| socket)
        })
        .buffer_unordered(HANDSHAKES)
        .try_collect::<Vec<_>>()
        .await?;
    sleep(SETTLE).await;
    let weight = per_connection(before, server.usage()?, sockets.len());
    drop(sockets);
    server.kill().await?;
    Ok(weight)
}

fn per_connection(before: Usage, after: Usage, count: usize) -> Weight {
    let count = figure(count as u64);
    Weight {
        rss: (after.rss_bytes - before.rss_bytes) / count,
        anon: (after.anon_bytes - before.anon_bytes) / count,
    }
}

fn mib(bytes: f64) -> f64 {
    bytes / 1024.0 / 1024.0
}
