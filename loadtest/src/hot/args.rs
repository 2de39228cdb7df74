//! The command line of `hot`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use crate::args::at_least_one;
use crate::bench::reader::DIGITS;

/// Seconds between two messages of one member: a blazing channel has a slow mode of five seconds.
const BETWEEN_SECONDS: u32 = 6;
/// Users who join and leave, for each attempt a second: each user acts every four seconds.
const VISITORS_PER_JOIN: usize = 4;
const VISITORS_MAX: usize = 10_000;

#[derive(Debug, Clone, Parser)]
#[group(skip)]
pub(crate) struct Hot {
    /// Members of the channel who read it, with one socket each.
    #[arg(long, default_value_t = 5_000, value_parser = at_least_one::<usize>())]
    pub(crate) members: usize,
    /// Messages a second in the channel.
    #[arg(long, default_value_t = 300, value_parser = at_least_one::<u32>())]
    pub(crate) rate: u32,
    /// Attempts to join or leave, a second.
    #[arg(long, default_value_t = 2_000)]
    pub(crate) joins: u32,
    /// Pairs of users who talk in direct channels, with one message a second each.
    #[arg(long, default_value_t = 500, value_parser = at_least_one::<usize>())]
    pub(crate) bystanders: usize,
    /// Seconds of the storm.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(4..=3_600))]
    pub(crate) seconds: u64,
    /// Reads of one page of the channel's history, a second.
    #[arg(long, value_name = "RATE", default_value_t = 0)]
    pub(crate) fetch_storm: u32,
    /// Bytes of text of a message; at least 20, for its time and sender.
    #[arg(long, default_value_t = 100, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(20..=100_000))]
    pub(crate) text: usize,
    /// Start the server with this shell command, and stop it at the end. It must listen on `--url`.
    #[arg(long, value_name = "CMD", conflicts_with = "connect")]
    pub(crate) server: Option<String>,
    /// The file for the output of that server; by default a file in the temporary folder.
    #[arg(long, value_name = "FILE", requires = "server")]
    pub(crate) server_log: Option<PathBuf>,
    /// The URL of the server. Without `--server` it must run with `--limits off --consent off`.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    pub(crate) url: String,
    /// URLs of the nodes of a fleet: the sockets are spread over them, and calls go to the first.
    #[arg(long, value_name = "URL", value_delimiter = ',', conflicts_with = "url")]
    pub(crate) connect: Vec<String>,
    /// The process id of a server that runs already, to measure it.
    #[arg(long, conflicts_with = "server")]
    pub(crate) pid: Option<u32>,
    /// Do not demand that the level rises and falls: for a server that does not measure heat.
    #[arg(long)]
    pub(crate) no_level: bool,
    /// Write the report here, as JSON, and plots beside it, as SVG.
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// Distinguishes the users of this run from those of earlier runs on the same server.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

const _: () = assert!(DIGITS + 5 == 20, "the help says 20");

impl Hot {
    pub(super) fn urls(&self) -> Vec<String> {
        if self.connect.is_empty() { vec![self.url.clone()] } else { self.connect.clone() }
    }

    /// Number of members who send.
    pub(super) fn senders(&self) -> u32 {
        let members = u32::try_from(self.members).unwrap_or(u32::MAX);
        self.rate.saturating_mul(BETWEEN_SECONDS).min(members)
    }

    /// Number of users who join and leave.
    pub(super) fn visitors(&self) -> usize {
        (self.joins as usize * VISITORS_PER_JOIN).min(VISITORS_MAX)
    }

    pub(super) const fn storm(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}
