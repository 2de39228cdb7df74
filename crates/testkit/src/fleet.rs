//! Nodes of a fleet as processes, over a real CQL server and Redis that somebody else has started.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use madang_bus::BusKind;
use madang_chat_server::config::Config;
use madang_store::scylla::schema::fresh_keyspace;
use madang_store::{StoreConfig, StoreKind};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::process::Server;

const NODES: usize = 2;
/// How long nodes may take to know each other.
const PATIENCE: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(50);
const KEYSPACE: &str = "madang_test_fleet";

/// Where nodes find what they need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FleetPlace {
    /// The server's program, built with the feature `fleet`.
    pub binary: String,
    /// The address of a CQL server, which may have one replica.
    pub cql: String,
    /// The address of a Redis server, which is emptied.
    pub redis: String,
}

/// Two nodes.
pub(crate) struct FleetNodes {
    place: FleetPlace,
    folder: TempDir,
    consent: bool,
    servers: Vec<Server>,
    turn: usize,
}

impl FleetNodes {
    /// Empties the keyspace of tests and Redis, and starts the nodes.
    ///
    /// # Errors
    /// If a server does not answer, or a node does not start.
    pub(crate) async fn start(place: &FleetPlace, mut config: Config) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        config.store = StoreConfig {
            kind: StoreKind::Scylla,
            nodes: vec![place.cql.clone()],
            keyspace: KEYSPACE.to_owned(),
            ..StoreConfig::default()
        };
        config.bus.kind = BusKind::Redis;
        config.bus.url = format!("redis://{}", place.redis);
        config.tokens.secret_file = folder.path().join("token.secret");
        std::fs::write(&config.tokens.secret_file, [42; 32])?;
        // All nodes have one key for browsers. The one for Apple is of the same kind.
        config.push.web_push.key_file.clone_from(&config.push.apns.key_file);
        std::fs::write(folder.path().join("madang.toml"), toml::to_string(&config)?)?;
        fresh_keyspace(&config.store, 1).await?;
        empty(&place.redis).await.context("Redis")?;
        let consent = config.accounts.consent;
        let (place, servers) = (place.clone(), Vec::new());
        let mut fleet = Self { place, folder, consent, servers, turn: 0 };
        fleet.start_nodes().await?;
        Ok(fleet)
    }

    async fn start_nodes(&mut self) -> anyhow::Result<()> {
        for number in 0..NODES {
            let name = format!("test-{number}");
            let path = |file: &str| -> PathBuf { self.folder.path().join(file) };
            let data = path(&name);
            std::fs::create_dir_all(&data)?;
            let config = path("madang.toml").display().to_string();
            let consent = self.consent.to_string();
            let args = ["--config", &config, "--accept-weak-store"];
            let variables = [("MADANG_NODE__NAME", name.as_str()), ("MADANG_ACCOUNTS__CONSENT", &consent)];
            self.servers.push(Server::start_with(&self.place.binary, &data, &args, &variables).await?);
        }
        tokio::time::timeout(PATIENCE, self.all_know_all()).await.context("a node does not know the others")
    }

    /// Waits until each node has all in its view. Until then they do not agree where the homes of channels are: what the transcripts
    /// expect of the next call may be true five seconds later.
    async fn all_know_all(&self) {
        let all = format!("discovery_processes {NODES}");
        for server in &self.servers {
            loop {
                let metrics = server.rest.must("GET", "/metrics", None, None).await;
                if metrics.as_str().is_some_and(|text| text.lines().any(|line| line == all)) {
                    break;
                }
                tokio::time::sleep(LOOK).await; // waits for: a reading of the list, one each second
            }
        }
    }

    /// The address of a node: each time another one.
    pub(crate) fn next_addr(&mut self) -> SocketAddr {
        self.turn += 1;
        self.servers[self.turn % self.servers.len()].addr
    }

    pub(crate) fn drain(&self) -> anyhow::Result<()> {
        self.servers.iter().try_for_each(Server::terminate)
    }

    pub(crate) async fn restart(&mut self) -> anyhow::Result<()> {
        for server in self.servers.drain(..) {
            server.kill().await?;
        }
        self.start_nodes().await
    }

    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        for server in self.servers {
            server.kill().await?;
        }
        Ok(())
    }
}

async fn empty(redis: &str) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(redis).await?;
    stream.write_all(b"FLUSHALL\r\nQUIT\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    anyhow::ensure!(answer.starts_with("+OK"), "FLUSHALL: {answer}");
    Ok(())
}
