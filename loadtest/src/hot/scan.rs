//! Finds the entries of one channel in the bytes of a connection, without parsing JSON: a run delivers more than a
//! million entries a second on cores that the server needs.
//!
//! Frames need not be complete: at most one entry is kept until more bytes arrive, so the bytes of thousands of
//! connections fit into one small buffer that stays in the cache.

use std::sync::LazyLock;

use madang_ids::ChannelId;
use memchr::memmem::Finder;

use crate::bench::reader::{DIGITS, TEXT};
use crate::bench::socket::{frame_head, unexpected};

/// The first byte of a complete text frame.
const TEXT_FRAME: u8 = 0x81;
/// How an entry begins. In a string these quotes are escaped. Inside an entry (in a changed message, say) an object may
/// begin in the same way, but after a colon.
const ENTRY: &[u8] = br#"{"seq":"#;

static ENTRIES: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(ENTRY));
static TEXTS: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(TEXT.as_bytes()));

/// A part of what a connection received.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// An entry of the channel.
    Entry {
        seq: u64,
        /// The time in its text, in microseconds; `None` if it is no message of this tool.
        sent_us: Option<u64>,
    },
    /// The end of a frame of entries.
    End,
    /// Any other frame.
    Other(&'a [u8]),
}

/// The place in the frames of one connection.
#[derive(Debug)]
pub(super) struct Scan {
    /// Begins every frame of entries of the channel.
    prefix: Vec<u8>,
    /// Bytes that are missing of a frame of entries; 0 between frames.
    left: usize,
}

impl Scan {
    pub(super) fn new(channel: ChannelId) -> Self {
        let prefix = format!(r#"{{"type":"entries","log":"channel","channel_id":"{channel}","#);
        Self { prefix: prefix.into_bytes(), left: 0 }
    }

    /// Visits all pieces that are complete. Returns the number of bytes that are done; pass the others again, with more
    /// bytes after them.
    ///
    /// # Errors
    /// If the server sends anything but complete text frames.
    pub(super) fn feed(&mut self, bytes: &[u8], mut visit: impl FnMut(Piece<'_>)) -> anyhow::Result<usize> {
        let mut at = 0;
        loop {
            if self.left > 0 {
                let window = &bytes[at..bytes.len().min(at + self.left)];
                let is_complete = window.len() == self.left;
                let done = entries(window, is_complete, &mut visit);
                (at, self.left) = (at + done, self.left - done);
                if !is_complete {
                    return Ok(at);
                }
                visit(Piece::End);
            }
            let Some((header, length)) = frame_head(&bytes[at..]) else { return Ok(at) };
            let payload = &bytes[(at + header).min(bytes.len())..];
            if bytes[at] != TEXT_FRAME {
                return Err(unexpected(bytes[at], &payload[..length.min(payload.len())]));
            }
            if payload.len() < length.min(self.prefix.len()) {
                return Ok(at);
            }
            if payload.starts_with(&self.prefix) && length > self.prefix.len() {
                (at, self.left) = (at + header, length);
            } else if payload.len() >= length {
                visit(Piece::Other(&payload[..length]));
                at += header + length;
            } else {
                return Ok(at);
            }
        }
    }
}

/// Visits the entries of a part of a frame that begins with the frame or with an entry. An entry ends where the next one
/// begins, and the last one with the frame. Returns the number of bytes that are done.
fn entries(window: &[u8], is_complete: bool, visit: &mut impl FnMut(Piece<'_>)) -> usize {
    let is_start = |at: &usize| *at == 0 || matches!(window[at - 1], b'[' | b',');
    let mut starts = ENTRIES.find_iter(window).filter(is_start);
    let Some(mut start) = starts.next() else {
        return if is_complete { window.len() } else { 0 };
    };
    for next in starts {
        visit(entry(&window[start..next]));
        start = next;
    }
    if is_complete {
        visit(entry(&window[start..]));
        return window.len();
    }
    start
}

fn entry(bytes: &[u8]) -> Piece<'static> {
    let digits = |from: usize| bytes[from..].iter().take_while(|byte| byte.is_ascii_digit());
    let number = |number: u64, digit: &u8| number * 10 + u64::from(digit - b'0');
    let seq = digits(ENTRY.len()).fold(0, number);
    let sent_us = TEXTS.find(bytes).and_then(|at| {
        let from = at + TEXT.len();
        let is_time = digits(from).take(DIGITS).count() == DIGITS;
        is_time.then(|| digits(from).take(DIGITS).fold(0, number))
    });
    Piece::Entry { seq, sent_us }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::reader::text_of;
    use crate::bench::socket::put_frame;
    use proptest::prelude::*;

    const CHANNEL: &str = "269737367961600011";

    fn message(seq: u64, sent_us: u64) -> String {
        let text = text_of(sent_us, 7, 100);
        format!(
            r#"{{"seq":{seq},"at":1,"kind":"message","message_id":"5","ordinal":1,"sender_id":"6","text":"{text}"}}"#
        )
    }

    fn frame(channel: &str, entries: &[String]) -> String {
        let entries = entries.join(",");
        format!(r#"{{"type":"entries","log":"channel","channel_id":"{channel}","entries":[{entries}]}}"#)
    }

    fn stream(frames: &[String]) -> Vec<u8> {
        let mut bytes = Vec::new();
        frames.iter().for_each(|frame| put_frame(&mut bytes, frame.as_bytes(), false));
        bytes
    }

    /// All pieces, of bytes that arrive in parts of these sizes.
    fn pieces(bytes: &[u8], sizes: &[usize]) -> Vec<String> {
        let (mut scan, mut carry, mut found) = (Scan::new(CHANNEL.parse().unwrap()), Vec::new(), Vec::new());
        let (mut at, mut sizes) = (0, sizes.iter().cycle());
        while at < bytes.len() {
            let end = bytes.len().min(at + sizes.next().unwrap());
            carry.extend_from_slice(&bytes[at..end]);
            at = end;
            let done = scan.feed(&carry, |piece| found.push(format!("{piece:?}"))).unwrap();
            carry.drain(..done);
        }
        assert!(carry.is_empty());
        found
    }

    fn example() -> Vec<u8> {
        let joined = r#"{"seq":8,"at":1,"kind":"joined","user_id":"6","by":"6"}"#.to_owned();
        let edited =
            r#"{"seq":9,"at":1,"kind":"edited","target":4,"message":{"seq":4,"text":"x"}}"#.to_owned();
        stream(&[
            r#"{"type":"heartbeat","at":1}"#.to_owned(),
            frame(CHANNEL, &[message(7, 123_456), joined, edited]),
            frame("1", &[message(1, 1)]),
            frame(CHANNEL, &[message(10, 5)]),
        ])
    }

    #[test]
    fn entries_and_other_frames_are_found() {
        let found = pieces(&example(), &[usize::MAX >> 1]);
        assert!(found[0].starts_with("Other("), "{found:?}");
        assert_eq!(found[1], "Entry { seq: 7, sent_us: Some(123456) }");
        assert_eq!(found[2], "Entry { seq: 8, sent_us: None }");
        assert_eq!(found[3], "Entry { seq: 9, sent_us: None }");
        assert_eq!(found[4], "End");
        assert!(found[5].starts_with("Other("), "{found:?}");
        assert_eq!(found[6..], ["Entry { seq: 10, sent_us: Some(5) }", "End"]);
    }

    #[test]
    fn a_close_frame_is_an_error() {
        let error = Scan::new(CHANNEL.parse().unwrap()).feed(&[0x88, 0x02, 3, 0xe8], |_| {}).unwrap_err();
        assert!(error.to_string().contains("1000"), "{error}");
    }

    proptest! {
        #[test]
        fn the_sizes_of_reads_do_not_matter(sizes in prop::collection::vec(1_usize..300, 1..20)) {
            prop_assert_eq!(pieces(&example(), &sizes), pieces(&example(), &[usize::MAX >> 1]));
        }
    }
}
