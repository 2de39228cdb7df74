//! `cargo xtask fleet`: a whole fleet on loopback, for a developer and for the fault runs: a CQL cluster, Redis, discovery and
//! presence processes and chat nodes, all with one configuration file. The members outlive this program.

pub(crate) mod bench;
mod member;
mod place;
pub(crate) mod record;

use std::path;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};

use crate::cargo::Metadata;
pub(crate) use place::{Place, Shape, build};

/// The command line.
#[derive(Debug, Args)]
pub(crate) struct Fleet {
    #[command(subcommand)]
    action: Action,
    /// The folder of data, logs, configuration and fleet.json; by default `fleet` in the target directory.
    #[arg(long, global = true, value_name = "DIR")]
    dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Builds the programs, starts every member that does not run, and waits until all are ready.
    Up {
        /// Number of chat nodes.
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=16))]
        nodes: u8,
        /// Number of discovery processes. 0: each chat node assigns clients itself.
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(0..=4))]
        discovery: u8,
        /// Number of presence processes. 0: each chat node knows the presence of a part of the users.
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(0..=4))]
        presence: u8,
        /// A TOML file with the section `[push]`, such as the push.toml of `cargo xtask push-sandbox`. Its key for browsers is that for
        /// Apple if it names none.
        #[arg(long, value_name = "FILE")]
        push_config: Option<PathBuf>,
        /// Number of push processes. 0: each chat node sends alerts.
        #[arg(long, default_value_t = 0, requires = "push_config", value_parser = clap::value_parser!(u8).range(0..=4))]
        push: u8,
        /// Number of nodes of the Cassandra cluster. Each takes about 0.8 GB of memory.
        #[arg(long, default_value = "1", value_parser = PossibleValuesParser::new(["1", "3"]).try_map(|text| text.parse::<u8>()))]
        cassandra: u8,
        /// Disables the rate limits of the nodes, and adds users to groups without an invitation: for the load tool.
        #[arg(long)]
        open: bool,
    },
    /// Prints the state of each member. The exit code says whether all are ready.
    Status,
    /// Kills a member (SIGKILL).
    Kill { name: String },
    /// Starts a member that does not run, and waits until it is ready.
    Restart { name: String },
    /// Pauses a member (SIGSTOP).
    Pause { name: String },
    /// Continues a paused member.
    Resume { name: String },
    /// Stops a member in order (SIGTERM): a chat node drains.
    Stop { name: String },
    /// Prints the end of a member's log.
    Logs {
        name: String,
        /// Number of lines.
        #[arg(long, default_value_t = 100)]
        lines: usize,
    },
    /// Stops all members: SIGTERM, then SIGKILL. Their data and addresses stay.
    Down {
        /// Kills them at once, and removes data, logs and addresses.
        #[arg(long)]
        purge: bool,
    },
}

/// Runs one action.
pub(crate) fn run(fleet: Fleet) -> Result<ExitCode> {
    let target = Metadata::read()?.target_directory;
    let root = path::absolute(fleet.dir.unwrap_or_else(|| target.join("fleet")))?;
    let place = Place::new(root, target);
    match fleet.action {
        Action::Up { nodes, discovery, presence, push_config, push, cassandra, open } => {
            let built = build()?;
            let push_config = push_config.map(|file| place::push_section(&file)).transpose()?;
            let shape = Shape {
                nodes,
                discovery,
                presence,
                push,
                push_config,
                cassandra,
                is_open: open,
                ..Shape::default()
            };
            let took = place.up(&shape)?;
            println!("up after {:.1} s, and {:.1} s to build", took.as_secs_f64(), built.as_secs_f64());
        }
        Action::Status if !place.status()? => return Ok(ExitCode::FAILURE),
        Action::Status => {}
        Action::Kill { name } => place.kill(&name)?,
        Action::Restart { name } => place.restart(&name)?,
        Action::Pause { name } => place.signal(&name, "STOP")?,
        Action::Resume { name } => place.signal(&name, "CONT")?,
        Action::Stop { name } => place.stop(&name)?,
        Action::Logs { name, lines } => place.logs(&name, lines)?,
        Action::Down { purge } => place.down(purge)?,
    }
    Ok(ExitCode::SUCCESS)
}
