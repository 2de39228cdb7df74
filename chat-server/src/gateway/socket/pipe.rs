//! The bytes of one socket, plain or through TLS. Any task that holds the connection reads and writes them without waiting.
//!
//! TLS is rustls without an async wrapper: a read decrypts what the kernel has, a write encrypts what waits and gives it to the
//! kernel at once. A plain pipe costs as much as its `TcpStream`.

use std::io::{self, IoSlice, Read, Write};

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustix::net::Shutdown;
use rustls::ServerConnection;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::gateway::listener::write_timeout::WriteTimeout;

/// Encrypted bytes of one connection that the kernel has not taken: two TLS records of the largest size. Plain bytes wait in the
/// connection's queue, whose bound is larger.
const ENCRYPTED_BYTES: usize = 32 * 1024;

/// A socket and the protocol that is spoken on it.
#[derive(Debug)]
pub(in crate::gateway) enum Pipe {
    /// No encryption.
    Plain(TcpStream),
    /// Through TLS.
    Tls(Box<Tls>),
}

/// A TLS connection whose handshake is complete.
#[derive(Debug)]
pub(in crate::gateway) struct Tls {
    tcp: TcpStream,
    session: Mutex<ServerConnection>,
}

/// Adapts a non-blocking socket to the `Read` and `Write` that rustls needs.
struct Kernel<'a>(&'a TcpStream);

impl Read for Kernel<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for Kernel<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Pipe {
    /// Takes the socket back from hyper, with the bytes that hyper read ahead of the upgrade.
    ///
    /// # Errors
    /// The upgraded connection was not accepted by this server.
    pub(in crate::gateway) fn take(upgraded: Upgraded) -> Result<(Self, bytes::Bytes), Upgraded> {
        let upgraded = match upgraded.downcast::<TokioIo<WriteTimeout<TcpStream>>>() {
            Ok(parts) => return Ok((Self::Plain(parts.io.into_inner().into_inner()), parts.read_buf)),
            Err(upgraded) => upgraded,
        };
        let parts = upgraded.downcast::<TokioIo<WriteTimeout<TlsStream<TcpStream>>>>()?;
        // Bytes that rustls has read ahead, encrypted or not, stay in its session.
        let (tcp, session) = parts.io.into_inner().into_inner().into_inner();
        Ok((Self::Tls(Box::new(Tls::new(tcp, session))), parts.read_buf))
    }

    /// The TCP socket, to wait for readiness. Never read or write it directly.
    pub(in crate::gateway) const fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => &tls.tcp,
        }
    }

    /// Reads what has arrived; zero at the end of the stream. Subtracts what it takes from the kernel from `budget` and stops
    /// when that is zero, because a peer can send many bytes without content.
    ///
    /// # Errors
    /// `WouldBlock` if nothing has arrived or the budget is used up. Any other error means that the connection has failed.
    pub(in crate::gateway) fn read(&self, buffer: &mut [u8], budget: &mut usize) -> io::Result<usize> {
        match self {
            Self::Plain(_) if *budget == 0 => Err(io::ErrorKind::WouldBlock.into()),
            Self::Plain(tcp) => {
                let read = tcp.try_read(buffer)?;
                *budget = budget.saturating_sub(read);
                Ok(read)
            }
            Self::Tls(tls) => tls.read(buffer, budget),
        }
    }

    /// Writes `slices` as far as there is room and returns how many bytes it took. Zero if only a part of what it took earlier
    /// was written.
    ///
    /// # Errors
    /// `WouldBlock` if nothing can be written at the moment. Any other error means that the connection has failed.
    pub(in crate::gateway) fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.try_write_vectored(slices),
            Self::Tls(tls) => tls.write(slices),
        }
    }

    /// Whether bytes that were taken are not yet with the kernel. [`Self::write`] with no slices writes them.
    pub(in crate::gateway) fn has_rest(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(tls) => tls.session.lock().wants_write(),
        }
    }

    /// Ends the socket at once, even if other tasks still hold the connection.
    pub(in crate::gateway) fn shut_down(&self) {
        self.end(Shutdown::Both);
    }

    /// Lets the peer see the end of the stream. What it sends can still be read.
    pub(in crate::gateway) fn end_writing(&self) {
        self.end(Shutdown::Write);
    }

    fn end(&self, what: Shutdown) {
        if let Self::Tls(tls) = self {
            tls.say_goodbye();
        }
        if let Err(error) = rustix::net::shutdown(self.tcp(), what) {
            tracing::trace!(%error, "the peer was already gone");
        }
    }
}

impl Tls {
    fn new(tcp: TcpStream, mut session: ServerConnection) -> Self {
        session.set_buffer_limit(Some(ENCRYPTED_BYTES));
        Self { tcp, session: Mutex::new(session) }
    }

    fn read(&self, buffer: &mut [u8], budget: &mut usize) -> io::Result<usize> {
        let mut session = self.session.lock();
        loop {
            match session.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
            if *budget == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let read = session.read_tls(&mut Kernel(&self.tcp))?;
            *budget = budget.saturating_sub(read);
            let processed = session.process_new_packets();
            // An alert, or the answer to a key update. If the kernel has no room, it goes out with the next write.
            if session.wants_write() {
                unless_full(session.write_tls(&mut Kernel(&self.tcp)))?;
            }
            processed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        }
    }

    fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut session = self.session.lock();
        // Earlier records first: while the kernel does not take them, no new plain bytes are accepted, which bounds the session.
        if session.wants_write() {
            session.write_tls(&mut Kernel(&self.tcp))?;
            if session.wants_write() {
                return Ok(0);
            }
        }
        let taken = session.writer().write_vectored(slices)?;
        unless_full(session.write_tls(&mut Kernel(&self.tcp)))?;
        Ok(taken)
    }

    fn say_goodbye(&self) {
        let mut session = self.session.lock();
        session.send_close_notify();
        if let Err(error) = session.write_tls(&mut Kernel(&self.tcp)) {
            tracing::trace!(%error, "sending the end of TLS failed");
        }
    }
}

/// A kernel without room is not an error: the bytes stay with rustls.
fn unless_full(written: io::Result<usize>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
pub(in crate::gateway) mod tests {
    use super::*;
    use madang_testkit::Certificate;
    use rustls::version::TLS13;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use crate::config::TlsConfig;

    const TLS: &[&rustls::SupportedProtocolVersion] = &[&TLS13];
    type TlsStream = tokio_rustls::client::TlsStream<TcpStream>;

    #[test]
    fn a_plain_pipe_is_as_small_as_its_socket() {
        assert_eq!(size_of::<Pipe>(), size_of::<TcpStream>());
    }

    /// A pipe through TLS, and its peer.
    pub(in crate::gateway) async fn pair() -> (Pipe, TlsStream) {
        let folder = tempfile::tempdir().unwrap();
        let certificate = Certificate::new();
        let _ = certificate.write(folder.path());
        let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        let tls = crate::tls::Tls::open(&TlsConfig { cert, key, ..TlsConfig::default() }).unwrap().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let tcp = listener.accept().await.unwrap().0;
        let connect = certificate.connect(peer, TLS, &[]);
        let (accepted, peer) = tokio::join!(tls.acceptor().accept(tcp), connect);
        let (tcp, session) = accepted.unwrap().into_inner();
        (Pipe::Tls(Box::new(Tls::new(tcp, session))), peer.unwrap())
    }

    #[tokio::test]
    async fn bytes_that_the_kernel_refuses_are_bounded_and_written_later() {
        let (pipe, mut peer) = pair().await;
        let block: Vec<u8> = (0..=250).cycle().take(100_000).collect();
        let mut taken = 0;
        let refused = loop {
            // Continues where the last write ended, in slices of odd lengths.
            let slices: Vec<IoSlice<'_>> = block[taken % 251..].chunks(777).map(IoSlice::new).collect();
            match pipe.write(&slices) {
                Ok(count) => {
                    assert!(count <= ENCRYPTED_BYTES);
                    taken += count;
                }
                Err(error) => break error,
            }
        };
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        assert!(pipe.has_rest());
        let write_on = async {
            while pipe.has_rest() {
                pipe.tcp().writable().await.unwrap();
                assert!(pipe.write(&[]).is_ok_and(|count| count == 0) || pipe.has_rest());
            }
        };
        let mut seen = vec![0; taken];
        let (read, ()) = tokio::join!(peer.read_exact(&mut seen), write_on);
        read.unwrap();
        assert!(seen.iter().zip((0..=250).cycle()).all(|(seen, wrote)| *seen == wrote));
        pipe.shut_down();
        assert_eq!(peer.read(&mut [0]).await.unwrap(), 0, "TLS was ended, not torn off");
    }

    #[tokio::test]
    async fn a_pipe_whose_writing_has_ended_is_still_read() {
        let (pipe, mut peer) = pair().await;
        pipe.end_writing();
        assert_eq!(peer.read(&mut [0]).await.unwrap(), 0);
        peer.write_all(b"late").await.unwrap();
        peer.flush().await.unwrap();
        let (mut buffer, mut seen) = ([0; 16], Vec::new());
        while seen.len() < 4 {
            match pipe.read(&mut buffer, &mut 4_096) {
                Ok(count) => seen.extend_from_slice(&buffer[..count]),
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}");
                    pipe.tcp().readable().await.unwrap();
                }
            }
        }
        assert_eq!(seen, b"late");
    }

    #[tokio::test]
    async fn a_turn_ends_even_if_the_peer_sends_more() {
        let (pipe, mut peer) = pair().await;
        let said = vec![7; 64 * 1024];
        peer.write_all(&said).await.unwrap();
        peer.flush().await.unwrap();
        let (mut seen, mut turns, mut buffer) = (0, 0, [0; 1024]);
        while seen < said.len() {
            let mut budget = 8 * 1024;
            loop {
                match pipe.read(&mut buffer, &mut budget) {
                    Ok(count) => seen += count,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => panic!("{error}"),
                }
            }
            turns += 1;
            if budget > 0 && seen < said.len() {
                pipe.tcp().readable().await.unwrap();
            }
        }
        // Each turn takes its budget and a part of the last read of rustls, which reads 4 KiB at a time.
        assert!(turns >= said.len() / (12 * 1024), "{turns}");
        // Bytes that are not TLS end the connection.
        let (mut tcp, _) = peer.into_inner();
        tcp.write_all(b"no record at all").await.unwrap();
        let error = loop {
            pipe.tcp().readable().await.unwrap();
            let mut budget = usize::MAX;
            match pipe.read(&mut buffer, &mut budget).unwrap_err() {
                error if error.kind() == io::ErrorKind::WouldBlock => {}
                error => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
