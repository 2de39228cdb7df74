//! Processes of servers: started in a session of their own, so that they outlive this program, and recognised by a later
//! one.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::steps::call;

/// The environment variable that marks a server with its folder. It identifies a server that was started by a program
/// that ended before it recorded the pid.
const MARK: &str = "XTASK_SERVICE";

/// How often a process that must end is looked at.
const POLL: Duration = Duration::from_millis(20);

/// A process. The kernel reuses pids, but not a pair of pid and start time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// Clock ticks from the boot of the machine to the start of the process.
    pub(crate) started: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Running,
    Paused,
    /// It ended, or the pid belongs to another process now.
    Gone,
}

impl Process {
    /// Starts a server that works in `folder` and appends its output to `log`. `command` begins with [`detached`].
    pub(crate) fn start(mut command: Command, folder: &Path, log: &Path) -> Result<Self> {
        let output = File::options().create(true).append(true).open(log)?;
        command.current_dir(folder).env(MARK, folder);
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        // Nobody waits for the child: it outlives this program, and `state` counts a zombie as gone.
        let child = command.spawn().context("cannot run `setsid`: install the package `util-linux`")?;
        let process = Self::with_pid(child.id()).context("the process ended at once")?;
        process.wait_for_program();
        Ok(process)
    }

    /// Waits until `setsid` has become the program. During an exec a process has no environment, so [`Process::marked`]
    /// would not find it.
    fn wait_for_program(self) {
        let read = |name: &str| fs::read(format!("/proc/{}/{name}", self.pid)).unwrap_or_default();
        let is_program = || {
            // In this order: the kernel sets the arguments before the environment.
            let arguments = read("cmdline");
            !arguments.is_empty() && !arguments.starts_with(b"setsid\0") && !read("environ").is_empty()
        };
        while self.state() != State::Gone && !is_program() {
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// The process that has this pid now.
    fn with_pid(pid: u32) -> Option<Self> {
        let (_, started) = parse_stat(&stat_of(pid)?)?;
        Some(Self { pid, started })
    }

    /// Servers that were started for `folder`, whether a record names them or not.
    pub(crate) fn marked(folder: &Path) -> Result<Vec<Self>> {
        let mark = format!("{MARK}={}", folder.display());
        let pids = fs::read_dir("/proc")
            .context("Linux is needed: there is no /proc")?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
        let is_marked = |pid: &u32| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
        };
        Ok(pids.filter(is_marked).filter_map(Self::with_pid).collect())
    }

    pub(crate) fn state(self) -> State {
        stat_of(self.pid).map_or(State::Gone, |stat| self.state_in(&stat))
    }

    fn state_in(self, stat: &str) -> State {
        match parse_stat(stat) {
            Some((_, started)) if started != self.started => State::Gone,
            Some(('T' | 't', _)) => State::Paused,
            // A zombie ended; its parent has not asked for its exit code.
            Some(('Z' | 'X', _)) | None => State::Gone,
            Some(_) => State::Running,
        }
    }

    /// Sends a signal, such as `KILL`. It is no error if the process ends before the signal arrives.
    pub(crate) fn signal(self, name: &str) -> Result<()> {
        if self.state() == State::Gone {
            return Ok(());
        }
        let sent = call(Command::new("kill").arg(format!("-{name}")).arg(self.pid.to_string()));
        sent.or_else(|error| if self.state() == State::Gone { Ok(()) } else { Err(error) })
    }

    /// Asks for the end. A paused process is resumed, because the request reaches it only then.
    pub(crate) fn terminate(self) -> Result<()> {
        self.signal("TERM")?;
        self.signal("CONT")
    }

    /// Kills the process, and waits until it has ended.
    pub(crate) fn kill(self) -> Result<()> {
        self.signal("KILL")?;
        ensure!(
            self.ends_before(Instant::now() + Duration::from_secs(10)),
            "cannot kill process {}",
            self.pid
        );
        Ok(())
    }

    /// Waits until the process has ended, or until `deadline`.
    pub(crate) fn ends_before(self, deadline: Instant) -> bool {
        while self.state() != State::Gone {
            if Instant::now() >= deadline {
                return false;
            }
            thread::sleep(POLL);
        }
        true
    }
}

/// A command that runs `program` in a session of its own: neither the end of the terminal nor Ctrl-C ends it.
pub(crate) fn detached(program: &Path) -> Command {
    // A spawned child leads no process group, so `setsid` does not fork: the pid of the child is that of the program.
    let mut command = Command::new("setsid");
    command.arg(program);
    command
}

fn stat_of(pid: u32) -> Option<String> {
    fs::read_to_string(format!("/proc/{pid}/stat")).ok()
}

/// State and start time of `/proc/PID/stat` (proc_pid_stat(5), fields 3 and 22). The name of the program, field 2, may
/// contain blanks and parentheses.
fn parse_stat(stat: &str) -> Option<(char, u64)> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str =
        "42 (a (b) c) S 1 42 42 0 -1 4194560 1 0 0 0 7 3 0 0 20 0 1 0 7654321 9 9 18446744073709551615";

    #[test]
    fn state_and_start_time_are_read() {
        assert_eq!(parse_stat(STAT), Some(('S', 7_654_321)));
        assert_eq!(parse_stat("42 (a) S 1"), None);
    }

    #[test]
    fn a_pid_of_another_process_is_stale() {
        let process = Process { pid: 42, started: 7_654_321 };
        let other = Process { pid: 42, started: 7_654_320 };
        assert_eq!(process.state_in(STAT), State::Running);
        assert_eq!(other.state_in(STAT), State::Gone);
        assert_eq!(process.state_in(&STAT.replace(" S ", " T ")), State::Paused);
        assert_eq!(process.state_in(&STAT.replace(" S ", " Z ")), State::Gone);
        assert_eq!(process.state_in(""), State::Gone);
    }

    #[test]
    fn a_process_is_found_by_its_folder_and_ends() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = detached(Path::new("sleep"));
        command.arg("600");
        let process = Process::start(command, folder.path(), &folder.path().join("log")).unwrap();
        assert_eq!(process.state(), State::Running);
        assert_eq!(Process::marked(folder.path()).unwrap(), [process]);
        process.signal("STOP").unwrap();
        process.terminate().unwrap();
        assert!(process.ends_before(Instant::now() + Duration::from_secs(10)));
        process.kill().unwrap();
        assert_eq!(Process::marked(folder.path()).unwrap(), []);
    }
}
