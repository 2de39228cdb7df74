//! A proxy before a CQL server that delays what is about one partition: as if its shard were slow, and the others not.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// Version, flags, stream, opcode and length of a frame (native protocol 4, §2).
const HEAD: usize = 9;
/// The longest frame (§2).
const FRAME: usize = 256 * 1_024 * 1_024;

/// Listens on a port of its own. Connections end with the client or the server.
pub(super) struct SlowPartition {
    pub(super) addr: SocketAddrV4,
    state: Arc<State>,
}

struct State {
    server: SocketAddrV4,
    is_over: AtomicBool,
    slow: Mutex<Option<Slow>>,
    delayed: AtomicU64,
}

#[derive(Clone, Copy)]
struct Slow {
    /// A value of eight bytes, as a statement has it: its length and its bytes (§3, `[value]`).
    value: [u8; 12],
    delay: Duration,
}

impl SlowPartition {
    /// Starts to forward to a server.
    pub(super) fn before(server: SocketAddrV4) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let SocketAddr::V4(addr) = listener.local_addr()? else { bail!("not an address of IPv4") };
        let state = Arc::new(State {
            server,
            is_over: AtomicBool::new(false),
            slow: Mutex::default(),
            delayed: AtomicU64::new(0),
        });
        let of_thread = Arc::clone(&state);
        thread::spawn(move || of_thread.accept(&listener));
        Ok(Self { addr, state })
    }

    /// Delays requests with this id from now on.
    pub(super) fn slow_down(&self, id: u64, delay: Duration) {
        let mut value = [0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0];
        value[4..].copy_from_slice(&id.to_be_bytes());
        *lock(&self.state.slow) = Some(Slow { value, delay });
    }

    /// Number of requests that were delayed so far.
    pub(super) fn delayed(&self) -> u64 {
        self.state.delayed.load(Ordering::SeqCst)
    }
}

impl Drop for SlowPartition {
    fn drop(&mut self) {
        self.state.is_over.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.addr);
    }
}

impl State {
    fn accept(self: Arc<Self>, listener: &TcpListener) {
        for client in listener.incoming().flatten() {
            if self.is_over.load(Ordering::SeqCst) {
                return;
            }
            // Connections that fail are seen by the two ends.
            let _ = Arc::clone(&self).hold(client);
        }
    }

    fn hold(self: Arc<Self>, client: TcpStream) -> Result<()> {
        let server = TcpStream::connect(self.server).context("the server is away")?;
        for stream in [&client, &server] {
            stream.set_nodelay(true)?;
        }
        let (requests, answers) = ((client.try_clone()?, server.try_clone()?), (server, client));
        thread::spawn(move || {
            let (from, to) = requests;
            // Both ends see the end.
            let _ = self.carry_requests(&from, &Arc::new(Mutex::new(to)));
            let _ = from.shutdown(std::net::Shutdown::Both);
        });
        thread::spawn(move || {
            let (mut from, mut to) = answers;
            let _ = std::io::copy(&mut from, &mut to);
            let _ = from.shutdown(std::net::Shutdown::Both);
            let _ = to.shutdown(std::net::Shutdown::Both);
        });
        Ok(())
    }

    /// Forwards requests. One that is delayed is overtaken by others: the server may answer in any order (§2.3).
    fn carry_requests(&self, from: &TcpStream, to: &Arc<Mutex<TcpStream>>) -> Result<()> {
        loop {
            let frame = next_frame(from)?;
            match self.delay_of(&frame) {
                None => lock(to).write_all(&frame)?,
                Some(delay) => {
                    self.delayed.fetch_add(1, Ordering::SeqCst);
                    let to = Arc::clone(to);
                    thread::spawn(move || {
                        thread::sleep(delay);
                        let _ = lock(&to).write_all(&frame);
                    });
                }
            }
        }
    }

    fn delay_of(&self, frame: &[u8]) -> Option<Duration> {
        let slow = (*lock(&self.slow))?;
        frame.windows(slow.value.len()).any(|bytes| bytes == slow.value).then_some(slow.delay)
    }
}

/// A whole frame.
fn next_frame(mut from: impl Read) -> Result<Vec<u8>> {
    let mut frame = vec![0; HEAD];
    from.read_exact(&mut frame)?;
    let length = usize::try_from(u32::from_be_bytes([frame[5], frame[6], frame[7], frame[8]]))?;
    ensure!(length <= FRAME, "a frame of {length} bytes");
    frame.resize(HEAD + length, 0);
    from.read_exact(&mut frame[HEAD..])?;
    Ok(frame)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(id: u64) -> Vec<u8> {
        let body = [&[1, 2, 3, 0, 0, 0, 8], &id.to_be_bytes()[..], &[9]].concat();
        [&[4, 0, 0, 1, 10], &u32::try_from(body.len()).unwrap().to_be_bytes()[..], &body].concat()
    }

    #[test]
    fn only_what_is_about_the_partition_is_overtaken() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let SocketAddr::V4(addr) = listener.local_addr().unwrap() else { unreachable!() };
        let proxy = SlowPartition::before(addr).unwrap();
        let mut client = TcpStream::connect(proxy.addr).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(&[frame(7), frame(8)].concat()).unwrap();
        assert_eq!([next_frame(&server).unwrap(), next_frame(&server).unwrap()], [frame(7), frame(8)]);
        proxy.slow_down(7, Duration::from_millis(200));
        client.write_all(&[frame(7), frame(8)].concat()).unwrap();
        assert_eq!([next_frame(&server).unwrap(), next_frame(&server).unwrap()], [frame(8), frame(7)]);
        assert_eq!(proxy.delayed(), 1);
        server.write_all(b"answer").unwrap();
        let mut answer = [0; 6];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"answer");
        drop(server);
        assert_eq!(client.read(&mut answer).unwrap(), 0, "the client sees the end");
    }
}
