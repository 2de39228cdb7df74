//! Measurements: each prints figures with their conditions, medians of repeats, beside a bare reference in the same run.
//!
//! [`connections`] memory of connections that only wait, [`fanout`] deliveries in one channel, [`pairs`] many channels in
//! which little is said, [`sends`] durable sends a second, [`presence`] how soon people are seen to come and go,
//! [`resume`] and [`returns`] what catching up costs, [`greedy`] what one user may cost others, [`startup`] time until ready. [`cut`] and [`away`] are parts of fault runs. [`process`] starts and weighs
//! servers, [`people`] fills them, [`socket`] is the least that speaks their protocol, [`pace`] sends at a steady rate,
//! [`sender`] as fast as acks come, [`readers`] read in processes of their own, [`load`] puts these together,
//! [`reference`] are the bare servers. The figures and what they mean are in `docs/performance.md`.

pub(crate) mod args;
mod away;
mod beside;
mod connections;
mod cut;
mod fanout;
mod figures;
mod folder;
mod greedy;
mod load;
mod pace;
mod pairs;
mod people;
mod presence;
mod process;
mod reader;
mod readers;
pub(crate) mod reference;
mod resume;
mod returns;
mod sender;
mod sends;
mod socket;
mod startup;

use args::Bench;

/// Runs one measurement. False says that a guarantee broke.
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
    }
    Ok(true)
}
