//! Sends messages into one channel, a fixed number under way.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use hdrhistogram::Histogram;
use madang_ids::{ChannelId, ClientMsgId};
use madang_proto::{Body, ClientFrame, Request, RequestId, Send};

use super::figures::{histogram, micros};
use super::reader::{ENTRIES, Seen, Taken};
use super::socket::{Socket, put_frame};

/// When a message is no longer under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// It was acked.
    Acked,
    /// It has come back to its sender: what is delivered keeps pace with what is sent.
    Delivered,
}

/// How to send.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) channel: ChannelId,
    /// Which of the senders this is.
    pub(super) sender: usize,
    pub(super) text_bytes: usize,
    pub(super) in_flight: u64,
    pub(super) until: Until,
    pub(super) lasts: Duration,
}

/// Somebody who sends.
#[derive(Debug)]
pub(super) struct Sender {
    socket: Socket,
    plan: Plan,
    seen: Arc<Seen>,
    sent: u64,
    asked: Instant,
    counts: Counts,
    /// From send to ack, if one message is under way at a time.
    latency: Histogram<u64>,
    taken: Taken,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    acked: u64,
    delivered: u64,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) acked: u64,
    pub(super) latency: Histogram<u64>,
    /// To go on with.
    pub(super) socket: Socket,
}

impl Sender {
    pub(super) fn new(socket: Socket, plan: Plan, seen: Arc<Seen>) -> anyhow::Result<Self> {
        let (latency, asked) = (histogram()?, Instant::now());
        let (counts, taken) = (Counts::default(), Taken::default());
        Ok(Self { socket, plan, seen, sent: 0, asked, counts, latency, taken })
    }

    /// Sends for a while, then waits until nothing is under way.
    pub(super) async fn run(mut self) -> anyhow::Result<Sent> {
        let begun = Instant::now();
        loop {
            if begun.elapsed() < self.plan.lasts {
                self.write().await?;
            } else if self.counts.acked == self.sent && self.done() == self.sent {
                return Ok(Sent { acked: self.sent, latency: self.latency, socket: self.socket });
            }
            self.read().await?;
        }
    }

    const fn done(&self) -> u64 {
        match self.plan.until {
            Until::Acked => self.counts.acked,
            Until::Delivered => self.counts.delivered,
        }
    }

    /// Sends as many as may go, in one write.
    async fn write(&mut self) -> anyhow::Result<()> {
        let room = self.plan.in_flight - (self.sent - self.done());
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
        let text = self.seen.text(self.plan.sender, self.plan.text_bytes);
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
        let acked = self.counts.acked;
        let (seen, taken, counts, sender) = (&self.seen, &mut self.taken, &mut self.counts, self.plan.sender);
        let mut refused = None;
        self.socket.frames(|payload| {
            if payload.starts_with(ENTRIES) {
                counts.delivered += seen.take_frame(payload, sender, taken);
            } else if payload.starts_with(br#"{"type":"ack""#) {
                counts.acked += 1;
            } else if payload.starts_with(br#"{"type":"error""#) {
                refused = Some(String::from_utf8_lossy(payload).into_owned());
            }
        })?;
        if let Some(refused) = refused {
            bail!("a message was refused: {refused}");
        }
        if self.plan.in_flight == 1 && self.counts.acked > acked {
            self.latency.saturating_record(micros(self.asked.elapsed()));
        }
        self.seen.add(&mut self.taken);
        Ok(())
    }
}
