//! Reads one connection until it ends: counts messages and records their latency.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::figures::{histogram, now_us};
use super::socket::Socket;

/// Prefix of a frame of entries.
pub(crate) const ENTRIES: &[u8] = br#"{"type":"entries""#;
/// The bytes before the text of an entry.
pub(crate) const TEXT: &str = r#""text":""#;
/// Digits of the sending time at the beginning of each text …
pub(crate) const DIGITS: usize = 15;
/// … and of the number of its sender, which follows.
const SENDER_DIGITS: usize = 5;

/// What all readers of a server have received.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) messages: AtomicU64,
    pub(crate) frames: AtomicU64,
    pub(crate) bytes: AtomicU64,
    /// Time from send to delivery.
    pub(crate) latency: Mutex<Histogram<u64>>,
}

/// Copies of the counts at one time.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) messages: u64,
    pub(crate) frames: u64,
    pub(crate) bytes: u64,
}

impl Seen {
    pub(crate) fn new() -> anyhow::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            messages: AtomicU64::new(0),
            frames: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            latency: Mutex::new(histogram()?),
        }))
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts {
            messages: self.messages.load(Ordering::SeqCst),
            frames: self.frames.load(Ordering::SeqCst),
            bytes: self.bytes.load(Ordering::SeqCst),
        }
    }

    /// The latencies since the previous call.
    pub(crate) fn take_latency(&self) -> anyhow::Result<Histogram<u64>> {
        let empty = histogram()?;
        let mut latency = self.latency.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(std::mem::replace(&mut latency, empty))
    }

    /// Counts the messages of a frame and records their latencies.
    pub(crate) fn take_frame(&self, payload: &[u8], taken: &mut Taken) {
        let now = now_us();
        for sent in sent_times(payload) {
            taken.messages += 1;
            taken.latencies.push(now.saturating_sub(sent));
        }
        taken.frames += 1;
    }

    /// Adds what one reader received.
    pub(crate) fn add(&self, taken: &mut Taken) {
        let mut latency = self.latency.lock().unwrap_or_else(PoisonError::into_inner);
        taken.latencies.drain(..).for_each(|micros| latency.saturating_record(micros));
        drop(latency);
        self.bytes.fetch_add(taken.bytes, Ordering::SeqCst);
        self.frames.fetch_add(taken.frames, Ordering::SeqCst);
        self.messages.fetch_add(taken.messages, Ordering::SeqCst);
        *taken = Taken { latencies: std::mem::take(&mut taken.latencies), ..Taken::default() };
    }
}

/// A text of `bytes` that contains the present as its sending time, and the number of its sender.
pub(crate) fn text(sender: usize, bytes: usize) -> String {
    text_of(now_us(), sender, bytes)
}

/// A text of `bytes` that contains its sending time and the number of its sender.
pub(crate) fn text_of(sent_us: u64, sender: usize, bytes: usize) -> String {
    let mut text = format!("{sent_us:0DIGITS$}{sender:0SENDER_DIGITS$}");
    text.extend(std::iter::repeat_n('x', bytes.saturating_sub(text.len())));
    text
}

/// What one read contained.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    pub(crate) messages: u64,
    pub(crate) frames: u64,
    pub(crate) bytes: u64,
    /// In microseconds.
    pub(crate) latencies: Vec<u64>,
}

/// Number of messages in a frame.
pub(crate) fn messages(payload: &[u8]) -> u64 {
    sent_times(payload).count() as u64
}

/// The sending time of each message of a frame.
fn sent_times(payload: &[u8]) -> impl Iterator<Item = u64> {
    let text = std::str::from_utf8(payload).unwrap_or_default();
    text.match_indices(TEXT).filter_map(move |(at, _)| sent_at(&text[at + TEXT.len()..]))
}

/// The sending time in a text.
fn sent_at(text: &str) -> Option<u64> {
    text.get(..DIGITS)?.parse().ok()
}

/// Reads until the connection ends.
pub(crate) async fn read(mut socket: Socket, seen: Arc<Seen>) {
    let mut taken = Taken::default();
    while let Ok(bytes) = socket.fill().await {
        taken.bytes = bytes as u64;
        let read = socket.frames(|payload| {
            if payload.starts_with(ENTRIES) {
                seen.take_frame(payload, &mut taken);
            }
        });
        if read.is_err() {
            return;
        }
        seen.add(&mut taken);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted() {
        let seen = Seen::new().unwrap();
        let frame = format!(r#"[{{"text":"{}"}},{{"text":"{}"}}]"#, text(7, 100), text(8, 100));
        let mut taken = Taken::default();
        assert_eq!(messages(frame.as_bytes()), 2);
        seen.take_frame(frame.as_bytes(), &mut taken);
        seen.add(&mut taken);
        assert_eq!((seen.counts().messages, seen.counts().frames), (2, 1));
        assert_eq!(text(8, 100).len(), 100);
    }
}
