//! A wall clock that steps while the server runs, and that shows another time when the server is started again.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::circle::Circle;
use super::probe::Probe;
use super::shim::{Shim, Switch};
use super::stage::{Folder, Stage, last_lines};
use super::talk::{Size, Talk};
use super::{Figures, Tools};

const HOUR: i64 = 3_600;
const SIZE: Size = Size { days: 2, lines: 250, seconds: 40 };
/// Time between two steps.
const WHILE: Duration = Duration::from_secs(8);
const LIMIT: Duration = Duration::from_secs(10);
/// Number of messages, one per second, that every user may send.
const FEW: u32 = 5;
/// More messages than a user may send at once.
const MANY: u32 = 2_000;

pub(super) fn back(tools: &Tools) -> Result<Figures> {
    step(tools, "clock-back", -HOUR)
}

pub(super) fn forward(tools: &Tools) -> Result<Figures> {
    step(tools, "clock-forward", HOUR)
}

/// During a conversation the clock steps, the server is killed and started, the clock steps back to where it was, and
/// the server is killed and started once more. Limits and presence are tested at the same time, on servers of their
/// own.
fn step(tools: &Tools, name: &str, seconds: i64) -> Result<Figures> {
    let presence = Presence::start(tools, name)?;
    let (mut stage, shim) = Stage::with_shim(tools, name)?;
    stage.start()?;
    let mut probe = Probe::sign_up(stage.addr)?;
    let mut circle = Circle::meet(stage.addr)?;
    let talk = Talk::start(&stage, SIZE, &["--churn"])?;
    probe.say(LIMIT)?;
    let before = probe.last_at();
    for offset in [seconds, 0] {
        sleep(WHILE);
        shim.set(Switch::ClockMs, 1_000 * offset)?;
        presence.shim.set(Switch::ClockMs, 1_000 * offset)?;
        say_on(&mut probe)?;
        circle.go_on().context("after the step")?;
        sleep(WHILE);
        stage.kill()?;
        stage.start()?;
        say_on(&mut probe)?;
        circle.go_on().context("after the start")?;
    }
    let moved = probe.last_at() - before;
    // Times rise with a step forward, and do not fall when the clock steps back.
    ensure!(
        seconds < 0 || moved >= 1_000 * HOUR.cast_unsigned(),
        "the clock did not step: times rose by {moved} ms"
    );
    let mut figures = talk.finish()?;
    probe.check()?;
    stage.stop_and_check()?;
    limits(tools, &format!("{name}-limits"), seconds).context("limits")?;
    presence.finish()?;
    figures.insert("times_rose_by_ms".to_owned(), moved.into());
    Ok(figures)
}

/// The token may have expired with the step of an hour. Then the probe signs in again, as a client does.
fn say_on(probe: &mut Probe) -> Result<()> {
    sign_in_again(probe)?;
    probe.say(LIMIT)?;
    probe.check()
}

fn sign_in_again(probe: &mut Probe) -> Result<()> {
    if probe.try_say()?.code() == "unauthorized" {
        probe.log_in()?;
    }
    Ok(())
}

/// After a step, a user who sends little is not limited, and a user who sends much is not limited for longer than
/// before.
fn limits(tools: &Tools, name: &str, seconds: i64) -> Result<()> {
    let (stage, shim) = Stage::with_shim(tools, name)?;
    let mut stage = stage.with_limits();
    stage.start()?;
    let mut probe = Probe::sign_up(stage.addr)?;
    for offset in [0, seconds, 0] {
        shim.set(Switch::ClockMs, 1_000 * offset)?;
        sign_in_again(&mut probe)?;
        for _ in 0..FEW {
            let answer = probe.try_say()?;
            ensure!(answer.is_success(), "a user who sends little was refused: {}", answer.body);
            sleep(Duration::from_secs(1));
        }
    }
    exhaust(&mut probe)?;
    shim.set(Switch::ClockMs, 1_000 * seconds)?;
    sign_in_again(&mut probe)?;
    probe.say(LIMIT)?;
    stage.stop_and_check()
}

/// Sends until a message is refused, and checks how long the server asks to wait.
fn exhaust(probe: &mut Probe) -> Result<()> {
    for _ in 0..MANY {
        let answer = probe.try_say()?;
        if !answer.is_success() {
            let wait_ms = answer.body["retry_after_ms"].as_u64();
            ensure!(answer.code() == "limited" && wait_ms < Some(60_000), "{}", answer.body);
            return Ok(());
        }
    }
    anyhow::bail!("{MANY} messages at once were not limited")
}

/// The load tool's bench of presence: users come, leave and crash, and others must see it in time.
struct Presence {
    folder: Folder,
    shim: Shim,
    child: Child,
}

impl Presence {
    /// The bench starts the server in its own folder: here a script that starts it with the shim.
    fn start(tools: &Tools, name: &str) -> Result<Self> {
        let folder = Folder::new(tools, &format!("{name}-presence"))?;
        let (shim, script) = Shim::build(folder.path())?;
        let path = |name: &str| folder.path().join(name);
        fs::copy(tools.program("madang-loadtest"), path("madang-loadtest"))?;
        let server = tools.program("madang").display().to_string();
        fs::write(path("madang"), format!("#!/bin/sh\nset -- '{server}' \"$@\"\n{script}\n"))?;
        fs::set_permissions(path("madang"), PermissionsExt::from_mode(0o755))?;
        let output = fs::File::create(path("log"))?;
        let mut command = Command::new(path("madang-loadtest"));
        command.args(["bench", "presence", "--people", "8", "--watchers", "2", "--rounds", "1"]);
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        Ok(Self { child: command.spawn()?, folder, shim })
    }

    fn finish(mut self) -> Result<()> {
        let status = self.child.wait()?;
        ensure!(status.success(), "presence: {}", last_lines(&self.folder.path().join("log"), 8));
        Ok(())
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        // This fails if the process has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
