//! Pairs of users who talk in direct channels: one types and sends, the other one reads and moves the read marker.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::Context;
use hdrhistogram::Histogram;
use madang_ids::ChannelId;
use memchr::memmem;
use tokio::sync::watch;
use tokio::time::{Instant, interval_at, sleep, sleep_until};

use super::tally::{Outcome, Tally, add, lock};
use crate::bench::figures::now_us;
use crate::bench::pace::put_message;
use crate::bench::people::Person;
use crate::bench::reader::{ENTRIES, TEXT};
use crate::bench::socket::{Socket, put_frame};
use crate::instruments::history::{Acked, number, sent_us};

/// Prefix of a refusal.
const ERROR: &[u8] = br#"{"type":"error""#;
/// Prefix of the answer to a read marker.
const DONE: &[u8] = br#"{"type":"done""#;
/// Bytes of one read.
const READ_BYTES: usize = 4 * 1024;
/// Messages of one pair without an answer. What is due beyond is not sent, so the generator's memory is bounded.
const IN_FLIGHT: u64 = 32;
/// The server publishes that a user is typing in a channel at most once in this time.
const TYPING_PACE: Duration = Duration::from_secs(3);
const HEARTBEAT: Duration = Duration::from_secs(10);
/// Pause before a user connects again.
const RECONNECT: Duration = Duration::from_secs(1);
/// Time after the end within which every message must be answered.
const PATIENCE: Duration = Duration::from_secs(30);

/// How the pairs send.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Load {
    /// The first pairs send one message after the other, each as soon as the one before is answered.
    Closed { pairs: usize },
    /// All pairs together send this number of messages a second, whatever the server answers.
    Open { per_second: f64 },
    /// Nothing more is sent.
    End,
}

/// What the pairs of one kind have in common.
#[derive(Debug, Clone)]
pub(super) struct Crowd {
    pub(super) addr: String,
    pub(super) pairs: usize,
    pub(super) text_bytes: usize,
    pub(super) messages: Arc<Tally>,
    /// Typing frames that the server publishes.
    pub(super) typing: Arc<AtomicU64>,
    /// Read markers. A client that waits for an answer skips those that are overtaken meanwhile.
    pub(super) receipts: Arc<Tally>,
    /// Times from send to delivery, if they are measured: to parse entries costs processor time.
    pub(super) delivery: Option<Arc<std::sync::Mutex<Histogram<u64>>>>,
}

/// A pair, which is driven by [`Talk::run`].
#[derive(Debug)]
pub(super) struct Talk {
    number: usize,
    source: IpAddr,
    tokens: [String; 2],
    channel: ChannelId,
    crowd: Crowd,
    load: watch::Receiver<Load>,
    sockets: Option<(Socket, Socket)>,
    /// The next message is due.
    next: Instant,
    typed: Option<Instant>,
    in_flight: u64,
    /// The read marker that is due, and the time at which the one without an answer was sent.
    unmarked: Option<u64>,
    marked: Option<Instant>,
    acked: Vec<Acked>,
    /// Frames that are not written yet, of both users.
    out: Vec<u8>,
    marks: Vec<u8>,
}

impl Talk {
    pub(super) async fn connect(
        crowd: Crowd,
        number: usize,
        source: IpAddr,
        people: &(Person, Person),
        channel: ChannelId,
        load: watch::Receiver<Load>,
    ) -> anyhow::Result<Self> {
        let tokens = [people.0.token.clone(), people.1.token.clone()];
        let sockets = Some(open(&crowd.addr, source, &tokens).await?);
        Ok(Self {
            number,
            source,
            tokens,
            channel,
            crowd,
            load,
            sockets,
            next: Instant::now(),
            typed: None,
            in_flight: 0,
            unmarked: None,
            marked: None,
            acked: Vec::new(),
            out: Vec::new(),
            marks: Vec::new(),
        })
    }

    /// Talks until the load ends. Returns the acked messages, in the order of the acks. After a connection ends the pair
    /// connects again; messages without an answer are not repeated.
    pub(super) async fn run(mut self) -> (usize, Vec<Acked>) {
        self.schedule();
        loop {
            let sockets = match self.sockets.take() {
                Some(sockets) => Ok(sockets),
                None => open(&self.crowd.addr, self.source, &self.tokens).await,
            };
            let talked = match sockets {
                Ok(sockets) => self.talk(sockets).await,
                Err(error) => Err(error),
            };
            let Err(error) = talked else { return (self.number, self.acked) };
            self.crowd.messages.close(self.in_flight, format!("pair {}: {error:#}", self.number));
            (self.in_flight, self.unmarked, self.marked) = (0, None, None);
            self.out.clear();
            self.marks.clear();
            sleep(RECONNECT).await;
            self.schedule();
        }
    }

    /// `Ok` if the load has ended.
    async fn talk(&mut self, (mut talker, mut listener): (Socket, Socket)) -> anyhow::Result<()> {
        let first = HEARTBEAT.mul_f64(share(self.number, self.crowd.pairs));
        let mut beats = interval_at(Instant::now() + first, HEARTBEAT);
        loop {
            let load = *self.load.borrow();
            if load == Load::End && self.in_flight == 0 {
                return Ok(());
            }
            let waits = match load {
                Load::Closed { pairs } => self.number >= pairs || self.in_flight > 0,
                Load::Open { .. } | Load::End => false,
            };
            tokio::select! {
                changed = self.load.changed() => {
                    changed.context("the run is over")?;
                    self.schedule();
                }
                () = sleep_until(self.next), if !waits => {
                    if load == Load::End {
                        add(&self.crowd.messages.unanswered, self.in_flight);
                        return Ok(());
                    }
                    self.send(load)?;
                }
                done = talker.exchange(&mut self.out) => {
                    done?;
                    self.take_answers(&mut talker)?;
                }
                done = listener.exchange(&mut self.marks) => {
                    done?;
                    self.take_entries(&mut listener)?;
                }
                _ = beats.tick() => {
                    put_frame(&mut self.out, br#"{"type":"heartbeat"}"#, true);
                    put_frame(&mut self.marks, br#"{"type":"heartbeat"}"#, true);
                }
            }
        }
    }

    /// Sets the time of the next message, for a load that begins. Pairs are spread evenly.
    fn schedule(&mut self) {
        let after = match *self.load.borrow_and_update() {
            Load::Closed { .. } => Duration::ZERO,
            Load::Open { per_second } => {
                every(self.crowd.pairs, per_second).mul_f64(share(self.number, self.crowd.pairs))
            }
            Load::End => PATIENCE,
        };
        self.next = Instant::now() + after;
    }

    fn send(&mut self, load: Load) -> anyhow::Result<()> {
        if let Load::Open { per_second } = load {
            self.next += every(self.crowd.pairs, per_second);
            if self.in_flight >= IN_FLIGHT {
                add(&self.crowd.messages.skipped, 1);
                return Ok(());
            }
        }
        if self.typed.is_none_or(|at| at.elapsed() >= TYPING_PACE) {
            let typing = format!(r#"{{"type":"typing","channel_id":"{}"}}"#, self.channel);
            put_frame(&mut self.out, typing.as_bytes(), true);
            self.typed = Some(Instant::now());
            add(&self.crowd.typing, 1);
        }
        put_message(&mut self.out, self.channel, self.number, self.crowd.text_bytes)?;
        add(&self.crowd.messages.offered, 1);
        self.in_flight += 1;
        Ok(())
    }

    fn take_answers(&mut self, talker: &mut Socket) -> anyhow::Result<()> {
        let mut answers = Vec::new();
        talker.frames(|frame| {
            if frame.starts_with(br#"{"type":"ack""#) || frame.starts_with(ERROR) {
                answers.push(frame.to_vec());
            }
        })?;
        for frame in answers {
            self.take_answer(&frame);
        }
        Ok(())
    }

    fn take_answer(&mut self, frame: &[u8]) {
        let took = number(frame, br#""id":""#).map_or(0, |sent_us| now_us().saturating_sub(sent_us));
        let outcome = if frame.starts_with(br#"{"type":"ack""#) {
            match Acked::parse(frame) {
                Some(acked) => {
                    self.acked.push(acked);
                    self.unmarked = Some(acked.seq);
                    self.mark();
                    Outcome::Done
                }
                None => Outcome::Failed(format!("not an ack: {}", String::from_utf8_lossy(frame))),
            }
        } else {
            Outcome::refused(frame)
        };
        // A sender who waits for answers does what the server asks for.
        if let (Load::Closed { .. }, Outcome::Shed(wait_ms) | Outcome::Limited(wait_ms)) =
            (*self.load.borrow(), &outcome)
        {
            self.next = Instant::now() + Duration::from_millis(*wait_ms);
        }
        self.in_flight = self.in_flight.saturating_sub(1);
        self.crowd.messages.end(outcome, Duration::from_micros(took));
    }

    /// The listener has read up to the last message. One marker is in progress at a time.
    fn mark(&mut self) {
        let Some(seq) = self.unmarked.take_if(|_| self.marked.is_none()) else { return };
        self.marked = Some(Instant::now());
        let read = format!(r#"{{"type":"read","id":"r","channel_id":"{}","seq":{seq}}}"#, self.channel);
        put_frame(&mut self.marks, read.as_bytes(), true);
        add(&self.crowd.receipts.offered, 1);
    }

    fn take_entries(&mut self, listener: &mut Socket) -> anyhow::Result<()> {
        let mut answer = None;
        listener.frames(|frame| {
            if frame.starts_with(ERROR) {
                answer = Some(Outcome::refused(frame));
            } else if frame.starts_with(DONE) {
                answer = Some(Outcome::Done);
            } else if let Some(delivery) = self.crowd.delivery.as_ref().filter(|_| frame.starts_with(ENTRIES))
            {
                let text = memmem::find(frame, TEXT.as_bytes()).map(|at| &frame[at + TEXT.len()..]);
                let sent_us = text.and_then(|text| sent_us(std::str::from_utf8(text).ok()?));
                if let Some(sent_us) = sent_us {
                    lock(delivery).saturating_record(now_us().saturating_sub(sent_us));
                }
            }
        })?;
        if let Some((outcome, marked)) = answer.zip(self.marked) {
            self.crowd.receipts.end(outcome, marked.elapsed());
            self.marked = None;
            self.mark();
        }
        Ok(())
    }
}

async fn open(addr: &str, source: IpAddr, tokens: &[String; 2]) -> anyhow::Result<(Socket, Socket)> {
    let talker = Socket::welcome(addr, source, READ_BYTES, &tokens[0], None).await?;
    Ok((talker, Socket::welcome(addr, source, READ_BYTES, &tokens[1], None).await?))
}

/// Time between two messages of a pair.
fn every(pairs: usize, per_second: f64) -> Duration {
    Duration::from_secs(pairs as u64).div_f64(per_second)
}

fn share(number: usize, of: usize) -> f64 {
    crate::bench::figures::figure(number as u64) / crate::bench::figures::figure(of as u64)
}
