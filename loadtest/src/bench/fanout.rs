//! Deliveries in one channel at a steady rate. All of its subscribers are connected.

use std::time::Duration;

use anyhow::Context;

use super::args::{Fanout, Frames, Kind};
use super::figures::{median, print_conditions, verdict};
use super::folder::Folder;
use super::load::{Load, Round};
use super::pace::Pace;
use super::people::{self, Person};
use super::process::Process;
use super::readers::{Read, Readers};
use super::socket::{Socket, source};

/// Bytes of one read of the sender.
const READ_BYTES: usize = 64 * 1024;
/// Messages of one burst.
const BURST: u32 = 16;
/// Least share of what the bare loop delivers per CPU second.
const TARGET: f64 = 0.8;

/// Measures and prints the results.
pub(super) async fn run(args: Fanout) -> anyhow::Result<()> {
    let folder = Folder::new()?;
    print_conditions(&format!(
        "fanout: a channel ({:?}) with {} subscribers, one socket each; one sender, {} messages a second of {} B, \
         single: evenly, coalesced: in bursts of {BURST}; durable; rounds of {} s",
        args.kind, args.subscribers, args.rate, args.rounds.text, args.rounds.seconds
    ));
    let server = Process::madang(&folder.join("data"), &folder).await?;
    let rest = people::rest(&server.url())?;
    let people = people::sign_up(&rest, args.subscribers + 1).await?;
    let channel = people::channel(&rest, args.kind, &people.iter().collect::<Vec<&Person>>()).await?;
    let (sender, subscribers) = people.split_first().context("at least one sender is needed")?;
    let subscribe = (args.kind == Kind::Open).then_some(channel);
    let read = |person| Read::Welcome { token: token(person), subscribe };
    let reads: Vec<Read<'_>> = subscribers.iter().map(read).collect();
    let mut readers = Readers::start(&server.addr, &reads, &folder).await?;
    let mut socket = Socket::welcome(&server.addr, source(0), READ_BYTES, &sender.token, None).await?;
    println!(
        "{:>9} {:>12} {:>14} {:>9} {:>9} {:>10} {:>10} {:>9} {:>8} {:>14} {:>6}",
        "frames",
        "deliveries/s",
        "per CPU second",
        "p50 ms",
        "p99 ms",
        "msgs/frame",
        "fr./write",
        "B/write",
        "resyncs",
        "bare/CPU s",
        "ratio"
    );
    let (connections, receivers) = (args.subscribers, args.subscribers as u64);
    let mut load = Load { server: &server, readers: &mut readers, connections, receivers };
    for frames in &args.frames {
        let burst = if *frames == Frames::Single { 1 } else { BURST };
        let pace = Pace {
            channel,
            sender: 0,
            text_bytes: args.rounds.text,
            burst,
            every: Duration::from_secs(u64::from(burst)) / args.rate,
            after: Duration::ZERO,
            writes: (args.rounds.seconds * u64::from(args.rate) / u64::from(burst)).max(1),
        };
        let mut rounds = Vec::new();
        for _ in 0..args.rounds.repeats {
            let (round, sockets) = load.round(vec![(socket, pace)], &folder).await?;
            rounds.push(round);
            socket = sockets.into_iter().next().context("the sender has stopped")?;
        }
        print(*frames, &rounds);
    }
    Ok(())
}

fn token(person: &Person) -> &str {
    &person.token
}

fn print(frames: Frames, rounds: &[Round]) {
    let of = |figure: fn(&Round) -> f64| median(rounds.iter().map(figure));
    let ratio = of(|round| round.bare_cpu_seconds / round.cpu_seconds);
    let name = format!("{frames:?}").to_lowercase();
    println!(
        "{name:>9} {:>12.0} {:>14.0} {:>9.2} {:>9.2} {:>10.2} {:>10.2} {:>9.0} {:>8.0} {:>14.0} {ratio:>6.2}",
        of(|round| round.per_second),
        of(|round| round.per_cpu_second),
        of(|round| round.p50_ms),
        of(|round| round.p99_ms),
        of(|round| round.messages_per_frame),
        of(|round| round.frames_per_write),
        of(|round| round.bytes_per_write),
        of(|round| round.resyncs),
        of(|round| round.per_cpu_second * round.cpu_seconds / round.bare_cpu_seconds),
    );
    println!(
        "target: at least {TARGET} of the bare loop per CPU second: {} ({ratio:.2}, {name})",
        verdict(ratio >= TARGET)
    );
}
