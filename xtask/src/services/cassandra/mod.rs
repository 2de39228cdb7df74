//! An Apache Cassandra node on loopback: the CQL store of the tests.

mod config;
mod jvm;

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::fetch::Cassandra;
use super::probe::exchange;
use super::process::detached;
use super::record::Server;
use config::Node;

/// OPTIONS, the request that is allowed before STARTUP (native protocol, version 4, §4.1.3): version, flags, stream (2
/// bytes), opcode, length of the body (4 bytes).
const OPTIONS: [u8; 9] = [0x04, 0, 0, 0, 0x05, 0, 0, 0, 0];
/// Version of a response, and opcode of SUPPORTED.
const RESPONSE: u8 = 0x84;
const SUPPORTED: u8 = 0x06;

/// The host of a node, from 0. All nodes of a cluster have the same ports, because drivers assume that they do.
pub(super) fn host(index: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, index + 1)
}

/// Writes the configuration of node `index` of the cluster to `folder`, and returns the command that starts it there.
pub(super) fn command(
    cassandra: &Cassandra,
    folder: &Path,
    cluster: &[Server],
    index: usize,
    is_durable: bool,
) -> Result<Command> {
    let peer_addrs: Vec<SocketAddrV4> = cluster.iter().filter_map(|server| server.peer_addr).collect();
    let server = cluster.get(index).context("the cluster does not have this node")?;
    let node = Node {
        folder,
        addr: server.addr,
        peer_addr: *peer_addrs.get(index).context("a node has no address for its peers")?,
        seeds: &peer_addrs,
        is_durable,
        token: (cluster.len() > 1).then(|| config::token(index, cluster.len())),
    };
    fs::write(folder.join("cassandra.yaml"), node.yaml())?;
    fs::write(folder.join("logback.xml"), config::LOGBACK)?;
    let mut command = detached(&cassandra.java);
    command.args(jvm::arguments(folder, &cassandra.lib, cluster.len()));
    Ok(command)
}

/// Whether the node's port for clients answers.
pub(super) fn answers(addr: SocketAddrV4) -> bool {
    exchange::<9>(addr, &OPTIONS).is_ok_and(|header| header[0] == RESPONSE && header[4] == SUPPORTED)
}
