//! Many channels with little traffic, each with a few subscribers: how much CPU time the server needs for them.

use std::time::Duration;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use madang_ids::ChannelId;

use super::args::{Kind, Pairs};
use super::figures::print_conditions;
use super::folder::Folder;
use super::load::{Load, Round};
use super::pace::Pace;
use super::people::{self, Person};
use super::process::Process;
use super::readers::{Read, Readers};
use super::socket::{Socket, source};

/// Bytes of one read of a sender.
const READ_BYTES: usize = 4 * 1024;
/// Channels created, and senders connected, at the same time.
const AT_ONCE: usize = 48;

/// Measures and prints the results.
pub(super) async fn run(args: Pairs) -> anyhow::Result<()> {
    let folder = Folder::new()?;
    print_conditions(&format!(
        "pairs: {} channels, each with a sender and {} subscribers (direct: one), one socket each; {} messages a second of \
         {} B in each, for {} s; durable",
        args.count, args.subscribers, args.rate, args.text, args.seconds
    ));
    println!(
        "{:>7} {:>12} {:>12} {:>14} {:>9} {:>9} {:>12} {:>6}",
        "kind", "deliveries/s", "CPU seconds", "per CPU second", "p50 ms", "p99 ms", "bare CPU s", "ratio"
    );
    for kind in &args.kinds {
        print(*kind, &measure(&args, *kind, &folder).await?);
    }
    Ok(())
}

fn print(kind: Kind, round: &Round) {
    println!(
        "{:>7} {:>12.0} {:>12.2} {:>14.0} {:>9.2} {:>9.2} {:>12.2} {:>6.2}",
        format!("{kind:?}").to_lowercase(),
        round.per_second,
        round.cpu_seconds,
        round.per_cpu_second,
        round.p50_ms,
        round.p99_ms,
        round.bare_cpu_seconds,
        round.cpu_seconds / round.bare_cpu_seconds
    );
}

async fn measure(args: &Pairs, kind: Kind, folder: &Folder) -> anyhow::Result<Round> {
    let subscribers = if kind == Kind::Direct { 1 } else { args.subscribers };
    let server = Process::madang(&folder.join(&format!("data-{kind:?}")), folder).await?;
    let rest = people::rest(&server.url())?;
    let people = people::sign_up(&rest, args.count * (subscribers + 1)).await?;
    let groups: Vec<&[Person]> = people.chunks(subscribers + 1).collect();
    let channels: Vec<ChannelId> = stream::iter(&groups)
        .map(|group| {
            let rest = &rest;
            async move { people::channel(rest, kind, &group.iter().collect::<Vec<_>>()).await }
        })
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
    let mut reads = Vec::with_capacity(people.len());
    for (group, channel) in groups.iter().zip(&channels) {
        let subscribe = (kind == Kind::Open).then_some(*channel);
        reads.extend(group.iter().skip(1).map(|person| Read::Welcome { token: token(person), subscribe }));
    }
    let mut readers = Readers::start(&server.addr, &reads, folder).await?;
    let every = Duration::from_secs(1) / args.rate;
    let senders: Vec<(Socket, Pace)> = stream::iter(groups.iter().zip(&channels).enumerate())
        .map(|(number, (group, channel))| {
            let addr = server.addr.as_str();
            let pace = Pace {
                channel: *channel,
                sender: number,
                text_bytes: args.text,
                burst: 1,
                every,
                // The senders are spread evenly over the time between two messages.
                after: every.mul_f64(share(number, args.count)),
                writes: args.seconds * u64::from(args.rate),
            };
            async move {
                let socket =
                    Socket::welcome(addr, source(number), READ_BYTES, token(&group[0]), None).await?;
                anyhow::Ok((socket, pace))
            }
        })
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
    let mut load = Load {
        server: &server,
        readers: &mut readers,
        connections: reads.len(),
        receivers: subscribers as u64,
    };
    let (round, _) = load.round(senders, folder).await?;
    server.kill().await?;
    Ok(round)
}

fn token(person: &Person) -> &str {
    &person.token
}

#[expect(clippy::cast_precision_loss, reason = "counts of channels are small")]
fn share(number: usize, count: usize) -> f64 {
    number as f64 / count as f64
}
