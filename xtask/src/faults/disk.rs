//! A disk that is full, read-only or slow, or that fails a sync.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::probe::Probe;
use super::report::millis;
use super::shim::{EROFS, Switch};
use super::stage::{Stage, until};
use super::talk::{Size, Talk};
use super::{Figures, Tools};

const SIZE: Size = Size { days: 2, lines: 250, seconds: 30 };
/// Time of conversation before the fault.
const BEFORE: Duration = Duration::from_secs(5);
/// Limit until the first refusal. The write-ahead log has some room of its own.
const FELT_WITHIN: Duration = Duration::from_secs(20);
/// Number of times that the probe reads and tries to write while the disk accepts nothing.
const LOOKS: u32 = 10;
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Limit until the server accepts messages again.
const GOES_ON_WITHIN: Duration = Duration::from_secs(10);
/// Size of the disk: room for the whole conversation and the filler.
const DISK: &str = "size=96m";
/// Exit code of a server that can no longer trust its disk.
const DISK_FAILED: i32 = 74;
/// Number of syncs that fail, one at a time.
const FAILURES: u64 = 3;
/// Delays of each sync; each lasts a few seconds.
const DELAYS_MS: [i64; 5] = [200, 500, 1_000, 2_000, 200];
const DELAY_LASTS: Duration = Duration::from_secs(6);
/// Least value of the longest wait for an ack: a message that is sent while a sync is delayed waits for that sync.
const SHORTEST_DELAY_MS: f64 = 1_000.0;
/// Greatest value of it: an ack may wait for the previous batch and its own, and a change of a message or a member takes
/// several steps.
const SLOWEST_ACK_MS: f64 = 15_000.0;

/// A disk of its own in memory, which a file beside the database fills up.
pub(super) fn full(tools: &Tools) -> Result<Figures> {
    let mut stage = Stage::new(tools, "disk-full")?;
    fs::create_dir_all(stage.data())?;
    let data = stage.data().display().to_string();
    let mount = format!("mount -t tmpfs -o {DISK} tmpfs '{data}' && exec \"$@\"");
    stage = stage
        .with_environment("MOUNT", &mount)
        .with_script(r#"exec unshare -Urm sh -c "$MOUNT" sh "$@""#.into());
    stage.start().context("a disk is mounted in a user namespace; the system must allow that")?;
    let seen_from_here = PathBuf::from(format!("/proc/{}/root{data}", stage.process()?));
    let filler = seen_from_here.join("filler");
    let fill = || {
        let mut file = File::create(&filler)?;
        while file.write_all(&[1; 4_096]).is_ok() {}
        Ok(())
    };
    let figures = take_no_more(&stage, fill, || Ok(fs::remove_file(&filler)?))?;
    // The disk disappears with the process, so its backup is checked.
    let backup = stage.folder.path().join("backup");
    stage.madang(&[
        "backup",
        "--data",
        &seen_from_here.display().to_string(),
        "--to",
        &backup.display().to_string(),
    ])?;
    stage.check(&backup)?;
    stage.stop()?;
    Ok(figures)
}

/// Every write to a file fails as on a read-only file system.
pub(super) fn read_only(tools: &Tools) -> Result<Figures> {
    let (mut stage, shim) = Stage::with_shim(tools, "disk-read-only")?;
    stage.start()?;
    let turn = |error| shim.set(Switch::WriteError, error);
    let figures = take_no_more(&stage, || turn(EROFS), || turn(0))?;
    stage.stop_and_check()?;
    Ok(figures)
}

/// For a while the disk accepts no writes: sends are refused as retryable, and reads and the server continue.
fn take_no_more(
    stage: &Stage<'_>,
    break_disk: impl FnOnce() -> Result<()>,
    mend_disk: impl FnOnce() -> Result<()>,
) -> Result<Figures> {
    let mut probe = Probe::sign_up(stage.addr)?;
    probe.say(GOES_ON_WITHIN)?;
    let talk = Talk::start(stage, SIZE, &["--churn"])?;
    sleep(BEFORE);
    break_disk()?;
    let felt = until("a write is refused", FELT_WITHIN, || is_refused(&mut probe))?;
    for _ in 0..LOOKS {
        probe.check().context("reads must go on")?;
        ensure!(is_refused(&mut probe)?, "a message was acked that cannot be on the disk");
        sleep(LOOK_EVERY);
    }
    mend_disk()?;
    let back = probe.say(GOES_ON_WITHIN)?;
    let mut figures = talk.finish()?;
    probe.check()?;
    figures.insert("refused_after_ms".to_owned(), millis(felt).into());
    figures.insert("back_after_ms".to_owned(), millis(back).into());
    Ok(figures)
}

/// Whether the probe's next message is refused as it must be when the disk accepts no writes.
fn is_refused(probe: &mut Probe) -> Result<bool> {
    let answer = probe.try_say()?;
    if answer.is_success() {
        return Ok(false);
    }
    let may_retry = answer.body["retry_after_ms"].as_u64() > Some(0);
    ensure!(
        answer.code() == "unavailable" && may_retry,
        "refused otherwise: {} {}",
        answer.status,
        answer.body
    );
    Ok(true)
}

/// A disk that is only slower.
pub(super) fn slow(tools: &Tools) -> Result<Figures> {
    let (mut stage, shim) = Stage::with_shim(tools, "disk-slow")?;
    stage.start()?;
    let talk = Talk::start(&stage, SIZE, &["--churn"])?;
    for delay in DELAYS_MS {
        shim.set(Switch::SyncMs, delay)?;
        sleep(DELAY_LASTS);
    }
    shim.set(Switch::SyncMs, 0)?;
    let figures = talk.finish()?;
    let longest = figures["longest_ack_ms"].as_f64().unwrap_or_default();
    ensure!(
        (SHORTEST_DELAY_MS..SLOWEST_ACK_MS).contains(&longest),
        "the longest wait for an ack was {longest} ms"
    );
    stage.stop_and_check()?;
    Ok(figures)
}

/// The process ends with its exit code each time and is started again.
pub(super) fn failing(tools: &Tools) -> Result<Figures> {
    let (mut stage, shim) = Stage::with_shim(tools, "disk-failing")?;
    stage.start()?;
    let mut probe = Probe::sign_up(stage.addr)?;
    let talk = Talk::start(&stage, SIZE, &["--churn"])?;
    for _ in 0..FAILURES {
        sleep(BEFORE);
        probe.say(GOES_ON_WITHIN)?;
        shim.set(Switch::SyncFailures, 1)?;
        match stage.wait()? {
            Some(DISK_FAILED) => {}
            code => bail!("the server ended with {code:?} instead of {DISK_FAILED}"),
        }
        shim.set(Switch::SyncFailures, 0)?;
        stage.start()?;
        probe.check()?;
    }
    let mut figures = talk.finish()?;
    probe.check()?;
    stage.stop_and_check()?;
    figures.insert("ends_with_74".to_owned(), FAILURES.into());
    Ok(figures)
}
