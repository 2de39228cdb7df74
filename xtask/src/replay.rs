//! Runs of the load tool against the real server: with kills, where every guarantee must hold, and with planted faults,
//! each of which must be found.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use anyhow::{Result, bail, ensure};
use serde_json::Value;

use crate::cargo::for_all;
use crate::steps::call;

/// A fault of `chat-server/src/plant.rs`, and the run that must find it.
struct Planted {
    fault: &'static str,
    /// The fault strikes once in this many cases: rarely, but within the run.
    every: u32,
    args: &'static [&'static str],
    /// The figure of the replay's report that must not be zero; `None` for a bench, which reports by its exit code
    /// alone.
    counts: Option<&'static str>,
}

const CHAT: &[&str] = &["replay", "--synthetic", "2", "--lines", "600", "--patience", "5"];

const FAULTS: [Planted; 9] = [
    Planted { fault: "ack_without_writing", every: 100, args: CHAT, counts: Some("lost") },
    Planted { fault: "skip_fanout", every: 200, args: CHAT, counts: Some("lost") },
    Planted { fault: "deliver_twice", every: 200, args: CHAT, counts: Some("duplicated") },
    Planted { fault: "swap_two", every: 20, args: CHAT, counts: Some("reordered") },
    Planted { fault: "history_without_row", every: 4, args: CHAT, counts: Some("lost") },
    Planted {
        fault: "edit_not_delivered",
        every: 20,
        args: &["replay", "--synthetic", "1", "--lines", "600", "--patience", "5", "--edits", "0.2"],
        counts: Some("stale"),
    },
    Planted {
        fault: "reaction_lost",
        every: 20,
        args: &["replay", "--synthetic", "1", "--lines", "600", "--patience", "5", "--reactions", "0.3"],
        counts: Some("reaction_lost"),
    },
    Planted {
        fault: "ban_leaks",
        every: 1,
        args: &[
            "replay",
            "--synthetic",
            "1",
            "--lines",
            "600",
            "--patience",
            "5",
            "--channel-kind",
            "open",
            "--bans",
            "0.03",
        ],
        counts: Some("leaked"),
    },
    Planted {
        fault: "presence_sticks",
        every: 1,
        args: &["bench", "presence", "--people", "4", "--watchers", "1", "--rounds", "1"],
        counts: None,
    },
];

/// Exit code of the load tool if a guarantee was broken.
pub(crate) const BROKEN: i32 = 1;

/// Changes and disconnects in both kinds of channels.
const CHANGES: &[&str] =
    &["--churn", "--churn-every", "5", "--edits", "0.05", "--deletes", "0.02", "--reactions", "0.1"];
const GROUPS: &[&str] = &["--lines", "1000", "--kill-every", "3", "--membership", "corpus"];
const OPEN: &[&str] = &["--lines", "600", "--kill-every", "4", "--channel-kind", "open", "--bans", "0.01"];

/// Clients send, edit, delete and react while the server is killed every few seconds and devices disconnect. No acked
/// message may be lost, and every cache must end equal to the store.
pub(crate) fn with_kills(target_directory: &Path) -> Result<()> {
    let binaries = build(target_directory, &[])?;
    // Whether a kill hits an append in flight is random. A run with few kills may have none.
    let groups = (GROUPS, &["kills", "kills_with_appends_in_flight"][..], &["joins", "leaves"][..]);
    let open = (OPEN, &["kills"][..], &["joins", "bans", "gaps"][..]);
    for (channels, faults, moves) in [groups, open] {
        let args = [&["replay", "--synthetic", "2"], channels, CHANGES].concat();
        let (status, report) = run(&binaries, &args, None)?;
        ensure!(status.success(), "a guarantee broke, or the run failed: {status}");
        happened(&report, faults)?;
        happened(&report["changes"], &[&["edits", "deletes", "reactions"], moves].concat())?;
    }
    Ok(())
}

/// A run proves nothing about changes that did not happen in it.
fn happened(counts: &Value, names: &[&str]) -> Result<()> {
    match names.iter().find(|name| counts[**name].as_u64().unwrap_or(0) == 0) {
        Some(name) => bail!("the run had no {name}: it proves nothing about them"),
        None => Ok(()),
    }
}

/// Each planted fault is found, and without planted faults none is reported. Afterwards the server is built without
/// faults, so that no such build stays in the target folder.
pub(crate) fn with_planted_faults(target_directory: &Path) -> Result<()> {
    let binaries = build(target_directory, &["--features", "madang-chat-server/plant"])?;
    let found = find_planted(&binaries);
    build(target_directory, &[])?;
    found
}

fn find_planted(binaries: &Path) -> Result<()> {
    let runs: BTreeSet<&[&str]> = FAULTS.iter().map(|planted| planted.args).collect();
    for args in runs {
        let (status, _) = run(binaries, args, None)?;
        ensure!(status.success(), "nothing was planted in {}, and it ended with {status}", args.join(" "));
    }
    FAULTS.iter().try_for_each(|planted| planted.find(binaries))
}

impl Planted {
    fn find(&self, binaries: &Path) -> Result<()> {
        let plant = format!("{}:{}", self.fault, self.every);
        let (status, report) = run(binaries, self.args, Some(&plant))?;
        ensure!(status.code() == Some(BROKEN), "{plant} was not found: the load tool ended with {status}");
        if let Some(name) = self.counts {
            let count = report.get(name).and_then(Value::as_u64);
            ensure!(count > Some(0), "{plant} was not found: the report counts nothing as {name}");
        }
        Ok(())
    }
}

fn build(target_directory: &Path, features: &[&str]) -> Result<PathBuf> {
    call(for_all("build").arg("--bins").args(features))?;
    Ok(target_directory.join("debug"))
}

/// Runs the load tool against a new server: a replay starts the one that is named here, a bench starts its own. Also
/// returns the report of a replay.
fn run(binaries: &Path, args: &[&str], plant: Option<&str>) -> Result<(ExitStatus, Value)> {
    let folder = std::env::temp_dir().join(format!("madang-replay-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let mut command = Command::new(binaries.join("madang-loadtest"));
    command.args(args);
    if args.first() == Some(&"replay") {
        let addr = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let server = format!(
            "{} serve --limits off --addr {addr} --data {}",
            binaries.join("madang").display(),
            folder.join("data").display()
        );
        command.arg("--url").arg(format!("http://{addr}")).arg("--server").arg(server);
        command.arg("--report").arg(folder.join("report.json"));
    }
    command.env("PLANTED_FAULT", plant.unwrap_or_default());
    // Hundreds of users sign up; no run depends on the cost of a password.
    command.envs([("MADANG_PASSWORDS__MEMORY_KIB", "8"), ("MADANG_PASSWORDS__PASSES", "1")]);
    // Replays send as fast as acks come: their channels would be slowed down.
    command.envs([("MADANG_HEAT__ENABLED", "false"), ("MADANG_OVERLOAD__SHED", "false")]);
    let status = command.status();
    let report = fs::read(folder.join("report.json")).unwrap_or_default();
    fs::remove_dir_all(&folder)?;
    Ok((status?, serde_json::from_slice(&report).unwrap_or_default()))
}
