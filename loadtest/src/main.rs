//! `madang-loadtest`: plays real conversations through a server, with kills, and judges whether the guarantees held.
//!
//! The way of a run: [`corpus`] → [`replay`] (sets the people and channels up, plays the days, one task a socket)
//! → [`judge`] (on the raw frames) → [`report`]. [`bench`] measures instead. Exit code 1 says that a guarantee
//! broke, 2 that the run failed.

mod args;
mod bench;
mod corpus;
mod judge;
mod open_files;
mod replay;
mod report;
mod server;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Command, CommandLine};

/// Threads of a measurement; the server wants its share.
const BENCH_THREADS: usize = 2;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match run(CommandLine::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("madang-loadtest: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// False says that a guarantee broke.
fn run(command: Command) -> anyhow::Result<bool> {
    open_files::raise();
    match command {
        Command::Replay(args) => runtime(args.threads.into())?.block_on(replay::run(*args)),
        Command::Bench(bench) => runtime(BENCH_THREADS)?.block_on(bench::run(bench)),
        Command::Reference(reference) => {
            runtime(BENCH_THREADS)?.block_on(bench::reference::run(reference)).map(|()| true)
        }
    }
}

fn runtime(threads: usize) -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()
}
