//! `services.json`: the servers of a folder, for this program and for the tests that use them.

use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::process::{Process, State};
use super::{Wanted, cassandra};

/// All servers that the folder has data of. A server keeps its name and address when it is stopped and started again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) redis: Vec<Server>,
    /// The nodes of one cluster.
    pub(super) cassandra: Vec<Server>,
}

/// A server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Server {
    pub(crate) name: String,
    /// The address for clients.
    pub(crate) addr: SocketAddrV4,
    /// The address for other nodes of the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) peer_addr: Option<SocketAddrV4>,
    /// The process that was started last. It is absent after the server was stopped on purpose; one that crashed is still
    /// here.
    #[serde(flatten)]
    pub(super) process: Option<Process>,
}

impl Server {
    pub(super) fn state(&self) -> State {
        self.process.map_or(State::Gone, Process::state)
    }
}

impl Record {
    /// Reads the file. Without one there are no servers.
    pub(super) fn read(path: &Path) -> Result<Self> {
        match fs::read(path) {
            Ok(text) => {
                serde_json::from_slice(&text).with_context(|| format!("{} cannot be read", path.display()))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Replaces the file, so that a reader finds the old content or the new one.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let new = path.with_extension("new");
        fs::write(&new, serde_json::to_string_pretty(self)? + "\n")?;
        fs::rename(&new, path).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Adds servers until there are as many as wanted. `free_port` finds a port that is free on all given hosts.
    ///
    /// # Errors
    /// If a cluster of Cassandra would have to grow: the tokens of its nodes were given for its size.
    pub(super) fn add(
        &mut self,
        wanted: Wanted,
        free_port: impl Fn(&[Ipv4Addr], &[u16]) -> Result<u16>,
    ) -> Result<()> {
        for index in self.redis.len()..usize::from(wanted.redis) {
            let port = free_port(&[Ipv4Addr::LOCALHOST], &self.ports())?;
            self.redis.push(Server {
                name: format!("redis-{}", index + 1),
                addr: SocketAddrV4::new(Ipv4Addr::LOCALHOST, port),
                peer_addr: None,
                process: None,
            });
        }
        let nodes = self.cassandra.len();
        let fits = nodes == 0 || nodes >= usize::from(wanted.cassandra);
        ensure!(
            fits,
            "the folder has a Cassandra cluster of {nodes} node: use another folder (`--dir`), or remove this one's data \
             (`cargo xtask services down --purge`)"
        );
        if nodes == 0 && wanted.cassandra > 0 {
            self.add_cluster(wanted.cassandra, free_port)?;
        }
        Ok(())
    }

    fn add_cluster(
        &mut self,
        nodes: u8,
        free_port: impl Fn(&[Ipv4Addr], &[u16]) -> Result<u16>,
    ) -> Result<()> {
        let hosts: Vec<Ipv4Addr> = (0..nodes).map(cassandra::host).collect();
        let mut taken = self.ports();
        let port = free_port(&hosts, &taken)?;
        taken.push(port);
        let peer_port = free_port(&hosts, &taken)?;
        self.cassandra.extend(hosts.iter().zip(1..).map(|(host, number)| Server {
            name: format!("cassandra-{number}"),
            addr: SocketAddrV4::new(*host, port),
            peer_addr: Some(SocketAddrV4::new(*host, peer_port)),
            process: None,
        }));
        Ok(())
    }

    /// The server of this name.
    pub(super) fn named(&mut self, name: &str) -> Result<&mut Server> {
        let names: Vec<&str> = self.all().map(|server| server.name.as_str()).collect();
        let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        let mut servers = self.redis.iter_mut().chain(&mut self.cassandra);
        let found = servers.find(|server| server.name == name);
        found.with_context(|| format!("there is no server `{name}`; there are: {known}"))
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Server> {
        self.redis.iter().chain(&self.cassandra)
    }

    fn ports(&self) -> Vec<u16> {
        let addrs = self.all().flat_map(|server| [Some(server.addr), server.peer_addr]);
        addrs.flatten().map(|addr| addr.port()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lowest port from 1000 that is not taken.
    fn port(_: &[Ipv4Addr], taken: &[u16]) -> Result<u16> {
        Ok((1000..).find(|port| !taken.contains(port)).unwrap())
    }

    fn record(redis: u16, cassandra: u8) -> Record {
        let mut record = Record::default();
        record.add(Wanted { redis, cassandra }, port).unwrap();
        record
    }

    #[test]
    fn a_cluster_has_the_same_ports_on_all_hosts() {
        let record = record(2, 3);
        let lines: Vec<String> =
            record.all().map(|server| format!("{} {}", server.name, server.addr)).collect();
        let expected = [
            "redis-1 127.0.0.1:1000",
            "redis-2 127.0.0.1:1001",
            "cassandra-1 127.0.0.1:1002",
            "cassandra-2 127.0.0.2:1002",
            "cassandra-3 127.0.0.3:1002",
        ];
        assert_eq!(lines, expected);
        assert_eq!(record.cassandra[1].peer_addr, Some("127.0.0.2:1003".parse().unwrap()));
    }

    #[test]
    fn servers_are_added_and_keep_their_addresses() {
        let mut record = record(1, 1);
        let before = record.clone();
        record.add(Wanted { redis: 2, cassandra: 0 }, port).unwrap();
        assert_eq!((&record.redis[..1], &record.cassandra), (&before.redis[..], &before.cassandra));
        assert_eq!(record.redis[1].name, "redis-2");
        let error = record.add(Wanted { redis: 1, cassandra: 3 }, port).unwrap_err();
        assert!(error.to_string().contains("a Cassandra cluster of 1 node"), "{error}");
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("services.json");
        assert_eq!(Record::read(&path).unwrap(), Record::default());
        let mut record = record(1, 1);
        record.named("redis-1").unwrap().process = Some(Process { pid: 7, started: 8 });
        record.write(&path).unwrap();
        assert_eq!(Record::read(&path).unwrap(), record);
        let json: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let redis = serde_json::json!({"name": "redis-1", "addr": "127.0.0.1:1000", "pid": 7, "started": 8});
        assert_eq!(json["redis"], serde_json::json!([redis]));
        assert_eq!(json["cassandra"][0]["addr"], "127.0.0.1:1001");
        fs::write(&path, "{").unwrap();
        assert!(Record::read(&path).is_err());
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        let error = record(1, 1).named("redis").unwrap_err();
        assert_eq!(error.to_string(), "there is no server `redis`; there are: redis-1, cassandra-1");
    }
}
