//! The cost of catching up for a device that missed entries in some of its many channels.

use std::time::Instant;

use anyhow::Context;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use madang_ids::ChannelId;

use super::args::{Reference, Resume};
use super::figures::{figure, median, print_conditions};
use super::folder::Folder;
use super::people::{self, Person};
use super::process::Process;
use super::reader::{self, ENTRIES};
use super::socket::{Socket, source};

/// Bytes of one read of the device.
const READ_BYTES: usize = 256 * 1024;
/// Concurrent calls.
const CALLS: usize = 48;
/// Number of measurements of the bare loop.
const BARE_REPEATS: usize = 3;

/// Measures and prints the results.
pub(super) async fn run(args: Resume) -> anyhow::Result<()> {
    let folder = Folder::new()?;
    let moved = args.moved.min(args.channels);
    let each = args.missed.div_ceil(moved);
    let missed = each * moved;
    print_conditions(&format!(
        "resume: a device of a user in {} groups missed {missed} entries in {moved} of them; from hello until it has them \
         all, {} times from the same cursor",
        args.channels, args.repeats
    ));
    let server = Process::madang(&folder.join("data"), &folder).await?;
    let person = fill(&args, moved, each, &server).await?;
    // The first run reads from the disk what the others find in memory.
    catch_up(&server, &person, missed as u64).await?;
    let (begun, cpu) = (Instant::now(), server.usage()?.cpu_seconds);
    let (mut took, mut bytes) = (Vec::new(), 0);
    for _ in 0..args.repeats {
        let (ms, read) = catch_up(&server, &person, missed as u64).await?;
        took.push(ms);
        bytes = read;
    }
    let cpu_ms = (server.usage()?.cpu_seconds - cpu) * 1e3 / figure(args.repeats as u64);
    let worst = took.iter().copied().fold(0.0, f64::max);
    let median_ms = median(took);
    let mut bare = Vec::new();
    for _ in 0..BARE_REPEATS {
        bare.push(read_bare(bytes, &folder).await?);
    }
    let bare = median(bare);
    println!(
        "current after {median_ms:.1} ms (worst {worst:.1} ms), {cpu_ms:.1} ms of the server's CPU, {bytes} B; {:.1} times \
         the bare {bare:.1} ms in which a bare server writes as many bytes ({:.1} s in all)",
        median_ms / bare,
        begun.elapsed().as_secs_f64()
    );
    Ok(())
}

/// A user in many groups, with the cursor of their device and the entries that it missed.
async fn fill(args: &Resume, moved: usize, each: usize, server: &Process) -> anyhow::Result<Person> {
    let rest = &people::rest(&server.url())?;
    let mut people = people::sign_up(rest, 2).await?;
    let [person, other] = people.as_mut_slice() else { anyhow::bail!("expected two users") };
    let (owner, member) = (&*other, &*person);
    let channels: Vec<ChannelId> = stream::iter(0..args.channels)
        .map(|_| async move { people::group(rest, &[owner, member]).await })
        .buffered(CALLS)
        .try_collect()
        .await?;
    people::take_cursors(rest, std::slice::from_mut(person)).await?;
    stream::iter(channels.iter().take(moved))
        .map(|channel| people::say(rest, other, *channel, each))
        .buffer_unordered(CALLS)
        .try_collect::<()>()
        .await?;
    Ok(person.clone())
}

/// Milliseconds until everything has arrived, and its size in bytes.
async fn catch_up(server: &Process, person: &Person, missed: u64) -> anyhow::Result<(f64, u64)> {
    let begun = Instant::now();
    let (token, cursor) = (&person.token, person.cursor.clone());
    let mut socket = Socket::welcome(&server.addr, source(0), READ_BYTES, token, cursor).await?;
    let bytes = read_missed(&mut socket, missed).await?;
    Ok((begun.elapsed().as_secs_f64() * 1e3, bytes))
}

/// Reads until `missed` messages have arrived. Returns the number of bytes read.
pub(super) async fn read_missed(socket: &mut Socket, missed: u64) -> anyhow::Result<u64> {
    let (mut came, mut bytes) = (0, 0);
    loop {
        let mut refused = None;
        socket.frames(|payload| {
            if payload.starts_with(ENTRIES) {
                came += reader::messages(payload);
                bytes += payload.len() as u64;
            } else if payload.starts_with(br#"{"type":"snapshot_required""#) {
                refused = Some(String::from_utf8_lossy(payload).into_owned());
            }
        })?;
        if let Some(refused) = refused {
            anyhow::bail!("the device cannot catch up: {refused}");
        }
        if came >= missed {
            return Ok(bytes);
        }
        socket.fill().await.with_context(|| format!("{came} of {missed} missed messages arrived"))?;
    }
}

/// Milliseconds in which a bare server writes the same number of bytes.
async fn read_bare(bytes: u64, folder: &Folder) -> anyhow::Result<f64> {
    let write_bytes = usize::try_from(bytes)?;
    let reference = Reference::Fanout { connections: 1, write_bytes, frames: 1, rate: 1.0, seconds: 1 };
    let server = Process::reference(&reference, folder).await?;
    let begun = Instant::now();
    let mut socket = Socket::connect(&server.addr, source(0), READ_BYTES).await?;
    let mut read = 0;
    while read < bytes {
        read += socket.fill().await? as u64;
        socket.frames(|_| {})?;
    }
    server.kill().await?;
    Ok(begun.elapsed().as_secs_f64() * 1e3)
}
