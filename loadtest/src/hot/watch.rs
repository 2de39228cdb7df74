//! The process that reads the storm: receives one channel on each of its connections, checks that nothing is missing,
//! and records how old each message is.
//!
//! Every message counts: to check a place costs a comparison, and to record a latency a few nanoseconds. So nothing is
//! sampled.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::check::{Checker, Outcome};
use super::scan::{Piece, Scan};
use crate::bench::args::Readers as Args;
use crate::bench::figures::now_us;
use crate::bench::reader::{Seen, Taken};
use crate::bench::readers::{answer, open_all, serve_questions};
use crate::bench::socket::{Heads, Socket, put_frame, source};

/// Bytes of one read. The buffer is shared by all connections of a thread and fits into its cache.
const READ_BYTES: usize = 64 * 1024;
/// Bytes of the handshake's buffer.
const HANDSHAKE_BYTES: usize = 1024;
/// Time between two heartbeats of a connection. The server closes one that is silent for 25 s.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// Time between two rounds of heartbeats, each for some of the connections.
const ROUND: Duration = Duration::from_millis(50);
/// A round, so that each connection is in one round of `HEARTBEAT`.
const ROUNDS: usize = 200;

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Memory that one read needs only while it is processed.
#[derive(Debug, Default)]
struct Scratch {
    bytes: Vec<u8>,
    taken: Taken,
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    scan: Scan,
    checker: Checker,
    /// The beginning of a piece that is not complete.
    carry: Vec<u8>,
    /// Why the connection ended.
    closed: Option<String>,
}

/// The child: connects, reads, and answers until its input ends.
pub(crate) async fn serve(args: Args) -> anyhow::Result<()> {
    let seen = Seen::new()?;
    let connections = open_all(&args, |line| Connection::open(&args.addr, line)).await?;
    let mut tasks = JoinSet::new();
    for connection in &connections {
        tasks.spawn(read(Arc::clone(connection), Arc::clone(&seen)));
    }
    tasks.spawn(send_heartbeats(connections.clone()));
    serve_questions(move |question| answer_about(&connections, &seen, question)).await
}

/// `behind SEQ`: number of open connections that have not reached this place. `outcomes`: what each connection received.
fn answer_about(connections: &[Arc<Connection>], seen: &Seen, question: &str) -> anyhow::Result<String> {
    if let Some(head) = question.strip_prefix("behind ") {
        let head: u64 = head.parse()?;
        let behind = connections.iter().filter(|connection| connection.is_behind(head)).count();
        return Ok(behind.to_string());
    }
    if question == "outcomes" {
        let outcomes: Vec<Outcome> = connections.iter().map(|connection| connection.outcome()).collect();
        return Ok(serde_json::to_string(&outcomes)?);
    }
    answer(seen, question)
}

impl Connection {
    async fn open(addr: &str, line: String) -> anyhow::Result<Arc<Self>> {
        let mut words = line.split(' ');
        let mut word = || words.next().context("a line of the list is too short");
        let (number, token, channel) = (word()?.parse()?, word()?, word()?.parse()?);
        let mut socket = Socket::welcome(addr, source(number), HANDSHAKE_BYTES, token, None).await?;
        let base = match words.next() {
            Some(head) => head.parse()?,
            None => socket.subscribe(channel).await?.get(),
        };
        let (stream, carry) = socket.into_parts();
        let (scan, checker) = (Scan::new(channel), Checker::new(base));
        Ok(Arc::new(Self { stream, state: Mutex::new(State { scan, checker, carry, closed: None }) }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what is available, at most `READ_BYTES`.
    fn take(&self, scratch: &mut Scratch, seen: &Seen) -> anyhow::Result<()> {
        let mut state = self.state();
        let carried = state.carry.len();
        if scratch.bytes.len() < carried + READ_BYTES {
            scratch.bytes.resize(carried + READ_BYTES, 0);
        }
        let count = match self.stream.try_read(&mut scratch.bytes[carried..carried + READ_BYTES]) {
            Ok(0) => bail!("the server closed the connection"),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        scratch.bytes[..carried].copy_from_slice(&state.carry);
        scratch.taken.bytes = count as u64;
        let done = state.take(&scratch.bytes[..carried + count], &mut scratch.taken);
        seen.add(&mut scratch.taken);
        done
    }

    fn is_behind(&self, head: u64) -> bool {
        let state = self.state();
        state.closed.is_none() && state.checker.last() < head
    }

    fn outcome(&self) -> Outcome {
        let state = self.state();
        Outcome { closed: state.closed.clone(), ..state.checker.outcome() }
    }
}

impl State {
    /// Takes all complete pieces of these bytes and carries the others over to the next read.
    fn take(&mut self, bytes: &[u8], taken: &mut Taken) -> anyhow::Result<()> {
        let (now, checker, mut failed) = (now_us(), &mut self.checker, Ok(()));
        let done = self.scan.feed(bytes, |piece| match piece {
            Piece::Entry { seq, sent_us } => {
                checker.take_entry(seq);
                taken.messages += 1;
                taken.latencies.extend(sent_us.map(|sent| now.saturating_sub(sent)));
            }
            Piece::End => taken.frames += 1,
            Piece::Other(frame) => {
                if let Err(error) = take_other(checker, frame) {
                    failed = Err(error);
                }
            }
        })?;
        self.carry.clear();
        self.carry.extend_from_slice(&bytes[done..]);
        failed
    }
}

/// A connection has one subscription, so every head is that of its channel.
fn take_other(checker: &mut Checker, frame: &[u8]) -> anyhow::Result<()> {
    if frame.starts_with(br#"{"type":"heads""#) {
        let heads: Heads = serde_json::from_slice(frame)?;
        heads.heads.iter().filter(|head| head.gap).for_each(|head| checker.take_gap(head.seq.get()));
    } else if frame.starts_with(br#"{"type":"error""#) {
        bail!("refused: {}", String::from_utf8_lossy(frame));
    }
    Ok(())
}

/// Reads until the connection ends.
async fn read(connection: Arc<Connection>, seen: Arc<Seen>) {
    loop {
        let ready = connection.stream.readable().await.map_err(anyhow::Error::from);
        let read = ready.and_then(|()| SCRATCH.with_borrow_mut(|scratch| connection.take(scratch, &seen)));
        if let Err(error) = read {
            connection.state().closed = Some(format!("{error:#}"));
            return;
        }
    }
}

/// One task for all connections: a timer for each would cost more than the frame.
async fn send_heartbeats(connections: Vec<Arc<Connection>>) {
    let mut frame = Vec::new();
    put_frame(&mut frame, br#"{"type":"heartbeat"}"#, true);
    let mut rounds = interval(ROUND);
    // A late round is made up for: on a busy machine delays would add up to more than the server's patience.
    rounds.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for round in (0..ROUNDS).cycle() {
        rounds.tick().await;
        for connection in connections.iter().skip(round).step_by(ROUNDS) {
            // Fails if the connection has ended, which its reader records, or if its buffer is full of heartbeats.
            let _ = connection.stream.try_write(&frame);
        }
    }
}

const _: () = assert!(ROUND.as_millis() * ROUNDS as u128 == HEARTBEAT.as_millis());

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        let channel = "269737367961600011".parse().unwrap();
        State { scan: Scan::new(channel), checker: Checker::new(4), carry: Vec::new(), closed: None }
    }

    fn frames(payloads: &[&str]) -> Vec<u8> {
        let mut bytes = Vec::new();
        payloads.iter().for_each(|payload| put_frame(&mut bytes, payload.as_bytes(), false));
        bytes
    }

    #[test]
    fn gaps_are_taken_at_their_place_between_entries() {
        let entry =
            r#"{"type":"entries","log":"channel","channel_id":"269737367961600011","entries":[{"seq":5}]}"#;
        let gap = r#"{"type":"heads","heads":[{"channel_id":"269737367961600011","seq":8,"ordinal":1,"gap":true}]}"#;
        let after = entry.replace(r#""seq":5"#, r#""seq":9"#);
        let (mut state, mut taken) = (state(), Taken::default());
        state.take(&frames(&[entry, gap, &after]), &mut taken).unwrap();
        let outcome = state.checker.outcome();
        assert_eq!((outcome.lost, outcome.left_out, outcome.delivered, taken.frames), (0, 3, 2, 2));
    }

    #[test]
    fn a_refusal_ends_the_reader() {
        let refused = frames(&[r#"{"type":"error","code":"limited","message":"","retryable":true}"#]);
        assert!(state().take(&refused, &mut Taken::default()).is_err());
    }
}
