//! The real binary as a process: started on a folder, killed, drained, started again.

use std::io::{Read, Seek};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::PATIENCE;
use crate::rest::Rest;

/// A server process. It is killed when dropped.
pub struct Server {
    /// The address on which it listens.
    pub addr: SocketAddr,
    /// Calls its REST API.
    pub rest: Rest,
    child: Child,
    _stdout: Lines<BufReader<ChildStdout>>,
}

impl Server {
    /// Starts `binary serve` on a folder and waits until it listens.
    ///
    /// # Errors
    /// If it ends instead; the error contains its output.
    pub async fn start(binary: &str, data: &Path, args: &[&str]) -> anyhow::Result<Self> {
        Self::start_with(binary, data, args, &[]).await
    }

    /// Like [`Self::start`], with environment variables.
    ///
    /// # Errors
    /// If it ends instead; the error contains its output.
    pub async fn start_with(
        binary: &str,
        data: &Path,
        args: &[&str],
        variables: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let variables = variables.iter().copied();
        // A file, and not a pipe: one that nobody reads fills up, and the server waits for its reader in the middle of a log line.
        let mut said = tempfile::tempfile()?;
        let mut command = command(binary, data, args);
        let mut child = command.envs(variables).stderr(said.try_clone()?).spawn().context("the binary")?;
        let mut lines = BufReader::new(child.stdout.take().context("no stdout")?).lines();
        let first =
            tokio::time::timeout(PATIENCE, lines.next_line()).await.context("it printed nothing")??;
        let Some(addr) = first.as_deref().and_then(|line| line.rsplit_once("://")?.1.parse().ok()) else {
            let status = child.wait().await?;
            let mut text = Vec::new();
            said.rewind()?;
            said.read_to_end(&mut text)?;
            bail!("{status}: {}", String::from_utf8_lossy(&text).trim());
        };
        let rest = Rest::new(&format!("http://{addr}"));
        Ok(Self { addr, rest, child, _stdout: lines })
    }

    /// Its process id.
    ///
    /// # Panics
    /// If it has ended.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// Its resident memory in bytes.
    ///
    /// # Errors
    /// If `/proc` does not contain the value.
    pub fn resident_bytes(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib * 1024)
    }

    /// Processor time that it has used, in seconds: user time and system time.
    ///
    /// # Errors
    /// If `/proc` does not contain the values.
    pub fn cpu_seconds(&self) -> anyhow::Result<(f64, f64)> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id()))?;
        let (_, fields) = stat.rsplit_once(')').context("no command")?;
        let ticks = |index: usize| -> anyhow::Result<f64> {
            Ok(fields.split_whitespace().nth(index).context("too few fields")?.parse()?)
        };
        // User and system time, the 14th and 15th field of proc(5); a tick is a hundredth of a second on Linux.
        Ok((ticks(11)? / 100.0, ticks(12)? / 100.0))
    }

    /// Asks it to drain.
    ///
    /// # Errors
    /// If it has ended.
    pub fn terminate(&self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)
    }

    /// Asks it to reload its certificate.
    ///
    /// # Errors
    /// If it has ended.
    pub fn hang_up(&self) -> anyhow::Result<()> {
        self.signal(Signal::HUP)
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let id = Pid::from_raw(i32::try_from(self.id())?).context("no process")?;
        Ok(kill_process(id, signal)?)
    }

    /// Kills it with SIGKILL and waits until it has ended.
    ///
    /// # Errors
    /// If waiting for it fails.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        Ok(self.child.kill().await?)
    }

    /// Waits until it ends.
    ///
    /// # Errors
    /// If it does not end in time.
    pub async fn wait(&mut self) -> anyhow::Result<ExitStatus> {
        Ok(tokio::time::timeout(PATIENCE, self.child.wait()).await.context("it does not end")??)
    }
}

fn command(binary: &str, data: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(binary);
    command.args(["serve", "--addr", "127.0.0.1:0", "--data"]).arg(data).args(args);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    without_variables_of_tests(&mut command);
    // Cheap passwords: no test is about their cost.
    command.env("MADANG_PASSWORDS__MEMORY_KIB", "8").env("MADANG_PASSWORDS__PASSES", "1");
    // Few tests are about consent.
    command.env("MADANG_ACCOUNTS__CONSENT", "false");
    command.env("MADANG_TELEMETRY__FILTER", "warn");
    // Tests of processes are about other things, and make channels hot and machines busy.
    command.env("MADANG_HEAT__ENABLED", "false").env("MADANG_OVERLOAD__SHED", "false");
    command
}

/// The variables of the tests are no keys of the configuration.
pub(crate) fn without_variables_of_tests(command: &mut Command) {
    let of_tests = |name: &String| name.starts_with("MADANG_TEST_") || name == "MADANG_CASE";
    for (name, _) in std::env::vars().filter(|(name, _)| of_tests(name)) {
        command.env_remove(name);
    }
}
