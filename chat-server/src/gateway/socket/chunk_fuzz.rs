//! Feeds bytes to a socket in chunks and compares the results, for `cargo xtask fuzz` and the test that replays its seeds. What a
//! socket reads from a stream of bytes must not depend on how the stream is cut into chunks.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream as StdTcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use madang_proto::limits;
use madang_service::Metrics;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_tungstenite::tungstenite::Message;

use crate::gateway::connection::outbound::Outbound;
use crate::gateway::ledger::tests::account;
use crate::gateway::socket::lane::Lane;
use crate::gateway::socket::pipe::Pipe;
use crate::gateway::socket::{ConnectionEnd, Received, Socket};
use crate::metrics::ChatMetrics;

/// The result of feeding bytes to a socket.
#[derive(Debug, PartialEq, Eq)]
struct Made {
    messages: Vec<Message>,
    end: Option<ConnectionEnd>,
    /// Pongs and the answer to a close frame.
    written: Vec<u8>,
}

/// Checks the reading path. The first byte of `data` chooses the sizes of the chunks in which the rest is fed.
///
/// # Panics
/// A property does not hold.
pub fn check(data: &[u8]) {
    let Some((&pattern, bytes)) = data.split_first() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let whole = made_of(&runtime, bytes, [bytes.len()]);
    let sizes = [usize::from(pattern % 16) + 1, usize::from(pattern / 16) * 7 + 1];
    assert_eq!(made_of(&runtime, bytes, sizes), whole, "in chunks of {sizes:?}");
    assert!(whole.messages.iter().all(|message| message.len() <= limits::FRAME_BYTES_LIBRARY));
    check_written(&whole.written);
}

fn made_of<const N: usize>(runtime: &Runtime, bytes: &[u8], sizes: [usize; N]) -> Made {
    runtime.block_on(async {
        let (ours, mut peer) = UnixStream::pair().expect("a pair of sockets");
        ours.set_nonblocking(true).expect("not to block");
        peer.set_nonblocking(true).expect("not to block");
        let tcp = TcpStream::from_std(StdTcpStream::from(OwnedFd::from(ours))).expect("a socket");
        let outbound = Arc::new(Outbound::new(1, Pipe::Plain(tcp), Lane::idle(), account()));
        let mut socket = Socket::new(Arc::clone(&outbound), &[]);
        socket.welcome();
        let mut made = Made { messages: Vec::new(), end: None, written: Vec::new() };
        let metrics = ChatMetrics::register(&Metrics::new());
        let (mut rest, mut sizes) = (bytes, sizes.into_iter().cycle());
        while !rest.is_empty() && made.end.is_none() {
            let size = sizes.next().unwrap_or(1).clamp(1, rest.len());
            let taken = peer.write(&rest[..size]).expect("room for a chunk");
            rest = &rest[taken..];
            socket.outbound().tcp().readable().await.expect("bytes came");
            made.read(&mut socket);
            outbound.write(&metrics);
            made.take_written(&mut peer);
        }
        made
    })
}

impl Made {
    fn read(&mut self, socket: &mut Socket) {
        loop {
            match socket.try_recv() {
                Ok(Received::Message(message)) => self.messages.push(message),
                Ok(Received::More) => {}
                Ok(Received::Nothing) => return,
                Err(end) => {
                    self.end = Some(end);
                    return;
                }
            }
        }
    }

    fn take_written(&mut self, peer: &mut UnixStream) {
        match peer.read_to_end(&mut self.written) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
    }
}

/// The library writes only whole, unmasked control frames (RFC 6455 §5.5).
fn check_written(mut bytes: &[u8]) {
    while let [opcode, length, rest @ ..] = bytes {
        assert!(matches!(opcode, 0x88 | 0x8a) && *length <= 125, "not a pong, nor a close: {bytes:?}");
        bytes = rest.get(usize::from(*length)..).expect("a whole frame");
    }
    assert!(bytes.is_empty(), "half a frame: {bytes:?}");
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_result_of_the_seeds_does_not_depend_on_the_chunks() {
        let seeds = include_str!("../../../../fuzz/seeds/socket.txt");
        for line in seeds.lines() {
            let text: String = serde_json::from_str(line).unwrap();
            let bytes: Vec<u8> = text.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
            super::check(&bytes);
        }
        assert!(seeds.lines().count() >= 10);
    }
}
