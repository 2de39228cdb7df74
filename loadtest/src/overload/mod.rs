//! More than a server can do, and whether it refuses in order and recovers: `madang-loadtest overload`.
//!
//! The course of a run: [`stage`] fills the server; [`course`] plays a quiet phase, the search for the capacity, the
//! overload, and the recovery. Pairs of users [`talk`]; a [`stream`] offers the requests of each other class; a
//! [`tally`] counts what became of them. [`recorder`] measures each second, [`bounds`] judges, and [`report`] writes.
//! `docs/operations.md` describes what the server does.

mod args;
mod bounds;
mod course;
mod recorder;
mod report;
mod stage;
mod stream;
mod talk;
mod tally;

pub(crate) use args::Overload;

use crate::bench::figures::conditions;
use crate::instruments::bound::all_met;
use crate::instruments::usage::ServerProcess;
use crate::server::Server;

use report::{Figures, Report};
use stage::Stage;

/// The server's environment, besides that of every server that this tool starts.
const ENVIRONMENT: [(&str, &str); 3] = [
    ("MADANG_GATEWAY__CONNECTIONS", "60000"),
    ("MADANG_TOKENS__ACCESS_SECONDS", "86400"),
    // Avoids three log lines for each socket.
    ("MADANG_TELEMETRY__FILTER", "warn"),
];

/// Runs the overload and judges it. Returns `false` if a bound was missed.
pub(crate) async fn run(args: Overload) -> anyhow::Result<bool> {
    let server =
        Server::start_or_find(&args.url, args.server.clone(), args.server_log.clone(), &ENVIRONMENT).await?;
    let process = ServerProcess::of(server.as_ref(), args.pid);
    let conditions = vec![describe(&args), conditions()];
    conditions.iter().for_each(|line| println!("{line}"));
    let stage = Stage::build(&args).await?;
    let found = course::play(&args, stage, process).await?;
    if let Some(server) = server {
        server.stop().await?;
    }
    let figures = Figures::of(&args, &found)?;
    let bounds = bounds::judge(&figures);
    let command = std::env::args().skip(1).collect::<Vec<String>>().join(" ");
    let holds = all_met(&bounds);
    let overload_seconds = (found.ended - found.begun).as_secs_f64();
    let report =
        Report { command, conditions, holds, bounds, overload_seconds, figures, seconds: found.seconds };
    report.print();
    if let Some(path) = &args.report {
        report.write(path)?;
    }
    Ok(holds)
}

fn describe(args: &Overload) -> String {
    format!(
        "overload: {} pairs in direct channels with texts of {} B; for each message a read marker, and 0.25 reads of presence, \
         0.25 pages of history, 0.05 joins and 0.05 new connections; {} times the capacity for {} s; durable",
        args.pairs, args.text, args.factor, args.seconds
    )
}
