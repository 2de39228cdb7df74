//! Free ports for servers that keep their address when they are restarted.

use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Below the ports that the kernel gives to outgoing connections (from 32768): such a connection cannot take the port of a
/// server while that is down.
const FIRST: u16 = 20_000;
const COUNT: u16 = 10_000;

/// A prime that does not divide [`COUNT`]: in steps of it, a search tries every port once.
const STRIDE: u32 = 7919;

/// A port that was just used or tried is not free at once: a child that has not reached its exec still has the socket.
const PATIENCE: Duration = Duration::from_secs(1);

/// Searches of this process.
static SEARCHES: AtomicU32 = AtomicU32::new(0);

/// Finds a port that is free on all `hosts` and that is not in `taken`. Each search of each process begins at another port:
/// two searches at the same time would otherwise find the same one.
pub(crate) fn free(hosts: &[Ipv4Addr], taken: &[u16]) -> Result<u16> {
    let searches = SEARCHES.fetch_add(1, Ordering::Relaxed);
    search(process::id().wrapping_mul(37).wrapping_add(searches.wrapping_mul(101)), hosts, taken)
}

fn search(begin: u32, hosts: &[Ipv4Addr], taken: &[u16]) -> Result<u16> {
    let count = u32::from(COUNT);
    for index in 0..count {
        let port = FIRST + u16::try_from((begin % count + index * STRIDE) % count)?;
        if !taken.contains(&port) && hosts.iter().all(|host| is_free(*host, port)) {
            return Ok(port);
        }
    }
    bail!("no port from {FIRST} to {} is free on {hosts:?}", FIRST + COUNT - 1);
}

/// Whether a server can listen there within [`PATIENCE`].
pub(crate) fn becomes_free(addr: SocketAddrV4) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while !is_free(*addr.ip(), addr.port()) {
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(10));
    }
    true
}

fn is_free(host: Ipv4Addr, port: u16) -> bool {
    TcpListener::bind((host, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_not_found() {
        let hosts = [Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 2)];
        let mut listeners =
            (FIRST..FIRST + COUNT).filter_map(|port| TcpListener::bind((hosts[1], port)).ok());
        let listener = listeners.next().unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(!is_free(hosts[1], port));
        assert_ne!(search(u32::from(port - FIRST), &hosts, &[]).unwrap(), port);
    }

    #[test]
    fn a_search_leaves_out_ports_that_are_taken() {
        assert_eq!(search(5, &[], &[]).unwrap(), FIRST + 5);
        assert_eq!(search(5, &[], &[FIRST + 5]).unwrap(), FIRST + 7924);
        let all: Vec<u16> = (FIRST..FIRST + COUNT).collect();
        assert!(search(5, &[], &all).is_err());
        assert_eq!(search(5, &[], &all[1..]).unwrap(), FIRST);
    }
}
