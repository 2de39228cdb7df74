//! Devices that all reconnect at once after a crash of the server: how long until all are up to date, and how long the
//! acks of other users take meanwhile.

use std::time::{Duration, Instant};

use anyhow::ensure;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use hdrhistogram::Histogram;
use madang_ids::ChannelId;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::args::{Reference, Returns};
use super::beside::{self, Beside, SENDERS};
use super::figures::{figure, histogram, micros, print_conditions, quantile_ms};
use super::folder::Folder;
use super::people::{self, Person};
use super::process::Process;
use super::resume::read_missed;
use super::socket::{Socket, source};

/// Bytes of one read of a device.
const READ_BYTES: usize = 4 * 1024;
/// Concurrent calls.
const CALLS: usize = 48;
/// Most attempts of one device, and the wait between them: the queue of a listener is shorter than the number of
/// devices.
const TRIES: u32 = 100;
const WAIT: Duration = Duration::from_millis(100);

/// Measures and prints the results.
pub(super) async fn run(args: Returns) -> anyhow::Result<()> {
    let folder = Folder::new()?;
    let data = folder.join("data");
    print_conditions(&format!(
        "returns: {} devices of distinct users, groups of {}, {} missed messages each; the server is killed and \
         started, and all reconnect at once",
        args.count, args.members, args.missed
    ));
    let server = Process::madang(&data, &folder).await?;
    let (people, talkers) = fill(&args, &server).await?;
    let talkers = Beside::meet(&server.url(), talkers).await?;
    server.kill().await?;
    let server = Process::madang(&data, &folder).await?;
    let quiet = talkers.quiet(&server.addr).await?;
    let before = server.usage()?;
    let talk = talkers.begin(&server.addr).await?;
    let (seconds, latency, sockets) = come(&server.addr, args.missed as u64, people).await?;
    let beside = talk.end().await?;
    let after = server.usage()?;
    drop(sockets);
    server.kill().await?;
    let bare = come_bare(args.count, &folder).await?;
    println!(
        "all current after {seconds:.2} s (half of them after {:.2} s), {:.0} devices a second; {:.2} CPU s of the server; \
         peak RSS {:.1} MiB ({:.1} MiB before); {:.1} times the bare {bare:.2} s in which the same number connects to a bare server",
        quantile_ms(&latency, 0.5) / 1e3,
        figure(args.count as u64) / seconds,
        after.cpu_seconds - before.cpu_seconds,
        after.peak_bytes / 1024.0 / 1024.0,
        before.rss_bytes / 1024.0 / 1024.0,
        seconds / bare
    );
    beside::print(&quiet, &beside);
    Ok(())
}

/// Users in groups, with the cursors of their devices and the messages that these missed; and the users who talk
/// meanwhile.
async fn fill(args: &Returns, server: &Process) -> anyhow::Result<(Vec<Person>, Vec<Person>)> {
    let rest = &people::rest(&server.url())?;
    let mut people = people::sign_up(rest, args.count + 2 * SENDERS).await?;
    let talkers = people.split_off(args.count);
    let members = usize::try_from(args.members)?;
    // A single user at the end would be no group.
    people.truncate(people.len() - usize::from(people.len() % members == 1));
    let channels: Vec<ChannelId> = stream::iter(people.chunks(members))
        .map(|group| async move { people::group(rest, &group.iter().collect::<Vec<_>>()).await })
        .buffered(CALLS)
        .try_collect()
        .await?;
    people::take_cursors(rest, &mut people).await?;
    stream::iter(people.chunks(members).zip(&channels))
        .map(|(group, channel)| people::say(rest, &group[0], *channel, args.missed))
        .buffer_unordered(CALLS)
        .try_collect::<()>()
        .await?;
    Ok((people, talkers))
}

/// Seconds until all devices are up to date, the time of each, and the connections.
pub(super) async fn come(
    addr: &str,
    missed: u64,
    people: Vec<Person>,
) -> anyhow::Result<(f64, Histogram<u64>, Vec<Socket>)> {
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for (number, person) in people.into_iter().enumerate() {
        let addr = addr.to_owned();
        tasks.spawn(async move {
            let mut socket = again(|| {
                let cursor = person.cursor.clone();
                Socket::welcome(&addr, source(number), READ_BYTES, &person.token, cursor)
            })
            .await?;
            read_missed(&mut socket, missed).await?;
            anyhow::Ok((socket, begun.elapsed()))
        });
    }
    let (mut latency, mut sockets) = (histogram()?, Vec::new());
    while let Some(done) = tasks.join_next().await {
        let (socket, took) = done??;
        latency.saturating_record(micros(took));
        sockets.push(socket);
    }
    Ok((begun.elapsed().as_secs_f64(), latency, sockets))
}

/// Seconds in which the same number of clients connect to a bare server.
async fn come_bare(count: usize, folder: &Folder) -> anyhow::Result<f64> {
    let server = Process::reference(&Reference::Idle, folder).await?;
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for number in 0..count {
        let addr = server.addr.clone();
        tasks.spawn(again(move || {
            let addr = addr.clone();
            async move {
                let mut socket = Socket::connect(&addr, source(number), READ_BYTES).await?;
                socket.upgrade(&addr).await.map(|()| socket)
            }
        }));
    }
    let mut sockets = Vec::new();
    while let Some(done) = tasks.join_next().await {
        sockets.push(done??);
    }
    ensure!(sockets.len() == count, "not all connected");
    let seconds = begun.elapsed().as_secs_f64();
    server.kill().await?;
    Ok(seconds)
}

/// Tries until the device is welcomed.
async fn again<F>(connect: impl Fn() -> F) -> anyhow::Result<Socket>
where
    F: Future<Output = anyhow::Result<Socket>>,
{
    for _ in 1..TRIES {
        if let Ok(socket) = connect().await {
            return Ok(socket);
        }
        sleep(WAIT).await;
    }
    connect().await
}
