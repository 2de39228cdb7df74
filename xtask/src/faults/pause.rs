//! Processes that are stopped for a while, and devices that are offline for long.

use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::probe::Probe;
use super::report::millis;
use super::stage::Stage;
use super::talk::{Size, Talk};
use super::{Figures, Tools};

const SIZE: Size = Size { days: 2, lines: 250, seconds: 20 };
const BEFORE: Duration = Duration::from_secs(5);
const STOPPED: Duration = Duration::from_secs(40);
const LIMIT: Duration = Duration::from_secs(30);

/// The server is stopped. Clients consider it dead, reconnect, and send again everything that was not acked.
pub(super) fn of_the_server(tools: &Tools) -> Result<Figures> {
    let mut stage = Stage::new(tools, "pause")?;
    stage.start()?;
    let mut probe = Probe::sign_up(stage.addr)?;
    let talk = Talk::start(&stage, SIZE, &["--churn"])?;
    probe.say(LIMIT)?;
    sleep(BEFORE);
    stage.signal("STOP")?;
    sleep(STOPPED);
    stage.signal("CONT")?;
    let back = probe.say(LIMIT)?;
    let mut figures = talk.finish()?;
    probe.check()?;
    stage.stop_and_check()?;
    figures.insert("back_after_ms".to_owned(), millis(back).into());
    Ok(figures)
}

/// A device stops reading while more is sent to it than its connection can buffer.
pub(super) fn of_a_client(tools: &Tools) -> Result<Figures> {
    away(tools, "stopped")
}

/// A device that missed more than 10,000 items, and devices of a store that was restored from a backup.
pub(super) fn far_behind(tools: &Tools) -> Result<Figures> {
    let mut figures = away(tools, "far")?;
    figures.extend(away(tools, "restored")?);
    Ok(figures)
}

/// The load tool plays the scene on servers of its own, and compares each device with the store.
fn away(tools: &Tools, scene: &str) -> Result<Figures> {
    let output = Command::new(tools.program("madang-loadtest")).args(["bench", "away", scene]).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {said}{told}", output.status);
    let last = said.lines().last().context("the load tool printed nothing")?;
    Ok(serde_json::from_str(last)?)
}
