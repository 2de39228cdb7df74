//! The command lines of measurements.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::args::at_least_one;

/// What is measured.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Bench {
    /// Memory of idle connections, and CPU of their heartbeats.
    Connections(Connections),
    /// Deliveries in one channel, at a steady rate.
    Fanout(Fanout),
    /// Many channels with few messages each: the CPU that the server needs for them.
    Pairs(Pairs),
    /// Durable sends over distinct direct channels, as fast as they are acked.
    Sends(Sends),
    /// Time until users see that others connect, leave and crash, and flaps of presence. Exit code 1 if it takes more than
    /// 30 s, or if a user flaps.
    Presence(Presence),
    /// The cost of bringing a device up to date that missed entries in some of its many channels.
    Resume(Resume),
    /// Devices that all reconnect at once after a crash of the server.
    Returns(Returns),
    /// One user who makes the most expensive requests that the limits admit: the effect on others.
    Greedy(Greedy),
    /// Time from the start of the process until it is ready.
    Startup(Startup),
    /// Connections that are all reset at once and reconnect. Run by `cargo xtask faults`.
    Cut(Cut),
    /// The cost of a message in a running fleet. Run by `cargo xtask bench fleet`.
    Fleet(Fleet),
    /// Alerts for users who are away: how many in a second, at what cost, and what a push service that hangs costs others.
    Push(PushArgs),
    /// Devices whose cursor is no longer valid, or that stop reading; each must end equal to the store. Run by
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
    /// Number of repeats, each with a new start of the server.
    #[arg(long, default_value_t = 3)]
    pub(crate) repeats: usize,
}

/// How messages are sent.
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
    /// Number of subscribers, one socket each, in as many processes as the limit of open files needs.
    #[arg(long, default_value_t = 1_000, value_parser = at_least_one::<usize>())]
    pub(crate) subscribers: usize,
    /// Messages a second, all from one sender. Keep it below the capacity of the machine: above it latencies mean nothing.
    #[arg(long, default_value_t = 50, value_parser = at_least_one::<u32>())]
    pub(crate) rate: u32,
    /// How messages are sent. A list makes a table.
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
    /// Users who connect and leave, a quarter in each way: with a close, by a reset, by silence, and back at once.
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(4..=90))]
    pub(crate) people: u32,
    /// Users who watch.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=9))]
    pub(crate) watchers: u32,
    /// How often each user connects and leaves.
    #[arg(long, default_value_t = 2, value_parser = at_least_one::<u32>())]
    pub(crate) rounds: u32,
}

#[derive(Debug, Clone, Parser)]
#[group(skip)]
pub(crate) struct Resume {
    /// Channels of the device's user.
    #[arg(long, default_value_t = 500, value_parser = at_least_one::<usize>())]
    pub(crate) channels: usize,
    /// Number of these channels that have new messages.
    #[arg(long, default_value_t = 50, value_parser = at_least_one::<usize>())]
    pub(crate) moved: usize,
    /// Number of new messages, in all of them together.
    #[arg(long, default_value_t = 1_000, value_parser = at_least_one::<usize>())]
    pub(crate) missed: usize,
    /// Number of times that the device resumes from the same cursor.
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
    /// Seconds for which the user sends requests.
    #[arg(long, default_value_t = 30, value_parser = at_least_one::<u64>())]
    pub(crate) seconds: u64,
}

#[derive(Debug, Clone, Parser)]
#[group(skip)]
pub(crate) struct PushArgs {
    /// Alerts, at least. They are due in rounds of 499 for each group.
    #[arg(long, default_value_t = 100_000, value_parser = at_least_one::<usize>())]
    pub(crate) alerts: usize,
    /// Groups of 500 users, in which all of them are.
    #[arg(long, default_value_t = 201, value_parser = at_least_one::<usize>())]
    pub(crate) groups: usize,
}

#[derive(Debug, Clone, Parser)]
#[group(skip)]
pub(crate) struct Cut {
    /// The URL of the server.
    #[arg(long)]
    pub(crate) url: String,
    /// Devices, each of another user.
    #[arg(long, default_value_t = 15_000, value_parser = at_least_one::<usize>())]
    pub(crate) count: usize,
    /// Members of each group; each user is in one.
    #[arg(long, default_value_t = 10, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(2..=100))]
    pub(crate) members: usize,
    /// Messages that each device misses while it is away.
    #[arg(long, default_value_t = 2, value_parser = at_least_one::<usize>())]
    pub(crate) missed: usize,
}

/// Why a device is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scene {
    /// It misses more than 10,000 items.
    Far,
    /// A backup is restored that is older than the device's cursor.
    Restored,
    /// It stops reading for longer than its connection survives.
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
    /// Connections with one message in flight each. A list makes a table.
    #[arg(long, value_delimiter = ',', default_value = "1,16,64,256", value_parser = at_least_one::<usize>())]
    pub(crate) in_flight: Vec<usize>,
    /// Connect the receivers too.
    #[arg(long)]
    pub(crate) receivers: bool,
    #[command(flatten)]
    pub(crate) rounds: Rounds,
}

#[derive(Debug, Clone, Parser)]
#[group(skip)]
pub(crate) struct Fleet {
    /// The folder of a fleet that nobody else uses.
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// Milliseconds of a bare conditional batch on the same cluster, to compare with.
    #[arg(long)]
    pub(crate) bare_ms: Option<f64>,
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
    /// A data folder that no server uses; by default one is made by playing generated days.
    #[arg(long)]
    pub(crate) data: Option<PathBuf>,
    /// Number of generated days.
    #[arg(long, default_value_t = 50)]
    pub(crate) days: usize,
    #[arg(long, default_value_t = 5)]
    pub(crate) repeats: usize,
}

/// A process that reads many connections, and answers questions on its standard input: readers or watchers.
#[derive(Debug, Clone, Parser)]
#[group(skip)]
pub(crate) struct Readers {
    #[arg(long)]
    pub(crate) addr: String,
    /// A line for each connection: its number, its token (or `-` to send nothing at all), and the open channel to
    /// subscribe to (or `-`). Watchers do not subscribe if the head of a direct channel is the fourth word.
    #[arg(long)]
    pub(crate) list: PathBuf,
}

/// Processes that measurements start: bare servers beside the real one, and readers.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Reference {
    /// Reads many connections.
    Readers(Readers),
    /// Reads many connections, each of which receives one channel, and checks that nothing is missing.
    Watchers(Readers),
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
