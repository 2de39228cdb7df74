//! Users who send at a steady rate, and what becomes of their messages.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::calls::wait_ms;
use crate::bench::figures::{histogram, micros, now_us};
use crate::bench::pace::{self, Answers, Pace};
use crate::bench::socket::Socket;
use crate::instruments::history::Acked;

/// Bytes of one read of a sender.
const READ_BYTES: usize = 4 * 1024;
/// Pause before a user connects again.
const RECONNECT: Duration = Duration::from_secs(1);

/// What the server answered to senders of one kind so far.
#[derive(Debug)]
pub(super) struct Acks {
    /// Time from send to ack since the last take.
    latency: Mutex<Histogram<u64>>,
    /// Time by which messages were written late, because the generator was busy.
    late: Mutex<Histogram<u64>>,
    pub(super) sent: AtomicU64,
    pub(super) acked: AtomicU64,
    /// Refused for now, with a time after which to try again. Such a message is not lost.
    pub(super) refused: AtomicU64,
    pub(super) errors: AtomicU64,
    /// Connections that ended before all messages were answered.
    pub(super) closed: AtomicU64,
    first_error: Mutex<Option<String>>,
}

/// A user who sends, connected.
#[derive(Debug)]
pub(super) struct Speaker {
    addr: String,
    source: IpAddr,
    token: String,
    socket: Socket,
}

/// Senders that are sending.
#[derive(Debug)]
pub(super) struct Senders(JoinSet<(usize, Vec<Acked>)>);

/// The answers to one sender.
#[derive(Debug)]
struct Tally {
    acks: Arc<Acks>,
    acked: Vec<Acked>,
}

impl Acks {
    pub(super) fn new() -> anyhow::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            latency: Mutex::new(histogram()?),
            late: Mutex::new(histogram()?),
            sent: AtomicU64::new(0),
            acked: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            closed: AtomicU64::new(0),
            first_error: Mutex::new(None),
        }))
    }

    /// Moves the latencies since the last call into `sum`.
    pub(super) fn take_latency(&self, sum: &mut Histogram<u64>) -> anyhow::Result<()> {
        let mut latency = lock(&self.latency);
        sum.add(&*latency)?;
        latency.reset();
        Ok(())
    }

    /// A quantile, in milliseconds, of the time by which messages were written late.
    pub(super) fn late(&self) -> Histogram<u64> {
        lock(&self.late).clone()
    }

    pub(super) fn first_error(&self) -> Option<String> {
        lock(&self.first_error).clone()
    }

    fn fail(&self, counter: &AtomicU64, what: String) {
        counter.fetch_add(1, Ordering::Relaxed);
        lock(&self.first_error).get_or_insert(what);
    }
}

impl Speaker {
    pub(super) async fn connect(addr: String, source: IpAddr, token: String) -> anyhow::Result<Self> {
        let socket = open(&addr, source, &token).await?;
        Ok(Self { addr, source, token, socket })
    }

    /// Sends everything. If the connection ends, the user connects again and goes on with the messages that are due
    /// from then on; those that were due meanwhile are not sent, and those without an answer not repeated.
    async fn send(self, pace: Pace, mut tally: Tally) -> Vec<Acked> {
        let (begun, mut socket, mut left) = (Instant::now(), Some(self.socket), pace);
        loop {
            let connected = match socket.take() {
                Some(socket) => Ok(socket),
                None => open(&self.addr, self.source, &self.token).await,
            };
            let sent = match connected {
                Ok(socket) => pace::send_with(socket, left, &mut tally).await,
                Err(error) => Err(error),
            };
            let Err(error) = sent else { return tally.acked };
            tally.acks.fail(&tally.acks.closed, format!("sender {}: {error:#}", pace.sender));
            sleep(RECONNECT).await;
            let missed = begun.elapsed().saturating_sub(pace.after).div_duration_f64(pace.every);
            left = Pace {
                after: Duration::ZERO,
                writes: pace.writes.saturating_sub(missed.ceil() as u64),
                ..pace
            };
            if left.writes == 0 {
                return tally.acked;
            }
        }
    }
}

async fn open(addr: &str, source: IpAddr, token: &str) -> anyhow::Result<Socket> {
    Socket::welcome(addr, source, READ_BYTES, token, None).await
}

impl Senders {
    /// Begins to send.
    pub(super) fn start(senders: Vec<(Speaker, Pace)>, acks: &Arc<Acks>) -> Self {
        let mut tasks = JoinSet::new();
        for (number, (speaker, pace)) in senders.into_iter().enumerate() {
            let tally = Tally { acks: Arc::clone(acks), acked: Vec::new() };
            tasks.spawn(async move { (number, speaker.send(pace, tally).await) });
        }
        Self(tasks)
    }

    /// Waits until all messages are answered, or given up. Returns the acked messages of each sender.
    pub(super) async fn finish(self) -> Vec<Vec<Acked>> {
        let mut acked = self.0.join_all().await;
        acked.sort_by_key(|(number, _)| *number);
        acked.into_iter().map(|(_, acked)| acked).collect()
    }
}

impl Answers for Tally {
    fn handle_sent(&mut self, late: Duration) {
        self.acks.sent.fetch_add(1, Ordering::Relaxed);
        lock(&self.acks.late).saturating_record(micros(late));
    }

    fn handle_ack(&mut self, frame: &[u8]) {
        let Some(acked) = Acked::parse(frame) else {
            self.acks.fail(&self.acks.errors, format!("not an ack: {}", String::from_utf8_lossy(frame)));
            return;
        };
        self.acks.acked.fetch_add(1, Ordering::Relaxed);
        lock(&self.acks.latency).saturating_record(now_us().saturating_sub(acked.sent_us));
        self.acked.push(acked);
    }

    fn handle_error(&mut self, frame: &[u8]) -> anyhow::Result<()> {
        if wait_ms(frame).is_some() {
            self.acks.refused.fetch_add(1, Ordering::Relaxed);
        } else {
            self.acks.fail(&self.acks.errors, String::from_utf8_lossy(frame).into_owned());
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted() {
        let acks = Acks::new().unwrap();
        let mut tally = Tally { acks: Arc::clone(&acks), acked: Vec::new() };
        tally.handle_ack(br#"{"type":"ack","id":"77","channel_id":"5","message_id":"6","seq":41,"at":1}"#);
        tally.handle_ack(br#"{"type":"ack"}"#);
        let refused = br#"{"type":"error","id":"78","code":"limited","message":"","retryable":true,"retry_after_ms":9}"#;
        tally.handle_error(refused).unwrap();
        assert_eq!(tally.acked, [Acked { seq: 41, sent_us: 77 }]);
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        assert_eq!((count(&acks.acked), count(&acks.refused), count(&acks.errors)), (1, 1, 1));
        assert!(acks.first_error().unwrap().contains("not an ack"));
    }
}
