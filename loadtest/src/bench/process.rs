//! A server process: started, measured through `/proc`, stopped.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use super::args::Reference;
use super::folder::{Folder, programs};

const START_TIMEOUT: Duration = Duration::from_secs(60);
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
/// Linux reports processor time to processes in hundredths of a second, whatever its own ticks are.
pub(crate) const TICKS_PER_SECOND: f64 = 100.0;

const SILENCE: &str = "MADANG_GATEWAY__SILENCE_MS";
/// The server's environment: password hashing must not dominate thousands of sign-ups, and no connection is closed for
/// silence.
const ENVIRONMENT: [(&str, &str); 11] = [
    ("MADANG_PASSWORDS__MEMORY_KIB", "8"),
    ("MADANG_PASSWORDS__PASSES", "1"),
    ("MADANG_GATEWAY__CONNECTIONS", "16000"),
    (SILENCE, "600000"),
    ("MADANG_GATEWAY__DRAIN_MS", "100"),
    ("MADANG_TOKENS__ACCESS_SECONDS", "86400"),
    ("MADANG_CHANNELS__GROUP_MEMBERS", "500"),
    ("MADANG_ACCOUNTS__CONSENT", "false"),
    // One sender would be slowed down, and a busy machine would refuse requests.
    ("MADANG_HEAT__ENABLED", "false"),
    ("MADANG_OVERLOAD__SHED", "false"),
    // Avoids three log lines for each socket.
    ("MADANG_TELEMETRY__FILTER", "warn"),
];

/// A running server. It is killed when dropped.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    pid: u32,
    /// `127.0.0.1:port`
    pub(super) addr: String,
}

/// Resources that a process uses.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Usage {
    /// Resident memory, including the pages of the program itself.
    pub(super) rss_bytes: f64,
    /// Resident memory that is backed by no file.
    pub(super) anon_bytes: f64,
    /// The highest resident memory so far.
    pub(super) peak_bytes: f64,
    pub(super) cpu_seconds: f64,
}

impl Process {
    /// `madang serve` on a data folder, without limits.
    pub(super) async fn madang(data: &Path, folder: &Folder) -> anyhow::Result<Self> {
        Self::start(Self::serve(data)?, folder.join("madang.log")).await
    }

    /// The same, with limits.
    pub(super) async fn limited(data: &Path, folder: &Folder) -> anyhow::Result<Self> {
        let mut command = Command::new(programs()?.join("madang"));
        command.args(["serve", "--addr", "127.0.0.1:0", "--data"]).arg(data);
        command.envs(ENVIRONMENT);
        Self::start(command, folder.join("madang.log")).await
    }

    /// The same without limits, with a configuration.
    pub(super) async fn configured(data: &Path, folder: &Folder, config: &Path) -> anyhow::Result<Self> {
        let mut command = Self::serve(data)?;
        command.arg("--config").arg(config);
        Self::start(command, folder.join("madang.log")).await
    }

    fn serve(data: &Path) -> anyhow::Result<Command> {
        let mut command = Command::new(programs()?.join("madang"));
        command.args(["serve", "--limits", "off", "--addr", "127.0.0.1:0", "--data"]).arg(data);
        command.envs(ENVIRONMENT);
        Ok(command)
    }

    /// The same, with the usual time limit for silent connections.
    pub(super) async fn strict(data: &Path, folder: &Folder) -> anyhow::Result<Self> {
        let mut command = Self::serve(data)?;
        command.env_remove(SILENCE);
        Self::start(command, folder.join("madang.log")).await
    }

    /// One of the bare servers.
    pub(super) async fn reference(reference: &Reference, folder: &Folder) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("reference");
        match reference {
            Reference::Idle => command.arg("idle"),
            Reference::Readers(_) | Reference::Watchers(_) => anyhow::bail!("readers are not a server"),
            Reference::Fanout { connections, write_bytes, frames, rate, seconds } => command
                .args(["fanout", "--connections", &connections.to_string()])
                .args(["--write-bytes", &write_bytes.to_string(), "--frames", &frames.to_string()])
                .args(["--rate", &rate.to_string(), "--seconds", &seconds.to_string()]),
        };
        Self::start(command, folder.join("reference.log")).await
    }

    /// Waits until the server prints its address. The rest of its output is not read.
    async fn start(mut command: Command, log: PathBuf) -> anyhow::Result<Self> {
        let output = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        let pid = child.id().context("the server has no process id")?;
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            let said = std::fs::read_to_string(&log)?;
            if let Some(addr) = listens_on(&said) {
                return Ok(Self { child, pid, addr });
            }
            if let Some(status) = child.try_wait()? {
                bail!("{command:?} exited during start-up ({status}): {said}");
            }
            ensure!(Instant::now() < deadline, "{command:?} does not listen: {said}");
            sleep(Duration::from_millis(1)).await;
        }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The body of `GET /metrics`.
    pub(super) async fn metrics(&self) -> anyhow::Result<String> {
        let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build()?;
        let answer = http.get(format!("{}/metrics", self.url())).send().await?;
        Ok(answer.error_for_status()?.text().await?)
    }

    pub(super) fn usage(&self) -> anyhow::Result<Usage> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid))?;
        Ok(Usage {
            rss_bytes: kib(&status, "VmRSS:").context("no VmRSS")? * 1024.0,
            anon_bytes: kib(&status, "RssAnon:").context("no RssAnon")? * 1024.0,
            peak_bytes: kib(&status, "VmHWM:").context("no VmHWM")? * 1024.0,
            cpu_seconds: cpu_seconds(&stat).context("no times in stat")?,
        })
    }

    /// Sends SIGTERM and waits for the end.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        let pid =
            i32::try_from(self.pid).ok().and_then(Pid::from_raw).context("the server has no process id")?;
        kill_process(pid, Signal::TERM)?;
        timeout(STOP_TIMEOUT, self.child.wait()).await.context("the server did not exit")??;
        Ok(())
    }

    /// Sends SIGKILL and waits for the end.
    pub(super) async fn kill(mut self) -> anyhow::Result<()> {
        Ok(self.child.kill().await?)
    }
}

fn listens_on(said: &str) -> Option<String> {
    let (_, rest) = said.split_once("listens on http://")?;
    let (addr, _) = rest.split_once('\n')?;
    Some(addr.trim().to_owned())
}

fn kib(status: &str, name: &str) -> Option<f64> {
    let line = status.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// User and system time: fields 14 and 15. The second field is a name in brackets that may contain anything.
pub(crate) fn cpu_seconds(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let (user, system): (f64, f64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((user + system) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_files_are_parsed() {
        let stat = "12 (a ) b) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(kib("VmRSS:\t  12 kB\nRssAnon:\t 7 kB\n", "RssAnon:"), Some(7.0));
    }

    #[test]
    fn the_address_of_a_server_is_parsed() {
        let said = "madang 0.1.0 listens on http://127.0.0.1:4711\n  socket";
        assert_eq!(listens_on(said).as_deref(), Some("127.0.0.1:4711"));
        assert_eq!(listens_on("madang 0.1.0 listens on http://127.0.0.1:47"), None);
    }
}
