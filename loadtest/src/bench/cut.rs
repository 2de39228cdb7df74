//! Connections that are all reset at once and reconnect, while messages are sent to some of them.

use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt, TryStreamExt};
use madang_client::Rest;
use madang_ids::ChannelId;

use super::args::Cut;
use super::people::{self, Person};
use super::returns;
use super::socket::{Socket, source};

/// Bytes of one read of a device.
const READ_BYTES: usize = 4 * 1024;
/// Concurrent calls and handshakes.
const CALLS: usize = 48;
/// Time before the cut in which the parent process can inspect the server.
const STAND: Duration = Duration::from_secs(15);

/// Prints `connected`, cuts the connections some time later, and prints the number of seconds after which all devices
/// were up to date again.
pub(super) async fn run(args: Cut) -> anyhow::Result<()> {
    let rest = people::rest(&args.url)?;
    let addr = args.url.trim_start_matches("http://").to_owned();
    let mut people = people::sign_up(&rest, args.count).await?;
    let channels: Vec<ChannelId> = stream::iter(people.chunks(args.members))
        .map(|group| group_of(&rest, group))
        .buffered(CALLS)
        .try_collect()
        .await?;
    let sockets: Vec<Socket> = stream::iter(people.iter().enumerate())
        .map(|(number, person)| Socket::welcome(&addr, source(number), READ_BYTES, &person.token, None))
        .buffer_unordered(CALLS)
        .try_collect()
        .await?;
    people::take_cursors(&rest, &mut people).await?;
    println!("connected");
    tokio::time::sleep(STAND).await;
    let cut = Instant::now();
    sockets.into_iter().try_for_each(Socket::reset)?;
    let spoken_to = stream::iter(people.chunks(args.members).zip(&channels))
        .map(|(group, channel)| people::say(&rest, &group[0], *channel, args.missed))
        .buffer_unordered(CALLS)
        .try_for_each(|()| std::future::ready(Ok(())));
    let came = returns::come(&addr, args.missed as u64, people.clone());
    let ((), (_, _, sockets)) = tokio::try_join!(spoken_to, came)?;
    println!("current after {:.2}", cut.elapsed().as_secs_f64());
    drop(sockets);
    Ok(())
}

async fn group_of(rest: &Rest, group: &[Person]) -> anyhow::Result<ChannelId> {
    people::group(rest, &group.iter().collect::<Vec<_>>()).await
}
