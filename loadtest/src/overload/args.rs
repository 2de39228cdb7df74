//! The command line of `overload`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use clap::builder::RangedU64ValueParser;

use crate::args::at_least_one;
use crate::bench::reader::DIGITS;

#[derive(Debug, Clone, Parser)]
#[group(skip)]
pub(crate) struct Overload {
    /// Pairs of users who talk in direct channels, with two sockets each.
    #[arg(long, default_value_t = 400, value_parser = at_least_one::<usize>())]
    pub(crate) pairs: usize,
    /// The overload, as a multiple of the capacity.
    #[arg(long, default_value_t = 2.0, value_parser = factor)]
    pub(crate) factor: f64,
    /// Messages a second that the server can do. By default the run finds out.
    #[arg(long, value_name = "RATE", value_parser = at_least_one::<u32>())]
    pub(crate) capacity: Option<u32>,
    /// Seconds of each step of the search for the capacity.
    #[arg(long, value_name = "SECS", default_value_t = 6, value_parser = clap::value_parser!(u64).range(3..=60))]
    pub(crate) step: u64,
    /// Seconds of the overload.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(10..=3_600))]
    pub(crate) seconds: u64,
    /// Messages a second before the search and after the overload.
    #[arg(long, value_name = "RATE", default_value_t = 20, value_parser = at_least_one::<u32>())]
    pub(crate) light: u32,
    /// Bytes of text of a message; at least 20, for its time and sender.
    #[arg(long, default_value_t = 100, value_parser = RangedU64ValueParser::<usize>::new().range(20..=100_000))]
    pub(crate) text: usize,
    /// Start the server with this shell command, and stop it at the end. It must listen on `--url`.
    #[arg(long, value_name = "CMD")]
    pub(crate) server: Option<String>,
    /// The file for the output of that server; by default a file in the temporary folder.
    #[arg(long, value_name = "FILE", requires = "server")]
    pub(crate) server_log: Option<PathBuf>,
    /// The URL of the server. Without `--server` it must run with `--limits off --consent off`.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    pub(crate) url: String,
    /// The process id of a server that runs already, to measure it.
    #[arg(long, conflicts_with = "server")]
    pub(crate) pid: Option<u32>,
    /// Write the report here, as JSON, and plots beside it, as SVG.
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// Distinguishes the users of this run from those of earlier runs on the same server.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

const _: () = assert!(DIGITS + 5 == 20, "the help says 20");

impl Overload {
    pub(super) const fn lasts(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

fn factor(text: &str) -> Result<f64, String> {
    let factor = text.parse().ok().filter(|factor| (1.0..=20.0).contains(factor));
    factor.ok_or_else(|| "expected a factor, 1 to 20".to_owned())
}
