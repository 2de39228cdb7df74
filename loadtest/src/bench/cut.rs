//! Connections that are all reset at once and come back, while some of them are spoken to.

use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt, TryStreamExt};
use madang_client::Rest;
use madang_ids::ChannelId;

use super::args::Cut;
use super::people::{self, Person};
use super::returns;
use super::socket::{Socket, source};

/// What one device reads at once.
const READ_BYTES: usize = 4 * 1024;
/// Calls at once, and handshakes.
const CALLS: usize = 48;
/// Before the cut, so that whoever started this can look at the server.
const STAND: Duration = Duration::from_secs(15);

/// Says `connected`, cuts some time later, and says after how many seconds all were current again.
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
