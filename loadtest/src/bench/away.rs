//! Devices that were offline or stopped reading: the server answers each cursor correctly, and each device ends equal
//! to the store.
//!
//! A device is the client of `crates/client`, together with what a program stores between two runs of it.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use madang_client::{Client, ClientOptions, Event, Rest, Tokens};
use madang_ids::{ChannelId, ClientMsgId, LogId, Millis, SealedCursor, Seq};
use madang_proto::rest::{HistoryQuery, SendMessage, SnapshotQuery};
use madang_proto::{Body, Entry, Resume, SnapshotReason, limits};
use serde_json::json;
use tokio::process::Command;
use tokio::sync::mpsc::Receiver;
use tokio::time::{sleep, timeout};

use super::args::{Away, Scene};
use super::folder::{Folder, programs};
use super::people::{self, Person};
use super::process::Process;

/// More items than a device may miss before it must take a snapshot.
const FAR: usize = 10_050;
/// Fewer items than that.
const NEAR: usize = 100;
/// Concurrent calls that send messages.
const CALLS: usize = 48;
/// Time limit for a device to receive everything.
const PATIENCE: Duration = Duration::from_secs(60);
/// A device stops reading for longer than the server waits for a heartbeat …
const STOPPED: Duration = Duration::from_secs(40);
/// … while more is sent than the buffers hold.
const STOPPED_MESSAGES: usize = 4_000;
const LONG_TEXT: usize = 4_000;

/// Plays a scene. The last line of its output is the result as JSON.
pub(super) async fn run(args: Away) -> anyhow::Result<()> {
    let folder = Folder::new()?;
    let found = match args.scene {
        Scene::Far => far(&folder).await?,
        Scene::Restored => restored(&folder).await?,
        Scene::Stopped => stopped(&folder).await?,
    };
    println!("{found}");
    Ok(())
}

async fn far(folder: &Folder) -> anyhow::Result<serde_json::Value> {
    let stage = Stage::new(Process::madang(&folder.join("data"), folder).await?).await?;
    let mut far = stage.device().await?;
    stage.say(FAR - NEAR, 10).await?;
    let mut near = stage.device().await?;
    stage.say(NEAR, 10).await?;
    ensure!(near.come(&stage).await? == Resume::Resumed, "a device that missed {NEAR} items must resume");
    far.must_take_a_snapshot(&stage, SnapshotReason::TooFarBehind).await?;
    // From the snapshot on it resumes as usual.
    stage.say(NEAR, 10).await?;
    ensure!(far.come(&stage).await? == Resume::Resumed, "a cursor after a snapshot must be accepted");
    Ok(json!({ "too_far_behind": 1, "items_missed": FAR }))
}

async fn restored(folder: &Folder) -> anyhow::Result<serde_json::Value> {
    let (data, backup, again) = (folder.join("data"), folder.join("backup"), folder.join("again"));
    let stage = Stage::new(Process::madang(&data, folder).await?).await?;
    stage.say(NEAR, 10).await?;
    let mut before = stage.device().await?;
    stage.say(NEAR, 10).await?;
    madang("backup", "--to", &backup, &data).await?;
    stage.say(NEAR, 10).await?;
    let mut beyond = stage.device().await?;
    let stage = stage.on(&data, folder).await?;
    stage.say(NEAR, 10).await?;
    let mut of_a_later_start = stage.device().await?;
    madang("restore", "--from", &backup, &again).await?;
    let stage = stage.on(&again, folder).await?;
    // The restored store grows past the lost part: other messages have the same places.
    stage.say(NEAR * 3, 10).await?;
    beyond.must_take_a_snapshot(&stage, SnapshotReason::BeyondStore).await?;
    of_a_later_start.must_take_a_snapshot(&stage, SnapshotReason::ForeignCursor).await?;
    ensure!(
        before.come(&stage).await? == Resume::Resumed,
        "a cursor from before the backup must be accepted"
    );
    Ok(json!({ "beyond_store": 1, "foreign_cursor": 1, "resumed": 1 }))
}

async fn stopped(folder: &Folder) -> anyhow::Result<serde_json::Value> {
    let stage = Stage::new(Process::strict(&folder.join("data"), folder).await?).await?;
    let mut device = stage.device().await?;
    let (client, mut events) = Client::start(device.options(&stage))?;
    // The device is connected once it has received something.
    stage.say(1, 10).await?;
    device.listen(&stage, &mut events).await?;
    // The client's events are not taken, so it neither reads nor sends anything.
    tokio::try_join!(stage.say(STOPPED_MESSAGES, LONG_TEXT), async {
        sleep(STOPPED).await;
        Ok(())
    })?;
    let heard = device.listen(&stage, &mut events).await?;
    client.close().await;
    ensure!(
        heard.resyncs + heard.disconnects > 0,
        "the server never noticed that the device stopped reading"
    );
    ensure!(heard.resume.is_none_or(|resume| resume == Resume::Resumed), "the device must resume");
    Ok(
        json!({ "resyncs": heard.resyncs, "closed_by_the_server": heard.disconnects, "messages": STOPPED_MESSAGES }),
    )
}

/// Runs a command of the server's program until it ends.
async fn madang(command: &str, option: &str, path: &Path, data: &Path) -> anyhow::Result<()> {
    let mut program = Command::new(programs()?.join("madang"));
    let output = program.arg(command).arg(option).arg(path).arg("--data").arg(data).output().await?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "madang {command}: {said}");
    Ok(())
}

/// A server, a user who sends, and a user whose devices are observed.
struct Stage {
    server: Process,
    rest: Rest,
    ada: Person,
    bob: Person,
    channel: ChannelId,
}

impl Stage {
    async fn new(server: Process) -> anyhow::Result<Self> {
        let rest = people::rest(&server.url())?;
        let people = people::sign_up(&rest, 2).await?;
        let [ada, bob] = people.as_slice() else { bail!("expected two users") };
        let channel = people::group(&rest, &[ada, bob]).await?;
        Ok(Self { server, rest, ada: ada.clone(), bob: bob.clone(), channel })
    }

    /// Kills the server and starts another one on this folder.
    async fn on(self, data: &Path, folder: &Folder) -> anyhow::Result<Self> {
        self.server.kill().await?;
        let server = Process::madang(data, folder).await?;
        Ok(Self { rest: people::rest(&server.url())?, server, ..self })
    }

    async fn say(&self, count: usize, text: usize) -> anyhow::Result<()> {
        stream::iter(0..count)
            .map(|_| async {
                let body = Body { text: "x".repeat(text), ..Body::default() };
                let message = SendMessage { client_msg_id: ClientMsgId::from_uuid(rand::random()), body };
                self.rest.send(&self.ada.token, self.channel, &message).await
            })
            .buffer_unordered(CALLS)
            .try_for_each(|_| std::future::ready(Ok(())))
            .await
            .context("a message failed")
    }

    async fn head(&self) -> anyhow::Result<Seq> {
        Ok(self.rest.channel(&self.bob.token, self.channel).await?.head_seq)
    }

    /// The entries of the store after a place.
    async fn history(&self, mut after: Seq) -> anyhow::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        loop {
            let query = HistoryQuery {
                after: Some(after),
                limit: Some(limits::HISTORY_PAGE),
                ..HistoryQuery::default()
            };
            let page = self.rest.history(&self.bob.token, self.channel, &query).await?;
            let Some(last) = page.entries.last() else { return Ok(entries) };
            after = last.seq;
            entries.extend(page.entries);
        }
    }

    /// A device that has received everything so far.
    async fn device(&self) -> anyhow::Result<Device> {
        let cursor = self.rest.snapshot(&self.bob.token, &SnapshotQuery::default()).await?.cursor;
        let kept = self.history(Seq::ZERO).await?.into_iter().map(|entry| (entry.seq, entry));
        Ok(Device { cursor, kept: kept.collect() })
    }
}

/// What the program of a device stores between two runs.
struct Device {
    cursor: Option<SealedCursor>,
    kept: BTreeMap<Seq, Entry>,
}

/// Events of a device other than entries.
#[derive(Debug, Default)]
struct Heard {
    resume: Option<Resume>,
    resyncs: u32,
    disconnects: u32,
}

impl Device {
    fn options(&self, stage: &Stage) -> ClientOptions {
        let tokens = Tokens {
            access: stage.bob.token.clone(),
            refresh: String::new(),
            expires_at: Millis::new(u64::MAX),
        };
        let mut options = ClientOptions::new(&stage.server.url(), tokens);
        options.cursor = self.cursor.clone();
        options.heads = HashMap::from([(LogId::Channel(stage.channel), self.last())]);
        options
    }

    /// Connects, stays until the device has everything that the store has, compares, and disconnects.
    async fn come(&mut self, stage: &Stage) -> anyhow::Result<Resume> {
        let (client, mut events) = Client::start(self.options(stage))?;
        let heard = self.listen(stage, &mut events).await?;
        client.close().await;
        heard.resume.context("the device never connected")
    }

    async fn must_take_a_snapshot(&mut self, stage: &Stage, reason: SnapshotReason) -> anyhow::Result<()> {
        let resume = self.come(stage).await?;
        ensure!(resume == Resume::SnapshotRequired { reason }, "expected {reason:?}, got {resume:?}");
        Ok(())
    }

    /// Reads until the device has everything that the store has, and a cursor that covers it. Every entry must arrive
    /// once and in order.
    async fn listen(&mut self, stage: &Stage, events: &mut Receiver<Event>) -> anyhow::Result<Heard> {
        let (head, mut heard, mut is_covered) = (stage.head().await?, Heard::default(), false);
        while self.last() < head || !is_covered {
            let event = timeout(PATIENCE, events.recv()).await;
            let event = event.with_context(|| format!("the device has {} of {head}", self.last()))?;
            match event.context("the client has stopped")? {
                Event::Connected { resume } => heard.resume = Some(resume),
                Event::Resync => heard.resyncs += 1,
                Event::Disconnected { .. } => heard.disconnects += 1,
                Event::CursorMoved(cursor) => (self.cursor, is_covered) = (Some(cursor), true),
                Event::Entries { log, entries } if log == LogId::Channel(stage.channel) => {
                    self.keep(entries)?
                }
                Event::SnapshotRequired { reason, .. } => self.take_snapshot(stage, reason).await?,
                Event::Gap { after, before, .. } => {
                    bail!("entries between {after} and {before} did not arrive")
                }
                Event::SignInRequired { reason } | Event::Closed { reason, .. } => bail!("{reason}"),
                _ => {}
            }
        }
        self.compare(stage).await?;
        Ok(heard)
    }

    fn keep(&mut self, entries: Vec<Entry>) -> anyhow::Result<()> {
        for entry in entries {
            let (seq, last) = (entry.seq, self.last());
            ensure!(seq == last.next(), "seq {seq} arrived after {last}");
            self.kept.insert(seq, entry);
        }
        Ok(())
    }

    /// Takes a snapshot as `docs/protocol.md` says: data of another store is deleted, and history provides the rest.
    async fn take_snapshot(&mut self, stage: &Stage, reason: SnapshotReason) -> anyhow::Result<()> {
        if matches!(reason, SnapshotReason::ForeignCursor | SnapshotReason::BeyondStore) {
            self.kept.clear();
        }
        let missed = stage.history(self.last()).await?;
        self.keep(missed)
    }

    async fn compare(&self, stage: &Stage) -> anyhow::Result<()> {
        let stored = stage.history(Seq::ZERO).await?;
        ensure!(
            stored.len() == self.kept.len(),
            "{} entries are stored, {} kept",
            stored.len(),
            self.kept.len()
        );
        for (entry, kept) in stored.iter().zip(self.kept.values()) {
            let is_equal = serde_json::to_value(entry)? == serde_json::to_value(kept)?;
            ensure!(is_equal, "seq {} differs from the store", entry.seq);
        }
        Ok(())
    }

    fn last(&self) -> Seq {
        self.kept.last_key_value().map_or(Seq::ZERO, |(seq, _)| *seq)
    }
}
