//! The configuration files of a node.

use std::net::SocketAddrV4;
use std::path::Path;

/// Logs to standard output, which is the node's log file.
pub(super) const LOGBACK: &str = r#"<configuration>
  <appender name="STDOUT" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%date{ISO8601} %-5level [%thread] %logger{1} %msg%n</pattern></encoder>
  </appender>
  <root level="INFO"><appender-ref ref="STDOUT"/></root>
</configuration>
"#;

/// What one node's `cassandra.yaml` depends on.
pub(super) struct Node<'a> {
    pub(super) folder: &'a Path,
    pub(super) addr: SocketAddrV4,
    pub(super) peer_addr: SocketAddrV4,
    /// All nodes, so that a killed node finds the others again, whichever it is.
    pub(super) seeds: &'a [SocketAddrV4],
    /// Whether each write is synced before its answer.
    pub(super) is_durable: bool,
    /// The node's place in the ring; a single node chooses its own.
    pub(super) token: Option<i64>,
}

impl Node<'_> {
    pub(super) fn yaml(&self) -> String {
        let folder = self.folder.display();
        let seeds: Vec<String> = self.seeds.iter().map(ToString::to_string).collect();
        // A node does not join a cluster of another name: a stranger at a peer's port stays a stranger.
        let mut yaml = format!(
            "cluster_name: madang-{storage_port}\n\
             num_tokens: 1\n\
             partitioner: org.apache.cassandra.dht.Murmur3Partitioner\n\
             endpoint_snitch: SimpleSnitch\n\
             listen_address: {host}\n\
             storage_port: {storage_port}\n\
             rpc_address: {host}\n\
             native_transport_port: {native_port}\n\
             start_native_transport: true\n\
             paxos_variant: v2\n\
             {sync}\n\
             auto_snapshot: false\n\
             seed_provider:\n\
             - class_name: org.apache.cassandra.locator.SimpleSeedProvider\n  \
               parameters:\n  \
               - seeds: \"{seeds}\"\n\
             data_file_directories: [\"{folder}/data\"]\n",
            sync = if self.is_durable {
                "commitlog_sync: batch"
            } else {
                "commitlog_sync: periodic\ncommitlog_sync_period: 10s"
            },
            host = self.addr.ip(),
            storage_port = self.peer_addr.port(),
            native_port = self.addr.port(),
            seeds = seeds.join(","),
        );
        for name in ["commitlog", "saved_caches", "hints", "cdc_raw"] {
            yaml += &format!("{name}_directory: \"{folder}/{name}\"\n");
        }
        if let Some(token) = self.token {
            yaml += &format!("initial_token: {token}\n");
        }
        yaml
    }
}

/// The token of a node whose cluster divides the ring of 2⁶⁴ tokens evenly.
pub(super) fn token(index: usize, count: usize) -> i64 {
    let step = (1_i128 << 64) / i128::try_from(count).unwrap_or(1);
    let token = i128::from(i64::MIN) + step * i128::try_from(index).unwrap_or(0);
    i64::try_from(token).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_divide_the_ring() {
        let tokens: Vec<i64> = (0..3).map(|index| token(index, 3)).collect();
        assert_eq!(tokens, [i64::MIN, -3_074_457_345_618_258_603, 3_074_457_345_618_258_602]);
    }

    #[test]
    fn a_node_of_three_knows_its_place_and_its_peers() {
        let seeds: Vec<SocketAddrV4> =
            (1..=3).map(|host| format!("127.0.0.{host}:20002").parse().unwrap()).collect();
        let addr = "127.0.0.2:20001".parse().unwrap();
        let node = Node {
            folder: Path::new("/d"),
            addr,
            peer_addr: seeds[1],
            seeds: &seeds,
            is_durable: true,
            token: Some(7),
        };
        let yaml = node.yaml();
        for line in [
            "cluster_name: madang-20002",
            "listen_address: 127.0.0.2",
            "storage_port: 20002",
            "native_transport_port: 20001",
            "  - seeds: \"127.0.0.1:20002,127.0.0.2:20002,127.0.0.3:20002\"",
            "data_file_directories: [\"/d/data\"]",
            "commitlog_directory: \"/d/commitlog\"",
            "initial_token: 7",
        ] {
            assert!(yaml.lines().any(|other| other == line), "{line}\n{yaml}");
        }
        let alone = Node { seeds: &seeds[..1], token: None, ..node };
        assert!(!alone.yaml().contains("initial_token"));
        assert!(yaml.contains("commitlog_sync: batch\n"));
    }
}
