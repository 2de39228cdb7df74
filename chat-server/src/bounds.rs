//! The memory that a node holds at most: every queue and cache with its bound in bytes, and their sum. `madang check-config`
//! prints the sum, ARCHITECTURE.md lists the parts, and `tests/slow_full.rs` fills them.
//!
//! Where a bound counts items, the size of an item was measured (docs/performance.md) or is that of the largest.

use madang_bus::bounds::{self as bus, PEER_BYTES, ROWS_BYTES, WAITING_BYTES};
use madang_bus::local::{AUDIENCE_BYTES, ENVELOPE_BYTES};
use madang_store::StoreKind;
use madang_store::embedded::{CACHE_BYTES, FEED_BYTES, QUEUE_BYTES};

use crate::config::Config;
use crate::gateway::{FREE_BYTES, HEAD_BYTES, HTTP_CONNECTIONS, TURN_BYTES};
use crate::heat::HEAT_BYTES;
use crate::home::{HOME_BYTES, HOMES, LANE_BYTES, OWED_BYTES};
use crate::operations::{
    ABSENT_BYTES, CHANNEL_BYTES, DEVICE_BYTES, GUESS_BYTES, PAGE_BYTES, RATE_BYTES, SHARED_READ_BYTES,
    TYPING_BYTES,
};

const KIB: u64 = 1024;
/// An idle socket, and what presence knows about its user.
const SOCKET_BYTES: u64 = 6 * KIB;
/// What the server's own TLS adds to a socket, including encrypted bytes that the kernel has not taken.
const TLS_SOCKET_BYTES: u64 = 40 * KIB;
/// A TLS handshake that is not complete.
const HANDSHAKE_BYTES: u64 = 64 * KIB;
/// 200 subscriptions of a socket.
const SUBSCRIPTIONS_BYTES: u64 = 10 * KIB;
/// 1,000 users that a user watches.
const WATCHED_BYTES: u64 = 8 * KIB;
/// Reports that wait for presence.
const REPORTS_BYTES: u64 = 1024 * KIB;
/// Code, threads and metrics of a server that has just started.
const PROGRAM_BYTES: u64 = 32 * 1024 * KIB;

/// One queue or cache, or all of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// What is held. ARCHITECTURE.md uses the same words.
    pub what: &'static str,
    /// The bound in bytes.
    pub bytes: u64,
}

/// Everything that a node with this configuration can hold.
#[must_use]
pub fn of(config: &Config, cores: usize) -> Vec<Bound> {
    let sockets = config.gateway.connections as u64;
    let connections = sockets + HTTP_CONNECTIONS as u64;
    let (of_sockets, of_handshakes) = match config.tls.is_on() {
        true => (TLS_SOCKET_BYTES, HTTP_CONNECTIONS as u64 * HANDSHAKE_BYTES),
        false => (0, 0),
    };
    let hash_bytes = u64::from(config.passwords.memory_kib) * KIB;
    let bound = |what, bytes| Bound { what, bytes };
    let mut bounds = match config.store.kind {
        StoreKind::Embedded => vec![
            bound("page caches of the database", CACHE_BYTES),
            bound("jobs that wait for the writer", QUEUE_BYTES),
            bound("rows between the writer and the sockets", FEED_BYTES),
            bound("recipients of these rows", ENVELOPE_BYTES),
            bound("audiences of channels", AUDIENCE_BYTES),
        ],
        StoreKind::Scylla => of_a_fleet(),
    };
    bounds.extend([
        bound("the program", PROGRAM_BYTES),
        bound("idle homes", HOMES as u64 * HOME_BYTES),
        bound("rows of channels and devices", CHANNEL_BYTES + ABSENT_BYTES + DEVICE_BYTES),
        bound("pending mentions and read markers", OWED_BYTES),
        bound("rows that wait for fan-out", LANE_BYTES),
        bound("bytes in progress", config.gateway.node_bytes as u64),
        bound("uncounted bytes of each connection", connections * FREE_BYTES as u64),
        bound("request heads", HTTP_CONNECTIONS as u64 * HEAD_BYTES as u64),
        bound("sockets", sockets * (SOCKET_BYTES + of_sockets) + of_handshakes),
        bound("pages that are not written yet", sockets * PAGE_BYTES as u64),
        bound("subscriptions", sockets * SUBSCRIPTIONS_BYTES),
        bound("presence", sockets * WATCHED_BYTES + REPORTS_BYTES),
        bound("rates of users and addresses", RATE_BYTES),
        bound("sign-ins of accounts and addresses", GUESS_BYTES),
        bound("password hashes in progress", cores as u64 * hash_bytes),
        bound("typing users", TYPING_BYTES),
        bound("hot channels", HEAT_BYTES),
        bound("shared pages of hot channels", SHARED_READ_BYTES),
        bound("envelopes that take turns", TURN_BYTES),
    ]);
    bounds
}

/// What stands between the store and the sockets of a node of a fleet.
fn of_a_fleet() -> Vec<Bound> {
    let bound = |what, bytes| Bound { what, bytes };
    vec![
        bound("rows between Redis and the sockets", ROWS_BYTES as u64),
        bound("frames to other nodes", WAITING_BYTES as u64),
        bound("frames and commands of other nodes", PEER_BYTES as u64),
        bound("audiences of channels", bus::AUDIENCE_BYTES as u64),
    ]
}

/// The sum of all bounds, in bytes.
#[must_use]
pub fn sum(bounds: &[Bound]) -> u64 {
    bounds.iter().map(|bound| bound.bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = include_str!("../../ARCHITECTURE.md");

    /// In MiB, rounded up.
    fn mib(bytes: u64) -> u64 {
        bytes.div_ceil(KIB * KIB)
    }

    #[test]
    fn the_page_lists_every_bound_and_the_sum() {
        let bounds = of(&Config::default(), 4);
        let row = |bound: &Bound| format!("| {} | {} MiB |", bound.what, mib(bound.bytes));
        let mut rows: Vec<String> = bounds.iter().map(row).collect();
        rows.push(format!("| all of it | {} MiB |", mib(sum(&bounds))));
        rows.extend(of_a_fleet().iter().map(row));
        let missing: Vec<&String> = rows.iter().filter(|row| !PAGE.contains(*row)).collect();
        assert!(missing.is_empty(), "ARCHITECTURE.md lacks {missing:#?}");
        let has_two_columns = |line: &&str| line.ends_with(" MiB |") && line.matches('|').count() == 3;
        let listed = PAGE.lines().filter(has_two_columns).count();
        assert_eq!(listed, rows.len(), "ARCHITECTURE.md lists what is not held");
    }

    #[test]
    fn a_smaller_node_holds_less() {
        let mut config = Config::default();
        let whole = sum(&of(&config, 4));
        (config.gateway.connections, config.gateway.node_bytes) = (1_000, 64 << 20);
        assert!(sum(&of(&config, 4)) < whole - (448 << 20));
        assert!(sum(&of(&config, 8)) > sum(&of(&config, 4)));
    }
}
