//! A WebSocket client that follows the protocol: it sends text frames and reads JSON.

use std::net::SocketAddr;

use anyhow::{Context, bail};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use madang_proto::SUBPROTOCOL_JSON;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpSocket;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use crate::PATIENCE;

/// Size of the receive buffer in the kernel. It is small, so that the server notices soon that a client has stopped
/// reading.
const RECEIVE_BUFFER_BYTES: u32 = 64 * 1024;

/// An open socket.
pub struct Socket {
    pub(crate) writer: Writer,
    pub(crate) reader: Reader,
}

pub(crate) type Writer = SplitSink<WebSocketStream<Stream>, Message>;

/// The stream below the socket: TCP, or TLS over TCP.
pub type Stream = Box<dyn Bytes>;

/// A stream of bytes in both directions.
pub trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bytes for T {}

/// The reading half of a socket.
pub(crate) struct Reader(SplitStream<WebSocketStream<Stream>>);

/// How a socket ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// With a close frame of this code and text.
    Closed(u16, String),
    /// Without a close frame; the text says how.
    Gone(String),
}

impl Socket {
    /// Opens a socket at `addr` and sends nothing.
    ///
    /// # Errors
    /// If the server refuses the upgrade.
    pub async fn open(addr: SocketAddr) -> anyhow::Result<Self> {
        Self::open_path(addr, "/v1/ws").await
    }

    /// Opens a socket at `addr` with this path and query, such as one with a ticket, and sends nothing.
    ///
    /// # Errors
    /// If the server refuses the upgrade.
    pub async fn open_path(addr: SocketAddr, path: &str) -> anyhow::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
        let stream = socket.connect(addr).await?;
        stream.set_nodelay(true)?;
        Self::upgraded(Box::new(stream), &format!("ws://{addr}{path}")).await
    }

    /// Opens a socket over a stream that is connected to `addr`, and sends nothing.
    ///
    /// # Errors
    /// If the server refuses the upgrade.
    pub async fn over(stream: Stream, addr: SocketAddr) -> anyhow::Result<Self> {
        Self::upgraded(stream, &format!("ws://{addr}/v1/ws")).await
    }

    async fn upgraded(stream: Stream, url: &str) -> anyhow::Result<Self> {
        let mut request = url.into_client_request()?;
        request.headers_mut().insert("Sec-WebSocket-Protocol", SUBPROTOCOL_JSON.parse()?);
        let (stream, _) = tokio_tungstenite::client_async(request, stream).await.context("the upgrade")?;
        let (writer, reader) = stream.split();
        Ok(Self { writer, reader: Reader(reader) })
    }

    /// Opens a socket and sends `hello`; returns the socket and `welcome`.
    ///
    /// # Errors
    /// If the server refuses the upgrade or the `hello`.
    pub async fn connect(
        addr: SocketAddr,
        token: &str,
        cursor: Option<&str>,
    ) -> anyhow::Result<(Self, Value)> {
        Self::open(addr).await?.greet(token, cursor).await
    }

    /// Sends `hello`; returns the socket and `welcome`.
    ///
    /// # Errors
    /// If the server refuses the `hello`.
    pub async fn greet(mut self, token: &str, cursor: Option<&str>) -> anyhow::Result<(Self, Value)> {
        let mut hello = json!({ "type": "hello", "id": "hello", "token": token });
        if let Some(cursor) = cursor {
            hello["cursor"] = json!(cursor);
        }
        self.send(&hello).await?;
        let welcome = self.next().await.map_err(|ended| anyhow::anyhow!("{ended:?}"))?;
        if welcome["type"] != "welcome" {
            bail!("expected welcome, got {welcome}");
        }
        Ok((self, welcome))
    }

    /// Sends a JSON frame.
    ///
    /// # Errors
    /// If the socket has ended.
    pub async fn send(&mut self, frame: &Value) -> anyhow::Result<()> {
        self.send_text(frame.to_string()).await
    }

    /// Sends a text frame with any content.
    ///
    /// # Errors
    /// If the socket has ended.
    pub async fn send_text(&mut self, text: String) -> anyhow::Result<()> {
        Ok(self.writer.send(Message::Text(text.into())).await?)
    }

    /// Buffers a text frame; [`Self::flush`] sends the buffer.
    ///
    /// # Errors
    /// If the socket has ended.
    pub async fn feed(&mut self, frame: &Value) -> anyhow::Result<()> {
        Ok(self.writer.feed(Message::Text(frame.to_string().into())).await?)
    }

    /// Sends all buffered frames.
    ///
    /// # Errors
    /// If the socket has ended.
    pub async fn flush(&mut self) -> anyhow::Result<()> {
        Ok(self.writer.flush().await?)
    }

    /// Sends a binary frame.
    ///
    /// # Errors
    /// If the socket has ended.
    pub async fn send_binary(&mut self, bytes: Vec<u8>) -> anyhow::Result<()> {
        Ok(self.writer.send(Message::Binary(bytes.into())).await?)
    }

    /// The next frame. Cancel safe.
    ///
    /// # Errors
    /// How the socket ended; `Gone` also if nothing arrives within [`PATIENCE`].
    pub async fn next(&mut self) -> Result<Value, Ended> {
        let frame = tokio::time::timeout(PATIENCE, self.reader.next()).await;
        frame.map_err(|_| Ended::Gone(format!("nothing arrived within {PATIENCE:?}")))?
    }

    /// The next frame of a type. Other frames are skipped.
    ///
    /// # Panics
    /// If the socket ends before that.
    pub async fn next_of(&mut self, kind: &str) -> Value {
        loop {
            let frame = self.next().await.unwrap();
            if frame["type"] == kind {
                return frame;
            }
        }
    }

    /// Sends all frames as fast as the server reads them, and collects one answer for each frame. Pushed frames are
    /// skipped.
    ///
    /// # Errors
    /// If the socket ends, or nothing arrives within [`PATIENCE`].
    pub async fn pipeline(&mut self, frames: Vec<Value>) -> anyhow::Result<Vec<Value>> {
        let wanted = frames.len();
        let write = async {
            for frame in &frames {
                self.writer.feed(Message::Text(frame.to_string().into())).await?;
            }
            self.writer.flush().await.context("the last flush")
        };
        let read = async {
            let mut answers = Vec::with_capacity(wanted);
            while answers.len() < wanted {
                let frame = tokio::time::timeout(PATIENCE, self.reader.next()).await.context("no answer")?;
                let frame =
                    frame.map_err(|ended| anyhow::anyhow!("{ended:?} after {} answers", answers.len()))?;
                if frame.get("id").is_some() {
                    answers.push(frame);
                }
            }
            Ok(answers)
        };
        let ((), answers) = tokio::try_join!(write, read)?;
        Ok(answers)
    }

    /// Closes with a close frame.
    pub async fn close(mut self) {
        if self.writer.send(Message::Close(None)).await.is_ok() {
            let _ = tokio::time::timeout(PATIENCE, async { while self.reader.next().await.is_ok() {} }).await;
        }
    }
}

impl Reader {
    /// The next frame. Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<Value, Ended> {
        loop {
            match self.0.next().await {
                Some(Ok(Message::Text(text))) => {
                    return serde_json::from_str(text.as_str())
                        .map_err(|error| Ended::Gone(format!("not JSON: {error}: {text}")));
                }
                Some(Ok(Message::Close(frame))) => {
                    // Answers the close frame, so that the server does not wait for it.
                    while let Some(Ok(_)) = self.0.next().await {}
                    return Err(closed(frame));
                }
                Some(Ok(Message::Binary(_))) => return Err(Ended::Gone("binary frame".into())),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(Ended::Gone(error.to_string())),
                None => return Err(Ended::Gone("the stream ended".into())),
            }
        }
    }
}

fn closed(frame: Option<CloseFrame>) -> Ended {
    frame.map_or_else(
        || Ended::Closed(1005, String::new()),
        |frame| Ended::Closed(frame.code.into(), frame.reason.to_string()),
    )
}
