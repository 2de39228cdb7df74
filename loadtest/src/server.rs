//! A server that this tool starts, kills and starts again.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use madang_client::Rest;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::bench::people;

/// Time limit of a start. The first start may build the server (`cargo run`).
const START_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// Time limit of a drain.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// Number of output lines that are shown if the server ends at its start.
const LAST_LINES: usize = 8;

/// The server's environment, unless the caller's environment says otherwise. A day has up to 237 speakers, and 16,000
/// sign-ups with full password hashing would take an hour, which is not what is measured here.
pub(crate) const ENVIRONMENT: [(&str, &str); 4] = [
    ("MADANG_PASSWORDS__MEMORY_KIB", "8"),
    ("MADANG_PASSWORDS__PASSES", "1"),
    ("MADANG_CHANNELS__GROUP_MEMBERS", "500"),
    ("MADANG_ACCOUNTS__CONSENT", "false"),
];

/// A running server, in a process group of its own.
#[derive(Debug)]
pub(crate) struct Server {
    command: String,
    log: PathBuf,
    rest: Rest,
    /// Besides [`ENVIRONMENT`].
    environment: &'static [(&'static str, &'static str)],
    child: Child,
}

impl Server {
    /// Starts the server if there is a command, or checks that one is ready at `url`.
    pub(crate) async fn start_or_find(
        url: &str,
        command: Option<String>,
        log: Option<PathBuf>,
        environment: &'static [(&'static str, &'static str)],
    ) -> anyhow::Result<Option<Self>> {
        let rest = people::rest(url)?;
        match (command, rest.is_ready().await) {
            (None, false) => bail!("no server is ready at {url}: start one, or pass its command as --server"),
            (None, true) => Ok(None),
            (Some(_), true) => bail!("another server already runs at {url}: stop it, or omit --server"),
            (Some(command), false) => {
                let log = log.unwrap_or_else(default_log);
                println!("starting the server; its output goes to {}", log.display());
                Ok(Some(Self::start_with(command, log, rest, environment).await?))
            }
        }
    }

    /// Starts the server and waits until it is ready.
    pub(crate) async fn start(command: String, log: PathBuf, rest: Rest) -> anyhow::Result<Self> {
        Self::start_with(command, log, rest, &[]).await
    }

    /// The same, with more variables in the server's environment, unless the caller's environment has them.
    pub(crate) async fn start_with(
        command: String,
        log: PathBuf,
        rest: Rest,
        environment: &'static [(&'static str, &'static str)],
    ) -> anyhow::Result<Self> {
        File::create(&log).with_context(|| format!("could not write {}", log.display()))?;
        let child = spawn(&command, &log, environment)?;
        let mut server = Self { command, log, rest, environment, child };
        server.wait_until_ready().await?;
        Ok(server)
    }

    /// Sends SIGKILL to all of its processes.
    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::KILL);
        self.child.wait().await?;
        Ok(())
    }

    /// Starts it again after a kill.
    pub(crate) async fn start_again(&mut self) -> anyhow::Result<()> {
        self.child = spawn(&self.command, &self.log, self.environment)?;
        self.wait_until_ready().await
    }

    /// Sends SIGTERM, and SIGKILL to processes that are left after a minute.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        self.signal(Signal::TERM);
        match timeout(STOP_TIMEOUT, self.child.wait()).await {
            Ok(status) => {
                status?;
                Ok(())
            }
            Err(_) => {
                self.kill().await?;
                bail!("the server did not exit within {} s of SIGTERM", STOP_TIMEOUT.as_secs())
            }
        }
    }

    /// Its process group, for [`rss_kib`] and [`processes`].
    pub(crate) fn group(&self) -> Option<u32> {
        self.child.id()
    }

    fn signal(&self, signal: Signal) {
        let group = self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(group) = group {
            // The send fails if the server has already ended by itself.
            let _ = kill_process_group(group, signal);
        }
    }

    async fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                let said = last_lines(&self.log);
                bail!(
                    "the server exited during start-up ({status}); {} ends with:{said}",
                    self.log.display()
                );
            }
            if self.rest.is_ready().await {
                return Ok(());
            }
            sleep(Duration::from_millis(10)).await;
        }
        bail!("the server was not ready within {} s; see {}", START_TIMEOUT.as_secs(), self.log.display())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// The file for the output of a server, unless the caller names one.
pub(crate) fn default_log() -> PathBuf {
    std::env::temp_dir().join(format!("madang-loadtest-server.{}.log", std::process::id()))
}

/// The last lines of a server's output.
fn last_lines(log: &Path) -> String {
    let said = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].iter().map(|line| format!("\n  {line}")).collect()
}

fn spawn(command: &str, log: &Path, environment: &[(&str, &str)]) -> anyhow::Result<Child> {
    let log = File::options().append(true).open(log)?;
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("exec {command}")).process_group(0);
    shell.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    for (name, value) in ENVIRONMENT.iter().chain(environment) {
        if std::env::var_os(name).is_none() {
            shell.env(name, value);
        }
    }
    shell.spawn().with_context(|| format!("could not start {command:?}"))
}

/// Resident memory of all processes of a group in KiB (the command may be a wrapper).
pub(crate) fn rss_kib(group: u32) -> Option<u64> {
    let sum: u64 = processes(group).into_iter().filter_map(rss_of).sum();
    (sum > 0).then_some(sum)
}

/// The ids of the processes of a group.
pub(crate) fn processes(group: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| group_of(*pid) == Some(group)).collect()
}

/// The fifth field of `/proc/PID/stat`. The second field is a name in brackets that may contain anything.
fn group_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(2)?.parse().ok()
}

/// Resident memory of a process in KiB.
pub(crate) fn rss_of(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    #[tokio::test]
    async fn memory_is_that_of_the_group() {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg("echo here; sleep 60 & wait").process_group(0).stdout(Stdio::piped());
        let mut child = shell.spawn().unwrap();
        // Its memory is that of the shell only once the shell runs.
        let mut said = [0; 4];
        child.stdout.as_mut().unwrap().read_exact(&mut said).await.unwrap();
        let group = child.id().unwrap();
        assert!(rss_kib(group).is_some_and(|kib| kib > 100));
        kill_process_group(Pid::from_raw(group as i32).unwrap(), Signal::KILL).unwrap();
        child.wait().await.unwrap();
        // The pipe ends once every process of the group has released its memory and then its files.
        child.stdout.as_mut().unwrap().read_to_end(&mut Vec::new()).await.unwrap();
        assert_eq!(rss_kib(group), None);
    }
}
