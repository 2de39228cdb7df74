//! Measurements. Each prints figures with their conditions, medians of repeats, and a bare reference from the same run.
//!
//! [`connections`]: memory of idle connections. [`fanout`]: deliveries in one channel. [`pairs`]: many channels with
//! little traffic. [`sends`]: durable sends per second. [`presence`]: how soon users see others come and go. [`resume`]
//! and [`returns`]: the cost of catching up. [`greedy`]: what one user may cost others. [`startup`]: time until ready.
//! [`fleet`]: the cost of a message in a fleet. [`push`]: alerts for users who are away.
//! [`cut`] and [`away`] are parts of fault runs. [`process`] starts and measures servers, [`people`] fills them,
//! [`socket`] is a minimal client of their protocol, [`pace`] sends at a steady rate, [`sender`] as fast as acks
//! arrive, [`readers`] read in processes of their own, [`load`] combines these, [`reference`] contains the bare
//! servers. `docs/performance.md` contains the figures and their meaning. [`crate::hot`] uses some of these parts too.

pub(crate) mod args;
mod away;
mod beside;
mod connections;
mod cut;
mod fanout;
pub(crate) mod figures;
mod fleet;
pub(crate) mod folder;
mod greedy;
mod load;
pub(crate) mod pace;
mod pairs;
pub(crate) mod people;
mod presence;
pub(crate) mod process;
mod push;
pub(crate) mod reader;
pub(crate) mod readers;
pub(crate) mod reference;
mod resume;
mod returns;
mod sender;
mod sends;
pub(crate) mod socket;
mod startup;

use args::Bench;

/// Runs one measurement. Returns `false` if a guarantee was broken.
pub(crate) async fn run(bench: Bench) -> anyhow::Result<bool> {
    match bench {
        Bench::Presence(args) => return presence::run(args).await,
        Bench::Connections(args) => connections::run(args).await?,
        Bench::Fanout(args) => fanout::run(args).await?,
        Bench::Pairs(args) => pairs::run(args).await?,
        Bench::Sends(args) => sends::run(args).await?,
        Bench::Resume(args) => resume::run(args).await?,
        Bench::Returns(args) => returns::run(args).await?,
        Bench::Greedy(args) => greedy::run(args).await?,
        Bench::Startup(args) => startup::run(args).await?,
        Bench::Cut(args) => cut::run(args).await?,
        Bench::Away(args) => away::run(args).await?,
        Bench::Fleet(args) => fleet::run(args).await?,
        Bench::Push(args) => push::run(args).await?,
    }
    Ok(true)
}
