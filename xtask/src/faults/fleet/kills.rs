//! Members are killed with SIGKILL while users send.

use anyhow::{Result, ensure};

use super::super::talk::Replay;
use super::super::{Figures, Tools};
use super::stage::Stage;

/// A day in ten minutes.
const EVERY_KIND: &str = "--speed 144x --churn --churn-every 30 --kill-every 12 \
                          --kill chat,discovery,presence,redis,cql --edits 0.05 --deletes 0.02 --reactions 0.05 \
                          --patience 180 --sockets 4000";
const OPEN: &str = "--channel-kind open --membership corpus --speed 288x --churn --churn-every 20 --kill-every 8 \
                    --kill chat --edits 0.05 --deletes 0.02 --reactions 0.05 --bans 0.01 --patience 120";

/// Ten days of the corpus at the same time, ten minutes long. Without a corpus, synthetic days.
pub(super) fn of_every_kind(tools: &Tools) -> Result<Figures> {
    let figures = replay(tools, "fleet-kills", 10, EVERY_KIND)?;
    for role in ["chat", "discovery", "presence", "redis", "cql"] {
        let kills = figures[&format!("kills_{role}")].as_u64();
        ensure!(kills > Some(0), "no member of {role} was killed: the run proves nothing");
    }
    Ok(figures)
}

pub(super) fn in_open_channels(tools: &Tools) -> Result<Figures> {
    replay(tools, "fleet-open-channels", 2, OPEN)
}

fn replay(tools: &Tools, name: &str, days: u32, options: &str) -> Result<Figures> {
    let stage = Stage::up(tools, name, |_| ())?;
    let mut args: Vec<String> = options.split_whitespace().map(str::to_owned).collect();
    args.extend(match &tools.corpus {
        Some(path) => ["--corpus".to_owned(), path.display().to_string()],
        None => ["--synthetic".to_owned(), days.to_string()],
    });
    args.extend(["--days".to_owned(), days.to_string()]);
    let report = Replay::start(&stage, "fleet", &args)?.finish()?;
    let mut figures = Figures::new();
    for figure in [
        "acked",
        "retried",
        "deliveries_live",
        "deliveries_after_resume",
        "kills",
        "kills_with_appends_in_flight",
        "resumes",
        "resyncs",
    ] {
        figures.insert(figure.to_owned(), report[figure].clone());
    }
    for figure in ["kills", "acked", "resumes"] {
        ensure!(report[figure].as_u64() > Some(0), "the run had no {figure}: it proves nothing");
    }
    for (role, kills) in report["kills_by_role"].as_object().into_iter().flatten() {
        figures.insert(format!("kills_{role}"), kills["kills"].clone());
    }
    for (name, of) in [("ack_ms", "send_to_ack"), ("delivery_ms", "send_to_deliver")] {
        for part in ["p50", "p99", "max"] {
            figures.insert(format!("{name}_{part}"), report["latency_ms"][of][part].clone());
        }
    }
    Ok(figures)
}
