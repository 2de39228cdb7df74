//! The folder of a group of servers: their data, logs and `services.json`.
//!
//! Every method that changes something holds the folder's lock. The record is written before a server is started and
//! again when its pid is known, so that the next call finds every server even if this program is killed in between.

use std::fs;
use std::net::SocketAddrV4;
use std::path::{self, Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::fetch::{Cassandra, Programs, Redis};
use super::lock::Lock;
use super::process::{Process, State};
use super::record::{Record, Server};
use super::{Running, Wanted, cassandra, ports, redis};

/// How long a server may take until it accepts connections. Cassandra takes about 8 s on two cores.
const START: Duration = Duration::from_secs(90);
/// How long a server may take to end after SIGTERM.
const END: Duration = Duration::from_secs(10);
/// How often a server that starts is asked.
const POLL: Duration = Duration::from_millis(50);
/// Lines of a log in the error of a server that does not start.
const LAST_LINES: usize = 30;

/// Whether a server answers a request that is sent to its address.
type Answers = fn(SocketAddrV4) -> bool;

/// Servers that are started and stopped together.
#[derive(Debug)]
pub(crate) struct Folder {
    root: PathBuf,
    is_durable: bool,
}

impl Folder {
    pub(crate) fn new(root: &Path) -> Result<Self> {
        Ok(Self { root: path::absolute(root)?, is_durable: false })
    }

    /// Nodes of Cassandra that are started from now on sync each write before they answer, as the product demands. Without that a
    /// killed node loses the writes of its last moments.
    pub(crate) fn durable(self) -> Self {
        Self { is_durable: true, ..self }
    }

    /// Starts what is not running, resumes what is paused, and waits until all wanted servers accept connections. A
    /// cluster of Cassandra keeps the size with which it was started first.
    pub(super) fn up(&self, programs: &Programs, wanted: Wanted) -> Result<Running> {
        let _lock = self.lock()?;
        let mut record = self.record()?;
        record.add(wanted, ports::free)?;
        record.write(&self.record_path())?;
        if let Some(program) = &programs.redis {
            self.redis_up(program, &mut record, usize::from(wanted.redis))?;
        }
        if let Some(program) = &programs.cassandra {
            self.cassandra_up(program, &mut record)?;
        }
        Ok(Running::of(&record, wanted))
    }

    fn redis_up(&self, program: &Redis, record: &mut Record, count: usize) -> Result<()> {
        let begin = Instant::now();
        for index in 0..count {
            let addr = record.redis[index].addr;
            let command = |folder: &Path| redis::command(program, folder, addr);
            record.redis[index].process = Some(self.start(&record.redis[index], command)?);
            record.write(&self.record_path())?;
        }
        let mut servers = record.redis.iter().take(count);
        servers.try_for_each(|server| self.wait_for(server, redis::answers, begin))
    }

    /// Starts all nodes at once. A node that was in the cluster before waits up to 10 s for the others before it accepts
    /// connections; new nodes copy nothing from each other, so their order does not matter.
    fn cassandra_up(&self, program: &Cassandra, record: &mut Record) -> Result<()> {
        let begin = Instant::now();
        for index in 0..record.cassandra.len() {
            let command = |folder: &Path| {
                cassandra::command(program, folder, &record.cassandra, index, self.is_durable)
            };
            record.cassandra[index].process = Some(self.start(&record.cassandra[index], command)?);
            record.write(&self.record_path())?;
        }
        record.cassandra.iter().try_for_each(|server| self.wait_for(server, cassandra::answers, begin))
    }

    /// Prints a line for each server. Whether all of them accept connections.
    pub(crate) fn status(&self) -> Result<bool> {
        let record = self.record()?;
        if record.all().next().is_none() {
            println!("there are no servers in {}", self.root.display());
        }
        let redis = record.redis.iter().map(|server| (server, redis::answers as Answers));
        let cassandra = record.cassandra.iter().map(|server| (server, cassandra::answers as Answers));
        let mut all_answer = true;
        for (server, answers) in redis.chain(cassandra) {
            let word = match server.state() {
                State::Running if answers(server.addr) => "accepts connections",
                State::Running => "does not answer",
                State::Paused => "paused",
                State::Gone => "stopped",
            };
            all_answer &= word == "accepts connections";
            let pid = server.process.map_or_else(String::new, |process| format!("  pid {}", process.pid));
            println!("{:<12} {:<16} {word}{pid}", server.name, server.addr.to_string());
        }
        Ok(all_answer)
    }

    /// Kills a server without a warning, as a crash would.
    pub(crate) fn kill(&self, name: &str) -> Result<()> {
        self.change(name, |server| {
            running(server)?.kill()?;
            server.process = None;
            Ok(())
        })
    }

    /// Stops the threads of a server: its connections stay open and nothing answers.
    pub(crate) fn pause(&self, name: &str) -> Result<()> {
        self.change(name, |server| running(server)?.signal("STOP"))
    }

    /// Continues a paused server.
    pub(crate) fn resume(&self, name: &str) -> Result<()> {
        self.change(name, |server| running(server)?.signal("CONT"))
    }

    /// Prints the last lines of a server's log.
    pub(crate) fn logs(&self, name: &str, lines: usize) -> Result<()> {
        self.record()?.named(name)?;
        println!("{}", self.last_lines(name, lines)?);
        Ok(())
    }

    /// Stops all servers: with SIGTERM, and those that have not ended after 10 s with SIGKILL. `purge` kills them at once,
    /// and removes data, logs and addresses.
    pub(crate) fn down(&self, purge: bool) -> Result<()> {
        let _lock = self.lock()?;
        let mut record = self.record()?;
        let mut processes: Vec<Process> = record.all().filter_map(|server| running(server).ok()).collect();
        for server in record.all() {
            processes.extend(Process::marked(&self.data_of(&server.name))?);
        }
        if purge {
            processes.into_iter().try_for_each(Process::kill)?;
            return self.purge(&record);
        }
        stop(&processes, END)?;
        record.redis.iter_mut().chain(&mut record.cassandra).for_each(|server| server.process = None);
        record.write(&self.record_path())
    }

    /// Removes only what this program wrote: the folder may be any that was given on the command line.
    fn purge(&self, record: &Record) -> Result<()> {
        for server in record.all() {
            let data = self.data_of(&server.name);
            if data.exists() {
                fs::remove_dir_all(&data).with_context(|| format!("cannot remove {}", data.display()))?;
            }
            let log = self.log_of(&server.name);
            if log.exists() {
                fs::remove_file(log)?;
            }
        }
        let path = self.record_path();
        if path.exists() { Ok(fs::remove_file(path)?) } else { Ok(()) }
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Server) -> Result<()>) -> Result<()> {
        let _lock = self.lock()?;
        let mut record = self.record()?;
        change(record.named(name)?)?;
        record.write(&self.record_path())
    }

    /// The process of a server, which is started if it does not run.
    fn start(&self, server: &Server, command: impl FnOnce(&Path) -> Result<Command>) -> Result<Process> {
        if let Some(process) = server.process {
            match process.state() {
                State::Running => return Ok(process),
                State::Paused => return process.signal("CONT").map(|()| process),
                State::Gone => {}
            }
        }
        let data = self.data_of(&server.name);
        fs::create_dir_all(&data).with_context(|| format!("cannot create {}", data.display()))?;
        // Two servers on the same data would destroy them.
        Process::marked(&data)?.into_iter().try_for_each(Process::kill)?;
        for addr in [Some(server.addr), server.peer_addr].into_iter().flatten() {
            ensure!(
                ports::becomes_free(addr),
                "another program listens on {addr}, the address of {}",
                server.name
            );
        }
        Process::start(command(&data)?, &data, &self.log_of(&server.name))
    }

    /// Waits until a server accepts connections, and prints the time since `begin`.
    fn wait_for(&self, server: &Server, answers: Answers, begin: Instant) -> Result<()> {
        let Server { name, addr, .. } = server;
        let deadline = Instant::now() + START;
        let problem = loop {
            if server.state() == State::Gone {
                break "has ended".to_owned();
            }
            if answers(*addr) {
                println!("{name:<12} {:<16} after {:.1} s", addr.to_string(), begin.elapsed().as_secs_f64());
                return Ok(());
            }
            if Instant::now() > deadline {
                break format!("does not answer after {} s", START.as_secs());
            }
            thread::sleep(POLL);
        };
        let (log, lines) = (self.log_of(name), self.last_lines(name, LAST_LINES)?);
        bail!("{name} {problem}. The end of {}:\n{lines}", log.display())
    }

    fn last_lines(&self, name: &str, count: usize) -> Result<String> {
        last_lines(&self.log_of(name), count)
    }

    fn lock(&self) -> Result<Lock> {
        Lock::acquire(&self.root.join("lock"))
    }

    fn record(&self) -> Result<Record> {
        Record::read(&self.record_path())
    }

    /// The path of `services.json`.
    pub(super) fn record_path(&self) -> PathBuf {
        self.root.join("services.json")
    }

    fn data_of(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn log_of(&self, name: &str) -> PathBuf {
        self.root.join(format!("{name}.log"))
    }
}

/// The last lines of a log.
pub(crate) fn last_lines(path: &Path, count: usize) -> Result<String> {
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    Ok(lines[lines.len().saturating_sub(count)..].join("\n"))
}

/// Asks all processes for their end, and kills those that do not end within `patience`.
pub(crate) fn stop(processes: &[Process], patience: Duration) -> Result<()> {
    processes.iter().try_for_each(|process| process.terminate())?;
    let deadline = Instant::now() + patience;
    for process in processes.iter().filter(|process| !process.ends_before(deadline)) {
        println!("killing process {}, which did not end after {} s", process.pid, patience.as_secs());
        process.kill()?;
    }
    Ok(())
}

/// The process of a server that runs or is paused.
fn running(server: &Server) -> Result<Process> {
    let process = server.process.filter(|process| process.state() != State::Gone);
    process.with_context(|| format!("{} is not running", server.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder whose `redis-1` is a process that sleeps.
    fn folder_with_sleeper(root: &Path) -> (Folder, Process) {
        let folder = Folder::new(root).unwrap();
        let mut record = folder.record().unwrap();
        record.add(Wanted { redis: 1, cassandra: 0 }, ports::free).unwrap();
        record.redis[0].process = Some(folder.start(&record.redis[0], |_| Ok(sleeper())).unwrap());
        record.write(&folder.record_path()).unwrap();
        (folder, record.redis[0].process.unwrap())
    }

    fn sleeper() -> Command {
        let mut command = super::super::process::detached(Path::new("sleep"));
        command.arg("600");
        command
    }

    #[test]
    fn a_server_is_paused_resumed_and_killed_by_its_name() {
        let root = tempfile::tempdir().unwrap();
        let (folder, process) = folder_with_sleeper(root.path());
        folder.pause("redis-1").unwrap();
        assert_eq!(
            folder.start(&folder.record().unwrap().redis[0], |_| bail!("is running")).unwrap(),
            process
        );
        folder.resume("redis-1").unwrap();
        folder.kill("redis-1").unwrap();
        assert_eq!(process.state(), State::Gone);
        assert_eq!(folder.kill("redis-1").unwrap_err().to_string(), "redis-1 is not running");
        assert!(!folder.status().unwrap());
    }

    #[test]
    fn a_server_that_no_record_names_is_killed_before_the_next_one_starts() {
        let root = tempfile::tempdir().unwrap();
        let (folder, lost) = folder_with_sleeper(root.path());
        let mut record = folder.record().unwrap();
        record.redis[0].process = Some(Process { started: lost.started - 1, ..lost });
        let process = folder.start(&record.redis[0], |_| Ok(sleeper())).unwrap();
        assert_eq!((lost.state(), process.state()), (State::Gone, State::Running));
        folder.down(false).unwrap();
        assert_eq!(process.state(), State::Gone);
    }

    #[test]
    fn a_server_that_ends_at_once_shows_its_log() {
        let root = tempfile::tempdir().unwrap();
        let (folder, process) = folder_with_sleeper(root.path());
        process.kill().unwrap();
        fs::write(folder.log_of("redis-1"), "first\nlast\n").unwrap();
        let server = folder.record().unwrap().redis.remove(0);
        let error = folder.wait_for(&server, |_| true, Instant::now()).unwrap_err().to_string();
        assert!(error.starts_with("redis-1 has ended") && error.ends_with("first\nlast"), "{error}");
    }

    #[test]
    fn a_purge_leaves_other_files() {
        let root = tempfile::tempdir().unwrap();
        let (folder, _) = folder_with_sleeper(root.path());
        fs::write(root.path().join("other"), "").unwrap();
        folder.down(true).unwrap();
        folder.down(true).unwrap();
        let names = fs::read_dir(root.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string());
        let mut names: Vec<String> = names.map(Result::unwrap).collect();
        names.sort();
        assert_eq!(names, ["lock", "other"]);
    }
}
