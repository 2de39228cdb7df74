//! One socket's way in: the WebSocket library over a socket that is read without waiting. What the library wants to
//! say (to a ping, to a close) takes its place among the frames that wait.

use std::io::{self, Read, Write};
use std::sync::Arc;

use madang_proto::CloseReason;
use tokio_tungstenite::tungstenite::error::Error;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, WebSocket};

use super::echo;
use super::encode::Frame;
use super::outbound::Outbound;

/// What is read at once; small, because every connection keeps as much.
const READ_BUFFER_BYTES: usize = 1024;
/// What is read in one turn.
const TURN_BYTES: usize = 64 * 1024;

/// Reads messages.
#[derive(Debug)]
pub(super) struct Socket(WebSocket<Half>);

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
    /// What may still be read in this turn: a peer may say much that is no message.
    budget: usize,
}

impl Read for Half {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.outbound.pipe().read(buffer, &mut self.budget)
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
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            // What the library writes is handed over at once.
            .write_buffer_size(0)
            .max_message_size(Some(echo::MESSAGE_BYTES))
            .max_frame_size(Some(echo::MESSAGE_BYTES));
        // A copy: what was read ahead lies in the 8 KiB that HTTP read its head into, and would keep them.
        let (read_ahead, half) = (read_ahead.to_vec(), Half { outbound, budget: 0 });
        Self(WebSocket::from_partially_read(half, read_ahead, Role::Server, Some(config)))
    }

    /// What is written to the same socket.
    pub(super) fn outbound(&self) -> &Arc<Outbound> {
        &self.0.get_ref().outbound
    }

    /// What is here already.
    ///
    /// # Errors
    /// Why no more comes.
    pub(super) fn try_recv(&mut self) -> Result<Here, End> {
        self.0.get_mut().budget = TURN_BYTES;
        match self.0.read() {
            Ok(Message::Close(_)) => {
                // The library answers with the next read.
                drop(self.0.read());
                Err(End::Gone)
            }
            Ok(message) => {
                // The answer to a ping, which the library would keep until the next read.
                drop(self.0.flush());
                Ok(Here::Message(message))
            }
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                Ok(if self.0.get_ref().budget == 0 { Here::More } else { Here::Nothing })
            }
            Err(error) => Err(end(&error)),
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
                Here::Nothing => self.outbound().tcp().readable().await.map_err(|_| End::Gone)?,
            }
        }
    }
}

/// What the library refuses is closed with the code of RFC 6455; the session can be resumed.
const fn end(error: &Error) -> End {
    match error {
        Error::Utf8(_) => End::Close(CloseReason::InvalidUtf8),
        Error::Capacity(_) => End::Close(CloseReason::TooBig),
        _ => End::Gone,
    }
}
