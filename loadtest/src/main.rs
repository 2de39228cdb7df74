//! `madang-loadtest`: replays real conversations through a server, with kills, and judges whether the guarantees held.
//!
//! The course of a run: [`corpus`] → [`replay`] (creates users and channels and plays the days, one task per socket) →
//! [`judge`] (of the raw frames) → [`report`]. [`bench`] measures instead, [`hot`] drives a storm in one channel,
//! and [`overload`] offers more than a server can do.
//! Exit code 1 means that a guarantee was broken or a bound missed, 2 that the run failed.

mod args;
mod bench;
mod corpus;
mod fleet;
mod hot;
mod instruments;
mod judge;
mod open_files;
mod overload;
mod replay;
mod report;
mod server;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Command, CommandLine};

/// Threads of a measurement. The server needs the other cores.
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

/// Runs a command. Returns `false` if a guarantee was broken.
fn run(command: Command) -> anyhow::Result<bool> {
    open_files::raise();
    match command {
        Command::Replay(args) => runtime(args.threads.into())?.block_on(replay::run(*args)),
        Command::Bench(bench) => runtime(BENCH_THREADS)?.block_on(bench::run(bench)),
        Command::Hot(hot) => runtime(BENCH_THREADS)?.block_on(hot::run(*hot)),
        Command::Overload(overload) => runtime(BENCH_THREADS)?.block_on(overload::run(*overload)),
        Command::Reference(reference) => {
            runtime(BENCH_THREADS)?.block_on(bench::reference::run(reference)).map(|()| true)
        }
    }
}

fn runtime(threads: usize) -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()
}
