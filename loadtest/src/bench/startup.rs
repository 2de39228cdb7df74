//! Time from the start of the process until it is ready.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, ensure};
use tokio::process::Command;
use tokio::time::Instant;

use super::args::Startup;
use super::figures::{median, print_conditions, verdict};
use super::folder::{Folder, programs};
use super::people;
use super::process::Process;

/// Most seconds until ready.
const TARGET: f64 = 1.0;

/// Measures and prints the results.
pub(super) async fn run(args: Startup) -> anyhow::Result<()> {
    let folder = Folder::new()?;
    let data = match args.data.clone() {
        Some(data) => data,
        None => make(&args, &folder).await?,
    };
    print_conditions(&format!(
        "startup: from the start of the process until GET /readyz says 200; a data folder of {:.1} MiB",
        mib(&data)?
    ));
    // The first start after another process wrote the folder differs from later ones.
    start(&data, &folder).await?.1.stop().await?;
    let (mut clean, mut killed, mut bare) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..args.repeats {
        let (seconds, server) = start(&data, &folder).await?;
        clean.push(seconds);
        server.kill().await?;
        let (seconds, server) = start(&data, &folder).await?;
        killed.push(seconds);
        server.stop().await?;
        bare.push(version().await?);
    }
    let (clean, killed, bare) = (median(clean), median(killed), median(bare));
    println!(
        "ready after a clean stop: {:.0} ms, {:.1} times the bare `madang --version`",
        clean * 1e3,
        clean / bare
    );
    println!(
        "ready after a kill:       {:.0} ms, {:.1} times the bare {:.1} ms",
        killed * 1e3,
        killed / bare,
        bare * 1e3
    );
    println!("target: below {TARGET} s: {}", verdict(clean.max(killed) < TARGET));
    Ok(())
}

/// Seconds until the server is ready.
async fn start(data: &Path, folder: &Folder) -> anyhow::Result<(f64, Process)> {
    let begun = Instant::now();
    let server = Process::madang(data, folder).await?;
    let rest = people::rest(&server.url())?;
    while !rest.is_ready().await {
        ensure!(begun.elapsed().as_secs() < 60, "the server did not become ready");
    }
    Ok((begun.elapsed().as_secs_f64(), server))
}

/// Seconds of a process that starts and ends.
async fn version() -> anyhow::Result<f64> {
    let begun = Instant::now();
    let mut command = Command::new(programs()?.join("madang"));
    command.arg("--version").stdout(Stdio::null()).status().await?;
    Ok(begun.elapsed().as_secs_f64())
}

/// A store with replayed synthetic days.
async fn make(args: &Startup, folder: &Folder) -> anyhow::Result<PathBuf> {
    let data = folder.join("data");
    let server = Process::madang(&data, folder).await?;
    let mut replay = Command::new(std::env::current_exe()?);
    let report = folder.join("report.json");
    replay
        .args(["replay", "--synthetic", &args.days.to_string(), "--url", &server.url(), "--report"])
        .arg(report);
    let status = replay.status().await.context("cannot run the replay")?;
    ensure!(status.success(), "the replay failed: {status}");
    server.stop().await?;
    Ok(data)
}

#[expect(clippy::cast_precision_loss, reason = "a folder is far below 2^52 bytes")]
fn mib(folder: &Path) -> anyhow::Result<f64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        bytes += entry?.metadata()?.len();
    }
    Ok(bytes as f64 / 1024.0 / 1024.0)
}
