//! `madang operator` and `madang config`: operators, what they have set, and the board in the terminal.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};
use madang_ids::Millis;
use madang_proto::rest::{ActQuery, Board, HotRow, OperatorConfig, OperatorScope, RuntimeConfig};

use super::answers::Common;
use super::operator::{AdminAnswer, Ask, ConfigAsk, OperatorAsk, ask_server};

/// Clears the screen and goes to its upper left corner.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// Manage operators.
#[derive(Debug, Subcommand)]
pub(super) enum Operators {
    /// Add an operator, or give an operator a new secret and scope. The secret is printed once and is not stored.
    Add(Add),
    /// List all operators.
    List(Common),
    /// Remove an operator. Their tokens end at once.
    Remove(Remove),
    /// Show hot channels and the state of a running server, again each second until Ctrl-C.
    Top(OperatorTop),
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Scope {
    View,
    Act,
}

#[derive(Debug, Args)]
pub(super) struct Add {
    /// The name, 1 to 40 of a-z, A-Z, 0-9, '.', '_', '-'.
    name: String,
    /// What the operator may do: see everything, or act as well.
    #[arg(long, value_enum, default_value = "view")]
    scope: Scope,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(super) struct Remove {
    /// The name.
    name: String,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(super) struct OperatorTop {
    /// Show the state once, and end.
    #[arg(long)]
    once: bool,
    /// Print JSON, once.
    #[arg(long)]
    json: bool,
    /// The data folder; default madang-data.
    #[arg(long)]
    data: Option<PathBuf>,
}

impl Operators {
    pub(super) fn run(self, config: Option<&Path>) -> anyhow::Result<()> {
        let (ask, common) = match self {
            Self::Add(Add { name, scope, common }) => {
                let scope = match scope {
                    Scope::View => OperatorScope::View,
                    Scope::Act => OperatorScope::Act,
                };
                (OperatorAsk::Add { name, scope }, common)
            }
            Self::List(common) => (OperatorAsk::List, common),
            Self::Remove(Remove { name, common }) => (OperatorAsk::Remove { name }, common),
            Self::Top(top) => return top.run(config),
        };
        common.ask(config, Ask::Operator(ask), |answer| answer)
    }
}

impl OperatorTop {
    fn run(self, config: Option<&Path>) -> anyhow::Result<()> {
        let data = self.data.clone().unwrap_or(super::load(config)?.server.data);
        super::runtime()?.block_on(async {
            loop {
                let board = board(&data).await?;
                if self.json {
                    say!("{}", serde_json::to_string_pretty(&board)?);
                } else {
                    let clear = if self.once { "" } else { CLEAR };
                    say!("{clear}{}", text(&board));
                }
                if self.once || self.json {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        })
    }
}

async fn board(data: &Path) -> anyhow::Result<Board> {
    match ask_server(data, &Ask::Operator(OperatorAsk::Board)).await? {
        Some(AdminAnswer::Board(board)) => Ok(*board),
        Some(AdminAnswer::Refused(error)) => bail!("{error}"),
        Some(_) => bail!("the server's answer is of another kind"),
        None => bail!("no server runs on {}", data.display()),
    }
}

/// The board as text.
fn text(board: &Board) -> String {
    let mut lines = Vec::new();
    for node in &board.nodes {
        let state = if node.is_ready { "ready" } else { "NOT READY" };
        lines.push(format!(
            "{} {state}  {} connections  {} sends/s  {} deliveries/s  bystanders p99 {:.0} ms  shed level {}  cost {:.0} of {:.0}  timers {:.0} ms late  last act {}",
            node.name,
            node.connections,
            node.sends,
            node.deliveries,
            node.bystanders_ms.p99,
            node.shed_level,
            node.cost,
            node.capacity,
            node.lag_ms,
            node.config_version
        ));
    }
    for guarantee in board.guarantees.iter().filter(|guarantee| guarantee.breaches > 0) {
        lines.push(format!("{} at risk {} times since the start", guarantee.id, guarantee.breaches));
    }
    lines.push(String::new());
    lines.push(format!(
        "{:<8} {:>20} {:>9} {:>9} {:>11} {:>7} {:>7} {:>9}  {}",
        "level",
        "channel",
        "cost/s",
        "entries/s",
        "deliver./s",
        "joins/s",
        "reads/s",
        "fresh p99",
        "cause, name"
    ));
    lines.extend(board.channels.iter().map(|channel| row(channel, board.at)));
    if board.channels.is_empty() {
        lines.push("no channel is hot, and none was within a minute".to_owned());
    }
    lines.join("\n")
}

fn row(row: &HotRow, now: Millis) -> String {
    let set = row.set.as_ref().map(|set| {
        let minutes = set.ends_at.get().saturating_sub(now.get()).div_ceil(60_000);
        format!("  set by {} for {minutes} more minutes: {}", set.by, set.why)
    });
    let set = set.unwrap_or_default();
    let home = row.home.as_ref().map(|home| format!("  home {home}")).unwrap_or_default();
    format!(
        "{:<8} {:>20} {:>9.0} {:>9} {:>11} {:>7} {:>7} {:>6.0} ms  {} {}{home}{set}",
        row.level.as_str(),
        row.channel_id.to_string(),
        row.cost,
        row.work.entries,
        row.work.deliveries,
        row.work.joins,
        row.work.reads,
        row.freshness_ms.p99,
        row.cause.as_str(),
        row.name.as_deref().unwrap_or_default()
    )
}

/// The configuration that may change while the server runs.
#[derive(Debug, Subcommand)]
pub(super) enum RuntimeSettings {
    /// Print it as JSON, with its version.
    Get(Common),
    /// Replace it by that of a JSON file, which must be whole; `-` is standard input.
    Set(Set),
    /// Print what a JSON file would change.
    Diff(Diff),
    /// List what operators did, the newest first.
    History(History),
}

#[derive(Debug, Args)]
pub(super) struct Set {
    /// The file: what `get` prints as `config`, or all of what it prints.
    file: PathBuf,
    /// Why, 10 to 500 characters.
    #[arg(long)]
    why: String,
    /// The version that is replaced; by default that in the file, or the present one.
    #[arg(long)]
    version: Option<u64>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(super) struct Diff {
    /// The file, as for `set`.
    file: PathBuf,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(super) struct History {
    /// Only acts before this one.
    #[arg(long)]
    before: Option<u64>,
    /// How many, 1 to 100.
    #[arg(long, default_value_t = 20)]
    limit: u32,
    #[command(flatten)]
    common: Common,
}

impl RuntimeSettings {
    pub(super) fn run(self, config: Option<&Path>) -> anyhow::Result<()> {
        let (ask, common) = match self {
            Self::Get(common) => (ConfigAsk::Get, common),
            Self::Set(Set { file, why, version, common }) => {
                let (wanted, of_file) = read(&file)?;
                (ConfigAsk::Set { wanted: Box::new(wanted), version: version.or(of_file), why }, common)
            }
            Self::Diff(Diff { file, common }) => {
                (ConfigAsk::Diff { wanted: Box::new(read(&file)?.0) }, common)
            }
            Self::History(History { before, limit, common }) => {
                (ConfigAsk::History(ActQuery { before, limit: Some(limit) }), common)
            }
        };
        common.ask(config, Ask::Config(ask), |answer| answer)
    }
}

/// A configuration from a file, and its version if the file has one.
fn read(file: &Path) -> anyhow::Result<(RuntimeConfig, Option<u64>)> {
    let text = match file.to_str() {
        Some("-") => std::io::read_to_string(std::io::stdin())?,
        _ => std::fs::read_to_string(file).with_context(|| file.display().to_string())?,
    };
    if let Ok(whole) = serde_json::from_str::<OperatorConfig>(&text) {
        return Ok((whole.config, Some(whole.version)));
    }
    let config = serde_json::from_str(&text).with_context(|| file.display().to_string())?;
    Ok((config, None))
}
