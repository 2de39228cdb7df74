//! A WebSocket client that can violate the protocol: it writes any frames over a plain TCP stream.

use std::net::SocketAddr;

use anyhow::{Context, bail};
use madang_proto::SUBPROTOCOL_JSON;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::{PATIENCE, Stream};

/// An arbitrary mask: a server must accept every one.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
/// The opcode of a continuation.
pub const CONTINUATION: u8 = 0;
/// The opcode of a text.
pub const TEXT: u8 = 1;
const CLOSE: u8 = 8;
/// The opcode of a ping.
pub const PING: u8 = 9;
/// The opcode of a pong.
pub const PONG: u8 = 10;

/// A socket whose frames the test writes itself.
pub struct RawSocket(Stream);

impl RawSocket {
    /// Upgrades at `addr`.
    ///
    /// # Errors
    /// If the server refuses the upgrade.
    pub async fn open(addr: SocketAddr) -> anyhow::Result<Self> {
        Self::upgrade(addr, &[("Sec-WebSocket-Protocol", SUBPROTOCOL_JSON)]).await
    }

    /// Upgrades with these additional headers.
    ///
    /// # Errors
    /// If the server refuses the upgrade; the error is the head of its answer.
    pub async fn upgrade(addr: SocketAddr, headers: &[(&str, &str)]) -> anyhow::Result<Self> {
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let head = format!(
            "GET /v1/ws HTTP/1.1\r\nHost: {addr}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
        );
        let mut stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        stream.write_all(head.as_bytes()).await?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(stream.read_u8().await.context("the answer to the upgrade")?);
        }
        if !answer.starts_with(b"HTTP/1.1 101") {
            bail!("{}", String::from_utf8_lossy(&answer));
        }
        Ok(Self(Box::new(stream)))
    }

    /// Writes one frame, masked.
    ///
    /// # Errors
    /// If the server has closed the connection.
    pub async fn write(&mut self, is_last: bool, opcode: u8, payload: &[u8]) -> anyhow::Result<()> {
        let mut frame = frame_head(is_last, opcode, payload.len(), true);
        frame.extend(MASK);
        frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        self.0.write_all(&frame).await.context("the server closed the connection")
    }

    /// Writes the head of a frame of `length` bytes and the first part of its payload, masked.
    ///
    /// # Errors
    /// If the server has closed the connection.
    pub async fn write_part(&mut self, opcode: u8, length: usize, payload: &[u8]) -> anyhow::Result<()> {
        let mut frame = frame_head(true, opcode, length, true);
        frame.extend(MASK);
        frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        self.0.write_all(&frame).await.context("the server closed the connection")
    }

    /// Writes bytes unchanged.
    ///
    /// # Errors
    /// If the server has closed the connection.
    pub async fn write_bytes(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.0.write_all(bytes).await.context("the server closed the connection")
    }

    /// Writes `count` empty frames at once.
    ///
    /// # Errors
    /// If the server has closed the connection.
    pub async fn write_empty(&mut self, is_last: bool, opcode: u8, count: usize) -> anyhow::Result<()> {
        let mut frame = frame_head(is_last, opcode, 0, true);
        frame.extend(MASK);
        self.0.write_all(&frame.repeat(count)).await.context("the server closed the connection")
    }

    /// Writes a text as one frame.
    ///
    /// # Errors
    /// If the server has closed the connection.
    pub async fn write_text(&mut self, text: &str) -> anyhow::Result<()> {
        self.write(true, TEXT, text.as_bytes()).await
    }

    /// The next frame: opcode and payload.
    ///
    /// # Errors
    /// If the server has closed the connection, or nothing arrives in time.
    pub async fn read(&mut self) -> anyhow::Result<(u8, Vec<u8>)> {
        tokio::time::timeout(PATIENCE, read_frame(&mut self.0)).await.context("no frame came")?
    }

    /// The next text frame.
    ///
    /// # Errors
    /// If another frame arrives.
    pub async fn read_text(&mut self) -> anyhow::Result<String> {
        match self.read().await? {
            (TEXT, payload) => Ok(String::from_utf8(payload)?),
            (opcode, payload) => {
                bail!("expected a text, got opcode {opcode}, {}", String::from_utf8_lossy(&payload))
            }
        }
    }

    /// The code of the next close frame. Text frames before it are skipped.
    ///
    /// # Errors
    /// If the server closes the connection without a close frame.
    pub async fn read_close(&mut self) -> anyhow::Result<u16> {
        loop {
            let (opcode, payload) = self.read().await?;
            if opcode == CLOSE {
                let code = payload.get(..2).context("a close without a code")?;
                return Ok(u16::from_be_bytes([code[0], code[1]]));
            }
        }
    }
}

/// The head of a frame before its mask and payload (RFC 6455, 5.2).
pub(crate) fn frame_head(is_last: bool, opcode: u8, length: usize, is_masked: bool) -> Vec<u8> {
    let mask = u8::from(is_masked) << 7;
    let mut head = vec![(u8::from(is_last) << 7) | opcode];
    match length {
        0..=125 => head.push(mask | length as u8),
        126..=0xffff => {
            head.push(mask | 126);
            head.extend((length as u16).to_be_bytes());
        }
        _ => {
            head.push(mask | 127);
            head.extend((length as u64).to_be_bytes());
        }
    }
    head
}

/// A frame of the server: opcode and payload. This server does not fragment frames.
pub(crate) async fn read_frame(stream: &mut (impl AsyncRead + Unpin)) -> anyhow::Result<(u8, Vec<u8>)> {
    let opcode = stream.read_u8().await? & 0x0f;
    let length = match stream.read_u8().await? & 0x7f {
        126 => u64::from(stream.read_u16().await?),
        127 => stream.read_u64().await?,
        length => u64::from(length),
    };
    let mut payload = vec![0; usize::try_from(length)?];
    stream.read_exact(&mut payload).await?;
    Ok((opcode, payload))
}
