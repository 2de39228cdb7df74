//! `cargo xtask …`: the only entry points of the project. CI calls them and nothing else.
//!
//! What checks (`test`, `tidy`) never writes to the tree.

mod bench;
mod cargo;
mod replay;
mod steps;
mod test;
mod tidy;

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
    /// Builds the server for release and serves; further arguments go to `madang serve`.
    Run {
        /// Arguments of `madang serve`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Checks everything: format, lints, tidy, tests, slow tests, a run with kills, planted faults.
    Test {
        /// Leaves out the slow tests and the runs of the load tool.
        #[arg(long)]
        quick: bool,
    },
    /// Sees that the load tool finds each fault that is planted in a server built for that.
    Planted,
    /// Checks what only this project knows about itself: arrows, names, sizes, links.
    Tidy,
    /// Measures; without a name, says what can be measured.
    Bench {
        /// What to measure.
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
        Task::Test { quick } => test::run(quick),
        Task::Planted => {
            replay::with_planted_faults(&cargo::Metadata::read()?.target_directory)?;
            Ok(ExitCode::SUCCESS)
        }
        Task::Tidy => tidy::run(),
        Task::Bench { name, args } => bench::run(name.as_deref(), &args),
    }
}
