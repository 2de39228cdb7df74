//! The queue of alerts of a fleet.
//!
//! The script that brings rows to an inbox notes those that may be worth an alert, in the record of the user and channel: both happen or
//! neither. The home then notes when a worker has to look at the record. If it dies in between, the home that repeats the fan-out does
//! that: the script says what waits also when it brings nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use madang_engine::alerts::{Fold, Folded, Held, Job, Outstanding, Shown, withdrawn_at};
use madang_ids::{ChannelId, Cursor, Epoch, Millis, Position, Seq, UserId};
use madang_store::{AlertQueue, OutstandingChange, Store, StoreError, StoreResult};
use redis::{Cmd, Pipeline, Value};

use super::alert_scripts::{self, SHARDS};
use super::connection::{PIPELINE, Redis};
use super::inbox::texts;
use super::inbox_keys;
use super::scripts::call;
use super::values::Reply;

/// Attempts to change a record that changes meanwhile.
const TRIES: usize = 16;
/// Steps between two whole milliseconds that the ends of leases take, so that hardly two are the same.
const STEPS: u64 = 1_024;

/// For how long after the server has begun anew, in milliseconds, records may be older than what was done about them: rows are brought
/// again meanwhile, and workers repeat what they had written last.
const YOUNG: u64 = 600_000;
const AGE_KEY: &str = "alerts:epoch";

/// When alerts are decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AlertTimes {
    /// By how many milliseconds alerts of a user wait who is connected.
    pub delay_ms: u64,
    /// After how many milliseconds they are worthless.
    pub kept_ms: u64,
}

/// The queue of alerts in Redis or Valkey, for chat nodes and for workers of push. A clone is the same one.
#[derive(Clone)]
pub struct RedisAlerts {
    redis: Redis,
    store: Arc<dyn Store>,
    leases: Arc<AtomicU64>,
}

/// A record as it is stored. An absent field is an empty text.
struct Found {
    fresh: String,
    held: String,
    read: String,
}

/// A user and a channel.
type Place = (UserId, ChannelId);

fn alerts_key(user: UserId) -> String {
    format!("{{u{user}}}:alerts")
}

/// The script that brings rows needs this key too.
pub(super) fn moved_keys(user: UserId) -> [String; 4] {
    let [heads, items, nodes] = inbox_keys(user);
    [heads, items, nodes, alerts_key(user)]
}

fn entry((user, channel): Place) -> String {
    format!("{user}:{channel}")
}

fn place(entry: &str) -> Option<Place> {
    let (user, channel) = entry.split_once(':')?;
    Some((user.parse().ok()?, channel.parse().ok()?))
}

/// The set of the queue with the records of a user. Ids that were minted one after another lie in different sets.
fn shard(user: UserId) -> u64 {
    user.raw().wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (64 - SHARDS.ilog2())
}

fn due_key(shard: u64) -> String {
    format!("{{alerts{shard}}}:due")
}

/// Of a millisecond: from a quarter to three quarters.
const fn ten_thousandths(step: u64) -> u64 {
    (STEPS / 2 + step) * 10_000 / (2 * STEPS)
}

/// A time that a worker has set: within the millisecond before.
fn of_worker(at: Millis, ten_thousandths: u64) -> String {
    format!("{}.{ten_thousandths:04}", at.minus(1))
}

impl Found {
    fn of(mut reply: Reply) -> StoreResult<Self> {
        let mut next = || reply.optional_text().map(Option::unwrap_or_default);
        Ok(Self { fresh: next()?, held: next()?, read: next()? })
    }

    /// A text that cannot be read counts as absent: it costs alerts, and the next change writes it anew.
    fn record(&self, (user, channel): Place) -> Outstanding {
        let held: Option<Held> = serde_json::from_str(&self.held).ok();
        let fresh = parse_messages(&self.fresh);
        if (held.is_none() && !self.held.is_empty()) || (fresh.is_none() && !self.fresh.is_empty()) {
            tracing::error!(user.id = %user, channel.id = %channel, "a record of the queue of alerts cannot be read");
        }
        let mut record = Outstanding { user, channel, fresh, held: held.unwrap_or_default() };
        if let Some((seq, at)) = parse_read(&self.read) {
            record.fold(Folded::Read { seq, at });
        }
        record
    }
}

fn parse_messages(text: &str) -> Option<Job> {
    let mut words = text.split(' ');
    let due_at = Millis::new(number(words.next())?);
    let mut job: Option<Job> = None;
    for word in words {
        let mut parts = word.split(':');
        let epoch = Epoch::from_raw(u64::from_str_radix(parts.next()?, 16).ok()?);
        let (seq, position) = (Seq::new(number(parts.next())?), Position::new(number(parts.next())?));
        let (at, expires_at) = (Cursor { epoch, position }, Millis::new(number(parts.next())?));
        match &mut job {
            Some(job) => job.fold(seq, at, expires_at),
            None => job = Some(Job::new(seq, at, due_at, expires_at)),
        }
    }
    job
}

fn number(word: Option<&str>) -> Option<u64> {
    word?.parse().ok()
}

fn parse_read(text: &str) -> Option<(Seq, Millis)> {
    let mut words = text.split(' ').skip(1);
    Some((Seq::new(number(words.next())?), Millis::new(number(words.next())?)))
}

fn arguments(command: &mut Vec<String>, what: Folded) {
    match what {
        Folded::Message { seq, at, due_at, expires_at } => {
            let mark = format!("{:016x}:{seq}:{}:{expires_at}", at.epoch.raw(), at.position.get());
            command.extend(["m".to_owned(), mark, due_at.to_string(), String::new()]);
        }
        Folded::Read { seq, at } => {
            command.extend(["r".to_owned(), seq.to_string(), at.to_string(), withdrawn_at(at).to_string()]);
        }
    }
}

impl RedisAlerts {
    /// The queue.
    #[must_use]
    pub fn new(redis: Redis, store: Arc<dyn Store>) -> Self {
        Self { redis, store, leases: Arc::default() }
    }

    /// Notes when workers have to look at records to which something has happened.
    pub(super) async fn note_due(&self, dues: &[(Place, Millis)]) -> StoreResult<()> {
        let mut of_shards = BTreeMap::<u64, Vec<String>>::new();
        for (place, due) in dues {
            of_shards.entry(shard(place.0)).or_default().extend([due.to_string(), entry(*place)]);
        }
        let mut pipeline = Pipeline::new();
        for (shard, dues) in of_shards {
            for dues in dues.chunks(2 * PIPELINE) {
                let dues: Vec<&[u8]> = dues.iter().map(String::as_bytes).collect();
                pipeline.add_command(call(&alert_scripts::NOTE_DUE, &[&due_key(shard)], &dues));
            }
        }
        self.redis.pipeline(&pipeline).await.map(drop)
    }

    /// Records, in the order of `places`.
    async fn found(&self, places: &[Place]) -> StoreResult<Vec<Found>> {
        let mut found = Vec::with_capacity(places.len());
        for places in places.chunks(PIPELINE) {
            let mut pipeline = Pipeline::with_capacity(places.len());
            places.iter().for_each(|place| _ = pipeline.add_command(fields(*place)));
            for answer in self.redis.pipeline(&pipeline).await? {
                found.push(Found::of(Reply::of(answer)?)?);
            }
        }
        Ok(found)
    }

    /// The end of a lease, which no other lease has.
    fn lease_until(&self, until: Millis) -> String {
        let step = self.leases.fetch_add(1, Ordering::Relaxed) % STEPS;
        of_worker(until, ten_thousandths(step))
    }

    /// The entries that are due, the longest due first.
    async fn due_entries(&self, now: Millis, limit: usize) -> StoreResult<Vec<(u64, String)>> {
        let mut pipeline = Pipeline::new();
        for shard in 0..SHARDS {
            let range = pipeline.cmd("ZRANGEBYSCORE").arg(due_key(shard)).arg("-inf").arg(now.get());
            range.arg("WITHSCORES").arg("LIMIT").arg(0).arg(limit);
        }
        let mut due: Vec<(f64, u64, String)> = Vec::new();
        for (shard, answer) in (0..).zip(self.redis.pipeline(&pipeline).await?) {
            let mut reply = Reply::of(answer)?;
            while !reply.is_empty() {
                let (entry, at) = (reply.text()?, reply.text()?);
                due.push((at.parse().unwrap_or_default(), shard, entry));
            }
        }
        due.sort_by(|one, other| one.0.total_cmp(&other.0));
        due.truncate(limit);
        Ok(due.into_iter().map(|(_, shard, entry)| (shard, entry)).collect())
    }

    /// Those of the entries that no other worker has taken meanwhile.
    async fn lease(&self, due: &[(u64, String)], now: Millis, until: Millis) -> StoreResult<Vec<Place>> {
        let (now, until) = (now.to_string(), self.lease_until(until));
        let mut of_shards = BTreeMap::<u64, Vec<&[u8]>>::new();
        for (shard, entry) in due {
            let times = || vec![now.as_bytes(), until.as_bytes()];
            of_shards.entry(*shard).or_insert_with(times).push(entry.as_bytes());
        }
        let mut pipeline = Pipeline::new();
        for (shard, arguments) in of_shards {
            pipeline.add_command(call(&alert_scripts::LEASE, &[&due_key(shard)], &arguments));
        }
        let mut leased = Vec::with_capacity(due.len());
        for answer in self.redis.pipeline(&pipeline).await? {
            leased.extend(texts(Reply::of(answer)?.skip().list()?)?);
        }
        // In the order in which they are due.
        let leased: std::collections::HashSet<String> = leased.into_iter().collect();
        Ok(due.iter().filter(|(_, entry)| leased.contains(entry)).filter_map(|(_, it)| place(it)).collect())
    }

    /// Notes when a worker has to look at a record that was read when `noted` was its time, and is as `after` now.
    async fn reschedule(&self, after: &Outstanding, noted: &str) -> StoreResult<()> {
        let place = (after.user, after.channel);
        let due = after.due_at().map(|at| of_worker(at, 5_000)).unwrap_or_default();
        let entry = entry(place);
        let arguments = [&entry, noted, &due].map(str::as_bytes);
        let command = call(&alert_scripts::RESCHEDULE, &[&due_key(shard(place.0))], &arguments);
        self.redis.command(&command).await.map(drop)
    }

    /// A record and the time that is noted for it. The time is read first: what happens later notes another one.
    async fn record(&self, place: Place) -> StoreResult<(String, Found)> {
        let mut pipeline = Pipeline::with_capacity(2);
        pipeline.cmd("ZSCORE").arg(due_key(shard(place.0))).arg(entry(place));
        pipeline.add_command(fields(place));
        let mut answers = self.redis.pipeline(&pipeline).await?.into_iter();
        let noted = match answers.next() {
            Some(Value::Nil) | None => String::new(),
            Some(value) => Reply::of(Value::Array(vec![value]))?.text()?,
        };
        let fields = answers.next().unwrap_or(Value::Nil);
        Ok((noted, Found::of(Reply::of(fields)?)?))
    }

    /// Whether the record was as it was read.
    async fn try_change(
        &self,
        place: Place,
        found: &Found,
        after: &Outstanding,
        takes: bool,
    ) -> StoreResult<bool> {
        let held = match after.held == Held::default() {
            true => String::new(),
            false => {
                serde_json::to_string(&after.held).map_err(|error| StoreError::Corrupt(error.to_string()))?
            }
        };
        let channel = place.1.to_string();
        let mut arguments: Vec<&[u8]> =
            [&channel, &found.held, &found.read, &held].map(|text| text.as_bytes()).to_vec();
        if takes {
            arguments.push(found.fresh.as_bytes());
        }
        let command = call(&alert_scripts::CHANGE, &[&alerts_key(place.0)], &arguments);
        Ok(Reply::of(self.redis.command(&command).await?)?.skip().number()? == 1)
    }
}

fn fields((user, channel): Place) -> Cmd {
    let mut command = redis::cmd("HMGET");
    command.arg(alerts_key(user));
    ["p", "h", "r"].iter().for_each(|field| _ = command.arg(format!("{field}{channel}")));
    command
}

#[async_trait]
impl AlertQueue for RedisAlerts {
    async fn take_due(&self, now: Millis, until: Millis, limit: usize) -> StoreResult<Vec<Outstanding>> {
        let due = self.due_entries(now, limit).await?;
        if due.is_empty() {
            return Ok(Vec::new());
        }
        let places = self.lease(&due, now, until).await?;
        let found = self.found(&places).await?;
        Ok(places.into_iter().zip(found).map(|(place, found)| found.record(place)).collect())
    }

    async fn outstanding(&self, user: UserId, channel: ChannelId) -> StoreResult<Outstanding> {
        let place = (user, channel);
        let found = self.found(&[place]).await?;
        Ok(found.first().map_or_else(|| Outstanding::new(user, channel), |found| found.record(place)))
    }

    async fn shown_and_read(&self, user: UserId, limit: usize) -> StoreResult<Vec<(ChannelId, Shown)>> {
        let count = limit.to_string();
        let command = call(&alert_scripts::READ_ELSEWHERE, &[&alerts_key(user)], &[count.as_bytes()]);
        let mut reply = Reply::of(self.redis.command(&command).await?)?.skip().list()?;
        let mut shown = Vec::new();
        while !reply.is_empty() {
            let channel = reply.text()?.parse().ok();
            let found = Found { fresh: String::new(), held: reply.text()?, read: reply.text()? };
            let Some(channel) = channel else { continue };
            let record = found.record((user, channel));
            shown.extend(record.held.shown.into_iter().filter(|it| it.is_read).map(|it| (channel, it)));
        }
        shown.truncate(limit);
        Ok(shown)
    }

    async fn change_outstanding(&self, change: &OutstandingChange) -> StoreResult<bool> {
        let place = (change.user, change.channel);
        for _ in 0..TRIES {
            let (noted, found) = self.record(place).await?;
            let Some(after) = change.apply(&found.record(place)) else { return Ok(false) };
            if self.try_change(place, &found, &after, change.takes.is_some()).await? {
                // The change is made. If this fails, the time that was noted before brings a worker here.
                if let Err(error) = self.reschedule(&after, &noted).await {
                    tracing::debug!(%error, "a record of the queue of alerts is looked at too early");
                }
                return Ok(true);
            }
        }
        Err(StoreError::Unavailable("a record of the queue of alerts changes all the time".to_owned()))
    }

    async fn fold_alerts(&self, folds: &[Fold]) -> StoreResult<()> {
        let mut of_places = BTreeMap::<Place, Vec<String>>::new();
        for fold in folds {
            let place = (fold.user, fold.channel);
            let command = of_places.entry(place).or_insert_with(|| vec![fold.channel.to_string()]);
            arguments(command, fold.what);
        }
        let of_places: Vec<(Place, Vec<String>)> = of_places.into_iter().collect();
        for of_places in of_places.chunks(PIPELINE) {
            let mut pipeline = Pipeline::with_capacity(of_places.len());
            for ((user, _), arguments) in of_places {
                let arguments: Vec<&[u8]> = arguments.iter().map(String::as_bytes).collect();
                pipeline.add_command(call(&alert_scripts::FOLD, &[&alerts_key(*user)], &arguments));
            }
            let mut dues = Vec::new();
            for ((place, _), answer) in of_places.iter().zip(self.redis.pipeline(&pipeline).await?) {
                let mut reply = Reply::of(answer)?;
                reply.skip();
                if !reply.is_empty() {
                    dues.push((*place, Millis::new(reply.number()?)));
                }
            }
            self.note_due(&dues).await?;
        }
        Ok(())
    }

    async fn may_lack_writes(&self) -> StoreResult<bool> {
        let answer = self.redis.command(&call(&alert_scripts::AGE, &[AGE_KEY], &[])).await?;
        Ok(Reply::of(answer)?.skip().number()? < YOUNG)
    }

    async fn subscribed(&self, user: UserId) -> StoreResult<()> {
        let [heads, ..] = inbox_keys(user);
        self.redis.command(&call(&alert_scripts::SUBSCRIBED, &[&heads], &[])).await.map(drop)
    }

    async fn unsubscribed(&self, user: UserId) -> StoreResult<()> {
        let [heads, ..] = inbox_keys(user);
        let answer = self.redis.command(redis::cmd("HGET").arg(&heads).arg("a")).await?;
        let times = match answer {
            Value::Nil => "0".to_owned(),
            value => Reply::of(Value::Array(vec![value]))?.text()?,
        };
        // One that is written after this look changes the number.
        let has_any = async || {
            let found = self.store.subscriptions(user).await?;
            StoreResult::Ok(found.iter().any(|subscription| subscription.halted.is_none()))
        };
        if times.starts_with('-') || has_any().await? {
            return Ok(());
        }
        let command = call(&alert_scripts::UNSUBSCRIBED, &[&heads], &[times.as_bytes()]);
        self.redis.command(&command).await.map(drop)
    }
}

#[cfg(test)]
mod tests;
