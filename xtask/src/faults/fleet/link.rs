//! A TCP proxy between the members of a fleet and a server, which cuts, slows and silences connections.

use std::io::Write;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::super::read::read_in_time;

/// How often a connection looks at what has become of it.
const LOOK: Duration = Duration::from_millis(20);
const BUFFER: usize = 64 * 1_024;

/// Listens on a port of its own. Its connections are cut when it is dropped.
pub(super) struct Link {
    pub(super) addr: SocketAddrV4,
    state: Arc<State>,
}

struct State {
    server: Mutex<SocketAddrV4>,
    is_over: AtomicBool,
    /// New connections are closed at once.
    is_refusing: AtomicBool,
    /// Nothing is forwarded, and every connection stays open.
    is_frozen: AtomicBool,
    /// Milliseconds by which each piece is delayed.
    delay: AtomicU64,
    /// Number of the present connections. Those with a lower number than `cut` are closed; with a lower one than `stranded`, they
    /// stay open and forward nothing any more.
    era: AtomicU64,
    cut: AtomicU64,
    stranded: AtomicU64,
    connections: AtomicU64,
}

impl Link {
    /// Starts to forward to a server.
    pub(super) fn to(server: SocketAddrV4) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let SocketAddr::V4(addr) = listener.local_addr()? else { bail!("not an address of IPv4") };
        let state = Arc::new(State {
            server: Mutex::new(server),
            is_over: AtomicBool::new(false),
            is_refusing: AtomicBool::new(false),
            is_frozen: AtomicBool::new(false),
            delay: AtomicU64::new(0),
            era: AtomicU64::new(1),
            cut: AtomicU64::new(0),
            stranded: AtomicU64::new(0),
            connections: AtomicU64::new(0),
        });
        let of_thread = Arc::clone(&state);
        thread::spawn(move || of_thread.accept(&listener));
        Ok(Self { addr, state })
    }

    /// Closes every connection.
    pub(super) fn cut(&self) {
        let era = self.state.era.fetch_add(1, Ordering::SeqCst) + 1;
        self.state.cut.store(era, Ordering::SeqCst);
    }

    /// Present connections stay open and forward nothing any more, as after the end of a NAT entry. New ones work.
    pub(super) fn strand(&self) {
        let era = self.state.era.fetch_add(1, Ordering::SeqCst) + 1;
        self.state.stranded.store(era, Ordering::SeqCst);
    }

    /// Whether new connections are refused.
    pub(super) fn refuse(&self, is_refusing: bool) {
        self.state.is_refusing.store(is_refusing, Ordering::SeqCst);
    }

    /// Whether nothing is forwarded. What was sent meanwhile comes afterwards.
    pub(super) fn freeze(&self, is_frozen: bool) {
        self.state.is_frozen.store(is_frozen, Ordering::SeqCst);
    }

    /// Delays each piece, in each direction.
    pub(super) fn delay(&self, delay: Duration) {
        self.state.delay.store(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// New connections go to another server.
    pub(super) fn redirect(&self, server: SocketAddrV4) {
        *self.state.server.lock().unwrap_or_else(PoisonError::into_inner) = server;
    }

    /// Number of connections that were forwarded so far.
    pub(super) fn connections(&self) -> u64 {
        self.state.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.state.is_over.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.addr);
    }
}

impl State {
    fn accept(self: Arc<Self>, listener: &TcpListener) {
        for client in listener.incoming() {
            if self.is_over.load(Ordering::SeqCst) {
                return;
            }
            let (Ok(client), false) = (client, self.is_refusing.load(Ordering::SeqCst)) else { continue };
            // Connections that fail are seen by the two ends.
            let _ = Arc::clone(&self).hold(client);
        }
    }

    fn hold(self: Arc<Self>, client: TcpStream) -> Result<()> {
        let addr = *self.server.lock().unwrap_or_else(PoisonError::into_inner);
        let server = TcpStream::connect(addr).context("the server is away")?;
        self.connections.fetch_add(1, Ordering::SeqCst);
        let era = self.era.load(Ordering::SeqCst);
        for stream in [&client, &server] {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(LOOK))?;
        }
        let ways = [(client.try_clone()?, server.try_clone()?), (server, client)];
        for (from, to) in ways {
            let state = Arc::clone(&self);
            thread::spawn(move || {
                state.carry(&from, &to, era);
                // Both ends see the end.
                let _ = from.shutdown(Shutdown::Both);
                let _ = to.shutdown(Shutdown::Both);
            });
        }
        Ok(())
    }

    /// Forwards one direction until the connection ends or is cut.
    fn carry(&self, from: &TcpStream, mut to: &TcpStream, era: u64) {
        let mut buffer = vec![0; BUFFER];
        let is_closed = || self.is_over.load(Ordering::SeqCst) || era < self.cut.load(Ordering::SeqCst);
        let is_silent =
            || self.is_frozen.load(Ordering::SeqCst) || era < self.stranded.load(Ordering::SeqCst);
        while !is_closed() {
            if is_silent() {
                thread::sleep(LOOK);
                continue;
            }
            let count = match read_in_time(from, &mut buffer) {
                Ok(None) => continue,
                Ok(Some(0)) | Err(_) => return,
                Ok(Some(count)) => count,
            };
            thread::sleep(Duration::from_millis(self.delay.load(Ordering::SeqCst)));
            while is_silent() && !is_closed() {
                thread::sleep(LOOK);
            }
            // What comes behind the cut is not forwarded.
            if is_closed() || to.write_all(&buffer[..count]).is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that answers each byte with the byte.
    fn echo() -> SocketAddrV4 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let SocketAddr::V4(addr) = listener.local_addr().unwrap() else { unreachable!() };
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
            }
        });
        addr
    }

    fn connect(link: &Link) -> TcpStream {
        let stream = TcpStream::connect(link.addr).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        stream
    }

    /// What one byte comes back as: itself, nothing within the time, or the end.
    fn ask(mut stream: &TcpStream) -> Option<usize> {
        let _ = stream.write_all(b"x");
        read_in_time(stream, &mut [0]).unwrap_or(Some(0))
    }

    #[test]
    fn a_connection_is_frozen_stranded_and_cut() {
        let link = Link::to(echo()).unwrap();
        let first = connect(&link);
        assert_eq!(ask(&first), Some(1));
        link.freeze(true);
        // The byte that is under way may still pass.
        ask(&first);
        assert_eq!(ask(&first), None);
        link.freeze(false);
        link.strand();
        ask(&first);
        let second = connect(&link);
        assert_eq!((ask(&first).filter(|count| *count == 0), ask(&second)), (None, Some(1)));
        link.cut();
        assert_eq!(ask(&second), Some(0));
        link.refuse(true);
        assert_eq!(ask(&connect(&link)), Some(0));
        assert_eq!(link.connections(), 2);
    }
}
