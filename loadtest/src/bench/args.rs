//! The command lines of measurements.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::args::at_least_one;

/// What is measured.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Bench {
    /// Memory of connections that only wait, and what their heartbeats cost.
    Connections(Connections),
    /// Deliveries in one channel, at a steady rate.
    Fanout(Fanout),
    /// Many channels in which little is said: what the server's CPU has to do for them.
    Pairs(Pairs),
    /// Durable sends over distinct direct channels, as fast as they are acked.
    Sends(Sends),
    /// How soon people see that others come, go and crash, and whether anybody flaps. Exit code 1 if that is not within
    /// 30 s, or if somebody flaps.
    Presence(Presence),
    /// What it costs to catch up with a device that missed entries in some of its many channels.
    Resume(Resume),
    /// Devices that all come back at once after a crash of the server.
    Returns(Returns),
    /// One user who asks for the most expensive that the limits admit: what others feel of it.
    Greedy(Greedy),
    /// Time from the start of the process until it is ready.
    Startup(Startup),
    /// Connections that are all reset at once and come back. Played by `cargo xtask faults`.
    Cut(Cut),
    /// Devices that a cursor does not serve, or that stop reading; each must end equal to the store. Played by
    /// `cargo xtask faults`.
    Away(Away),
}

/// A kind of channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    Open,
    Group,
    Direct,
}

#[derive(Debug, Clone, Parser)]
#[group(skip)]
pub(crate) struct Connections {
    /// Connections, each of another user.
    #[arg(long, default_value_t = 15_000, value_parser = at_least_one::<usize>())]
    pub(crate) count: usize,
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

/// How messages go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Frames {
    /// Evenly: each message is a frame of its own.
    Single,
    /// In bursts: several entries may share a frame, and several frames a write.
    Coalesced,
}

#[derive(Debug, Clone, Parser)]
#[group(skip)]
pub(crate) struct Fanout {
    /// Those to whom everything goes, one socket each, in as many processes as open files need.
    #[arg(long, default_value_t = 1_000, value_parser = at_least_one::<usize>())]
    pub(crate) subscribers: usize,
    /// Messages a second, all of one sender. Keep it below what the machine can do: latencies say nothing above it.
    #[arg(long, default_value_t = 50, value_parser = at_least_one::<u32>())]
    pub(crate) rate: u32,
    /// How they go out. A list makes a table.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "single,coalesced")]
    pub(crate) frames: Vec<Frames>,
    /// The channel; groups have at most 500 members.
    #[arg(long, value_enum, default_value_t = Kind::Open)]
    pub(crate) kind: Kind,
    #[command(flatten)]
    pub(crate) rounds: Rounds,
}

#[derive(Debug, Clone, Parser)]
#[group(skip)]
pub(crate) struct Pairs {
    /// Channels.
    #[arg(long, default_value_t = 1_000, value_parser = at_least_one::<usize>())]
    pub(crate) count: usize,
    /// Subscribers of each, one socket each, besides its sender. A direct channel has one.
    #[arg(long, default_value_t = 10, value_parser = at_least_one::<usize>())]
    pub(crate) subscribers: usize,
    /// Kinds of channels. A list makes a table.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "open,direct")]
    pub(crate) kinds: Vec<Kind>,
    /// Messages a second in each channel.
    #[arg(long, default_value_t = 1, value_parser = at_least_one::<u32>())]
    pub(crate) rate: u32,
    /// Seconds.
    #[arg(long, default_value_t = 20, value_parser = at_least_one::<u64>())]
    pub(crate) seconds: u64,
    /// Bytes of text.
    #[arg(long, default_value_t = 100)]
    pub(crate) text: usize,
}

#[derive(Debug, Clone, Parser)]
#[group(skip)]
pub(crate) struct Presence {
    /// People who come and go, a quarter in each way: with a farewell, by a reset, by falling silent, and back at once.
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(4..=90))]
    pub(crate) people: u32,
    /// People who look on.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=9))]
    pub(crate) watchers: u32,
    /// How often each comes and goes.
    #[arg(long, default_value_t = 2, value_parser = at_least_one::<u32>())]
    pub(crate) rounds: u32,
}

#[derive(Debug, Clone, Parser)]
#[group(skip)]
pub(crate) struct Resume {
    /// Channels of the device's user.
    #[arg(long, default_value_t = 500, value_parser = at_least_one::<usize>())]
    pub(crate) channels: usize,
    /// In how many of them something was said.
    #[arg(long, default_value_t = 50, value_parser = at_least_one::<usize>())]
    pub(crate) moved: usize,
    /// How much, in all of them together.
    #[arg(long, default_value_t = 1_000, value_parser = at_least_one::<usize>())]
    pub(crate) missed: usize,
    /// The device resumes from the same cursor so often.
    #[arg(long, default_value_t = 50, value_parser = at_least_one::<usize>())]
    pub(crate) repeats: usize,
}

#[derive(Debug, Clone, Parser)]
#[group(skip)]
pub(crate) struct Returns {
    /// Devices, each of another user.
    #[arg(long, default_value_t = 10_000, value_parser = at_least_one::<usize>())]
    pub(crate) count: usize,
    /// Members of each group; each user is in one.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(2..=100))]
    pub(crate) members: u64,
    /// Messages that each device missed.
    #[arg(long, default_value_t = 5, value_parser = at_least_one::<usize>())]
    pub(crate) missed: usize,
}

#[derive(Debug, Clone, Parser)]
#[group(skip)]
pub(crate) struct Greedy {
    /// How long the user asks.
    #[arg(long, default_value_t = 30, value_parser = at_least_one::<u64>())]
    pub(crate) seconds: u64,
}

#[derive(Debug, Clone, Parser)]
#[group(skip)]
pub(crate) struct Cut {
    /// Where the server is.
    #[arg(long)]
    pub(crate) url: String,
    /// Devices, each of another user.
    #[arg(long, default_value_t = 15_000, value_parser = at_least_one::<usize>())]
    pub(crate) count: usize,
    /// Members of each group; each user is in one.
    #[arg(long, default_value_t = 10, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(2..=100))]
    pub(crate) members: usize,
    /// Messages that each device misses meanwhile.
    #[arg(long, default_value_t = 2, value_parser = at_least_one::<usize>())]
    pub(crate) missed: usize,
}

/// Why a device is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scene {
    /// It misses more than 10,000 items.
    Far,
    /// A backup is restored that knows less than it.
    Restored,
    /// It stops reading for longer than its connection holds out.
    Stopped,
}

#[derive(Debug, Clone, Parser)]
#[group(skip)]
pub(crate) struct Away {
    #[arg(value_enum)]
    pub(crate) scene: Scene,
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

/// A process that reads many connections, and answers questions on its standard input.
#[derive(Debug, Clone, Parser)]
#[group(skip)]
pub(crate) struct Readers {
    #[arg(long)]
    pub(crate) addr: String,
    /// A line for each connection: its number, its token (or `-` to say nothing at all), and the open channel to
    /// subscribe to (or `-`).
    #[arg(long)]
    pub(crate) list: PathBuf,
}

/// Processes that measurements start: bare servers beside the real one, and readers.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Reference {
    /// Reads many connections.
    Readers(Readers),
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
