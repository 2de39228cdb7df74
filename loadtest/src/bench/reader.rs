//! Reads one connection to the end: counts what comes, and how long it took.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use hdrhistogram::Histogram;

use super::figures::{histogram, micros};
use super::socket::Socket;

/// How a frame of entries begins.
pub(super) const ENTRIES: &[u8] = br#"{"type":"entries""#;
/// Stands before the text in an entry.
const TEXT: &str = r#""text":""#;
/// Digits of the time of sending, with which each text begins …
const DIGITS: usize = 12;
/// … and of the number of its sender, which follow.
const SENDER_DIGITS: usize = 4;
/// The number of nobody.
const NOBODY: usize = usize::MAX;

/// What all readers of a server saw.
#[derive(Debug)]
pub(super) struct Seen {
    /// Where times are counted from.
    pub(super) start: Instant,
    pub(super) messages: AtomicU64,
    pub(super) frames: AtomicU64,
    pub(super) bytes: AtomicU64,
    /// From send to delivery.
    pub(super) latency: Mutex<Histogram<u64>>,
}

/// A copy of the counts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counts {
    pub(super) messages: u64,
    pub(super) frames: u64,
    pub(super) bytes: u64,
}

impl Seen {
    pub(super) fn new() -> anyhow::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            start: Instant::now(),
            messages: AtomicU64::new(0),
            frames: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            latency: Mutex::new(histogram()?),
        }))
    }

    pub(super) fn counts(&self) -> Counts {
        Counts {
            messages: self.messages.load(Ordering::SeqCst),
            frames: self.frames.load(Ordering::SeqCst),
            bytes: self.bytes.load(Ordering::SeqCst),
        }
    }

    /// The latencies since the last call.
    pub(super) fn take_latency(&self) -> anyhow::Result<Histogram<u64>> {
        let empty = histogram()?;
        let mut latency = self.latency.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(std::mem::replace(&mut latency, empty))
    }

    fn now(&self) -> u64 {
        micros(self.start.elapsed())
    }

    /// A text of `bytes` that says when it was sent, and by whom.
    pub(super) fn text(&self, sender: usize, bytes: usize) -> String {
        let mut text = format!("{:0DIGITS$}{sender:0SENDER_DIGITS$}", self.now());
        text.extend(std::iter::repeat_n('x', bytes.saturating_sub(text.len())));
        text
    }

    /// Counts the messages of a frame and notes how long they took. Returns how many are of `sender`.
    pub(super) fn take_frame(&self, payload: &[u8], sender: usize, taken: &mut Taken) -> u64 {
        let now = self.now();
        let text = std::str::from_utf8(payload).unwrap_or_default();
        let mut own = 0;
        for (at, _) in text.match_indices(TEXT) {
            let Some((sent, by)) = head(&text[at + TEXT.len()..]) else { continue };
            taken.messages += 1;
            taken.latencies.push(now.saturating_sub(sent));
            own += u64::from(by == sender);
        }
        taken.frames += 1;
        own
    }

    /// Adds what one reader took.
    pub(super) fn add(&self, taken: &mut Taken) {
        let mut latency = self.latency.lock().unwrap_or_else(PoisonError::into_inner);
        taken.latencies.drain(..).for_each(|micros| latency.saturating_record(micros));
        drop(latency);
        self.bytes.fetch_add(taken.bytes, Ordering::SeqCst);
        self.frames.fetch_add(taken.frames, Ordering::SeqCst);
        self.messages.fetch_add(taken.messages, Ordering::SeqCst);
        *taken = Taken { latencies: std::mem::take(&mut taken.latencies), ..Taken::default() };
    }
}

/// What one read brought.
#[derive(Debug, Default)]
pub(super) struct Taken {
    messages: u64,
    frames: u64,
    pub(super) bytes: u64,
    latencies: Vec<u64>,
}

/// When a text was sent, and by whom.
fn head(text: &str) -> Option<(u64, usize)> {
    let sent = text.get(..DIGITS)?.parse().ok()?;
    Some((sent, text.get(DIGITS..DIGITS + SENDER_DIGITS)?.parse().ok()?))
}

/// Reads until the connection ends.
pub(super) async fn read(mut socket: Socket, seen: Arc<Seen>) {
    let mut taken = Taken::default();
    while let Ok(bytes) = socket.fill().await {
        taken.bytes = bytes as u64;
        let read = socket.frames(|payload| {
            if payload.starts_with(ENTRIES) {
                seen.take_frame(payload, NOBODY, &mut taken);
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
    fn messages_are_counted_and_know_their_sender() {
        let seen = Seen::new().unwrap();
        let frame = format!(r#"[{{"text":"{}"}},{{"text":"{}"}}]"#, seen.text(7, 100), seen.text(8, 100));
        let mut taken = Taken::default();
        assert_eq!(seen.take_frame(frame.as_bytes(), 7, &mut taken), 1);
        seen.add(&mut taken);
        assert_eq!((seen.counts().messages, seen.counts().frames), (2, 1));
        assert_eq!(seen.text(8, 100).len(), 100);
    }
}
