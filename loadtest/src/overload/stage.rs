//! Fills the server before an overload: users, channels, and the connections of the pairs.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use anyhow::Context;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use madang_client::Rest;
use madang_ids::ChannelId;
use tokio::sync::watch;

use super::args::Overload;
use super::stream::{Plan, Stream, Visitor};
use super::talk::{Crowd, Load, Talk};
use super::tally::Tally;
use crate::bench::figures::histogram;
use crate::bench::people::{self, Person};
use crate::bench::socket::source;

/// Pairs that connect at the same time.
const AT_ONCE: usize = 24;
/// Users who join and leave, and the open channels that they visit: with less, the channels would become hot.
const VISITORS: usize = 400;
const OPEN_CHANNELS: usize = 40;
/// Messages a second of the quiet pair.
pub(super) const PROBES: f64 = 4.0;

/// Everything that takes part in an overload.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) addr: String,
    pub(super) rest: Rest,
    pub(super) crowd: Crowd,
    /// The quiet pair: a user who sends a message now and then, and one who reads it.
    pub(super) probe: Crowd,
    /// The channel and the user who sends there, of all pairs and then of the quiet one.
    pub(super) channels: Vec<(ChannelId, Person)>,
    /// The last one is the quiet pair.
    pub(super) talks: Vec<Talk>,
    pub(super) streams: Streams,
    pub(super) load: watch::Sender<Load>,
    /// Of the quiet pair.
    pub(super) probing: watch::Sender<Load>,
}

/// Requests besides messages.
#[derive(Debug, Clone)]
pub(super) struct Streams {
    pub(super) presence: Arc<Stream>,
    pub(super) history: Arc<Stream>,
    pub(super) joins: Arc<Stream>,
    pub(super) connections: Arc<Stream>,
}

impl Streams {
    pub(super) fn all(&self) -> [&Arc<Stream>; 4] {
        [&self.presence, &self.history, &self.joins, &self.connections]
    }
}

impl Stage {
    pub(super) async fn build(args: &Overload) -> anyhow::Result<Self> {
        let rest = people::rest(&args.url)?;
        let addr = args.url.strip_prefix("http://").context("--url is not an http:// URL")?;
        let addr = addr.trim_end_matches('/').replace("localhost", "127.0.0.1");
        let count = 2 * (args.pairs + 1) + VISITORS + 1;
        println!("set-up: {count} users sign up");
        let mut people = people::sign_up_as(&rest, &format!("overload{}-", args.seed), count).await?;
        let owner = people.pop().context("there is no owner")?;
        let visitors = people.split_off(2 * (args.pairs + 1));
        let pairs: Vec<(Person, Person)> =
            people.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
        let channels = people::directs(&rest, &pairs).await?;
        println!("set-up: {} sockets connect", 2 * pairs.len());
        // A user who answers has accepted the channel, so both see each other type and read.
        stream::iter(pairs.iter().zip(&channels))
            .map(|((_, listener), channel)| people::say(&rest, listener, *channel, 1))
            .buffer_unordered(AT_ONCE)
            .try_collect::<Vec<()>>()
            .await?;
        let streams = streams(&addr, &rest, &pairs, &channels, visitors, &owner).await?;
        let (load, crowd_load) = watch::channel(Load::Closed { pairs: 0 });
        let (probing, probe_load) = watch::channel(Load::Closed { pairs: 0 });
        let crowd = crowd(args, &addr, args.pairs, false)?;
        let probe = Crowd { typing: crowd.typing.clone(), ..self::crowd(args, &addr, 1, true)? };
        let probe = Crowd { receipts: crowd.receipts.clone(), ..probe };
        let connect = |number: usize| {
            let (of, place, load) = match number < args.pairs {
                true => (&crowd, number, &crowd_load),
                false => (&probe, 0, &probe_load),
            };
            Talk::connect(of.clone(), place, source(number), &pairs[number], channels[number], load.clone())
        };
        let talks = stream::iter(0..pairs.len()).map(connect).buffered(AT_ONCE).try_collect().await?;
        let channels = channels.into_iter().zip(pairs.into_iter().map(|(talker, _)| talker)).collect();
        Ok(Self { addr, rest, crowd, probe, channels, talks, streams, load, probing })
    }
}

fn crowd(args: &Overload, addr: &str, pairs: usize, is_measured: bool) -> anyhow::Result<Crowd> {
    let delivery = if is_measured { Some(Arc::new(Mutex::new(histogram()?))) } else { None };
    Ok(Crowd {
        addr: addr.to_owned(),
        pairs,
        text_bytes: args.text,
        messages: Tally::new()?,
        typing: Arc::new(AtomicU64::new(0)),
        receipts: Tally::new()?,
        delivery,
    })
}

async fn streams(
    addr: &str,
    rest: &Rest,
    pairs: &[(Person, Person)],
    channels: &[ChannelId],
    visitors: Vec<Person>,
    owner: &Person,
) -> anyhow::Result<Streams> {
    let presence = pairs
        .iter()
        .map(|(talker, listener)| (format!("GET /v1/presence?user_ids={}", listener.id), talker.clone()));
    let history = pairs.iter().zip(channels).map(|((_, listener), channel)| {
        (format!("GET /v1/channels/{channel}/entries?limit=50"), listener.clone())
    });
    let mut open = Vec::new();
    for _ in 0..OPEN_CHANNELS {
        open.push(people::open(rest, &[owner]).await?);
    }
    let newcomers = visitors.clone();
    let joins = visitors.into_iter().zip(open.into_iter().cycle());
    let joins = joins.map(|(person, channel)| Visitor::new(person, channel)).collect();
    Ok(Streams {
        presence: Stream::new(addr, Plan::Read(presence.collect()))?,
        history: Stream::new(addr, Plan::Read(history.collect()))?,
        joins: Stream::new(addr, Plan::Joins(joins))?,
        connections: Stream::new(addr, Plan::Connections(newcomers))?,
    })
}
