//! `cargo xtask services`: real Redis and Cassandra servers for the tests of a fleet. [`fetch`] finds or downloads the
//! programs.

mod fetch;
mod lock;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::cargo::Metadata;
use fetch::Programs;

/// The command line.
#[derive(Debug, Args)]
pub(crate) struct Services {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Finds the programs of the servers, and downloads those that are missing.
    Install,
}

/// Numbers of servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) redis: u16,
    /// Nodes of one cluster.
    pub(crate) cassandra: u8,
}

fn programs(target_directory: &Path) -> PathBuf {
    target_directory.join("services")
}

/// Runs one action.
pub(crate) fn run(services: Services) -> Result<ExitCode> {
    let target = Metadata::read()?.target_directory;
    match services.action {
        Action::Install => install(&target)?,
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
