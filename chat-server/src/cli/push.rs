//! `madang push`: tests, answers to "why was there no alert?", and dead letters.

use std::path::Path;

use clap::{Args, Subcommand};
use madang_ids::{ChannelId, Seq};

use super::answers::Common;
use super::operator::{Ask, PushAsk};

/// Look after push notifications.
#[derive(Debug, Subcommand)]
pub(super) enum Push {
    /// Send a test notification to all devices of a user, and print what the providers answer.
    Test(Test),
    /// Print what happened about one message for a user: whether there was an alert, on which devices, or why not. Kept for 7 days.
    Why(Why),
    /// Alerts that were given up.
    #[command(subcommand)]
    Dead(Dead),
}

#[derive(Debug, Args)]
pub(super) struct Test {
    /// The user's handle.
    #[arg(long)]
    user: String,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(super) struct Why {
    /// The user's handle.
    #[arg(long)]
    user: String,
    /// The channel of the message.
    #[arg(long)]
    channel: ChannelId,
    /// The place of the message in its channel.
    #[arg(long)]
    seq: u64,
    #[command(flatten)]
    common: Common,
}

/// Look after alerts that were given up.
#[derive(Debug, Subcommand)]
pub(super) enum Dead {
    /// List them by id, one page at a time.
    List(List),
    /// Decide and send them again: one of them, or all.
    Redrive(Redrive),
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// Only letters after this one, the last of the previous page.
    #[arg(long, default_value_t = 0)]
    after: u64,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(super) struct Redrive {
    /// The id of the letter.
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    id: Option<u64>,
    /// All of them.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    common: Common,
}

impl Push {
    pub(super) fn run(self, config: Option<&Path>) -> anyhow::Result<()> {
        let (ask, common) = match self {
            Self::Test(Test { user, common }) => (PushAsk::Test { handle: user }, common),
            Self::Why(Why { user, channel, seq, common }) => {
                (PushAsk::Why { handle: user, channel, seq: Seq::new(seq) }, common)
            }
            Self::Dead(Dead::List(List { after, common })) => (PushAsk::Dead { after }, common),
            Self::Dead(Dead::Redrive(Redrive { id, common, .. })) => (PushAsk::Redrive { id }, common),
        };
        common.ask(config, Ask::Push(ask), |answer| answer)
    }
}
