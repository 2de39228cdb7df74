//! The command line.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use madang_proto::ChannelKind;

use crate::bench::args::{Bench, Reference};
use crate::fleet::Role;
use crate::hot::Hot;
use crate::overload::Overload;

/// Between kills, or between drops.
const SECONDS: RangeInclusive<f64> = 0.1..=86_400.0;

/// Plays conversations through a Madang server and checks whether its guarantees held.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct CommandLine {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Replays days of IRC: each nick is a user, each day a channel, each line a message.
    ///
    /// Exit code 1: a guarantee broke; 2: the run failed. The server should run with `--limits off --consent off`
    /// and, for days with more than 100 speakers, MADANG_CHANNELS__GROUP_MEMBERS=500; a server that the run starts
    /// (`--server`) has these settings, and cheap password hashing, in its environment. Devices connect to `--url`; in
    /// a fleet (`--connect` or `--fleet`) they ask for a node before each connection, and after a kill they go on with
    /// another one. Calls go to another address if one cannot be reached.
    Replay(Box<Replay>),
    /// Measures a server and a bare reference in the same run. Started by `cargo xtask bench`.
    #[command(subcommand)]
    Bench(Bench),
    /// A storm in one open channel: messages, joins and reads at rates that wait for nothing, while bystanders talk in
    /// direct channels. Exit code 1: a bound was missed, or an entry was lost; 2: the run failed.
    Hot(Box<Hot>),
    /// More than a server can do, of all kinds of requests, after a search for its capacity: it must refuse the least
    /// important ones first, lose nothing, and recover. Exit code 1: a bound was missed; 2: the run failed.
    Overload(Box<Overload>),
    /// A bare server that serves as the reference.
    #[command(subcommand, hide = true)]
    Reference(Reference),
}

#[derive(Debug, Clone, Parser)]
#[group(skip)]
#[command(group = ArgGroup::new("killable").args(["server", "fleet"]))]
pub(crate) struct Replay {
    #[command(flatten)]
    pub(crate) source: Source,
    /// Play only the first days.
    #[arg(long, value_parser = at_least_one::<usize>())]
    pub(crate) days: Option<usize>,
    /// Play only the first lines of each day.
    #[arg(long, value_parser = at_least_one::<usize>())]
    pub(crate) lines: Option<usize>,
    /// The URL of the server. Its nodes are not asked for; devices connect to it.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    pub(crate) url: String,
    /// URLs of a fleet: devices ask one of them for a node (POST /v1/connect), and calls are spread over them.
    #[arg(long, value_name = "URL", value_delimiter = ',', conflicts_with_all = ["url", "server", "fleet"])]
    pub(crate) connect: Vec<String>,
    /// The folder of a running fleet. Its fleet.json names the URLs, and the members that may be killed:
    /// {"connect": [URL], "nodes": [{"name", "role", "url", "pid"}]}.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["url", "server"])]
    pub(crate) fleet: Option<PathBuf>,
    /// Trust the certificates of this PEM file too, besides those of the system.
    #[arg(long, value_name = "FILE")]
    pub(crate) root_cert: Option<PathBuf>,
    /// The speed as a multiple of real time (such as 60x), or max: as fast as acks come.
    #[arg(long, default_value = "max")]
    pub(crate) speed: Speed,
    /// Devices of each user.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=50))]
    pub(crate) devices: u32,
    /// The kind of channel that a day becomes.
    #[arg(long, value_enum, default_value_t = DayChannel::Group)]
    pub(crate) channel_kind: DayChannel,
    /// The members of a day's channel, over time.
    #[arg(long, value_enum, default_value_t = Membership::Fixed)]
    pub(crate) membership: Membership,
    #[command(flatten)]
    pub(crate) shares: Shares,
    /// Sends in flight per channel.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) window: u32,
    /// Maximum number of open sockets.
    #[arg(long, default_value_t = 8_000, value_parser = at_least_one::<usize>())]
    pub(crate) sockets: usize,
    /// Devices drop their connection and resume at random.
    #[arg(long)]
    pub(crate) churn: bool,
    /// Seconds between a device's drops, on average.
    #[arg(long, value_name = "SECS", default_value_t = 20.0, value_parser = seconds)]
    pub(crate) churn_every: f64,
    /// Start the server with this shell command, and stop it at the end.
    #[arg(long, value_name = "CMD")]
    pub(crate) server: Option<String>,
    /// The file for the output of that server; by default a file in the temporary folder.
    #[arg(long, value_name = "FILE", requires = "server")]
    pub(crate) server_log: Option<PathBuf>,
    /// Seconds between kills: the server is killed with SIGKILL and started again. In a fleet one member at a time is
    /// killed, and started again with `DIR/restart NAME` if that program exists.
    #[arg(long, value_name = "SECS", requires = "killable", value_parser = seconds)]
    pub(crate) kill_every: Option<f64>,
    /// The members of a fleet that are killed. After a kill of redis devices may have to take a snapshot; while the only
    /// node of cql is down, no send is answered.
    #[arg(long, value_name = "ROLE", value_enum, value_delimiter = ',', requires = "fleet")]
    #[arg(default_values_t = [Role::Chat, Role::Presence, Role::Discovery])]
    pub(crate) kill: Vec<Role>,
    /// Redis is lost during the run by another hand: devices may have to take snapshots.
    #[arg(long)]
    pub(crate) snapshots: bool,
    /// Write the report here, as JSON; to standard output by default.
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// The seed of all random choices.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Give up after this number of seconds without an ack or a missing entry, while all servers run.
    #[arg(long, value_name = "SECS", default_value_t = 30, value_parser = at_least_one::<u64>())]
    pub(crate) patience: u64,
    /// Number of threads; leave some cores to the server.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) threads: u16,
}

/// What is played.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Source {
    /// A folder, .tar or .tar.xz of IRC day files.
    #[arg(long, value_name = "PATH")]
    pub(crate) corpus: Option<PathBuf>,
    /// Generate this number of days of the same shape instead.
    #[arg(long, value_name = "DAYS", value_parser = at_least_one::<usize>())]
    pub(crate) synthetic: Option<usize>,
}

/// How much happens besides the lines.
#[derive(Debug, Clone, Copy, Args)]
#[group(skip)]
pub(crate) struct Shares {
    /// Share of the messages that their sender edits later, once or more often.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    pub(crate) edits: f64,
    /// Share of the messages that their sender deletes later.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    pub(crate) deletes: f64,
    /// Share of the messages to which some members react; one in three removes the reaction.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    pub(crate) reactions: f64,
    /// Share of the lines before which a user is banned for a while; each user at most once a day.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    pub(crate) bans: f64,
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "expected a share, 0 to 1".to_owned())
}

/// A count of which none makes no sense.
pub(crate) fn at_least_one<T: TryFrom<u64> + Clone + Send + Sync + 'static>() -> RangedU64ValueParser<T>
where
    T::Error: std::error::Error + Send + Sync + 'static,
{
    RangedU64ValueParser::new().range(1..)
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds| SECONDS.contains(seconds));
    seconds.ok_or_else(|| format!("expected seconds, {} to {}", SECONDS.start(), SECONDS.end()))
}

/// The kind of channel that a day becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DayChannel {
    /// A group of the users who speak on the day.
    Group,
    /// An open channel, which the speakers join, and to which their devices subscribe.
    Open,
}

/// The members of a day's channel, over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Membership {
    /// All speakers of the day, from its first line to its last.
    Fixed,
    /// As the notices say (`=== nick has joined`, `has left`, `is now known as`): a speaker who never joined is
    /// a member from the start; after a change of nick the user stays the same, with another display name.
    Corpus,
}

impl From<DayChannel> for ChannelKind {
    fn from(kind: DayChannel) -> Self {
        match kind {
            DayChannel::Group => Self::Group,
            DayChannel::Open => Self::Open,
        }
    }
}

/// How fast time goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Speed {
    /// As fast as acks come.
    Max,
    /// A multiple of real time.
    Times(f64),
}

impl FromStr for Speed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "max" {
            return Ok(Self::Max);
        }
        let times = text.strip_suffix('x').and_then(|times| times.parse::<f64>().ok());
        times
            .filter(|times| *times > 0.0 && times.is_finite())
            .map(Self::Times)
            .ok_or_else(|| "expected max or a number such as 60x".to_owned())
    }
}

impl Replay {
    /// Whether people come and go while a day is played.
    pub(crate) fn is_moving(&self) -> bool {
        self.membership == Membership::Corpus || self.shares.bans > 0.0
    }

    /// Whether devices ask for a node.
    pub(crate) const fn is_fleet(&self) -> bool {
        self.fleet.is_some() || !self.connect.is_empty()
    }

    pub(crate) const fn patience(&self) -> Duration {
        Duration::from_secs(self.patience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds_are_read() {
        assert_eq!("max".parse(), Ok(Speed::Max));
        assert_eq!("60x".parse(), Ok(Speed::Times(60.0)));
        for text in ["", "60", "0x", "-1x", "infx", "nanx", "fast"] {
            assert!(text.parse::<Speed>().is_err(), "{text}");
        }
    }
}
