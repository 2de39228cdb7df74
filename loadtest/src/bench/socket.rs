//! A minimal WebSocket client (RFC 6455). The generator shares its cores with the server and must use little CPU time.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, ensure};
use madang_ids::{ChannelId, SealedCursor, Seq};
use madang_proto::{ChannelHead, ClientFrame, ErrorBody, Hello, Request, SUBPROTOCOL_JSON};
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::sleep;

/// Connections from one source address, far below the number of its ports.
const PER_ADDRESS: usize = 4_000;
/// How often a node is asked that answers with a time to wait.
const HELLOS: u32 = 20;

/// A socket, and the bytes of frames that are incomplete so far.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
}

/// The server does not open a socket.
#[derive(Debug)]
pub(crate) struct UpgradeRefused {
    head: String,
    pub(crate) body: String,
}

impl std::error::Error for UpgradeRefused {}

impl std::fmt::Display for UpgradeRefused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "upgrade refused: {} {}", self.head, self.body)
    }
}

/// The part of a `heads` frame that is used here.
#[derive(Debug, Deserialize)]
pub(crate) struct Heads {
    pub(crate) heads: Vec<ChannelHead>,
}

/// The source address of the connection with this number.
pub(crate) fn source(number: usize) -> IpAddr {
    let last = u8::try_from(2 + number / PER_ADDRESS).unwrap_or(u8::MAX);
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, last))
}

impl Socket {
    /// Opens a TCP connection. `buffer_bytes` is the initial size of a read.
    pub(crate) async fn connect(addr: &str, source: IpAddr, buffer_bytes: usize) -> anyhow::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(source, 0))?;
        socket.set_nodelay(true)?;
        let stream = socket.connect(addr.parse()?).await.context("cannot connect")?;
        Ok(Self { stream, buffer: vec![0; buffer_bytes], filled: 0 })
    }

    /// Upgrades to a WebSocket. The key is that of the RFC; the answer to it is not checked.
    pub(crate) async fn upgrade(&mut self, addr: &str) -> anyhow::Result<()> {
        let request = format!(
            "GET /v1/ws HTTP/1.1\r\nHost: {addr}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Protocol: {SUBPROTOCOL_JSON}\r\n\r\n"
        );
        self.stream.write_all(request.as_bytes()).await?;
        loop {
            self.fill().await?;
            let text = String::from_utf8_lossy(&self.buffer[..self.filled]).into_owned();
            let Some(end) = text.find("\r\n\r\n") else { continue };
            if text.starts_with("HTTP/1.1 101") {
                self.consume(end + 4);
                return Ok(());
            }
            // The bodies of refusals are JSON objects.
            if text.ends_with('}') || !text.contains("application/json") {
                let body = text[end + 4..].to_owned();
                return Err(UpgradeRefused { head: text[..end].to_owned(), body }.into());
            }
        }
    }

    /// Connects, upgrades, sends `hello` and waits for `welcome`. A node that answers with a time to wait is asked again after it.
    pub(crate) async fn welcome(
        addr: &str,
        source: IpAddr,
        buffer_bytes: usize,
        token: &str,
        cursor: Option<SealedCursor>,
    ) -> anyhow::Result<Self> {
        let frame = ClientFrame::Hello(Hello { token: token.to_owned(), cursor });
        let hello = serde_json::to_string(&Request { id: None, frame })?;
        let mut tries = 0;
        loop {
            let mut socket = Self::connect(addr, source, buffer_bytes).await?;
            socket.upgrade(addr).await?;
            socket.send(&hello).await?;
            let answer = socket.frame().await?;
            if answer.contains(r#""type":"welcome""#) {
                return Ok(socket);
            }
            tries += 1;
            let wait = serde_json::from_str(&answer).ok().and_then(|error: ErrorBody| error.retry_after_ms);
            let wait =
                wait.filter(|_| tries < HELLOS).with_context(|| format!("expected welcome: {answer}"))?;
            sleep(Duration::from_millis(wait)).await;
        }
    }

    /// Subscribes to an open channel from now on, and waits for the answer. Returns the head after which entries follow.
    pub(crate) async fn subscribe(&mut self, channel: ChannelId) -> anyhow::Result<Seq> {
        self.send(&format!(r#"{{"type":"subscribe","id":"s","channel_id":"{channel}"}}"#)).await?;
        loop {
            let frame = self.frame().await?;
            ensure!(!frame.starts_with(r#"{"type":"error""#), "subscription refused: {frame}");
            if frame.starts_with(r#"{"type":"heads""#) {
                let heads: Heads = serde_json::from_str(&frame)?;
                let head = heads.heads.first().context("an answer without a head")?;
                return Ok(head.seq);
            }
        }
    }

    /// The stream, and the bytes of frames that have arrived already.
    pub(crate) fn into_parts(mut self) -> (TcpStream, Vec<u8>) {
        self.buffer.truncate(self.filled);
        (self.stream, self.buffer)
    }

    /// Resets the connection without a close frame, like a machine that crashes.
    pub(crate) fn reset(self) -> anyhow::Result<()> {
        Ok(self.stream.set_zero_linger()?)
    }

    /// Sends a close frame and ends the connection.
    pub(crate) async fn close(mut self) -> anyhow::Result<()> {
        // A masked close frame with code 1000.
        self.write(&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8]).await
    }

    /// Writes one text frame.
    pub(crate) async fn send(&mut self, text: &str) -> anyhow::Result<()> {
        let mut frame = Vec::with_capacity(text.len() + 14);
        put_frame(&mut frame, text.as_bytes(), true);
        self.write(&frame).await
    }

    /// Writes bytes that are already frames.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        Ok(self.stream.write_all(bytes).await?)
    }

    /// Reads what is available, at least one byte. Returns the number of bytes. Cancel safe.
    pub(crate) async fn fill(&mut self) -> anyhow::Result<usize> {
        if self.filled == self.buffer.len() {
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        let count = self.stream.read(&mut self.buffer[self.filled..]).await?;
        ensure!(count > 0, "the server closed the connection");
        self.filled += count;
        Ok(count)
    }

    /// Writes as much of `out` as the server accepts, and reads what is available, until one of the two has happened: a
    /// client that does not read while it writes may be closed. Cancel safe.
    pub(crate) async fn exchange(&mut self, out: &mut Vec<u8>) -> anyhow::Result<()> {
        let both = Interest::READABLE | Interest::WRITABLE;
        let ready = self.stream.ready(if out.is_empty() { Interest::READABLE } else { both }).await?;
        if ready.is_writable() && !out.is_empty() {
            let written = unless_blocked(self.stream.try_write(out))?;
            out.drain(..written.unwrap_or_default());
        }
        if ready.is_readable() {
            if self.filled == self.buffer.len() {
                self.buffer.resize(self.buffer.len() * 2, 0);
            }
            let count = unless_blocked(self.stream.try_read(&mut self.buffer[self.filled..]))?;
            ensure!(count != Some(0), "the server closed the connection");
            self.filled += count.unwrap_or_default();
        }
        Ok(())
    }

    /// The next frame. Bytes after it stay in the buffer.
    async fn frame(&mut self) -> anyhow::Result<String> {
        loop {
            if let Some((header, length)) = frame_head(&self.buffer[..self.filled])
                && header + length <= self.filled
            {
                let payload = String::from_utf8_lossy(&self.buffer[header..header + length]).into_owned();
                ensure!(self.buffer[0] == 0x81, "not a text frame: {payload:?}");
                self.consume(header + length);
                return Ok(payload);
            }
            self.fill().await?;
        }
    }

    /// Visits the payloads of all frames that have arrived completely.
    pub(crate) fn frames(&mut self, mut visit: impl FnMut(&[u8])) -> anyhow::Result<()> {
        let mut at = 0;
        while let Some((header, length)) = frame_head(&self.buffer[at..self.filled]) {
            let end = at + header + length;
            if end > self.filled {
                break;
            }
            match self.buffer[at] {
                0x81 => visit(&self.buffer[at + header..end]),
                other => return Err(unexpected(other, &self.buffer[at + header..end])),
            }
            at = end;
        }
        self.consume(at);
        Ok(())
    }

    fn consume(&mut self, count: usize) {
        self.buffer.copy_within(count..self.filled, 0);
        self.filled -= count;
    }
}

/// An error about a frame that is no complete text frame, with the code of a close frame.
pub(crate) fn unexpected(first: u8, payload: &[u8]) -> anyhow::Error {
    match (first, payload) {
        (0x88, [high, low, reason @ ..]) => {
            let (code, reason) = (u16::from_be_bytes([*high, *low]), String::from_utf8_lossy(reason));
            anyhow::anyhow!("the server closed the socket with {code} {reason}")
        }
        _ => anyhow::anyhow!("expected a text frame, got one that begins with {first:#x}"),
    }
}

/// The number of bytes; `None` if the socket is not ready after all.
fn unless_blocked(done: std::io::Result<usize>) -> std::io::Result<Option<usize>> {
    match done {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        done => done.map(Some),
    }
}

/// Length of the head and of the payload of an unmasked frame.
pub(crate) fn frame_head(bytes: &[u8]) -> Option<(usize, usize)> {
    let short = usize::from(*bytes.get(1)?);
    match short {
        126 => Some((4, usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)))),
        127 => {
            let length = u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?);
            Some((10, usize::try_from(length).ok()?))
        }
        _ => Some((2, short)),
    }
}

/// Appends a text frame. A client's frame is masked, with zeros, so that the payload stays unchanged.
pub(crate) fn put_frame(out: &mut Vec<u8>, payload: &[u8], masked: bool) {
    let mask = if masked { 0x80 } else { 0 };
    out.push(0x81);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short @ ..=125), _) => out.push(mask | short),
        (_, Ok(middle)) => {
            out.push(mask | 126);
            out.extend_from_slice(&middle.to_be_bytes());
        }
        _ => {
            out.push(mask | 127);
            out.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    if masked {
        out.extend_from_slice(&[0; 4]);
    }
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_right_after_an_answer_are_not_lost() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let mut socket = Socket::connect(&addr, source(0), 64).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        let mut both = Vec::new();
        put_frame(&mut both, b"welcome", false);
        put_frame(&mut both, b"entries", false);
        server.write_all(&both).await.unwrap();
        assert_eq!(socket.frame().await.unwrap(), "welcome");
        assert_eq!(socket.frame().await.unwrap(), "entries");
    }

    #[test]
    fn frames_of_every_length_round_trip() {
        for (length, header) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
            let mut bytes = Vec::new();
            put_frame(&mut bytes, &vec![b'x'; length], false);
            assert_eq!(frame_head(&bytes), Some((header, length)));
            assert_eq!(bytes.len(), header + length);
        }
        assert_eq!(frame_head(&[0x81]), None);
    }
}
