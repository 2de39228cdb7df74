//! Sends at a steady rate, whatever the server answers: a loop that waits for each answer would hide long latencies.

use std::time::Duration;

use anyhow::{bail, ensure};
use madang_ids::{ChannelId, ClientMsgId};
use madang_proto::{Body, ClientFrame, Request, RequestId, Send};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use super::figures::now_us;
use super::reader;
use super::socket::{Socket, put_frame};

/// Time after which missing answers are given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// How one sender sends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) channel: ChannelId,
    /// The number of the sender.
    pub(crate) sender: usize,
    pub(crate) text_bytes: usize,
    /// Messages in one write.
    pub(crate) burst: u32,
    /// Time between two writes.
    pub(crate) every: Duration,
    /// Time before the first write.
    pub(crate) after: Duration,
    /// Number of writes.
    pub(crate) writes: u64,
}

/// Receives the answers to messages. The `id` of an answer is the time at which the message was sent, in microseconds.
pub(crate) trait Answers {
    /// Messages were sent `late` after their time, because the generator was busy.
    fn handle_sent(&mut self, late: Duration);

    fn handle_ack(&mut self, frame: &[u8]);

    /// # Errors
    /// Ends the sender. After `Ok` the message is not sent again.
    fn handle_error(&mut self, frame: &[u8]) -> anyhow::Result<()>;
}

/// Demands that every message is acked.
#[derive(Debug)]
struct AllAcked;

impl Answers for AllAcked {
    fn handle_sent(&mut self, _: Duration) {}

    fn handle_ack(&mut self, _: &[u8]) {}

    fn handle_error(&mut self, frame: &[u8]) -> anyhow::Result<()> {
        bail!("a message was refused: {}", String::from_utf8_lossy(frame))
    }
}

/// Sends everything and waits until everything is acked. Returns the connection and the number of messages.
pub(crate) async fn send(socket: Socket, pace: Pace) -> anyhow::Result<(Socket, u64)> {
    let messages = pace.writes * u64::from(pace.burst);
    let (socket, answered) = send_with(socket, pace, &mut AllAcked).await?;
    ensure!(answered == messages, "only {answered} of {messages} messages were acked");
    Ok((socket, messages))
}

/// Sends everything and waits until everything is answered, or until no answer came for `PATIENCE`. Returns the
/// connection and the number of answers.
pub(crate) async fn send_with(
    mut socket: Socket,
    pace: Pace,
    answers: &mut impl Answers,
) -> anyhow::Result<(Socket, u64)> {
    let mut ticks = interval_at(Instant::now() + pace.after, pace.every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (mut writes, mut answered, mut out) = (0, 0, Vec::new());
    let messages = pace.writes * u64::from(pace.burst);
    let mut last = Instant::now();
    while answered < messages {
        tokio::select! {
            due = ticks.tick(), if writes < pace.writes => {
                writes += 1;
                answers.handle_sent(due.elapsed());
                put_burst(&mut out, &pace)?;
                last = Instant::now();
            }
            done = timeout(PATIENCE, socket.exchange(&mut out)) => {
                match done {
                    Ok(done) => done?,
                    Err(_) if writes < pace.writes || last.elapsed() < PATIENCE => {}
                    Err(_) => break,
                }
                answered += take_answers(&mut socket, answers)?;
            }
        }
    }
    Ok((socket, answered))
}

/// Passes on the answers that have arrived. Returns their number.
fn take_answers(socket: &mut Socket, answers: &mut impl Answers) -> anyhow::Result<u64> {
    let (mut answered, mut refused) = (0, Ok(()));
    socket.frames(|payload| {
        if payload.starts_with(br#"{"type":"ack""#) {
            answered += 1;
            answers.handle_ack(payload);
        } else if payload.starts_with(br#"{"type":"error""#) && refused.is_ok() {
            answered += 1;
            refused = answers.handle_error(payload);
        }
    })?;
    refused.map(|()| answered)
}

fn put_burst(out: &mut Vec<u8>, pace: &Pace) -> anyhow::Result<()> {
    (0..pace.burst).try_for_each(|_| put_message(out, pace.channel, pace.sender, pace.text_bytes))
}

/// Appends the frame of a message. Its `id`, and the begin of its text, is the present time in microseconds.
pub(crate) fn put_message(
    out: &mut Vec<u8>,
    channel_id: ChannelId,
    sender: usize,
    text_bytes: usize,
) -> anyhow::Result<()> {
    let sent_us = now_us();
    let send = Send {
        channel_id,
        client_msg_id: ClientMsgId::from_uuid(rand::random()),
        body: Body { text: reader::text_of(sent_us, sender, text_bytes), ..Body::default() },
    };
    let id = Some(RequestId(sent_us.to_string()));
    let request = Request { id, frame: ClientFrame::Send(Box::new(send)) };
    put_frame(out, serde_json::to_string(&request)?.as_bytes(), true);
    Ok(())
}
