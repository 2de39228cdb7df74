//! `cargo xtask fleet`: a whole fleet on loopback, for a developer and for the fault runs: a CQL cluster, Redis and chat nodes, all
//! with one configuration file. The members outlive this program.

mod record;

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{self, Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};

use crate::cargo::{self, Metadata};
use crate::services::folder::{self, Folder as Services};
use crate::services::lock::Lock;
use crate::services::process::{Process, State, detached};
use crate::services::{self, Running, Wanted, ports};
use crate::steps::call;
use record::{Member, Record, Role};

/// How long a member may take until it is ready.
const START: Duration = Duration::from_secs(60);
/// How long a member may take to end after SIGTERM. A chat node drains.
const END: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(50);

/// The command line.
#[derive(Debug, Args)]
pub(crate) struct Fleet {
    #[command(subcommand)]
    action: Action,
    /// The folder of data, logs, configuration and fleet.json; by default `fleet` in the target directory.
    #[arg(long, global = true, value_name = "DIR")]
    dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Builds the server, starts every member that does not run, and waits until all are ready.
    Up {
        /// Number of chat nodes.
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=16))]
        nodes: u8,
        /// Number of nodes of the Cassandra cluster. Each takes about 0.8 GB of memory.
        #[arg(long, default_value = "1", value_parser = PossibleValuesParser::new(["1", "3"]).try_map(|text| text.parse::<u8>()))]
        cassandra: u8,
        /// Disables the rate limits of the nodes, and adds users to groups without an invitation: for the load tool.
        #[arg(long)]
        open: bool,
    },
    /// Prints the state of each member. The exit code says whether all are ready.
    Status,
    /// Kills a member (SIGKILL).
    Kill { name: String },
    /// Starts a member that does not run, and waits until it is ready.
    Restart { name: String },
    /// Pauses a member (SIGSTOP).
    Pause { name: String },
    /// Continues a paused member.
    Resume { name: String },
    /// Prints the end of a member's log.
    Logs {
        name: String,
        /// Number of lines.
        #[arg(long, default_value_t = 100)]
        lines: usize,
    },
    /// Stops all members: SIGTERM, then SIGKILL. Their data and addresses stay.
    Down {
        /// Kills them at once, and removes data, logs and addresses.
        #[arg(long)]
        purge: bool,
    },
}

/// Runs one action.
pub(crate) fn run(fleet: Fleet) -> Result<ExitCode> {
    let target = Metadata::read()?.target_directory;
    let root = path::absolute(fleet.dir.unwrap_or_else(|| target.join("fleet")))?;
    let place = Place { root, target };
    match fleet.action {
        Action::Up { nodes, cassandra, open } => place.up(nodes, cassandra, open)?,
        Action::Status if !place.status()? => return Ok(ExitCode::FAILURE),
        Action::Status => {}
        Action::Kill { name } => place.kill(&name)?,
        Action::Restart { name } => place.restart(&name)?,
        Action::Pause { name } => place.signal(&name, "STOP")?,
        Action::Resume { name } => place.signal(&name, "CONT")?,
        Action::Logs { name, lines } => place.logs(&name, lines)?,
        Action::Down { purge } => place.down(purge)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The folder of a fleet.
struct Place {
    root: PathBuf,
    target: PathBuf,
}

impl Place {
    fn up(&self, nodes: u8, cassandra: u8, is_open: bool) -> Result<()> {
        let begin = Instant::now();
        let build =
            ["build", "--release", "-p", "madang-chat-server", "--features", "fleet", "--bin", "madang"];
        call(&mut cargo::cargo(&build))?;
        let built = begin.elapsed();
        let _lock = self.lock()?;
        fs::create_dir_all(&self.root)?;
        let running = self.services_up(cassandra)?;
        self.write_files(&running, is_open)?;
        self.apply_schema(cassandra)?;
        let mut record = self.record()?;
        self.add(&mut record, &running, nodes)?;
        record.write(&self.record_path())?;
        for index in 0..record.nodes.len() {
            self.start(&mut record, index)?;
        }
        record
            .nodes
            .iter()
            .filter(|member| member.role == Role::Chat)
            .try_for_each(|member| self.wait_for(member))?;
        println!("connect: {}", record.connect.join(", "));
        let (took, built) = (begin.elapsed().as_secs_f64(), built.as_secs_f64());
        println!("up after {took:.1} s, of which {built:.1} s to build; {}", self.record_path().display());
        Ok(())
    }

    fn services_up(&self, cassandra: u8) -> Result<Running> {
        let folder = Services::new(&self.services())?;
        services::ensure_in(&folder, &self.target, Wanted { redis: 1, cassandra })
    }

    fn write_files(&self, running: &Running, is_open: bool) -> Result<()> {
        let secret = self.root.join("token.secret");
        if !secret.exists() {
            fs::write(&secret, random_secret()?)?;
            fs::set_permissions(&secret, fs::Permissions::from_mode(0o600))?;
        }
        let nodes: Vec<String> = running.cassandra.iter().map(|addr| format!("\"{addr}\"")).collect();
        let mut config = format!(
            "# Written by `cargo xtask fleet up`. Every member of the fleet reads it.\n\n[store]\nkind = \"scylla\"\nnodes = [{}]\nkeyspace = \"madang\"\n\n[bus]\nkind = \"redis\"\nurl = \"redis://{}\"\n\n[tokens]\nsecret_file = {:?}\n",
            nodes.join(", "),
            running.redis[0],
            secret,
        );
        if is_open {
            config.push_str("\n[limits]\nenabled = false\n\n[accounts]\nconsent = false\n");
        }
        fs::write(self.config(), config)?;
        // The load tool restarts what it has killed.
        let script = self.root.join("restart");
        let program = std::env::current_exe()?;
        let text = format!(
            "#!/bin/sh\n# Starts the member $1 of this fleet.\nexec {:?} fleet --dir {:?} restart \"$1\"\n",
            program, self.root
        );
        fs::write(&script, text)?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
        Ok(())
    }

    fn apply_schema(&self, cassandra: u8) -> Result<()> {
        let mut command = Command::new(self.program("madang"));
        command.arg("--config").arg(self.config());
        command.args(["schema", "apply", "--replication", &cassandra.to_string()]);
        let output = command.output().context("cannot run madang schema apply")?;
        ensure!(
            output.status.success(),
            "madang schema apply: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(())
    }

    /// Adds members that the record lacks. Those that it has keep their addresses.
    fn add(&self, record: &mut Record, running: &Running, nodes: u8) -> Result<()> {
        for number in 1..=nodes {
            let name = format!("chat-{number}");
            if record.nodes.iter().any(|member| member.name == name) {
                continue;
            }
            let taken: Vec<u16> = record.nodes.iter().map(|member| member.port).collect();
            let port = ports::free(&[Ipv4Addr::LOCALHOST], &taken)?;
            let url = format!("http://127.0.0.1:{port}");
            record.connect.push(url.clone());
            record.nodes.push(Member { name, role: Role::Chat, url, port, pid: 0, started: 0 });
        }
        self.add_services(record, running);
        Ok(())
    }

    /// The servers of the store and the bus, with their present processes.
    fn add_services(&self, record: &mut Record, _running: &Running) {
        record.nodes.retain(|member| member.role == Role::Chat);
        let Ok(services) = fs::read(self.services().join("services.json")) else { return };
        let Ok(services) = serde_json::from_slice::<serde_json::Value>(&services) else { return };
        for (list, role) in [("redis", Role::Redis), ("cassandra", Role::Cql)] {
            for server in services[list].as_array().into_iter().flatten() {
                let text = |key: &str| server[key].as_str().unwrap_or_default().to_owned();
                let number = |key: &str| server[key].as_u64().unwrap_or_default();
                let addr = text("addr");
                let port = addr.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or_default();
                let pid = u32::try_from(number("pid")).unwrap_or_default();
                record.nodes.push(Member {
                    name: text("name"),
                    role,
                    url: addr,
                    port,
                    pid,
                    started: number("started"),
                });
            }
        }
    }

    fn start(&self, record: &mut Record, index: usize) -> Result<()> {
        let member = &record.nodes[index];
        if member.role != Role::Chat {
            return Ok(());
        }
        match member.state() {
            State::Running => return Ok(()),
            State::Paused => return member.process().signal("CONT"),
            State::Gone => {}
        }
        let data = self.root.join(&member.name);
        fs::create_dir_all(&data)?;
        // One that was started by a program that ended before it recorded the pid.
        Process::marked(&data)?.into_iter().try_for_each(Process::kill)?;
        let addr = SocketAddrV4::new(Ipv4Addr::LOCALHOST, member.port);
        ensure!(
            ports::becomes_free(addr),
            "another program listens on {addr}, the address of {}",
            member.name
        );
        let mut command = detached(&self.program("madang"));
        command.arg("--config").arg(self.config()).arg("serve").arg("--addr").arg(addr.to_string());
        command.arg("--data").arg(&data);
        // A cluster on one machine cannot hold what a real one must.
        command.arg("--accept-weak-store");
        command.env("MADANG_NODE__NAME", &member.name);
        command.env("MADANG_NODE__URL", member.url.replacen("http", "ws", 1));
        let process = Process::start(command, &data, &self.log_of(&member.name))?;
        record.nodes[index].set(Some(process));
        record.write(&self.record_path())
    }

    fn wait_for(&self, member: &Member) -> Result<()> {
        let (begin, addr) = (Instant::now(), SocketAddrV4::new(Ipv4Addr::LOCALHOST, member.port));
        while !is_ready(addr) {
            if member.state() == State::Gone || begin.elapsed() > START {
                let log = self.last_lines(&member.name, 30)?;
                bail!("{} is not ready. The end of its log:\n{log}", member.name);
            }
            thread::sleep(POLL);
        }
        println!("{:<12} {:<24} ready after {:.1} s", member.name, member.url, begin.elapsed().as_secs_f64());
        Ok(())
    }

    fn status(&self) -> Result<bool> {
        let record = self.record()?;
        let mut all_ready = !record.nodes.is_empty();
        if record.nodes.is_empty() {
            println!("there is no fleet in {}", self.root.display());
        }
        for member in record.nodes.iter().filter(|member| member.role == Role::Chat) {
            let word = match member.state() {
                State::Running if is_ready(SocketAddrV4::new(Ipv4Addr::LOCALHOST, member.port)) => "ready",
                State::Running => "not ready",
                State::Paused => "paused",
                State::Gone => "stopped",
            };
            all_ready &= word == "ready";
            println!("{:<12} {:<24} {word}  pid {}", member.name, member.url, member.pid);
        }
        Ok(Services::new(&self.services())?.status()? && all_ready)
    }

    fn kill(&self, name: &str) -> Result<()> {
        self.change(name, |member| {
            member.process().kill()?;
            member.set(None);
            Ok(())
        })
    }

    fn signal(&self, name: &str, signal: &str) -> Result<()> {
        self.change(name, |member| member.process().signal(signal))
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Member) -> Result<()>) -> Result<()> {
        let _lock = self.lock()?;
        let mut record = self.record()?;
        let member = record.named(name)?;
        ensure!(member.state() != State::Gone, "{name} is not running");
        change(member)?;
        record.write(&self.record_path())
    }

    fn restart(&self, name: &str) -> Result<()> {
        let _lock = self.lock()?;
        let mut record = self.record()?;
        if record.named(name)?.role == Role::Chat {
            let index = record.nodes.iter().position(|member| member.name == name).unwrap_or_default();
            self.start(&mut record, index)?;
            return self.wait_for(&record.nodes[index]);
        }
        let cassandra = record.nodes.iter().filter(|member| member.role == Role::Cql).count();
        let running = self.services_up(u8::try_from(cassandra)?)?;
        self.add_services(&mut record, &running);
        record.write(&self.record_path())
    }

    fn logs(&self, name: &str, lines: usize) -> Result<()> {
        if self.record()?.named(name)?.role != Role::Chat {
            return Services::new(&self.services())?.logs(name, lines);
        }
        println!("{}", self.last_lines(name, lines)?);
        Ok(())
    }

    fn down(&self, purge: bool) -> Result<()> {
        let _lock = self.lock()?;
        let mut record = self.record()?;
        let chat: Vec<Process> = record
            .nodes
            .iter()
            .filter(|member| member.role == Role::Chat && member.state() != State::Gone)
            .map(Member::process)
            .collect();
        match purge {
            true => chat.into_iter().try_for_each(Process::kill)?,
            false => folder::stop(&chat, END)?,
        }
        Services::new(&self.services())?.down(purge)?;
        if purge {
            // Only what this program wrote: the folder may be any that was given on the command line.
            for member in record.nodes.iter().filter(|member| member.role == Role::Chat) {
                let _ = fs::remove_dir_all(self.root.join(&member.name));
                let _ = fs::remove_file(self.log_of(&member.name));
            }
            for file in ["fleet.json", "madang.toml", "token.secret", "restart"] {
                let _ = fs::remove_file(self.root.join(file));
            }
            return Ok(());
        }
        record.nodes.iter_mut().for_each(|member| member.set(None));
        record.write(&self.record_path())
    }

    fn last_lines(&self, name: &str, count: usize) -> Result<String> {
        folder::last_lines(&self.log_of(name), count)
    }

    fn lock(&self) -> Result<Lock> {
        Lock::acquire(&self.root.join("lock"))
    }

    fn record(&self) -> Result<Record> {
        Record::read(&self.record_path())
    }

    fn record_path(&self) -> PathBuf {
        self.root.join("fleet.json")
    }

    fn config(&self) -> PathBuf {
        self.root.join("madang.toml")
    }

    fn services(&self) -> PathBuf {
        self.root.join("services")
    }

    fn log_of(&self, name: &str) -> PathBuf {
        self.root.join(format!("{name}.log"))
    }

    fn program(&self, name: &str) -> PathBuf {
        self.target.join("release").join(name)
    }
}

/// Whether a member says that it is ready.
fn is_ready(addr: SocketAddrV4) -> bool {
    let ask = || -> std::io::Result<String> {
        let patience = Duration::from_secs(2);
        let mut stream = TcpStream::connect_timeout(&addr.into(), patience)?;
        stream.set_read_timeout(Some(patience))?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

/// The content of a new `token.secret`.
fn random_secret() -> Result<[u8; 32]> {
    let mut bytes = [0_u8; 32];
    fs::File::open(Path::new("/dev/urandom"))?.read_exact(&mut bytes)?;
    Ok(bytes)
}
