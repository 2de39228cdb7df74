//! Before the replay: every user signs up, gets devices, and becomes a member of the channels of their days.
//!
//! Every device takes its cursor once all channels exist, as a client with a snapshot does. Otherwise a member of a
//! hundred channels would start more than 10,000 items behind.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize};
use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use madang_client::{ClientError, Rest};
use madang_ids::{ChannelId, UserId};
use madang_proto::rest::{
    ChannelView, Login, NewChannel, NewDevice, OpenChannelQuery, SignUp, SignedIn, SnapshotQuery,
};
use madang_proto::{ChannelKind, ErrorCode};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::device::{Device, password};
use super::progress::Progress;
use super::reach::Reach;
use super::uptime::Uptime;
use super::world::{Counters, DayPlan, World, lock};
use crate::args::{DayChannel, Replay};
use crate::corpus::{Corpus, Day, Nick, NickIndex};
use crate::judge::book::{Book, Keys, LineState};
use crate::judge::faults::Faults;

/// Concurrent calls.
const CALLS: usize = 48;
/// Attempts of a call that may succeed later.
const TRIES: u32 = 5;

/// Creates everything that the replay needs.
pub(crate) async fn set_up(
    args: Replay,
    corpus: Corpus,
    reach: Reach,
    progress: &Progress,
) -> anyhow::Result<World> {
    let started = Instant::now();
    // Not drawn from the seed: the same corpus may be replayed twice into one server.
    let keys = Keys { run: rand::random() };
    let mut seeds = StdRng::seed_from_u64(args.seed);
    let nicks: Vec<(&Nick, u64)> = corpus.nicks.iter().map(|nick| (nick, seeds.random())).collect();
    let people = Setup { reach: &reach, keys, devices: args.devices, kind: args.channel_kind.into() };
    let users: Vec<User> = stream::iter(nicks)
        .map(|(nick, seed)| async move {
            let user = people.user(nick, seed).await;
            progress.user();
            user.with_context(|| format!("could not sign up {:?} as {}", nick.name, nick.handle))
        })
        .buffered(CALLS)
        .try_collect()
        .await?;
    let views: Vec<ChannelView> = stream::iter(corpus.days.iter().enumerate())
        .map(|(index, day)| people.channel(index, day, &users))
        .buffered(8)
        .try_collect()
        .await?;
    stream::iter(&users)
        .map(|user| people.take_cursors(user))
        .buffer_unordered(CALLS)
        .try_collect::<()>()
        .await
        .context("could not take a snapshot")?;
    let days = plans(corpus.days, &views, keys, &args)?;
    let numbers = views.iter().zip(0..).map(|(view, index)| (view.card.id.raw(), index));
    let world = World {
        args,
        reach: reach.clone(),
        keys,
        devices: users.into_iter().map(|user| user.devices).collect(),
        days,
        books_by_channel: numbers.collect(),
        faults: Faults::default(),
        counters: Counters::default(),
        trouble: std::sync::Mutex::default(),
        started: Instant::now(),
        setup_time: started.elapsed(),
        server_up: watch::channel(true).0,
        uptime: Uptime::new(),
        kills: std::sync::Mutex::default(),
        snapshots: std::sync::Mutex::default(),
        tasks: TaskTracker::new(),
        socket_freed: Notify::new(),
        sockets: AtomicUsize::new(0),
        send_written: Notify::new(),
        memberships: AtomicU32::new(0),
    };
    begin_memberships(&world);
    Ok(world)
}

/// Users who are not there at first are away; the others may subscribe.
fn begin_memberships(world: &World) {
    for (day, plan) in (0..).zip(&world.days) {
        for nick in &plan.latecomers {
            for device in &world.devices[nick.get()] {
                lock(&device.memory).records.entry(day).or_default().set_away(true);
            }
        }
        let is_here = |nick: &&NickIndex| !plan.latecomers.contains(*nick);
        if lock(&plan.book).is_open {
            plan.members.iter().filter(is_here).for_each(|nick| world.open_to(*nick, day));
        }
    }
}

struct User {
    id: UserId,
    devices: Vec<Arc<Device>>,
}

#[derive(Clone, Copy)]
struct Setup<'a> {
    reach: &'a Reach,
    keys: Keys,
    devices: u32,
    kind: ChannelKind,
}

impl Setup<'_> {
    async fn user(&self, nick: &Nick, seed: u64) -> Result<User, ClientError> {
        let rest = self.reach.rest(seed);
        let first = self.sign_up(nick, rest).await?;
        let id = first.user.id;
        let token = first.access_token.clone();
        let mut devices = Vec::new();
        devices.push(self.device(nick, 0, first, seed));
        for number in 1..self.devices {
            let wish = NewDevice { device_name: format!("device {}", number + 1) };
            let signed_in = again(|| rest.add_device(&token, &wish)).await?;
            devices.push(self.device(nick, number, signed_in, seed));
        }
        Ok(User { id, devices })
    }

    /// Signs a user up, or logs in if an earlier run replayed the same corpus into this server.
    async fn sign_up(&self, nick: &Nick, rest: &Rest) -> Result<SignedIn, ClientError> {
        let sign_up = SignUp {
            handle: nick.handle.clone(),
            display_name: nick.name.chars().take(madang_proto::limits::DISPLAY_NAME_CHARS).collect(),
            password: password(&nick.handle),
            device_name: "device 1".to_owned(),
            invitation: None,
        };
        let key = format!("{:016x}.{}", self.keys.run, nick.handle);
        let done = again(|| rest.sign_up(&sign_up, Some(&key))).await;
        match done {
            Err(ClientError::Refused(body)) if body.code == ErrorCode::Conflict => {
                let login = Login {
                    handle: sign_up.handle,
                    password: sign_up.password,
                    device_name: sign_up.device_name,
                    device_id: None,
                };
                // Another run may be in the middle of the same sign-up: in a fleet its handle is taken before its account is there.
                let is_early = |error: &ClientError| matches!(error, ClientError::Refused(body) if body.code == ErrorCode::Unauthorized);
                again_if(|| rest.log_in(&login), |error| error.is_retryable() || is_early(error)).await
            }
            done => done,
        }
    }

    fn device(&self, nick: &Nick, number: u32, signed_in: SignedIn, seed: u64) -> Arc<Device> {
        let seed = seed.wrapping_add(u64::from(number));
        let mut device = Device::new(&nick.handle, number, signed_in, seed);
        device.socket.trust = self.reach.trust.clone();
        Arc::new(if self.reach.is_loopback() { device.with_spread_source() } else { device })
    }

    async fn take_cursors(&self, user: &User) -> Result<(), ClientError> {
        let query = SnapshotQuery { limit: Some(1), ..SnapshotQuery::default() };
        for device in &user.devices {
            let token = device.access_token();
            let rest = self.reach.rest(device.seed);
            lock(&device.memory).cursor = again(|| rest.snapshot(&token, &query)).await?.cursor;
        }
        Ok(())
    }

    /// The first speaker creates the channel. All others who are there from the start become members.
    async fn channel(&self, index: usize, day: &Day, users: &[User]) -> anyhow::Result<ChannelView> {
        let Some((owner, others)) = day.members.split_first() else { bail!("a day without speakers") };
        let others: Vec<&User> = others
            .iter()
            .filter(|nick| !day.latecomers.contains(nick))
            .map(|nick| &users[nick.get()])
            .collect();
        let is_open = self.kind == ChannelKind::Open;
        let wish = NewChannel {
            kind: self.kind,
            name: Some(day.name.clone()),
            topic: None,
            members: if is_open { Vec::new() } else { others.iter().map(|user| user.id).collect() },
        };
        let token = users[owner.get()].devices[0].access_token();
        let key = format!("{:016x}.day.{index}", self.keys.run);
        let rest = self.reach.rest(index as u64);
        let made = again(|| rest.create_channel(&token, &wish, Some(&key))).await;
        if is_open {
            let view = made.context("could not create an open channel")?;
            return self.fill(rest, &token, view.card.id, &day.name, &others).await;
        }
        made.with_context(|| {
            let members = day.members.len();
            format!(
                "could not create a channel of {members} members (MADANG_CHANNELS__GROUP_MEMBERS=500 allows it)"
            )
        })
    }
}

impl Setup<'_> {
    /// All members find the open channel and join it. Returns the channel as it is then.
    async fn fill(
        &self,
        rest: &Rest,
        token: &str,
        channel: ChannelId,
        name: &str,
        others: &[&User],
    ) -> anyhow::Result<ChannelView> {
        let mut query = OpenChannelQuery { query: Some(name.to_owned()), ..OpenChannelQuery::default() };
        loop {
            let page = again(|| rest.open_channels(token, &query)).await;
            let page = page.with_context(|| format!("could not search for the open channel {name:?}"))?;
            if page.items.iter().any(|found| found.card.id == channel) {
                break;
            }
            query.after = page.next;
            if query.after.is_none() || page.items.is_empty() {
                bail!("the search for {name:?} does not find the open channel {channel}");
            }
        }
        stream::iter(others)
            .map(|user| async move {
                let token = user.devices[0].access_token();
                again(|| rest.join(&token, channel)).await
            })
            .buffer_unordered(CALLS)
            .try_for_each(|_| std::future::ready(Ok(())))
            .await
            .with_context(|| format!("could not join the open channel {channel}"))?;
        Ok(again(|| rest.channel(token, channel)).await?)
    }
}

/// Repeats a call until it succeeds or is refused for good.
async fn again<T, F>(call: impl Fn() -> F) -> Result<T, ClientError>
where
    F: Future<Output = Result<T, ClientError>>,
{
    again_if(call, ClientError::is_retryable).await
}

async fn again_if<T, F>(
    call: impl Fn() -> F,
    may_try: impl Fn(&ClientError) -> bool,
) -> Result<T, ClientError>
where
    F: Future<Output = Result<T, ClientError>>,
{
    let mut tries = 1;
    loop {
        match call().await {
            Err(error) if may_try(&error) && tries < TRIES => {
                let wait_ms = error.refusal().and_then(|body| body.retry_after_ms).unwrap_or(200);
                tokio::time::sleep(Duration::from_millis(wait_ms)).await;
                tries += 1;
            }
            done => return done,
        }
    }
}

fn plans(days: Vec<Day>, views: &[ChannelView], keys: Keys, args: &Replay) -> anyhow::Result<Vec<DayPlan>> {
    let mut plans = Vec::with_capacity(days.len());
    for ((day, view), index) in days.into_iter().zip(views).zip(0..) {
        let schedule = day.lines.iter().map(|line| (line.nick, line.after)).collect();
        let states = day.lines.into_iter().map(|line| LineState {
            text: line.text,
            nick: line.nick.0,
            ..LineState::default()
        });
        let mut book = Book::new(view.card.id, index, keys, view.head_seq.get(), states.collect())?;
        book.is_moving = args.is_moving();
        book.is_open = args.channel_kind == DayChannel::Open;
        plans.push(DayPlan {
            members: day.members,
            latecomers: day.latecomers,
            moves: day.moves,
            schedule,
            book: std::sync::Mutex::new(book),
            window: Semaphore::new(args.window as usize),
            changing: AtomicUsize::new(0),
        });
    }
    let channels: HashMap<u64, usize> =
        views.iter().zip(0..).map(|(view, index)| (view.card.id.raw(), index)).collect();
    if channels.len() != plans.len() {
        bail!("the server returned the same channel for two days");
    }
    Ok(plans)
}
