//! A real server on a new folder: started through a script that may change its environment, signalled, measured, and
//! checked at the end.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::Tools;
use super::http;
use super::shim::Shim;

/// The script that changes nothing.
const PLAIN: &str = "exec \"$@\"";

const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The server's environment: days have many speakers, and no run depends on the cost of a password.
const ENVIRONMENT: [(&str, &str); 7] = [
    ("MADANG_PASSWORDS__MEMORY_KIB", "8"),
    ("MADANG_PASSWORDS__PASSES", "1"),
    ("MADANG_CHANNELS__GROUP_MEMBERS", "500"),
    ("MADANG_ACCOUNTS__CONSENT", "false"),
    ("MADANG_TELEMETRY__FILTER", "warn"),
    // The runs send as fast as acks come, and demand that every message is taken.
    ("MADANG_HEAT__ENABLED", "false"),
    ("MADANG_OVERLOAD__SHED", "false"),
];

/// Polls until another process has reached a state.
pub(super) fn until(
    what: &str,
    limit: Duration,
    mut is_so: impl FnMut() -> Result<bool>,
) -> Result<Duration> {
    let begun = Instant::now();
    while !is_so()? {
        ensure!(begun.elapsed() < limit, "{what}: not within {} s", limit.as_secs());
        sleep(LOOK_EVERY);
    }
    Ok(begun.elapsed())
}

/// A folder that is removed when this is dropped, unless folders are kept.
pub(super) struct Folder {
    path: PathBuf,
    keep: bool,
}

impl Folder {
    pub(super) fn new(tools: &Tools, name: &str) -> Result<Self> {
        // On a disk, as data folders are, and not in memory.
        let path = tools.target.join(format!("faults-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self { path, keep: tools.keep })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.keep {
            return println!("kept {}", self.path.display());
        }
        if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("{} was not removed: {error}", self.path.display());
        }
    }
}

/// Resources that a process uses.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usage {
    pub(super) rss_kib: u64,
    pub(super) peak_kib: u64,
    pub(super) open_files: u64,
}

/// A server and its folder.
pub(super) struct Stage<'a> {
    pub(super) tools: &'a Tools,
    pub(super) folder: Folder,
    pub(super) addr: SocketAddr,
    script: String,
    limits: &'static str,
    environment: Vec<(String, String)>,
    server: Option<Child>,
}

impl<'a> Stage<'a> {
    /// Prepares a server without starting it.
    pub(super) fn new(tools: &'a Tools, name: &str) -> Result<Self> {
        let folder = Folder::new(tools, name)?;
        let addr = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let script = PLAIN.to_owned();
        let environment = ENVIRONMENT.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        Ok(Self { tools, folder, addr, script, limits: "off", environment, server: None })
    }

    /// Prepares a server that runs with the shim.
    pub(super) fn with_shim(tools: &'a Tools, name: &str) -> Result<(Self, Shim)> {
        let stage = Self::new(tools, name)?;
        let (shim, script) = Shim::build(stage.folder.path())?;
        Ok((stage.with_script(script), shim))
    }

    /// Sets the script that starts the server. It must end in `exec "$@"`.
    pub(super) fn with_script(mut self, script: String) -> Self {
        self.script = script;
        self
    }

    /// Runs the server with its default limits.
    pub(super) fn with_limits(mut self) -> Self {
        self.limits = "on";
        self
    }

    pub(super) fn with_environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(super) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.folder.path().join("madang.log")
    }

    /// Starts the server, for the first time or again, and waits until it is ready.
    pub(super) fn start(&mut self) -> Result<()> {
        let output = File::options().create(true).append(true).open(self.log())?;
        let mut command = Command::new("sh");
        command.args(["-c", &self.script, "sh"]).arg(self.tools.program("madang"));
        command.args(["serve", "--limits", self.limits, "--addr", &self.addr.to_string(), "--data"]);
        command.arg(self.data()).envs(self.environment.clone());
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        self.server = Some(command.spawn()?);
        until("the server is ready", START_LIMIT, || {
            if let Some(status) = self.child()?.try_wait()? {
                bail!("the server ended at its start ({status}): {}", self.last_words());
            }
            Ok(http::call(self.addr, "GET", "/readyz", None, None).is_ok_and(|answer| answer.status == 200))
        })?;
        Ok(())
    }

    /// Sends a signal: STOP, CONT, TERM, KILL …
    pub(super) fn signal(&mut self, name: &str) -> Result<()> {
        signal(self.child()?.id(), name)
    }

    /// Waits for its end; returns the exit code.
    pub(super) fn wait(&mut self) -> Result<Option<i32>> {
        let mut ended = None;
        until("the server ends", STOP_LIMIT, || {
            ended = self.child()?.try_wait()?;
            Ok(ended.is_some())
        })?;
        self.server = None;
        Ok(ended.and_then(|status| status.code().or(status.signal().map(|signal| -signal))))
    }

    pub(super) fn kill(&mut self) -> Result<()> {
        self.signal("KILL")?;
        self.wait().map(drop)
    }

    /// Sends SIGTERM and expects a clean end.
    pub(super) fn stop(&mut self) -> Result<()> {
        self.signal("TERM")?;
        let code = self.wait()?;
        ensure!(code == Some(0), "the server ended with {code:?} after SIGTERM: {}", self.last_words());
        Ok(())
    }

    /// Stops the server and checks everything that it stored.
    pub(super) fn stop_and_check(mut self) -> Result<()> {
        self.stop()?;
        self.check(&self.data())
    }

    /// Runs `madang check` on a folder.
    pub(super) fn check(&self, data: &Path) -> Result<()> {
        self.madang(&["check", "--data", &data.display().to_string()]).map(drop)
    }

    /// Runs a command of the server's program until it ends.
    pub(super) fn madang(&self, args: &[&str]) -> Result<String> {
        let output = Command::new(self.tools.program("madang")).args(args).output()?;
        let said =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "madang {}: {said}", args.join(" "));
        Ok(said)
    }

    pub(super) fn process(&mut self) -> Result<u32> {
        Ok(self.child()?.id())
    }

    pub(super) fn usage(&mut self) -> Result<Usage> {
        let process = format!("/proc/{}", self.process()?);
        let status = fs::read_to_string(format!("{process}/status"))?;
        let kib = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
                .with_context(|| format!("no {name}"))
        };
        let open_files = fs::read_dir(format!("{process}/fd"))?.count() as u64;
        Ok(Usage { rss_kib: kib("VmRSS:")?, peak_kib: kib("VmHWM:")?, open_files })
    }

    fn child(&mut self) -> Result<&mut Child> {
        self.server.as_mut().context("no server runs")
    }

    fn last_words(&self) -> String {
        last_lines(&self.log(), 3)
    }
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        if let Some(server) = &mut self.server {
            // This fails if the server has ended by itself.
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

/// The last lines of a file.
pub(super) fn last_lines(path: &Path, count: usize) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// Sends a signal to one process.
pub(super) fn signal(process: u32, name: &str) -> Result<()> {
    crate::steps::call(Command::new("kill").arg(format!("-{name}")).arg(process.to_string()))
}
