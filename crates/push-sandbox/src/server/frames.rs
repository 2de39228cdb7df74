//! HTTP/2 frames (RFC 9113, section 4) that `h2` does not send by itself, put between its own frames.
//!
//! `h2` cannot raise SETTINGS_MAX_CONCURRENT_STREAMS of a living connection, and its GOAWAY always names the last request that it
//! has read. [`FrameTap`] stands between `h2` and TLS: it follows the boundaries of frames in both directions, writes other
//! frames at a boundary, and hides the acknowledgements of SETTINGS that `h2` did not send.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The client's connection preface, before its first frame (RFC 9113, section 3.4).
const PREFACE_BYTES: usize = 24;
const HEADER_BYTES: usize = 9;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;
const MAX_CONCURRENT_STREAMS: u16 = 3;
/// Read at once.
const READ_BYTES: usize = 16_384;

/// Sends frames beside `h2`. Frames are written when the connection is polled next.
#[derive(Debug, Clone, Default)]
pub(super) struct Frames(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Frames that wait for the next boundary.
    waiting: BytesMut,
    /// SETTINGS that are not acknowledged yet, in order; `true` for those of [`Frames`].
    unacknowledged: VecDeque<bool>,
}

impl Frames {
    /// SETTINGS with the number of streams that the client may open.
    pub(super) fn announce_streams(&self, streams: u32) {
        let mut state = self.0.lock();
        put_header(&mut state.waiting, 6, SETTINGS);
        state.waiting.put_u16(MAX_CONCURRENT_STREAMS);
        state.waiting.put_u32(streams);
        state.unacknowledged.push_back(true);
    }

    /// GOAWAY (NO_ERROR): streams above `last` were not processed.
    pub(super) fn go_away(&self, last: u32) {
        let mut state = self.0.lock();
        put_header(&mut state.waiting, 8, GOAWAY);
        state.waiting.put_u32(last);
        state.waiting.put_u32(0);
    }
}

fn put_header(buffer: &mut BytesMut, payload_bytes: u8, kind: u8) {
    buffer.put_slice(&[0, 0, payload_bytes, kind, 0, 0, 0, 0, 0]);
}

/// The header of a frame.
type Header = [u8; HEADER_BYTES];

/// Follows the boundaries of frames in a stream of bytes.
#[derive(Debug, Default)]
struct Boundaries {
    header: Header,
    header_bytes: usize,
    /// Bytes of the payload that are still to come.
    payload_left: usize,
}

impl Boundaries {
    fn is_at_boundary(&self) -> bool {
        self.header_bytes == 0 && self.payload_left == 0
    }

    /// Bytes until the next point at which the position is known again.
    fn step_bytes(&self) -> usize {
        if self.payload_left > 0 { self.payload_left } else { HEADER_BYTES - self.header_bytes }
    }

    /// Moves by at most one step. Returns the bytes used, and a header that is complete now.
    fn step(&mut self, bytes: &[u8]) -> (usize, Option<Header>) {
        let used = bytes.len().min(self.step_bytes());
        if self.payload_left > 0 {
            self.payload_left -= used;
            return (used, None);
        }
        self.header[self.header_bytes..][..used].copy_from_slice(&bytes[..used]);
        self.header_bytes += used;
        if self.header_bytes < HEADER_BYTES {
            return (used, None);
        }
        self.header_bytes = 0;
        self.payload_left = usize::from(self.header[0]) << 16
            | usize::from(self.header[1]) << 8
            | usize::from(self.header[2]);
        (used, Some(self.header))
    }
}

const fn is_settings(header: &Header, flag: u8) -> bool {
    header[3] == SETTINGS && header[4] & ACK == flag
}

/// The byte stream of a connection, as `h2` sees it.
#[derive(Debug)]
pub(super) struct FrameTap<S> {
    stream: S,
    state: Arc<Mutex<State>>,
    written: Boundaries,
    read: Boundaries,
    preface_left: usize,
    /// Bytes that were read and that `h2` has not taken yet.
    readable: BytesMut,
    scratch: Box<[u8]>,
}

impl<S> FrameTap<S> {
    pub(super) fn new(stream: S) -> (Self, Frames) {
        let frames = Frames::default();
        let tap = Self {
            stream,
            state: Arc::clone(&frames.0),
            written: Boundaries::default(),
            read: Boundaries::default(),
            preface_left: PREFACE_BYTES,
            readable: BytesMut::new(),
            scratch: vec![0; READ_BYTES].into(),
        };
        (tap, frames)
    }

    /// Notes what `h2` has written.
    fn note_written(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (used, header) = self.written.step(bytes);
            if header.is_some_and(|header| is_settings(&header, 0)) {
                self.state.lock().unacknowledged.push_back(false);
            }
            bytes = &bytes[used..];
        }
    }

    /// Passes the first `length` bytes of `scratch` on, without acknowledgements that `h2` does not expect.
    fn pass_on(&mut self, length: usize) {
        let preface = length.min(self.preface_left);
        self.preface_left -= preface;
        self.readable.extend_from_slice(&self.scratch[..preface]);
        let mut at = preface;
        while at < length {
            let is_payload = self.read.payload_left > 0;
            let (used, header) = self.read.step(&self.scratch[at..length]);
            if is_payload {
                self.readable.extend_from_slice(&self.scratch[at..at + used]);
            } else if let Some(header) = header.filter(|header| !self.is_hidden(header)) {
                self.readable.extend_from_slice(&header);
            }
            at += used;
        }
    }

    fn is_hidden(&self, header: &Header) -> bool {
        is_settings(header, ACK) && self.state.lock().unacknowledged.pop_front() == Some(true)
    }
}

impl<S: AsyncWrite + Unpin> FrameTap<S> {
    /// Writes waiting frames, if `h2` is between two frames. A frame that is written in part keeps `h2` from writing.
    fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.written.is_at_boundary() {
            return Poll::Ready(Ok(()));
        }
        let mut state = self.state.lock();
        while !state.waiting.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &state.waiting))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            state.waiting.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FrameTap<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_waiting(cx))?;
        let is_free = this.state.lock().waiting.is_empty();
        let limit = if is_free { bytes.len() } else { bytes.len().min(this.written.step_bytes()) };
        let written = ready!(Pin::new(&mut this.stream).poll_write(cx, &bytes[..limit]))?;
        this.note_written(&bytes[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_waiting(cx))?;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FrameTap<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.readable.is_empty() {
            let mut scratch = ReadBuf::new(&mut this.scratch);
            ready!(Pin::new(&mut this.stream).poll_read(cx, &mut scratch))?;
            let length = scratch.filled().len();
            if length == 0 {
                return Poll::Ready(Ok(()));
            }
            this.pass_on(length);
        }
        let length = this.readable.len().min(buffer.remaining());
        buffer.put_slice(&this.readable[..length]);
        this.readable.advance(length);
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const OWN: [u8; 15] = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 1];

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        [&[0, 0, length, kind, flags, 0, 0, 0, 0], payload].concat()
    }

    #[tokio::test]
    async fn a_frame_is_put_between_two_others_and_never_into_one() {
        let (near, mut far) = duplex(4_096);
        let (mut tap, frames) = FrameTap::new(near);
        let (first, second) = (frame(0, 0, b"hello"), frame(1, 0, b""));
        tap.write_all(&first[..4]).await.unwrap();
        frames.announce_streams(1);
        tap.write_all(&[&first[4..], &second[..]].concat()).await.unwrap();
        frames.go_away(5);
        tap.flush().await.unwrap();
        drop((tap, frames));
        let mut all = Vec::new();
        far.read_to_end(&mut all).await.unwrap();
        let last = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0];
        assert_eq!(all, [&first[..], &OWN, &second, &last].concat());
    }

    #[tokio::test]
    async fn acknowledgements_of_other_settings_are_hidden() {
        let (near, mut far) = duplex(4_096);
        let (mut tap, frames) = FrameTap::new(near);
        frames.announce_streams(1);
        tap.write_all(&frame(4, 0, b"")).await.unwrap();
        frames.announce_streams(9);
        let (ack, data) = (frame(4, 1, b""), frame(0, 0, &frame(4, 1, b"")));
        let preface = [b'P'; PREFACE_BYTES];
        let sent = [&preface[..], &ack, &data, &ack, &ack, &data].concat();
        // One byte at a time, so that every boundary is met.
        for byte in sent {
            far.write_all(&[byte]).await.unwrap();
        }
        drop(far);
        let mut seen = Vec::new();
        tap.read_to_end(&mut seen).await.unwrap();
        assert_eq!(seen, [&preface[..], &data, &ack, &data].concat());
    }
}
