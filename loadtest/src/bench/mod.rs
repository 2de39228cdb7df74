//! Measurements: each prints figures with their conditions, medians of repeats, beside a bare reference in the same run.
//!
//! [`idle`] memory of connections that only wait, [`fanout`] deliveries a second, [`sends`] durable sends a second,
//! [`startup`] time until ready. [`process`] starts and weighs servers, [`people`] fills them, [`socket`] is the least
//! that speaks their protocol, [`reference`] are the bare servers. The figures and what they mean are in
//! `docs/performance.md`.

pub(crate) mod args;
mod fanout;
mod figures;
mod folder;
mod idle;
mod people;
mod process;
mod reader;
pub(crate) mod reference;
mod sender;
mod sends;
mod socket;
mod startup;

use args::Bench;

/// Runs one measurement.
pub(crate) async fn run(bench: Bench) -> anyhow::Result<()> {
    match bench {
        Bench::Idle(args) => idle::run(args).await,
        Bench::Fanout(args) => fanout::run(args).await,
        Bench::Sends(args) => sends::run(args).await,
        Bench::Startup(args) => startup::run(args).await,
    }
}
