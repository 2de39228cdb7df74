//! `madang top`: shows who writes most to the store of a running server.

use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::Args;

use super::operator::{AdminAnswer, Ask, ask_server};
use crate::operations::TopPeriod;

const MIB: f64 = 1_048_576.0;

/// Show which users and channels write most.
#[derive(Debug, Args)]
pub(super) struct Top {
    /// Number of users, and of channels, to show, 1 to 100.
    #[arg(long, default_value_t = 10)]
    limit: usize,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// The data folder; default madang-data.
    #[arg(long)]
    data: Option<PathBuf>,
}

impl Top {
    pub(super) fn run(self, config: Option<&Path>) -> anyhow::Result<()> {
        let config = super::load(config)?;
        let data = self.data.unwrap_or(config.server.data);
        let ask = Ask::Top { limit: self.limit };
        match super::runtime()?.block_on(ask_server(&data, &ask))? {
            Some(AdminAnswer::Top(periods)) if self.json => {
                say!("{}", serde_json::to_string_pretty(&periods)?)
            }
            Some(AdminAnswer::Top(periods)) => periods.iter().for_each(show),
            Some(AdminAnswer::Refused(error)) => bail!("{error}"),
            Some(_) => {}
            None => bail!("no server runs on {}: only a running server counts", data.display()),
        }
        Ok(())
    }
}

fn show(period: &TopPeriod) {
    let minutes = period.seconds / 60;
    say!("{:.1} MiB were written in {minutes} minutes", period.bytes as f64 / MIB);
    for user in &period.users {
        line(user.bytes, period.bytes, &format!("user {} {}", user.id, user.handle));
    }
    for channel in &period.channels {
        let kind = format!("{:?}", channel.kind).to_lowercase();
        let name = channel.name.as_deref().unwrap_or_default();
        line(channel.bytes, period.bytes, &format!("{kind} channel {} {name}", channel.id));
    }
}

fn line(bytes: u64, of: u64, what: &str) {
    let percent = bytes as f64 * 100.0 / of.max(1) as f64;
    say!("{:>10.1} MiB {percent:>5.1} %  {}", bytes as f64 / MIB, what.trim_end());
}
