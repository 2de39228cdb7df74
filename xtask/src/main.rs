//! `cargo xtask …`: the only entry points of the project. CI calls them and nothing else.
//!
//! Commands that check (`test`, `tidy`) never write to the tree.

mod autobahn;
mod bench;
mod cargo;
mod faults;
mod fleet;
mod fuzz;
mod push_sandbox;
mod replay;
mod services;
mod steps;
mod test;
mod tidy;
mod web;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Entry points of Madang.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Builds the server for release and runs it. Further arguments are passed to `madang serve`.
    Run {
        /// Arguments of `madang serve`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Checks everything: format, lints, tidy, tests, slow tests, runs with kills, planted faults.
    Test {
        /// Skips the slow tests and the runs of the load tool.
        #[arg(long)]
        quick: bool,
        /// With --quick: also runs the tests over real Redis and Cassandra servers. Without: also the suite of the store over three
        /// Cassandra nodes, one of which is killed.
        #[arg(long)]
        fleet: bool,
    },
    /// Checks that the load tool finds each fault that is planted in a special build of the server.
    Planted,
    /// Tests what each kind of user may do, and writes docs/rights.md.
    Rights,
    /// Checks the tree for rules of this project: dependencies, names, sizes, links, prose.
    Tidy,
    /// Checks that sockets conform to RFC 6455 with the server cases of the Autobahn testsuite. Writes
    /// docs/reports/autobahn.json.
    Autobahn,
    /// Searches for inputs that break a decoder. Writes docs/reports/fuzzing.json.
    Fuzz {
        /// Seconds for each target.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// Number of targets at the same time; by default the number of cores.
        #[arg(long)]
        at_once: Option<usize>,
        /// One target, instead of all.
        target: Option<String>,
    },
    /// Checks that a real server, or a fleet, keeps its guarantees through faults. Writes docs/reports/faults.json.
    Faults(faults::Faults),
    /// Runs Redis and Cassandra on loopback, without root, for the tests of a fleet.
    Services(services::Services),
    /// Runs a whole fleet on loopback: chat nodes, discovery and presence over Cassandra and Redis.
    Fleet(fleet::Fleet),
    /// Runs stand-ins for APNs, FCM, push services of browsers and receivers of webhooks, and prints what they get.
    PushSandbox(push_sandbox::PushSandbox),
    /// Builds the operators' page with Node; the next build of the server embeds it.
    Web,
    /// Runs a measurement. Without a name, lists all measurements.
    Bench {
        /// Name of the measurement.
        name: Option<String>,
        /// Arguments of the measurement.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<ExitCode> {
    match task {
        Task::Run { args } => {
            let mut command =
                cargo::cargo(&["run", "--release", "-p", "madang-chat-server", "--bin", "madang"]);
            command.args(["--", "serve"]).args(args);
            Err(cargo::become_command(&mut command))
        }
        Task::Test { quick, fleet } => test::run(quick, fleet),
        Task::Planted => {
            replay::with_planted_faults(&cargo::Metadata::read()?.target_directory)?;
            Ok(ExitCode::SUCCESS)
        }
        Task::Rights => {
            let mut command = cargo::cargo(&["test", "-p", "madang-chat-server", "--test", "rights"]);
            Err(cargo::become_command(command.env("MADANG_RIGHTS", "write")))
        }
        Task::Tidy => tidy::run(),
        Task::Autobahn => autobahn::run(),
        Task::Fuzz { seconds, at_once, target } => fuzz::run(seconds, at_once, target.as_deref()),
        Task::Faults(args) => faults::run(args),
        Task::Services(args) => services::run(args),
        Task::Fleet(args) => fleet::run(args),
        Task::PushSandbox(args) => push_sandbox::run(args),
        Task::Web => web::run(),
        Task::Bench { name, args } => bench::run(name.as_deref(), &args),
    }
}
