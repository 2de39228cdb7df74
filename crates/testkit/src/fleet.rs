//! Nodes of a fleet as processes, over a real CQL server and Redis that somebody else has started.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use madang_bus::BusKind;
use madang_chat_server::config::Config;
use madang_store::scylla::schema::fresh_keyspace;
use madang_store::{StoreConfig, StoreKind};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::process::{Server, without_variables_of_tests};
use crate::rest::Rest;

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

/// Nodes that know each other.
pub struct FleetNodes {
    place: FleetPlace,
    folder: TempDir,
    consent: bool,
    heat: bool,
    /// `None`: it was killed.
    servers: Vec<Option<Server>>,
    turn: usize,
}

impl FleetNodes {
    /// Empties the keyspace of tests and Redis, and starts the nodes.
    ///
    /// # Errors
    /// If a server does not answer, or a node does not start.
    pub async fn start(place: &FleetPlace, mut config: Config, nodes: usize) -> anyhow::Result<Self> {
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
        let (consent, heat) = (config.accounts.consent, config.heat.enabled);
        let (place, servers) = (place.clone(), (0..nodes).map(|_| None).collect());
        let mut fleet = Self { place, folder, consent, heat, servers, turn: 0 };
        fleet.start_nodes().await?;
        Ok(fleet)
    }

    async fn start_nodes(&mut self) -> anyhow::Result<()> {
        self.start_killed().await?;
        tokio::time::timeout(PATIENCE, self.all_know_all()).await.context("a node does not know the others")
    }

    /// Starts the nodes that were killed, and returns their numbers.
    ///
    /// # Errors
    /// If a node does not start.
    pub async fn start_killed(&mut self) -> anyhow::Result<Vec<usize>> {
        let killed: Vec<usize> =
            (0..self.servers.len()).filter(|number| self.servers[*number].is_none()).collect();
        for number in killed.iter().copied() {
            let name = format!("test-{number}");
            let path = |file: &str| -> PathBuf { self.folder.path().join(file) };
            let data = path(&name);
            std::fs::create_dir_all(&data)?;
            let config = path("madang.toml").display().to_string();
            let consent = self.consent.to_string();
            let args = ["--config", &config, "--accept-weak-store"];
            let heat = self.heat.to_string();
            let variables = [
                ("MADANG_NODE__NAME", name.as_str()),
                ("MADANG_ACCOUNTS__CONSENT", &consent),
                ("MADANG_HEAT__ENABLED", &heat),
            ];
            self.servers[number] =
                Some(Server::start_with(&self.place.binary, &data, &args, &variables).await?);
        }
        Ok(killed)
    }

    fn living(&self) -> impl Iterator<Item = &Server> {
        self.servers.iter().flatten()
    }

    /// The file with the configuration of all processes.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("madang.toml")
    }

    /// Calls a node. One that was killed answers nothing.
    ///
    /// # Panics
    /// If no node is up.
    #[must_use]
    pub fn rest(&self, number: usize) -> &Rest {
        let server = self.servers[number].as_ref().or_else(|| self.living().next());
        &server.unwrap().rest
    }

    /// The address of a node.
    ///
    /// # Panics
    /// If it was killed.
    #[must_use]
    pub fn addr(&self, number: usize) -> SocketAddr {
        self.servers[number].as_ref().unwrap().addr
    }

    /// Runs a command of the program beside a node, and returns what it prints.
    ///
    /// # Errors
    /// If it fails.
    pub async fn command(&self, number: usize, args: &[&str]) -> anyhow::Result<String> {
        let data = self.folder.path().join(format!("test-{number}"));
        let mut command = Command::new(&self.place.binary);
        without_variables_of_tests(&mut command);
        let output = command.args(args).arg("--data").arg(data).output().await?;
        anyhow::ensure!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Kills a node with SIGKILL.
    ///
    /// # Errors
    /// If waiting for it fails.
    pub async fn kill(&mut self, number: usize) -> anyhow::Result<()> {
        match self.servers[number].take() {
            Some(server) => server.kill().await,
            None => Ok(()),
        }
    }

    /// Waits until each node has all in its view. Until then they do not agree where the homes of channels are: what the transcripts
    /// expect of the next call may be true five seconds later.
    async fn all_know_all(&self) {
        let all = format!("discovery_processes {}", self.servers.len());
        for server in self.living() {
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
        let living: Vec<&Server> = self.living().collect();
        living[self.turn % living.len()].addr
    }

    pub(crate) fn drain(&self) -> anyhow::Result<()> {
        self.living().try_for_each(Server::terminate)
    }

    pub(crate) async fn restart(&mut self) -> anyhow::Result<()> {
        for number in 0..self.servers.len() {
            self.kill(number).await?;
        }
        self.start_nodes().await
    }

    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        for server in self.servers.into_iter().flatten() {
            server.kill().await?;
        }
        Ok(())
    }
}

/// A process of push. It is killed when dropped.
pub struct PushProcess(Child);

impl PushProcess {
    /// Starts the program with the configuration of a fleet.
    ///
    /// # Errors
    /// If it cannot be run.
    pub fn start(binary: &str, config: &Path, number: usize) -> anyhow::Result<Self> {
        let mut command = Command::new(binary);
        command.arg("--config").arg(config);
        command.args(["--addr", "127.0.0.1:0", "--name", &format!("test-{number}"), "--accept-weak-store"]);
        without_variables_of_tests(&mut command);
        command.env("MADANG_TELEMETRY__FILTER", "warn");
        Ok(Self(command.stdin(Stdio::null()).kill_on_drop(true).spawn().context("the program of push")?))
    }

    /// Kills it with SIGKILL and waits until it has ended.
    ///
    /// # Errors
    /// If waiting for it fails.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        Ok(self.0.kill().await?)
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
