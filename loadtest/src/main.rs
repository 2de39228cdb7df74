//! `madang-loadtest`: plays real conversations through a server, with kills, and judges whether the guarantees held.
//!
//! The way of a run: [`corpus`] → [`replay`] (sets the people and channels up, plays the days, one task a socket)
//! → [`judge`] (on the raw frames) → [`report`]. Exit code 1 says that a guarantee broke, 2 that the run failed.

mod args;
mod corpus;
mod judge;
mod open_files;
mod replay;
mod report;
mod server;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Args, Command};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let Args { command: Command::Replay(args) } = Args::parse();
    match run(args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("madang-loadtest: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(args: args::Replay) -> anyhow::Result<bool> {
    args.check()?;
    open_files::raise();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(args.threads).enable_all().build()?;
    runtime.block_on(replay::run(args))
}
