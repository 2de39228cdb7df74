//! One socket's way in: the WebSocket library over a socket that is read without waiting. What the library wants to
//! say (to a ping, to a close) takes its place among the frames that wait.
//!
//! The library gets the bytes of one frame at a time, so that [`Incoming`] judges each frame by its header, and so that
//! the library holds nothing between two messages and a large buffer can be given back.

use std::io::{self, Read, Write};
use std::sync::Arc;

use bytes::Bytes;
use madang_proto::{CloseReason, limits};
use tokio_tungstenite::tungstenite::error::{Error, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, WebSocket};

use super::echo;
use super::encode::Frame;
use super::incoming::Incoming;
use super::outbound::Outbound;

/// What is read at once; small, because every connection keeps as much.
const READ_BUFFER_BYTES: usize = 1024;
/// What is read in one turn.
const TURN_BYTES: usize = 64 * 1024;
/// The library keeps a buffer of the largest frame that came; above this size it is given back behind the message.
const KEPT_BYTES: usize = 4 * 1024;

/// Reads messages.
#[derive(Debug)]
pub(super) struct Socket {
    library: WebSocket<Half>,
    /// The library refused the bytes; what follows them means nothing.
    is_broken: bool,
}

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The peer has gone.
    Gone,
    /// We close it.
    Close(CloseReason),
}

/// What is here already.
#[derive(Debug)]
pub(super) enum Here {
    /// A message.
    Message(Message),
    /// Nothing.
    Nothing,
    /// Bytes for a while, and no message yet: it is somebody else's turn.
    More,
}

#[derive(Debug)]
struct Half {
    outbound: Arc<Outbound>,
    incoming: Incoming,
    /// Bytes that were read behind the end of a frame.
    ahead: Bytes,
    /// What may still be read in this turn: a peer may say much that is no message.
    budget: usize,
    /// Why a frame is not let in.
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
    /// Reads from the socket of `outbound`, after what came with the handshake.
    pub(super) fn new(outbound: Arc<Outbound>, read_ahead: &[u8]) -> Self {
        // A copy: what was read ahead lies in the 8 KiB that HTTP read its head into, and would keep them.
        let ahead = Bytes::copy_from_slice(read_ahead);
        let limit_bytes = if echo::IS_ON { echo::MESSAGE_BYTES } else { limits::HELLO_BYTES };
        let incoming = Incoming::new(limit_bytes);
        let half = Half { outbound, incoming, ahead, budget: 0, refused: None };
        Self { library: library(half), is_broken: false }
    }

    /// What is written to the same socket.
    pub(super) fn outbound(&self) -> &Arc<Outbound> {
        &self.library.get_ref().outbound
    }

    /// The user is known: messages of the usual size are let in.
    pub(super) fn welcome(&mut self) {
        self.library.get_mut().incoming.set_limit(echo::MESSAGE_BYTES);
    }

    /// Frames that came since the last call, fragments and control frames included.
    pub(super) fn take_frames(&mut self) -> u32 {
        self.library.get_mut().incoming.take_frames()
    }

    /// What is here already.
    ///
    /// # Errors
    /// Why no more comes.
    pub(super) fn try_recv(&mut self) -> Result<Here, End> {
        if self.is_broken {
            return Err(End::Gone);
        }
        self.library.get_mut().budget = TURN_BYTES;
        match self.library.read() {
            Ok(Message::Close(_)) => {
                // The library answers with the next read.
                drop(self.library.read());
                Err(End::Gone)
            }
            Ok(message) => {
                // The answer to a ping, which the library would keep until the next read.
                drop(self.library.flush());
                if matches!(message, Message::Text(_) | Message::Binary(_)) {
                    self.give_back();
                }
                Ok(Here::Message(message))
            }
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                Ok(if self.library.get_ref().budget == 0 { Here::More } else { Here::Nothing })
            }
            Err(error) => {
                let end = self.library.get_ref().refused.map_or_else(|| end(&error), End::Close);
                self.is_broken = end != End::Gone;
                Err(end)
            }
        }
    }

    /// The next message. Others have their turn before each. Cancel safe.
    ///
    /// # Errors
    /// Why no more comes.
    pub(super) async fn recv(&mut self) -> Result<Message, End> {
        loop {
            tokio::task::yield_now().await;
            match self.try_recv()? {
                Here::Message(message) => return Ok(message),
                Here::More => {}
                Here::Nothing => self.readable().await?,
            }
        }
    }

    /// Waits until bytes are here. Cancel safe.
    ///
    /// # Errors
    /// The peer has gone.
    pub(super) async fn readable(&self) -> Result<(), End> {
        self.outbound().tcp().readable().await.map_err(|_| End::Gone)
    }

    /// Reads until the peer has answered the close frame, or has gone: a socket that is closed with unread bytes loses
    /// what was written. Behind bytes that the library refused nothing is decoded. Cancel safe.
    pub(super) async fn finish(&mut self) {
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

    /// Begins the library anew behind a large message. It holds nothing then: it was given no byte behind the message,
    /// and what it had to say is written.
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
        // What the library writes is handed over at once.
        .write_buffer_size(0)
        .max_message_size(Some(echo::MESSAGE_BYTES))
        .max_frame_size(Some(echo::MESSAGE_BYTES));
    WebSocket::from_raw_socket(half, Role::Server, Some(config))
}

/// What the library refuses is closed with the code of RFC 6455; the session can be resumed.
const fn end(error: &Error) -> End {
    match error {
        Error::Utf8(_) => End::Close(CloseReason::InvalidUtf8),
        Error::Capacity(_) => End::Close(CloseReason::TooBig),
        // The peer has hung up, or speaks behind its own close.
        Error::Protocol(
            ProtocolError::ResetWithoutClosingHandshake | ProtocolError::ReceivedAfterClosing,
        ) => End::Gone,
        Error::Protocol(_) => End::Close(CloseReason::BrokenFraming),
        _ => End::Gone,
    }
}
