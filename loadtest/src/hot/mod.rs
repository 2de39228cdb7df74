//! A storm in one channel, and whether it hurts anybody else: `madang-loadtest hot`.
//!
//! The course of a run: [`stage`] fills the server; [`storm`] drives a quiet phase, in which only pairs of bystanders
//! talk; the storm itself, in which [`senders`] send into the channel and [`calls`] join, leave and read;
//! the end, in which the readers catch up and the [`level`] falls; then the check. [`recorder`] measures each second.
//! Readers are processes of their own ([`watch`]): [`scan`] finds entries in their bytes, and [`check`] finds faults in
//! the order of entries. [`bounds`] judges, and [`report`] writes. More parts are in [`crate::instruments`].
//! `docs/hot-channels.md` describes what the server does.

mod args;
mod bounds;
mod calls;
mod check;
mod level;
mod recorder;
mod report;
mod scan;
mod senders;
mod stage;
mod storm;
mod watch;

use std::time::Duration;

pub(crate) use args::Hot;
pub(crate) use watch::serve as serve_watchers;

use crate::bench::figures::conditions;
use crate::instruments::bound::all_met;
use crate::instruments::usage::ServerProcess;
use crate::server::Server;

use report::Report;
use stage::Stage;

/// Time after which the freshness is measured a second time: the server needs some seconds to find the channel.
const FIRST: Duration = Duration::from_secs(3);

/// The server's environment, besides that of every server that this tool starts.
const ENVIRONMENT: [(&str, &str); 2] =
    [("MADANG_GATEWAY__CONNECTIONS", "60000"), ("MADANG_TOKENS__ACCESS_SECONDS", "86400")];

/// Runs the storm and judges it. Returns `false` if a bound was missed.
pub(crate) async fn run(args: Hot) -> anyhow::Result<bool> {
    let (url, log) = (&args.urls()[0], args.server_log.clone());
    let server = Server::start_or_find(url, args.server.clone(), log, &ENVIRONMENT).await?;
    let process = ServerProcess::of(server.as_ref(), args.pid);
    let conditions = vec![describe(&args), conditions()];
    conditions.iter().for_each(|line| println!("{line}"));
    let stage = Stage::build(&args).await?;
    let (seconds, figures) = storm::play(&args, stage, process).await?;
    if let Some(server) = server {
        server.stop().await?;
    }
    let bounds = bounds::judge(&figures, !args.no_level);
    let command = std::env::args().skip(1).collect::<Vec<String>>().join(" ");
    let holds = all_met(&bounds);
    let storm_seconds = args.storm().as_secs_f64();
    let report = Report { command, conditions, holds, bounds, storm_seconds, figures, seconds };
    report.print();
    if let Some(path) = &args.report {
        report.write(path)?;
    }
    Ok(holds)
}

fn describe(args: &Hot) -> String {
    format!(
        "hot: an open channel with {} readers, one socket each; {} messages a second of {} B from {} members, {} attempts a \
         second to join or leave by {} users, {} reads of history a second, for {} s; {} pairs of bystanders, one message a \
         second each; durable",
        args.members,
        args.rate,
        args.text,
        args.senders(),
        args.joins,
        args.visitors(),
        args.fetch_storm,
        args.seconds,
        args.bystanders
    )
}
