//! Plays the days: [`setup`] creates the users and channels, [`day`] sends the lines, [`moves`] lets users join and
//! leave between them, [`plan`] draws what happens to a message later, [`reach`] finds the servers, [`device`] keeps
//! one socket, [`killer`] kills servers during sends, [`check`] compares everything at the end.

mod changes;
mod check;
mod day;
mod device;
mod killer;
mod live;
mod moves;
mod plan;
mod progress;
mod reach;
mod setup;
mod uptime;
mod world;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use madang_client::Rest;
use madang_proto::limits;
use tokio::task::JoinSet;

use crate::args::{DayChannel, Replay};
use crate::corpus::{Corpus, read, synthetic};
use crate::fleet::Fleet;
use crate::report::Report;
use crate::server::{Server, default_log};
use killer::{Keeper, Victim};
use progress::Progress;
use reach::Reach;
use world::World;

/// Runs the whole replay. Returns `false` if a guarantee was broken.
pub(crate) async fn run(args: Replay) -> anyhow::Result<bool> {
    let fleet = args.fleet.as_deref().map(Fleet::open).transpose()?;
    let reach = Reach::new(&args, fleet.as_ref())?;
    let report_path = args.report.clone();
    if let Some(path) = &report_path {
        check_writable(path)?;
    }
    let corpus = load(&args)?;
    if args.channel_kind == DayChannel::Open && corpus.days.len() > limits::SUBSCRIPTIONS {
        let (days, most) = (corpus.days.len(), limits::SUBSCRIPTIONS);
        bail!("{days} open channels are more than the {most} that a connection may subscribe to: see --days");
    }
    let progress = Progress::new(&corpus);
    let victim = victim(&args, fleet, &reach, &progress).await?;
    let world = Arc::new(setup::set_up(args, corpus, reach, &progress).await?);
    let keeper = Keeper::start(&world, victim);
    play(&world, &progress).await;
    let (server, rss) = keeper.finish().await?;
    let report = check::check(&world, &progress, rss).await?;
    if let Some(server) = server {
        server.stop().await?;
    }
    progress.finish();
    write(&report, report_path.as_deref())?;
    Ok(report.holds())
}

/// What the run may kill. Afterwards a server is ready.
async fn victim(
    args: &Replay,
    fleet: Option<Fleet>,
    reach: &Reach,
    progress: &Progress,
) -> anyhow::Result<Victim> {
    if args.is_fleet() {
        reach.check_ready().await?;
    }
    match fleet {
        Some(fleet) => Ok(Victim::Fleet(fleet)),
        None if args.is_fleet() => Ok(Victim::Nothing),
        None => {
            let server = server(args, reach.rest(0), progress).await?;
            Ok(server.map_or(Victim::Nothing, |server| Victim::Server(Box::new(server))))
        }
    }
}

/// Starts the server if its command was given. Afterwards either it or another server is ready.
async fn server(args: &Replay, rest: &Rest, progress: &Progress) -> anyhow::Result<Option<Server>> {
    let (url, is_ready) = (&args.url, rest.is_ready().await);
    match args.server.clone() {
        None if !is_ready => bail!("no server is ready at {url}: start one, or pass its command as --server"),
        None => Ok(None),
        Some(_) if is_ready => bail!("another server already runs at {url}: stop it, or omit --server"),
        Some(command) => {
            let log = args.server_log.clone().unwrap_or_else(default_log);
            progress.say(&format!("starting the server; its output goes to {}", log.display()));
            Ok(Some(Server::start(command, log, rest.clone()).await?))
        }
    }
}

/// Checks before the run that the report can be written, so that the run is not in vain.
fn check_writable(report: &Path) -> anyhow::Result<()> {
    let opened = File::options().create(true).append(true).open(report);
    opened.map(drop).with_context(|| format!("could not write the report to {}", report.display()))
}

fn load(args: &Replay) -> anyhow::Result<Corpus> {
    let (days, lines) = (args.days.unwrap_or(usize::MAX), args.lines.unwrap_or(usize::MAX));
    match (&args.source.corpus, args.source.synthetic) {
        (Some(path), _) => read::corpus(path, days, lines, args.membership),
        (None, made_up) => {
            Ok(synthetic::corpus(made_up.unwrap_or(1).min(days), lines, args.seed, args.membership))
        }
    }
}

/// Plays all days, as many at the same time as there are sockets for.
async fn play(world: &Arc<World>, progress: &Progress) {
    let watching = progress.watch(Arc::clone(world));
    let mut waiting: Vec<u32> = (0..world.day_count()).collect();
    let mut playing = JoinSet::new();
    while !(waiting.is_empty() && playing.is_empty()) {
        while let Some(index) =
            waiting.iter().position(|day| world.has_sockets_for(*day) || playing.is_empty())
        {
            let day = waiting.remove(index);
            world.want_devices(day);
            playing.spawn(day::play(Arc::clone(world), day));
        }
        tokio::select! {
            Some(_) = playing.join_next() => {}
            () = world.socket_freed.notified() => {}
        }
    }
    while world.sockets() > 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    watching.abort();
}

fn write(report: &Report, path: Option<&Path>) -> anyhow::Result<()> {
    let json = serde_json::to_string_pretty(report)?;
    eprintln!("{}", report.summary());
    match path {
        Some(path) => {
            std::fs::write(path, json + "\n").with_context(|| format!("could not write {}", path.display()))
        }
        None => {
            println!("{json}");
            Ok(())
        }
    }
}
