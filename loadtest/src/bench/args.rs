//! The command lines of measurements.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::args::at_least_one;

/// What is measured.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Bench {
    /// Memory of connections that only wait, and what their heartbeats cost.
    Idle(Idle),
    /// Deliveries in one group, all of whose members are connected.
    Fanout(Fanout),
    /// Durable sends over distinct direct channels.
    Sends(Sends),
    /// Time from the start of the process until it is ready.
    Startup(Startup),
}

#[derive(Debug, Clone, Parser)]
#[group(skip)]
pub(crate) struct Idle {
    /// Connections, each of another user.
    #[arg(long, default_value_t = 15_000)]
    pub(crate) connections: usize,
    /// Groups of each user.
    #[arg(long, default_value_t = 3)]
    pub(crate) channels: usize,
    /// Members of each group.
    #[arg(long, default_value_t = 10)]
    pub(crate) members: usize,
    /// Seconds of heartbeats, one every five seconds on each connection, in the last repeat.
    #[arg(long, default_value_t = 60)]
    pub(crate) heartbeat_seconds: u64,
    /// The server is started anew so often.
    #[arg(long, default_value_t = 3)]
    pub(crate) repeats: usize,
}

#[derive(Debug, Clone, Parser)]
#[group(skip)]
pub(crate) struct Fanout {
    /// Members of the group, one socket each.
    #[arg(long, default_value_t = 100)]
    pub(crate) members: usize,
    /// Members who send.
    #[arg(long, default_value_t = 1)]
    pub(crate) senders: usize,
    /// Messages of each sender under way: sent, and not yet delivered back to her. A list makes a table.
    #[arg(long, value_delimiter = ',', default_value = "1,4,16,64", value_parser = at_least_one::<usize>())]
    pub(crate) in_flight: Vec<usize>,
    #[command(flatten)]
    pub(crate) rounds: Rounds,
}

#[derive(Debug, Clone, Parser)]
#[group(skip)]
pub(crate) struct Sends {
    /// Connections with one message under way each. A list makes a table.
    #[arg(long, value_delimiter = ',', default_value = "1,16,64,256", value_parser = at_least_one::<usize>())]
    pub(crate) in_flight: Vec<usize>,
    /// Those to whom the messages go are connected, too.
    #[arg(long)]
    pub(crate) receivers: bool,
    #[command(flatten)]
    pub(crate) rounds: Rounds,
}

/// How each row of a table is measured.
#[derive(Debug, Clone, Copy, Args)]
#[group(skip)]
pub(crate) struct Rounds {
    /// Bytes of text.
    #[arg(long, default_value_t = 100)]
    pub(crate) text: usize,
    /// Seconds of each round.
    #[arg(long, default_value_t = 4, value_parser = at_least_one::<u64>())]
    pub(crate) seconds: u64,
    /// Rounds, of which the median counts.
    #[arg(long, default_value_t = 3, value_parser = at_least_one::<usize>())]
    pub(crate) repeats: usize,
}

impl Rounds {
    pub(crate) const fn lasts(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

#[derive(Debug, Clone, Parser)]
#[group(skip)]
pub(crate) struct Startup {
    /// A data folder on which no server runs; by default one is made by playing made-up days.
    #[arg(long)]
    pub(crate) data: Option<PathBuf>,
    /// How many made-up days.
    #[arg(long, default_value_t = 50)]
    pub(crate) days: usize,
    #[arg(long, default_value_t = 5)]
    pub(crate) repeats: usize,
}

/// Bare servers that measurements start beside the real one.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Reference {
    /// Accepts WebSockets and holds them.
    Idle,
    /// Writes blocks of frames to its connections, one after the other, at a rate.
    Fanout {
        /// Connections to wait for.
        #[arg(long)]
        connections: usize,
        /// Bytes of one write.
        #[arg(long)]
        write_bytes: usize,
        /// Frames in it.
        #[arg(long)]
        frames: usize,
        /// Writes to each connection, a second: figures per CPU second compare at equal load only.
        #[arg(long)]
        rate: f64,
        #[arg(long)]
        seconds: u64,
    },
}
