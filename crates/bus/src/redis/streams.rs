//! Frames between processes: each process reads one bounded, ordered stream.
//!
//! Frames of one writer to one stream keep their order. A frame may be lost (the server was gone, the reader was slow, a stale
//! replica was promoted), and the reader is notified of that; after a loss frames may come twice.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use madang_store::{StoreError, StoreResult};
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Pipeline, Value};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::connection::{CALL, PIPELINE, Redis};
use super::scripts::{self, call};
use super::values::Reply;
use crate::bounds::WAITING_BYTES;

/// Bytes of one entry, which carries several frames; one frame alone may be larger.
const ENTRY_BYTES: usize = 64 * 1024;
/// How long a read waits for frames. A reader notices within this time that the connection is broken.
const BLOCK: Duration = Duration::from_secs(1);
/// Entries of one read.
const ENTRIES: usize = 16;
/// The pause between two renewals of the reader's own stream.
const RENEWAL: Duration = Duration::from_secs(5);

/// The name of the stream of a process, in one of its runs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StreamName(Arc<str>);

impl StreamName {
    /// The stream of a process that is unique by this name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn keys(&self) -> [String; 2] {
        [format!("{{s:{}}}:frames", self.0), format!("{{s:{}}}:count", self.0)]
    }
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Sends frames to other processes. A clone shares the queue.
#[derive(Debug, Clone)]
pub struct Streams {
    redis: Redis,
    queue: Arc<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    ready: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    frames: HashMap<StreamName, VecDeque<Bytes>>,
    bytes: usize,
}

impl Waiting {
    /// Takes one entry for each stream, at most [`PIPELINE`].
    fn take(&mut self) -> Vec<(StreamName, BytesMut)> {
        let mut taken = Vec::new();
        for (name, frames) in self.frames.iter_mut().take(PIPELINE) {
            let mut entry = BytesMut::new();
            while let Some(frame) =
                frames.pop_front_if(|frame| entry.is_empty() || entry.len() + frame.len() + 4 <= ENTRY_BYTES)
            {
                self.bytes -= frame.len();
                entry.put_u32(u32::try_from(frame.len()).unwrap_or(u32::MAX));
                entry.put(frame);
            }
            taken.push((name.clone(), entry));
        }
        self.frames.retain(|_, frames| !frames.is_empty());
        taken
    }
}

impl Streams {
    /// Streams over a connection. The caller runs [`Streams::run`] as a task.
    #[must_use]
    pub fn new(redis: Redis) -> Self {
        Self { redis, queue: Arc::default() }
    }

    /// Enqueues a frame; never waits. `false` if the frame is dropped, because Redis does not answer or too much waits.
    pub fn send(&self, to: &StreamName, frame: Bytes) -> bool {
        if !self.redis.is_up() {
            return false;
        }
        let mut waiting = self.queue.waiting.lock();
        if waiting.bytes + frame.len() > WAITING_BYTES {
            return false;
        }
        waiting.bytes += frame.len();
        waiting.frames.entry(to.clone()).or_default().push_back(frame);
        drop(waiting);
        self.queue.ready.notify_one();
        true
    }

    /// Sends what is enqueued; never returns. Frames that come while a call is under way share the next one.
    pub async fn run(self) {
        loop {
            self.queue.ready.notified().await;
            loop {
                let taken = self.queue.waiting.lock().take();
                if taken.is_empty() {
                    break;
                }
                let mut pipeline = Pipeline::with_capacity(taken.len());
                for (name, entry) in &taken {
                    let [frames, count] = name.keys();
                    pipeline.add_command(call(&scripts::SEND, &[&frames, &count], &[entry]));
                }
                // Not repeated: after an unknown outcome a frame could come twice, and it may be too old by then. Readers
                // recover from lost frames anyway.
                if let Err(error) = self.redis.pipeline(&pipeline).await {
                    tracing::debug!(%error, streams = taken.len(), "frames to other processes were lost");
                }
            }
        }
    }

    /// The entries of a stream.
    ///
    /// # Errors
    /// Redis does not answer.
    #[cfg(feature = "conformance")]
    pub async fn length(&self, name: &StreamName) -> StoreResult<u64> {
        let [frames, _] = name.keys();
        match self.redis.command(redis::cmd("XLEN").arg(frames)).await? {
            Value::Int(length) => Ok(u64::try_from(length).unwrap_or_default()),
            other => Err(StoreError::Unavailable(format!("Redis: {other:?} is no length"))),
        }
    }

    /// The reader of a stream. There must be one for each name.
    #[must_use]
    pub fn reader(&self, name: &StreamName) -> StreamReader {
        StreamReader {
            redis: self.redis.clone(),
            keys: name.keys(),
            blocking: None,
            last_id: "0-0".into(),
            count: None,
            epoch: None,
            renewed_at: None,
            received: VecDeque::new(),
        }
    }
}

/// What a reader receives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// A frame.
    Frame(Bytes),
    /// Frames before the next one may be missing.
    Lost,
}

/// Reads the stream of this process.
pub struct StreamReader {
    redis: Redis,
    /// The stream, its count.
    keys: [String; 2],
    /// A connection of its own, because the reads block.
    blocking: Option<MultiplexedConnection>,
    last_id: String,
    /// The number of the last entry; `None` before the first one, and after a change of the epoch.
    count: Option<u64>,
    epoch: Option<String>,
    renewed_at: Option<Instant>,
    received: VecDeque<Received>,
}

impl StreamReader {
    /// The next frame, or the news that some are lost. Waits for a server that is gone. Cancel safe.
    pub async fn next(&mut self) -> Received {
        loop {
            if let Some(received) = self.received.pop_front() {
                return received;
            }
            if let Err(error) = self.read().await {
                tracing::debug!(%error, "reading the stream of this process failed");
                self.blocking = None;
                self.renewed_at = None;
                tokio::time::sleep(Duration::from_millis(100)).await;
                self.redis.answers(BLOCK).await;
            }
        }
    }

    /// Creates the stream: frames that are sent after it has returned arrive.
    ///
    /// # Errors
    /// Redis does not answer. [`Self::next`] creates the stream too.
    pub async fn create(&mut self) -> StoreResult<()> {
        self.renew().await
    }

    async fn read(&mut self) -> StoreResult<()> {
        if self.renewed_at.is_none_or(|at| at.elapsed() >= RENEWAL) {
            self.renew().await?;
        }
        let mut connection = self.connection().await?;
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg(ENTRIES).arg("BLOCK").arg(BLOCK.as_millis() as u64);
        command.arg("STREAMS").arg(&self.keys[0]).arg(&self.last_id);
        let answer = timeout(BLOCK + CALL, command.query_async::<Value>(&mut connection)).await;
        let answer = answer.map_err(|_| StoreError::Unavailable("no answer in time".into()))?;
        let answer = answer.map_err(|error| StoreError::Unavailable(format!("Redis: {error}")))?;
        self.take(answer)
    }

    async fn connection(&mut self) -> StoreResult<MultiplexedConnection> {
        if let Some(connection) = &self.blocking {
            return Ok(connection.clone());
        }
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CALL))
            .set_response_timeout(Some(BLOCK + CALL));
        let connection = self.redis.client().get_multiplexed_async_connection_with_config(&config).await;
        let connection = connection.map_err(|error| StoreError::Unavailable(format!("Redis: {error}")))?;
        Ok(self.blocking.insert(connection).clone())
    }

    /// Keeps the stream alive, drops what was read, and finds out whether the server is the same one as before.
    async fn renew(&mut self) -> StoreResult<()> {
        let [frames, count] = &self.keys;
        let command = call(&scripts::KEEP, &[frames, count], &[self.last_id.as_bytes()]);
        let mut reply = Reply::of(self.redis.command(&command).await?)?;
        let (epoch, count) = (reply.text()?, reply.number()?);
        let is_other = self.epoch.as_ref().is_some_and(|known| *known != epoch);
        if is_other || self.count.is_some_and(|known| count < known) {
            // The ids of a server that has begun anew, or that lacks the last entries, may be below the last one.
            self.last_id = "0-0".into();
            self.count = None;
            self.received.push_back(Received::Lost);
        }
        if count == 0 {
            self.count.get_or_insert(0);
        }
        self.epoch = Some(epoch);
        self.renewed_at = Some(Instant::now());
        Ok(())
    }

    fn take(&mut self, answer: Value) -> StoreResult<()> {
        if answer == Value::Nil {
            return Ok(());
        }
        let mut streams = Reply::of(answer)?;
        let mut entries = streams.list()?.skip().list()?;
        while let Some(mut entry) = entries.next_list()? {
            self.last_id = entry.text()?;
            let mut fields = entry.list()?;
            let (number, frames) = (fields.skip().number()?, fields.skip().bytes()?);
            if self.count.is_some_and(|count| count + 1 != number) {
                self.received.push_back(Received::Lost);
            }
            self.count = Some(number);
            split(frames, &mut self.received);
        }
        Ok(())
    }
}

/// Takes the frames of an entry apart.
fn split(mut entry: Bytes, received: &mut VecDeque<Received>) {
    while entry.len() > 4 {
        let length = u32::from_be_bytes([entry[0], entry[1], entry[2], entry[3]]) as usize;
        if entry.len() - 4 < length {
            received.push_back(Received::Lost);
            return;
        }
        let _ = entry.split_to(4);
        // A copy: a small frame must not keep the whole entry in memory.
        received.push_back(Received::Frame(Bytes::copy_from_slice(&entry.split_to(length))));
    }
}
