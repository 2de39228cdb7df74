//! Sends at a steady rate, whatever the server answers: a loop that waits for each answer would hide long latencies.

use std::time::Duration;

use anyhow::bail;
use madang_ids::{ChannelId, ClientMsgId};
use madang_proto::{Body, ClientFrame, Request, RequestId, Send};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use super::reader;
use super::socket::{Socket, put_frame};

/// Time after which missing answers are given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// How one sender sends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub(super) channel: ChannelId,
    /// The number of the sender.
    pub(super) sender: usize,
    pub(super) text_bytes: usize,
    /// Messages in one write.
    pub(super) burst: u32,
    /// Time between two writes.
    pub(super) every: Duration,
    /// Time before the first write.
    pub(super) after: Duration,
    /// Number of writes.
    pub(super) writes: u64,
}

/// Sends everything and waits until everything is acked. Returns the connection and the number of messages.
pub(super) async fn send(mut socket: Socket, pace: Pace) -> anyhow::Result<(Socket, u64)> {
    let mut ticks = interval_at(Instant::now() + pace.after, pace.every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (mut writes, mut acked) = (0, 0);
    let messages = pace.writes * u64::from(pace.burst);
    let mut last = Instant::now();
    while acked < messages {
        tokio::select! {
            _ = ticks.tick(), if writes < pace.writes => {
                writes += 1;
                socket.write(&burst(&pace)?).await?;
                last = Instant::now();
            }
            filled = timeout(PATIENCE, socket.fill()) => {
                match filled {
                    Ok(bytes) => { bytes?; }
                    Err(_) if writes < pace.writes || last.elapsed() < PATIENCE => {}
                    Err(_) => bail!("only {acked} of {messages} messages were acked"),
                }
                let mut refused = None;
                socket.frames(|payload| {
                    if payload.starts_with(br#"{"type":"ack""#) {
                        acked += 1;
                    } else if payload.starts_with(br#"{"type":"error""#) {
                        refused = Some(String::from_utf8_lossy(payload).into_owned());
                    }
                })?;
                if let Some(refused) = refused {
                    bail!("a message was refused: {refused}");
                }
            }
        }
    }
    Ok((socket, messages))
}

fn burst(pace: &Pace) -> anyhow::Result<Vec<u8>> {
    let mut out = Vec::new();
    for _ in 0..pace.burst {
        let text = reader::text(pace.sender, pace.text_bytes);
        let send = Send {
            channel_id: pace.channel,
            client_msg_id: ClientMsgId::from_uuid(rand::random()),
            body: Body { text, ..Body::default() },
        };
        let request =
            Request { id: Some(RequestId("m".to_owned())), frame: ClientFrame::Send(Box::new(send)) };
        put_frame(&mut out, serde_json::to_string(&request)?.as_bytes(), true);
    }
    Ok(out)
}
