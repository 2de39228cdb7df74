//! Runs of the load tool against the real server: with kills, where every guarantee must hold, and with planted faults,
//! each of which must be found.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use anyhow::{Result, ensure};

use crate::cargo::cargo;
use crate::steps::call;

/// Faults of `chat-server/src/plant.rs`, and how often each strikes: seldom, but within two days of chat.
const FAULTS: [(&str, u32); 5] = [
    ("ack_without_writing", 100),
    ("skip_fanout", 2_000),
    ("deliver_twice", 2_000),
    ("swap_two", 20),
    ("history_without_row", 4),
];

/// The load tool's word for a guarantee that broke.
const BROKEN: i32 = 1;

/// Clients chat while the server is killed every three seconds and devices come and go; nothing acked may be lost.
pub(crate) fn with_kills(target_directory: &Path) -> Result<()> {
    let binaries = build(target_directory, &[])?;
    let status = replay(
        &binaries,
        &["--synthetic", "2", "--lines", "1500", "--churn", "--churn-every", "5", "--kill-every", "3"],
        None,
    )?;
    ensure!(status.success(), "a guarantee broke, or the run failed: {status}");
    Ok(())
}

/// Each planted fault is found. A build without faults follows, so that nothing planted stays in the target folder.
pub(crate) fn with_planted_faults(target_directory: &Path) -> Result<()> {
    let binaries = build(target_directory, &["--features", "madang-chat-server/plant"])?;
    let found: Result<()> = FAULTS.iter().try_for_each(|(fault, every)| {
        let plant = format!("{fault}:{every}");
        let args = ["--synthetic", "2", "--lines", "600", "--patience", "5"];
        let status = replay(&binaries, &args, Some(&plant))?;
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

fn replay(binaries: &Path, args: &[&str], plant: Option<&str>) -> Result<ExitStatus> {
    let folder = std::env::temp_dir().join(format!("madang-replay-{}", std::process::id()));
    let addr = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let server = format!(
        "{} serve --limits off --addr {addr} --data {}",
        binaries.join("madang").display(),
        folder.join("data").display()
    );
    fs::create_dir_all(&folder)?;
    let mut command = Command::new(binaries.join("madang-loadtest"));
    command.arg("replay").args(args).arg("--url").arg(format!("http://{addr}")).arg("--server").arg(server);
    command.arg("--report").arg(folder.join("report.json"));
    command.env("PLANTED_FAULT", plant.unwrap_or_default());
    // Hundreds of people sign up; no run is about the cost of a password.
    command.envs([("MADANG_PASSWORDS__MEMORY_KIB", "8"), ("MADANG_PASSWORDS__PASSES", "1")]);
    let status = command.status();
    fs::remove_dir_all(&folder)?;
    Ok(status?)
}
