//! `cargo xtask services`: real Redis and Cassandra servers on loopback, for the tests of a fleet. They run in the
//! background, without root, until they are stopped.
//!
//! [`fetch`] finds or downloads the programs, a [`folder`] has the data and the [`record`] of its servers, and a
//! [`process`] is recognised by a later call.

mod cassandra;
pub(crate) mod fetch;
pub(crate) mod folder;
pub(crate) mod lock;
pub(crate) mod ports;
pub(crate) mod probe;
pub(crate) mod process;
mod record;
mod redis;

use std::ffi::OsString;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};

use crate::cargo::Metadata;
use fetch::Programs;
use folder::Folder;
use record::Record;

/// The command line.
#[derive(Debug, Args)]
pub(crate) struct Services {
    #[command(subcommand)]
    action: Action,
    /// The folder of data, logs and services.json; by default `services/run` in the target directory.
    #[arg(long, global = true, value_name = "DIR")]
    dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Finds the programs of the servers, and downloads those that are missing.
    Install,
    /// Starts the servers that do not run, and waits until they accept connections.
    Up {
        /// Number of Redis servers.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(0..=100))]
        redis: u16,
        /// Number of nodes of the Cassandra cluster. Each takes about 0.8 GB of memory.
        #[arg(long, default_value = "1", value_parser = nodes())]
        cassandra: u8,
    },
    /// Prints the state of each server. The exit code says whether all accept connections.
    Status,
    /// Kills a server (SIGKILL).
    Kill { name: String },
    /// Pauses a server (SIGSTOP): connections stay open and nothing answers.
    Pause { name: String },
    /// Continues a paused server.
    Resume { name: String },
    /// Prints the end of a server's log.
    Logs {
        name: String,
        /// Number of lines.
        #[arg(long, default_value_t = 100)]
        lines: usize,
    },
    /// Stops all servers: SIGTERM, then SIGKILL after 10 s. Their data and addresses stay.
    Down {
        /// Kills them at once, and removes data, logs and addresses.
        #[arg(long)]
        purge: bool,
    },
}

fn nodes() -> impl TypedValueParser<Value = u8> {
    PossibleValuesParser::new(["0", "1", "3"]).try_map(|text| text.parse::<u8>())
}

/// Numbers of servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) redis: u16,
    /// Nodes of one cluster.
    pub(crate) cassandra: u8,
}

/// Addresses of servers that accept connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Running {
    pub(crate) redis: Vec<SocketAddrV4>,
    /// All nodes of the cluster, which may be more than wanted.
    pub(crate) cassandra: Vec<SocketAddrV4>,
}

impl Running {
    fn of(record: &Record, wanted: Wanted) -> Self {
        let redis = record.redis.iter().take(usize::from(wanted.redis)).map(|server| server.addr).collect();
        let nodes = record.cassandra.iter().filter(|_| wanted.cassandra > 0);
        Self { redis, cassandra: nodes.map(|server| server.addr).collect() }
    }

    fn print(&self) {
        for (name, addrs) in [("redis", &self.redis), ("cassandra", &self.cassandra)] {
            let addrs: Vec<String> = addrs.iter().map(ToString::to_string).collect();
            println!("{name}: {}", if addrs.is_empty() { "none".to_owned() } else { addrs.join(", ") });
        }
    }
}

/// Makes sure that the wanted servers of the default folder accept connections. Those that run are reused, with their data;
/// they still run after this program has ended.
///
/// # Errors
/// If a program is missing and cannot be downloaded, or a server does not accept connections within 90 s.
pub(crate) fn ensure(target_directory: &Path, wanted: Wanted) -> Result<Running> {
    ensure_in(&default_folder(target_directory)?, target_directory, wanted)
}

/// Stops the servers of the default folder. Their data stays.
pub(crate) fn stop(target_directory: &Path) -> Result<()> {
    default_folder(target_directory)?.down(false)
}

/// A new cluster of three Cassandra nodes in a folder of its own. Each takes about 0.8 GB.
pub(crate) struct ThreeNodes {
    folder: Folder,
    pub(crate) addrs: Vec<SocketAddrV4>,
    /// The command that kills the last node, with its arguments.
    pub(crate) kill_last: Vec<String>,
}

impl ThreeNodes {
    /// Starts it.
    pub(crate) fn up(target_directory: &Path) -> Result<Self> {
        let root = target_directory.join("services/three");
        let folder = Folder::new(&root)?;
        folder.down(true)?;
        let running = ensure_in(&folder, target_directory, Wanted { redis: 0, cassandra: 3 })?;
        let program = std::env::current_exe()?;
        let words =
            [program.as_os_str(), "services".as_ref(), "--dir".as_ref(), root.as_os_str(), "kill".as_ref()];
        let mut kill_last: Vec<String> =
            words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        kill_last.push(format!("cassandra-{}", running.cassandra.len()));
        Ok(Self { folder, addrs: running.cassandra, kill_last })
    }

    /// Stops it and removes its data.
    pub(crate) fn remove(&self) -> Result<()> {
        self.folder.down(true)
    }
}

pub(crate) fn ensure_in(folder: &Folder, target_directory: &Path, wanted: Wanted) -> Result<Running> {
    folder.up(&Programs::prepare(&programs(target_directory), wanted)?, wanted)
}

/// The program of Redis, and the variable of its environment that it needs, for tests that start and stop servers of their own.
///
/// # Errors
/// If it is missing and cannot be downloaded.
pub(crate) fn redis_program(target_directory: &Path) -> Result<(PathBuf, Option<(&'static str, OsString)>)> {
    let programs = Programs::prepare(&programs(target_directory), Wanted { redis: 1, cassandra: 0 })?;
    let redis = programs.redis.context("there is no program of Redis")?;
    Ok((redis.program.clone(), redis.environment()))
}

fn default_folder(target_directory: &Path) -> Result<Folder> {
    Folder::new(&target_directory.join("services/run"))
}

fn programs(target_directory: &Path) -> PathBuf {
    target_directory.join("services")
}

/// Runs one action.
pub(crate) fn run(services: Services) -> Result<ExitCode> {
    let target = Metadata::read()?.target_directory;
    let folder = services.dir.as_deref().map_or_else(|| default_folder(&target), Folder::new)?;
    match services.action {
        Action::Install => install(&target)?,
        Action::Up { redis, cassandra } => {
            let (begin, wanted) = (Instant::now(), Wanted { redis, cassandra });
            let running = match services.dir {
                Some(_) => ensure_in(&folder, &target, wanted)?,
                None => ensure(&target, wanted)?,
            };
            running.print();
            println!("up after {:.1} s; {}", begin.elapsed().as_secs_f64(), folder.record_path().display());
        }
        Action::Status if !folder.status()? => return Ok(ExitCode::FAILURE),
        Action::Status => {}
        Action::Kill { name } => folder.kill(&name)?,
        Action::Pause { name } => folder.pause(&name)?,
        Action::Resume { name } => folder.resume(&name)?,
        Action::Logs { name, lines } => folder.logs(&name, lines)?,
        Action::Down { purge } => folder.down(purge)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn install(target_directory: &Path) -> Result<()> {
    let programs = Programs::prepare(&programs(target_directory), Wanted { redis: 1, cassandra: 1 })?;
    if let Some(redis) = programs.redis {
        println!("{}: {}", redis.version, redis.program.display());
    }
    if let Some(cassandra) = programs.cassandra {
        let (lib, java) = (cassandra.lib.display(), cassandra.java.display());
        println!("Cassandra {}: {lib}, run by {java}", fetch::VERSION);
    }
    Ok(())
}
