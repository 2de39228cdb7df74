//! One connection of a device. Frames are judged here as they arrive, before repeated entries are dropped. Messages are
//! sent here, changes of messages in [`changes`], subscriptions to open channels in [`open`], and snapshots are taken in
//! [`snapshot`].

mod changes;
mod open;
mod snapshot;

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::Duration;

use madang_client::{Answer, Backoff, ClientError, Connection, Endpoint, Incoming};
use madang_proto::{ClientFrame, Request, RequestId, Resume, ServerFrame};
use rand::RngExt;
use rand::rngs::SmallRng;
use tokio::time::{Instant, sleep_until};

use self::open::Subscriptions;
use super::device::{Device, LineRef};
use super::world::{World, count, lock};
use crate::judge::book::{Acked, Moment};
use crate::judge::faults::{Fault, FaultKind};
use crate::judge::frame::{RawEntry, RawFrame};

/// A connection on which nothing arrives for this many heartbeat intervals is considered dead.
const SILENT_HEARTBEATS: u32 = 4;
/// How long the last connection listens for entries that should not arrive.
const LINGER: Duration = Duration::from_millis(300);
/// Interval at which a token is renewed on one connection. Tokens of this server live 15 minutes.
const RENEW_EVERY: Duration = Duration::from_secs(10 * 60);
/// Interval at which the last connection checks whether everything has arrived.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Why a connection ended, if not by an error.
#[derive(Debug)]
pub(crate) enum End {
    /// No day needs the device any longer. It must resume once more.
    Unwanted,
    /// It resumed once more and listened.
    Checked,
    /// The device dropped the connection on purpose.
    Dropped,
    /// The server asked the device to reconnect later, to one of these nodes if there are any.
    ComeBack(Duration, VecDeque<Endpoint>),
}

pub(crate) struct Live<'a> {
    world: &'a World,
    device: &'a Device,
    connection: Connection,
    node: Endpoint,
    welcome_at_ms: u64,
    /// Whether this connection only checks that everything has arrived.
    is_last: bool,
    beat: Duration,
    next_beat: Instant,
    last_heard: Instant,
    /// When to renew the token: a fifth of its life is left.
    renew_at: Instant,
    drop_at: Option<Instant>,
    listen_until: Instant,
    /// On the clock of the world's uptime.
    give_up_at: Duration,
    come_back: Option<(Duration, VecDeque<Endpoint>)>,
    /// Days of which something arrived since the last cursor.
    touched: Vec<u32>,
    open: Subscriptions,
    /// Whether the server asked for a snapshot that was not taken yet.
    is_snapshot_due: bool,
    /// Whether the snapshot is whole only with a cursor.
    must_have_cursor: bool,
}

impl<'a> Live<'a> {
    /// Connects, and stays until there is a reason to leave.
    pub(crate) async fn run(
        world: &'a World,
        device: &'a Device,
        random: &mut SmallRng,
        (backoff, named): (&mut Backoff, &mut VecDeque<Endpoint>),
    ) -> Result<End, ClientError> {
        let is_last = !device.is_wanted();
        let opened = world.reach.open(device.seed, &device.access_token(), &device.socket, named).await?;
        let mut live = Self::greet(world, device, random, opened, is_last).await?;
        backoff.reset();
        if !is_last {
            device.connected.send_replace(true);
        }
        live.listen().await
    }

    async fn greet(
        world: &'a World,
        device: &'a Device,
        random: &mut SmallRng,
        (mut connection, node): (Connection, Endpoint),
        is_last: bool,
    ) -> Result<Self, ClientError> {
        let cursor = begin(world, device);
        let welcome = connection.hello(&device.access_token(), cursor.clone()).await?;
        let now = Instant::now();
        let token_life =
            Duration::from_millis(welcome.token_expires_at.get().saturating_sub(welcome.at.get()));
        let beat = Duration::from_millis(welcome.heartbeat_interval_ms.max(100));
        let mut live = Self {
            world,
            device,
            connection,
            node,
            welcome_at_ms: welcome.at.get(),
            is_last,
            beat,
            // Spreads the heartbeats of thousands of devices that connect at the same time.
            next_beat: now + beat.mul_f64(0.5 + random.random::<f64>() / 2.0),
            last_heard: now,
            renew_at: now + token_life.mul_f64(0.8),
            drop_at: (world.args.churn && !is_last).then(|| now + until_drop(world.args.churn_every, random)),
            listen_until: now + LINGER,
            give_up_at: world.patience_ends(),
            come_back: None,
            touched: Vec::new(),
            open: Subscriptions::default(),
            is_snapshot_due: false,
            must_have_cursor: false,
        };
        if let (Resume::SnapshotRequired { reason }, Some(_)) = (welcome.resume, cursor) {
            live.handle_snapshot_required(&snapshot::name(reason));
        }
        Ok(live)
    }

    async fn listen(&mut self) -> Result<End, ClientError> {
        // One timer for all deadlines, moved only after it fired, because frames are frequent.
        let timer = sleep_until(self.next_look());
        tokio::pin!(timer);
        self.write().await?;
        loop {
            tokio::select! {
                biased;
                () = &mut timer => {
                    if let Some(end) = self.look().await? {
                        return Ok(end);
                    }
                    timer.as_mut().reset(self.next_look());
                }
                () = self.device.wake.notified() => {
                    if !self.device.is_wanted() && !self.is_last && self.device.is_done() {
                        return Ok(End::Unwanted);
                    }
                    if self.is_last && self.device.is_wanted() {
                        self.is_last = false;
                        self.device.connected.send_replace(true);
                    }
                    self.write().await?;
                    timer.as_mut().reset(self.next_look());
                }
                incoming = self.connection.next() => match incoming? {
                    Incoming::Text(text) => {
                        if self.handle_text(&text)? {
                            self.write().await?;
                            timer.as_mut().reset(self.next_look());
                        }
                    }
                    Incoming::Closed { code, reason } => return match self.come_back.take() {
                        Some((wait, nodes)) => Ok(End::ComeBack(wait, nodes)),
                        None => Err(ClientError::Closed { code, reason }),
                    },
                },
            }
        }
    }

    /// When [`Self::look`] has something to do.
    fn next_look(&self) -> Instant {
        let mut next = self.next_beat.min(self.renew_at);
        if self.is_last {
            next = next.min(Instant::now() + LOOK_EVERY);
        }
        let retry = lock(&self.device.outbox).next_deadline().map(Instant::from_std);
        let change = lock(&self.device.changes).next_due();
        [self.drop_at, retry, change, self.open.next_due()].into_iter().flatten().fold(next, Instant::min)
    }

    async fn look(&mut self) -> Result<Option<End>, ClientError> {
        let now = Instant::now();
        if self.drop_at.is_some_and(|at| at <= now) {
            return Ok(Some(End::Dropped));
        }
        if self.is_last
            && now >= self.listen_until
            && (self.world.uptime.now() >= self.give_up_at || self.is_complete())
        {
            return Ok(Some(End::Checked));
        }
        if now >= self.next_beat {
            if self.last_heard.elapsed() > self.beat * SILENT_HEARTBEATS {
                return Err(ClientError::Timeout(u64::from(SILENT_HEARTBEATS) * 1_000));
            }
            self.next_beat = now + self.beat;
            self.connection.send(&Request { id: None, frame: ClientFrame::Heartbeat }).await?;
        }
        if now >= self.renew_at {
            self.renew().await?;
        }
        self.write().await?;
        Ok(None)
    }

    /// Renews the token on the connection. If that fails, the server closes the connection when the token expires, and
    /// the device reconnects.
    async fn renew(&mut self) -> Result<(), ClientError> {
        self.renew_at = Instant::now() + RENEW_EVERY;
        self.device.renew(self.world).await?;
        let id = Some(RequestId("auth".into()));
        self.connection
            .send(&Request { id, frame: ClientFrame::Auth { token: self.device.access_token() } })
            .await
    }

    /// Whether everything that is known to exist has arrived.
    fn is_complete(&self) -> bool {
        let memory = lock(&self.device.memory);
        memory.records.iter().all(|(day, record)| {
            let book = lock(&self.world.day(*day).book);
            book.is_complete(record)
        })
    }

    /// Writes everything that may be sent now. A snapshot is taken first, so that no later entry is judged without it.
    async fn write(&mut self) -> Result<(), ClientError> {
        if self.is_snapshot_due {
            self.take_snapshot().await?;
        }
        let mut fed = self.feed_subscriptions().await?;
        loop {
            let (request, line, tries) = {
                let mut outbox = lock(&self.device.outbox);
                let Some(out) = outbox.poll_send(Instant::now().into_std()) else { break };
                let frame = ClientFrame::Send(Box::new(out.send.clone()));
                (Request { id: Some(out.request), frame }, *out.tag, out.tries)
            };
            self.count_try(line, tries);
            self.connection.feed(&request).await?;
            fed = true;
        }
        fed |= self.feed_changes().await?;
        if fed {
            self.connection.flush().await?;
            self.world.send_written.notify_waiters();
        }
        Ok(())
    }

    fn count_try(&self, line: LineRef, tries: u32) {
        let counters = &self.world.counters;
        counters.in_flight.fetch_add(1, Ordering::SeqCst);
        if tries > 1 {
            count(&counters.retried);
            return;
        }
        count(&counters.sent);
        lock(&self.world.day(line.day).book).lines[line.line as usize].sent_us = self.world.now_us();
    }

    /// Handles a text frame. Returns `true` if there may be something to write now.
    fn handle_text(&mut self, text: &str) -> Result<bool, ClientError> {
        self.last_heard = Instant::now();
        let frame = RawFrame::parse(text).map_err(|error| ClientError::Protocol(error.to_string()))?;
        match frame.kind {
            "entries" => self.handle_entries(&frame),
            "cursor" => self.handle_cursor(&frame),
            "ack" | "changed" | "error" => {
                self.handle_answer(Connection::decode(text)?);
                return Ok(true);
            }
            "heads" => return Ok(self.handle_heads(&frame)),
            "history" => return Ok(self.handle_history(&frame)),
            "snapshot_required" => {
                self.handle_snapshot_required(frame.reason.unwrap_or("no reason"));
                return Ok(true);
            }
            "resync" => count(&self.world.counters.resyncs),
            "reconnect" => {
                let nodes = frame.nodes.iter().filter_map(|url| self.node.join(url).ok()).collect();
                self.come_back = Some((Duration::from_millis(frame.after_ms.unwrap_or_default()), nodes));
            }
            _ => {}
        }
        Ok(false)
    }

    fn handle_entries(&mut self, frame: &RawFrame<'_>) {
        let Some(day) = frame.channel_id.and_then(|id| self.world.books_by_channel.get(&id.0).copied())
        else {
            return;
        };
        let moment = Moment { now_us: self.world.now_us(), welcome_at_ms: self.welcome_at_ms };
        let mut memory = lock(&self.device.memory);
        let record = memory.records.entry(day).or_default();
        let mut book = lock(&self.world.day(day).book);
        for entry in &frame.entries {
            let entry: &RawEntry<'_> = entry;
            book.deliver(entry, record, moment, &|| self.device.name.clone(), &self.world.faults);
        }
        // Cursors do not cover open channels.
        if !book.is_open && !self.touched.contains(&day) {
            self.touched.push(day);
        }
        self.world.counters.delivered.fetch_add(frame.entries.len() as u64, Ordering::Relaxed);
    }

    fn handle_cursor(&mut self, frame: &RawFrame<'_>) {
        let mut memory = lock(&self.device.memory);
        memory.cursor = frame.cursor.clone().or(memory.cursor.take());
        for day in self.touched.drain(..) {
            if let Some(record) = memory.records.get_mut(&day) {
                record.cover();
            }
        }
    }

    fn handle_answer(&mut self, frame: ServerFrame<'static>) {
        let answer = match frame {
            ServerFrame::Ack(ack) => lock(&self.device.outbox).handle_ack(ack),
            ServerFrame::Changed(changed) => return self.handle_changed(&changed),
            ServerFrame::Error { id: Some(id), error } => {
                self.world.note_trouble(format!("error {:?}: {}", error.code, error.message));
                if id.0.starts_with(changes::PREFIX) {
                    return self.handle_change_refused(&id, &error);
                }
                if id.0.starts_with([open::SUBSCRIBE, open::HISTORY]) {
                    return self.handle_open_refused(&id, &error);
                }
                lock(&self.device.outbox).handle_error(&id, error, Instant::now().into_std())
            }
            _ => Answer::Unknown,
        };
        let counters = &self.world.counters;
        if !matches!(answer, Answer::Unknown) {
            counters.in_flight.fetch_sub(1, Ordering::SeqCst);
        }
        match answer {
            Answer::Acked(settled, ack) => {
                count(&counters.acked);
                // The entry is older than this connection, so an earlier attempt appended it.
                if settled.tries > 1 && ack.at.get() < self.welcome_at_ms {
                    count(&counters.acked_by_retry);
                }
                let acked = Acked { seq: ack.seq.get(), message_id: ack.message_id.raw() };
                let line = settled.tag;
                lock(&self.world.day(line.day).book).ack(
                    line.line as usize,
                    acked,
                    self.world.now_us(),
                    &self.world.faults,
                );
                self.schedule_changes(line, acked.seq);
                self.settle(line);
            }
            Answer::Refused(settled, error) => {
                let line = settled.tag;
                let mut book = lock(&self.world.day(line.day).book);
                book.lines[line.line as usize].is_refused = true;
                let what = format!("line {} was refused, {:?}: {}", line.line, error.code, error.message);
                let fault = Fault { device: Some(self.device.name.clone()), ..book.fault(0, what) };
                self.world.faults.note(FaultKind::Conflict, fault);
                drop(book);
                self.settle(line);
            }
            Answer::Again | Answer::Unknown => {}
        }
    }

    fn settle(&self, line: LineRef) {
        count(&self.world.counters.settled);
        self.world.day(line.day).window.add_permits(1);
    }
}

/// Starts a new connection in the records, and returns the device's cursor.
fn begin(world: &World, device: &Device) -> Option<madang_ids::SealedCursor> {
    let mut memory = lock(&device.memory);
    memory.records.values_mut().for_each(crate::judge::record::Record::connect);
    if std::mem::replace(&mut memory.was_connected, true) {
        count(&world.counters.resumes);
    }
    memory.cursor.clone()
}

/// Drops are independent of each other, so the times between them are exponentially distributed.
fn until_drop(every: f64, random: &mut SmallRng) -> Duration {
    Duration::from_secs_f64(-every * (1.0 - random.random::<f64>()).ln())
}
