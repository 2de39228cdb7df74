//! Sends messages to one channel, with a fixed number in flight.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use hdrhistogram::Histogram;
use madang_ids::{ChannelId, ClientMsgId};
use madang_proto::{Body, ClientFrame, Request, RequestId, Send};
use tokio::time::sleep;

use super::figures::{histogram, micros};
use super::reader::{self, ENTRIES, Seen, Taken};
use super::socket::{Socket, put_frame};

/// How one sender sends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) channel: ChannelId,
    /// The number of the sender.
    pub(super) sender: usize,
    pub(super) text_bytes: usize,
    /// Messages in flight: sent and not acked.
    pub(super) in_flight: u64,
    pub(super) lasts: Duration,
    /// Pause before each write.
    pub(super) pause: Duration,
}

/// A user who sends.
#[derive(Debug)]
pub(super) struct Sender {
    socket: Socket,
    plan: Plan,
    seen: Arc<Seen>,
    sent: u64,
    asked: Instant,
    acked: u64,
    /// Time from send to ack; recorded if one message is in flight at a time.
    latency: Histogram<u64>,
    taken: Taken,
}

/// Results of one sender.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) acked: u64,
    pub(super) latency: Histogram<u64>,
}

impl Sender {
    pub(super) fn new(socket: Socket, plan: Plan, seen: Arc<Seen>) -> anyhow::Result<Self> {
        let (latency, asked) = (histogram()?, Instant::now());
        Ok(Self { socket, plan, seen, sent: 0, asked, acked: 0, latency, taken: Taken::default() })
    }

    /// Sends for the given time, then waits until nothing is in flight.
    pub(super) async fn run(self) -> anyhow::Result<Sent> {
        let (begun, lasts) = (Instant::now(), self.plan.lasts);
        self.run_while(|| begun.elapsed() < lasts).await
    }

    /// Sends while `goes_on` returns true, then waits until nothing is in flight.
    pub(super) async fn run_while(mut self, goes_on: impl Fn() -> bool) -> anyhow::Result<Sent> {
        loop {
            if goes_on() {
                // Not while an answer is awaited: it would be read late.
                if !self.plan.pause.is_zero() && self.acked == self.sent {
                    sleep(self.plan.pause).await;
                }
                self.write().await?;
            } else if self.acked == self.sent {
                return Ok(Sent { acked: self.sent, latency: self.latency });
            }
            self.read().await?;
        }
    }

    /// Sends as many messages as allowed, in one write.
    async fn write(&mut self) -> anyhow::Result<()> {
        let room = self.plan.in_flight - (self.sent - self.acked);
        if room == 0 {
            return Ok(());
        }
        let mut out = Vec::new();
        for _ in 0..room {
            put_frame(&mut out, self.message()?.as_bytes(), true);
        }
        self.sent += room;
        self.asked = Instant::now();
        self.socket.write(&out).await
    }

    fn message(&self) -> anyhow::Result<String> {
        let text = reader::text(self.plan.sender, self.plan.text_bytes);
        let send = Send {
            channel_id: self.plan.channel,
            client_msg_id: ClientMsgId::from_uuid(rand::random()),
            body: Body { text, ..Body::default() },
        };
        let request =
            Request { id: Some(RequestId("m".to_owned())), frame: ClientFrame::Send(Box::new(send)) };
        Ok(serde_json::to_string(&request)?)
    }

    async fn read(&mut self) -> anyhow::Result<()> {
        self.taken.bytes += self.socket.fill().await? as u64;
        let before = self.acked;
        let (seen, taken, acked) = (&self.seen, &mut self.taken, &mut self.acked);
        let mut refused = None;
        self.socket.frames(|payload| {
            if payload.starts_with(ENTRIES) {
                seen.take_frame(payload, taken);
            } else if payload.starts_with(br#"{"type":"ack""#) {
                *acked += 1;
            } else if payload.starts_with(br#"{"type":"error""#) {
                refused = Some(String::from_utf8_lossy(payload).into_owned());
            }
        })?;
        if let Some(refused) = refused {
            bail!("a message was refused: {refused}");
        }
        if self.plan.in_flight == 1 && self.acked > before {
            self.latency.saturating_record(micros(self.asked.elapsed()));
        }
        self.seen.add(&mut self.taken);
        Ok(())
    }
}
