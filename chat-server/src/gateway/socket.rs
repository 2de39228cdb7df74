//! The reading side of one socket: the WebSocket library over a socket that is read without waiting. What the library writes
//! (pongs and the answer to a close frame) is enqueued among the other frames.
//!
//! The library gets the bytes of one frame at a time. So [`Incoming`] can judge each frame by its header, and the library holds
//! nothing between two messages, so that a large buffer can be freed.

pub(crate) mod accept;
#[cfg(any(test, fuzzing))]
pub mod chunk_fuzz;
pub(super) mod echo;
pub(super) mod handshake;
pub(super) mod incoming;
pub(super) mod lane;
pub(super) mod pipe;
pub(super) mod queue;

use std::io::{self, Read, Write};
use std::sync::Arc;

use bytes::Bytes;
use madang_proto::{CloseReason, limits};
use tokio_tungstenite::tungstenite::error::{Error, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, WebSocket};

use self::incoming::Incoming;
use super::connection::outbound::Outbound;
use super::delivery::encode::Frame;

/// Bytes that are read at once. Small, because every connection keeps a buffer of this size.
const READ_BUFFER_BYTES: usize = 1024;
/// Bytes that are read in one turn.
const TURN_BYTES: usize = 64 * 1024;
/// The library keeps a buffer as large as the largest frame that came. Above this size it is freed behind the message.
const KEPT_BYTES: usize = 4 * 1024;

/// Reads the messages of one connection.
#[derive(Debug)]
pub(super) struct Socket {
    library: WebSocket<Half>,
    /// The library has refused some bytes. The bytes after them cannot be decoded.
    is_broken: bool,
}

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConnectionEnd {
    /// The peer has gone.
    Gone,
    /// The server closes the connection.
    Close(CloseReason),
}

/// What has already arrived.
#[derive(Debug)]
pub(super) enum Received {
    /// One message.
    Message(Message),
    /// Nothing.
    Nothing,
    /// The budget of this turn was read without a whole message. Other tasks get their turn.
    More,
}

#[derive(Debug)]
struct Half {
    outbound: Arc<Outbound>,
    incoming: Incoming,
    /// Bytes that were read beyond the end of a frame.
    ahead: Bytes,
    /// Bytes that may still be read in this turn: a peer can send many bytes that make no message.
    budget: usize,
    /// Why a frame was refused.
    refused: Option<CloseReason>,
}

impl Half {
    fn take(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let before = self.incoming.message_bytes();
        let taken = self.incoming.take(bytes);
        let now = self.incoming.message_bytes();
        let has_room = now == before || self.outbound.hold_incoming(now);
        let refused = taken.as_ref().err().copied().or((!has_room).then_some(CloseReason::Overloaded));
        match (taken, refused) {
            (Ok(taken), None) => Ok(taken),
            _ => {
                self.refused = refused;
                Err(io::Error::other("a frame is not let in"))
            }
        }
    }
}

impl Read for Half {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.ahead.is_empty() {
            let count = self.outbound.pipe().read(buffer, &mut self.budget)?;
            let taken = self.take(&buffer[..count])?;
            self.ahead = Bytes::copy_from_slice(&buffer[taken..count]);
            return Ok(taken);
        }
        let ahead = self.ahead.slice(..self.ahead.len().min(buffer.len()));
        let taken = self.take(&ahead)?;
        buffer[..taken].copy_from_slice(&self.ahead.split_to(taken));
        Ok(taken)
    }
}

impl Write for Half {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.outbound.push(Frame::written(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Socket {
    /// Reads from the socket of `outbound`, after the bytes that came with the handshake.
    pub(super) fn new(outbound: Arc<Outbound>, read_ahead: &[u8]) -> Self {
        // Copied: the bytes are a part of the 8 KiB buffer of the HTTP head, which would stay allocated.
        let ahead = Bytes::copy_from_slice(read_ahead);
        let limit_bytes = if echo::IS_ON { echo::MESSAGE_BYTES } else { limits::HELLO_BYTES };
        let incoming = Incoming::new(limit_bytes);
        let half = Half { outbound, incoming, ahead, budget: 0, refused: None };
        Self { library: library(half), is_broken: false }
    }

    /// The writing side of the same socket.
    pub(super) fn outbound(&self) -> &Arc<Outbound> {
        &self.library.get_ref().outbound
    }

    /// Accepts messages of the usual size from now on, because the user is known.
    pub(super) fn welcome(&mut self) {
        self.library.get_mut().incoming.set_limit(echo::MESSAGE_BYTES);
    }

    /// The number of frames that began since the last call, including fragments and control frames.
    pub(super) fn take_frames(&mut self) -> u32 {
        self.library.get_mut().incoming.take_frames()
    }

    /// Returns what has already arrived.
    ///
    /// # Errors
    /// Why nothing more comes.
    pub(super) fn try_recv(&mut self) -> Result<Received, ConnectionEnd> {
        if self.is_broken {
            return Err(ConnectionEnd::Gone);
        }
        self.library.get_mut().budget = TURN_BYTES;
        match self.library.read() {
            Ok(Message::Close(_)) => {
                // The second read makes the library write its answer.
                drop(self.library.read());
                Err(ConnectionEnd::Gone)
            }
            Ok(message) => {
                // Writes the answer to a ping, which the library would keep until the next read.
                drop(self.library.flush());
                if matches!(message, Message::Text(_) | Message::Binary(_)) {
                    self.give_back();
                }
                Ok(Received::Message(message))
            }
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                Ok(if self.library.get_ref().budget == 0 { Received::More } else { Received::Nothing })
            }
            Err(error) => {
                let end = self.library.get_ref().refused.map_or_else(|| end(&error), ConnectionEnd::Close);
                self.is_broken = end != ConnectionEnd::Gone;
                Err(end)
            }
        }
    }

    /// Waits for the next message. Yields to other tasks before each attempt. Cancel safe.
    ///
    /// # Errors
    /// Why nothing more comes.
    pub(super) async fn recv(&mut self) -> Result<Message, ConnectionEnd> {
        loop {
            tokio::task::yield_now().await;
            match self.try_recv()? {
                Received::Message(message) => return Ok(message),
                Received::More => {}
                Received::Nothing => self.readable().await?,
            }
        }
    }

    /// Waits until bytes have arrived. Cancel safe.
    ///
    /// # Errors
    /// The peer has gone.
    pub(super) async fn readable(&self) -> Result<(), ConnectionEnd> {
        self.outbound().tcp().readable().await.map_err(|_| ConnectionEnd::Gone)
    }

    /// Reads until the peer has answered the close frame or has gone, because the kernel discards written bytes when a socket is
    /// closed with unread input. Bytes after those that the library refused are not decoded, so an answer would not be found: the
    /// stream of a peer that sent them is ended at once, and read until the peer ends it too. Cancel safe.
    pub(super) async fn finish(&mut self) {
        if self.is_broken {
            self.outbound().pipe().end_writing();
        }
        while self.recv().await.is_ok() {}
        let mut scratch = [0; READ_BUFFER_BYTES];
        while self.is_broken && self.readable().await.is_ok() {
            let mut budget = TURN_BYTES;
            loop {
                match self.outbound().pipe().read(&mut scratch, &mut budget) {
                    Ok(0) => return,
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(_) => return,
                }
            }
            tokio::task::yield_now().await;
        }
    }

    /// Replaces the library after a large message, to free its buffer. It holds nothing at this point: it was given no byte
    /// beyond the message, and its answers are written.
    fn give_back(&mut self) {
        let half = self.library.get_mut();
        if half.incoming.largest() <= KEPT_BYTES || !half.incoming.is_between_messages() {
            return;
        }
        half.incoming.reset_largest();
        let incoming = std::mem::replace(&mut half.incoming, Incoming::new(0));
        let (outbound, ahead) = (Arc::clone(&half.outbound), std::mem::take(&mut half.ahead));
        let budget = half.budget;
        self.library = library(Half { outbound, incoming, ahead, budget, refused: None });
    }
}

fn library(half: Half) -> WebSocket<Half> {
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        // The library writes into the outbound queue without a buffer.
        .write_buffer_size(0)
        .max_message_size(Some(echo::MESSAGE_BYTES))
        .max_frame_size(Some(echo::MESSAGE_BYTES));
    WebSocket::from_raw_socket(half, Role::Server, Some(config))
}

/// The close code of RFC 6455 for bytes that the library refuses. The session can be resumed.
const fn end(error: &Error) -> ConnectionEnd {
    match error {
        Error::Utf8(_) => ConnectionEnd::Close(CloseReason::InvalidUtf8),
        Error::Capacity(_) => ConnectionEnd::Close(CloseReason::TooBig),
        // The peer has hung up, or has sent frames after its own close frame.
        Error::Protocol(
            ProtocolError::ResetWithoutClosingHandshake | ProtocolError::ReceivedAfterClosing,
        ) => ConnectionEnd::Gone,
        Error::Protocol(_) => ConnectionEnd::Close(CloseReason::BrokenFraming),
        _ => ConnectionEnd::Gone,
    }
}

#[cfg(test)]
mod tests {
    use madang_testkit::PATIENCE;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::timeout;

    use super::*;
    use crate::gateway::ledger::tests::account;
    use crate::gateway::socket::lane::Lane;
    use crate::gateway::socket::pipe::Pipe;

    #[tokio::test]
    async fn a_peer_whose_bytes_are_refused_sees_the_end_at_once_and_is_read_to_its_own() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let pipe = Pipe::Plain(listener.accept().await.unwrap().0);
        let outbound = Arc::new(Outbound::new(1, pipe, Lane::idle(), account()));
        let mut socket = Socket::new(Arc::clone(&outbound), &[]);
        // Without a mask.
        peer.write_all(&[0x81, 2, b'{', b'}']).await.unwrap();
        assert_eq!(socket.recv().await.unwrap_err(), ConnectionEnd::Close(CloseReason::BrokenFraming));
        let of_peer = async {
            assert_eq!(peer.read(&mut [0]).await.unwrap(), 0);
            peer.write_all(&[0; 100_000]).await.unwrap();
            drop(peer);
        };
        timeout(PATIENCE, async { tokio::join!(socket.finish(), of_peer) }).await.unwrap();
    }
}
