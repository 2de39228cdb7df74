//! Runs of the load tool against the real server: with kills, where every guarantee must hold, and with planted faults,
//! each of which must be found.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use anyhow::{Result, ensure};

use crate::cargo::cargo;
use crate::steps::call;

/// A fault of `chat-server/src/plant.rs`, and the run that must find it.
struct Planted {
    fault: &'static str,
    /// How often it strikes: seldom, but within the run.
    every: u32,
    args: &'static [&'static str],
}

const CHAT: &[&str] = &["replay", "--synthetic", "2", "--lines", "600", "--patience", "5"];

const FAULTS: [Planted; 9] = [
    Planted { fault: "ack_without_writing", every: 100, args: CHAT },
    Planted { fault: "skip_fanout", every: 2_000, args: CHAT },
    Planted { fault: "deliver_twice", every: 2_000, args: CHAT },
    Planted { fault: "swap_two", every: 20, args: CHAT },
    Planted { fault: "history_without_row", every: 4, args: CHAT },
    Planted {
        fault: "edit_not_delivered",
        every: 20,
        args: &["replay", "--synthetic", "1", "--lines", "600", "--patience", "5", "--edits", "0.2"],
    },
    Planted {
        fault: "reaction_lost",
        every: 20,
        args: &["replay", "--synthetic", "1", "--lines", "600", "--patience", "5", "--reactions", "0.3"],
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
    },
    Planted {
        fault: "presence_sticks",
        every: 1,
        args: &["bench", "presence", "--people", "4", "--watchers", "1", "--rounds", "1"],
    },
];

/// The load tool's word for a guarantee that broke.
const BROKEN: i32 = 1;

/// Clients chat while the server is killed every three seconds and devices come and go; nothing acked may be lost.
pub(crate) fn with_kills(target_directory: &Path) -> Result<()> {
    let binaries = build(target_directory, &[])?;
    let args = [
        "replay",
        "--synthetic",
        "2",
        "--lines",
        "1500",
        "--churn",
        "--churn-every",
        "5",
        "--kill-every",
        "3",
    ];
    let status = run(&binaries, &args, None)?;
    ensure!(status.success(), "a guarantee broke, or the run failed: {status}");
    Ok(())
}

/// Each planted fault is found. A build without faults follows, so that nothing planted stays in the target folder.
pub(crate) fn with_planted_faults(target_directory: &Path) -> Result<()> {
    let binaries = build(target_directory, &["--features", "madang-chat-server/plant"])?;
    let found: Result<()> = FAULTS.iter().try_for_each(|Planted { fault, every, args }| {
        let plant = format!("{fault}:{every}");
        let status = run(&binaries, args, Some(&plant))?;
        ensure!(status.code() == Some(BROKEN), "{plant} was not found: the load tool ended with {status}");
        Ok(())
    });
    build(target_directory, &[])?;
    found
}

fn build(target_directory: &Path, features: &[&str]) -> Result<PathBuf> {
    let mut command = cargo(&["build", "-p", "madang-chat-server", "-p", "madang-loadtest", "--bins"]);
    call(command.args(features))?;
    Ok(target_directory.join("debug"))
}

/// Runs the load tool against a fresh server: a replay starts the one that is named here, a bench its own.
fn run(binaries: &Path, args: &[&str], plant: Option<&str>) -> Result<ExitStatus> {
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
    // Hundreds of people sign up; no run is about the cost of a password.
    command.envs([("MADANG_PASSWORDS__MEMORY_KIB", "8"), ("MADANG_PASSWORDS__PASSES", "1")]);
    let status = command.status();
    fs::remove_dir_all(&folder)?;
    Ok(status?)
}
