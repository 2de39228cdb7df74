//! A minimal WebSocket client: text frames, until the server closes.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::read::read_in_time;

const PATIENCE: Duration = Duration::from_secs(20);
const HEARTBEAT: Duration = Duration::from_secs(3);
/// A key of the handshake. A client that checks nothing needs no random one.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;

/// A socket that has said hello.
pub(super) struct Socket {
    stream: TcpStream,
    /// Bytes that are not a whole frame yet.
    read: Vec<u8>,
}

impl Socket {
    /// Opens a socket with a token, and waits for the welcome.
    pub(super) fn open(addr: SocketAddr, token: &str) -> Result<Self> {
        let mut stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
        stream.set_read_timeout(Some(HEARTBEAT))?;
        let head = format!(
            "GET /v1/ws HTTP/1.1\r\nHost: {addr}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Protocol: madang.v1.json\r\n\r\n"
        );
        stream.write_all(head.as_bytes())?;
        let mut said = Vec::new();
        while !said.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).context("no answer to the handshake")?;
            said.push(byte[0]);
        }
        ensure!(said.starts_with(b"HTTP/1.1 101"), "no socket: {}", String::from_utf8_lossy(&said));
        let mut socket = Self { stream, read: Vec::new() };
        socket.say(&json!({ "type": "hello", "id": "1", "token": token }))?;
        let welcome = socket.next(PATIENCE)?;
        ensure!(
            matches!(&welcome, Frame::Text(text) if text["type"] == "welcome"),
            "no welcome: {welcome:?}"
        );
        Ok(socket)
    }

    /// Waits until the server closes the socket, and sends heartbeats meanwhile. Returns the close code.
    pub(super) fn wait_for_close(&mut self, limit: Duration) -> Result<u16> {
        let begun = Instant::now();
        while begun.elapsed() < limit {
            match self.next(HEARTBEAT)? {
                Frame::Close(code) => return Ok(code),
                Frame::Text(_) => {}
                Frame::Nothing => self.say(&json!({ "type": "heartbeat" }))?,
            }
        }
        bail!("the server did not close the socket within {} s", limit.as_secs())
    }

    /// Collects the texts of messages that come, until there are as many different ones as wanted, or the time is over.
    pub(super) fn texts(&mut self, wanted: usize, limit: Duration) -> Result<BTreeSet<String>> {
        let (begun, mut texts) = (Instant::now(), BTreeSet::new());
        let mut beat_at = HEARTBEAT;
        while texts.len() < wanted && begun.elapsed() < limit {
            if begun.elapsed() > beat_at {
                self.say(&json!({ "type": "heartbeat" }))?;
                beat_at = begun.elapsed() + HEARTBEAT;
            }
            match self.next(HEARTBEAT)? {
                Frame::Close(code) => bail!("the server closed the socket with {code}"),
                Frame::Text(frame) => {
                    let entries = frame["entries"].as_array().into_iter().flatten();
                    texts.extend(entries.filter_map(|entry| entry["text"].as_str().map(str::to_owned)));
                }
                Frame::Nothing => {}
            }
        }
        Ok(texts)
    }

    /// Sends a request, and waits for its answer. What else comes is passed over.
    pub(super) fn ask(&mut self, frame: &Value, limit: Duration) -> Result<Value> {
        self.say(frame)?;
        let begun = Instant::now();
        while begun.elapsed() < limit {
            match self.next(limit)? {
                Frame::Close(code) => bail!("the server closed the socket with {code}"),
                Frame::Text(answer) if answer["id"] == frame["id"] => return Ok(answer),
                Frame::Text(_) | Frame::Nothing => {}
            }
        }
        bail!("no answer to {frame} within {} s", limit.as_secs())
    }

    fn say(&mut self, frame: &Value) -> Result<()> {
        let text = frame.to_string();
        // The mask is zero, so that the text stays as it is.
        let mut bytes = vec![TEXT];
        match u8::try_from(text.len()) {
            Ok(length) if length < 126 => bytes.push(0x80 | length),
            _ => {
                bytes.push(0x80 | 126);
                bytes.extend(u16::try_from(text.len())?.to_be_bytes());
            }
        }
        bytes.extend([0; 4]);
        bytes.extend(text.as_bytes());
        Ok(self.stream.write_all(&bytes)?)
    }

    fn next(&mut self, limit: Duration) -> Result<Frame> {
        let begun = Instant::now();
        loop {
            if let Some((frame, length)) = parse(&self.read)? {
                self.read.drain(..length);
                return Ok(frame);
            }
            if begun.elapsed() > limit {
                return Ok(Frame::Nothing);
            }
            let mut buffer = [0; 16 * 1_024];
            match read_in_time(&self.stream, &mut buffer)? {
                None => {}
                Some(0) => bail!("the server ended the connection without a close frame"),
                Some(count) => self.read.extend(&buffer[..count]),
            }
        }
    }
}

#[derive(Debug, PartialEq)]
enum Frame {
    Text(Value),
    Close(u16),
    Nothing,
}

/// The first frame and its length, if it is there as a whole.
fn parse(bytes: &[u8]) -> Result<Option<(Frame, usize)>> {
    let [first, second, ..] = *bytes else { return Ok(None) };
    let (head, length) = match second {
        126 if bytes.len() >= 4 => (4, usize::from(u16::from_be_bytes([bytes[2], bytes[3]]))),
        127 if bytes.len() >= 10 => {
            let mut length = [0; 8];
            length.copy_from_slice(&bytes[2..10]);
            (10, usize::try_from(u64::from_be_bytes(length))?)
        }
        126 | 127 => return Ok(None),
        length => (2, usize::from(length)),
    };
    let Some(payload) = bytes.get(head..head + length) else { return Ok(None) };
    let frame = match first {
        TEXT => Frame::Text(serde_json::from_slice(payload)?),
        CLOSE => Frame::Close(payload.first_chunk().map_or(1_005, |code| u16::from_be_bytes(*code))),
        _ => Frame::Text(Value::Null),
    };
    Ok(Some((frame, head + length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_parsed_once_they_are_whole() {
        let mut bytes = vec![TEXT, 2];
        assert_eq!(parse(&bytes).unwrap(), None);
        bytes.extend(b"{}");
        assert_eq!(parse(&bytes).unwrap(), Some((Frame::Text(json!({})), 4)));
        assert_eq!(parse(&[CLOSE, 2, 0x11, 0x95]).unwrap(), Some((Frame::Close(4501), 4)));
        let long = [&[TEXT, 126, 0, 130][..], b"\"", &[b'x'; 128], b"\""].concat();
        assert_eq!(parse(&long).unwrap().unwrap().1, 134);
    }
}
