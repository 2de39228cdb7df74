//! One request and one answer over TCP: whether a server accepts connections.

use std::io::{self, Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::time::Duration;

/// A server that is up answers in milliseconds; a paused one accepts the connection and never answers.
const PATIENCE: Duration = Duration::from_secs(2);

/// Sends `request`, and reads the first `N` bytes of the answer.
pub(crate) fn exchange<const N: usize>(addr: SocketAddrV4, request: &[u8]) -> io::Result<[u8; N]> {
    let mut stream = TcpStream::connect_timeout(&addr.into(), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(request)?;
    let mut answer = [0; N];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}
