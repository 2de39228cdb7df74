//! Conversation during a fault: replays of the load tool in groups and in open channels, each with its judge.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value};

use super::stage::{Stage, last_lines, until};
use crate::replay::BROKEN;

/// What conversations take place on.
pub(super) trait Ground {
    /// The load tool.
    fn loadtest(&self) -> PathBuf;

    /// The folder of logs and reports.
    fn folder(&self) -> &Path;

    /// The option of the load tool that says where the server is.
    fn reach(&self) -> [String; 2];
}

impl Ground for Stage<'_> {
    fn loadtest(&self) -> PathBuf {
        self.tools.program("madang-loadtest")
    }

    fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn reach(&self) -> [String; 2] {
        ["--url".to_owned(), format!("http://{}", self.addr)]
    }
}

/// Time limit for sign-ups and for creating and joining channels.
const SETUP_LIMIT: Duration = Duration::from_secs(120);
/// Time limit of a replay. It gives up by itself earlier.
const END_LIMIT: Duration = Duration::from_secs(3_600);
/// Seconds between two lines of a synthetic day, in the time of the day.
const SECONDS_A_LINE: u64 = 8;
/// The replay's patience in seconds. A fault may last long, and no replay may give up before it is over.
const PATIENCE: &str = "150";
/// Options for everything that can happen to messages and members.
const EVERYTHING: [&str; 10] =
    ["--edits", "0.1", "--deletes", "0.03", "--reactions", "0.1", "--bans", "0.01", "--membership", "corpus"];
/// Figures of the reports that are summed up.
const SUMS: [&str; 9] = [
    "acked",
    "retried",
    "acked_by_retry",
    "deliveries_live",
    "deliveries_after_resume",
    "resumes",
    "resyncs",
    "kills",
    "kills_with_appends_in_flight",
];

/// Size of a conversation.
#[derive(Clone, Copy)]
pub(super) struct Size {
    /// Channels of each kind.
    pub(super) days: u64,
    /// Lines in each channel.
    pub(super) lines: u64,
    /// Seconds that the lines of each channel take.
    pub(super) seconds: u64,
}

/// A running replay.
pub(super) struct Replay {
    name: &'static str,
    child: Child,
    log: PathBuf,
    report: PathBuf,
}

/// Several replays at the same time.
pub(super) struct Talk(Vec<Replay>);

impl Talk {
    /// Starts replays in groups and in open channels, and returns once messages are being sent.
    pub(super) fn start(ground: &impl Ground, size: Size, more: &[&str]) -> Result<Self> {
        let more = |kind| [&["--channel-kind", kind], more].concat();
        let groups = Replay::start(ground, "groups", &size.args(&more("group")))?;
        let open = Replay::start(ground, "open channels", &size.args(&more("open")))?;
        let mut talk = Self(vec![groups, open]);
        for replay in &mut talk.0 {
            replay.wait_until_playing()?;
        }
        Ok(talk)
    }

    /// Starts a replay in groups only.
    pub(super) fn start_groups(ground: &impl Ground, size: Size, more: &[&str]) -> Result<Self> {
        let mut groups = Replay::start(ground, "groups", &size.args(more))?;
        groups.wait_until_playing()?;
        Ok(Self(vec![groups]))
    }

    /// Whether all replays have ended.
    pub(super) fn is_over(&mut self) -> Result<bool> {
        for replay in &mut self.0 {
            if replay.child.try_wait()?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Waits until everything is sent and judged. The error names the broken guarantee.
    pub(super) fn finish(self) -> Result<Map<String, Value>> {
        let mut sum = Map::new();
        for replay in self.0 {
            let report = replay.finish()?;
            for name in SUMS {
                add(&mut sum, name, &report[name]);
            }
            let snapshots = report["snapshots_taken"].as_object().into_iter().flatten();
            snapshots.for_each(|(_, count)| add(&mut sum, "snapshots_taken", count));
            for name in ["edits", "deletes", "reactions", "joins", "leaves", "bans"] {
                add(&mut sum, name, &report["changes"][name]);
            }
            let worst = report["latency_ms"]["send_to_ack"]["max"].as_f64().unwrap_or_default().round();
            let known = sum.get("longest_ack_ms").and_then(Value::as_f64).unwrap_or_default();
            sum.insert("longest_ack_ms".to_owned(), known.max(worst).into());
        }
        Ok(sum)
    }
}

fn add(sum: &mut Map<String, Value>, name: &str, more: &Value) {
    let known = sum.get(name).and_then(Value::as_u64).unwrap_or_default();
    sum.insert(name.to_owned(), (known + more.as_u64().unwrap_or_default()).into());
}

impl Size {
    fn args(self, more: &[&str]) -> Vec<String> {
        let speed = (SECONDS_A_LINE * self.lines / self.seconds).max(1);
        let words = format!(
            "--synthetic {} --lines {} --speed {speed}x --patience {PATIENCE}",
            self.days, self.lines
        );
        words.split(' ').chain(EVERYTHING).chain(more.iter().copied()).map(str::to_owned).collect()
    }
}

impl Replay {
    /// Starts the load tool against the servers of a stage.
    pub(super) fn start(ground: &impl Ground, name: &'static str, args: &[String]) -> Result<Self> {
        let path = |kind: &str| ground.folder().join(format!("{}.{kind}", name.replace(' ', "-")));
        let (log, report) = (path("log"), path("json"));
        let mut command = Command::new(ground.loadtest());
        command.arg("replay").args(args).args(ground.reach());
        command.arg("--report").arg(&report);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log)?);
        Ok(Self { name, child: command.spawn()?, log, report })
    }

    /// Waits for the first progress line of the load tool, which it prints every ten seconds.
    fn wait_until_playing(&mut self) -> Result<()> {
        let is_playing = || {
            if let Some(status) = self.child.try_wait()? {
                bail!("the replay ended during its set-up: {status}");
            }
            Ok(fs::read_to_string(&self.log)?.contains(" deliveries, "))
        };
        until("users are sending", SETUP_LIMIT, is_playing)
            .with_context(|| last_lines(&self.log, 5))
            .map(drop)
    }

    /// The report, if every guarantee held.
    pub(super) fn finish(self) -> Result<Value> {
        let (name, log) = (self.name, self.log.clone());
        let (status, report) = self.end()?;
        ensure!(status.success(), "{name}: {status}: {}", last_lines(&log, 20));
        Ok(report)
    }

    /// The report of a replay whose judge found that a guarantee was broken.
    pub(super) fn find(self) -> Result<Value> {
        let (name, log) = (self.name, self.log.clone());
        let (status, report) = self.end()?;
        ensure!(
            status.code() == Some(BROKEN),
            "{name}: the judge found nothing: {status}: {}",
            last_lines(&log, 20)
        );
        Ok(report)
    }

    fn end(mut self) -> Result<(ExitStatus, Value)> {
        until("the replay ends", END_LIMIT, || Ok(self.child.try_wait()?.is_some()))?;
        let status = self.child.wait()?;
        // One that failed has written none.
        let report = fs::read(&self.report).unwrap_or_default();
        Ok((status, serde_json::from_slice(&report).unwrap_or_default()))
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        // This fails if the process has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
