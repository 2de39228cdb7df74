//! The folder of a fleet, and what can be done with its members.

use std::fs;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::record::{Member, Record, Role};
use crate::cargo;
use crate::services::folder::{self, Folder as Services};
use crate::services::lock::Lock;
use crate::services::process::{Process, State};
use crate::services::{self, Running, Wanted, ports};
use crate::steps::call;

/// How long a member may take until it is ready.
const START: Duration = Duration::from_secs(60);
/// How long a member may take to end after SIGTERM. A chat node drains.
const END: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(50);
/// The file in the folder of a member with the variables of its environment.
const ENVIRONMENT: &str = "environment";
/// Lines of a log in the error of a member that does not start.
const LAST_LINES: usize = 30;

/// What a fleet consists of.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shape {
    pub(crate) nodes: u8,
    pub(crate) discovery: u8,
    pub(crate) presence: u8,
    pub(crate) push: u8,
    /// The section `[push]`.
    pub(crate) push_config: Option<toml::Table>,
    pub(crate) cassandra: u8,
    /// Without rate limits, and without invitations to groups.
    pub(crate) is_open: bool,
    /// The members reach Redis, and the store, through this address instead of their own.
    pub(crate) redis_through: Option<SocketAddrV4>,
    pub(crate) store_through: Option<SocketAddrV4>,
    /// Lines of the section `[channels]`.
    pub(crate) channels: &'static str,
}

/// The folder of a fleet.
pub(crate) struct Place {
    root: PathBuf,
    target: PathBuf,
}

/// The folder in that of a fleet with programs of its own.
const PROGRAMS: &str = "programs";

/// Builds the programs of a fleet, and the load tool. Returns how long it took.
pub(crate) fn build() -> Result<Duration> {
    build_with(&[])
}

/// Builds them with these features besides.
fn build_with(features: &[&str]) -> Result<Duration> {
    let begin = Instant::now();
    let packages = ["madang-chat-server", "madang-discovery", "madang-presence", "madang-push"];
    let mut command = cargo::cargo(&["build", "--release", "--bins", "-p", "madang-loadtest"]);
    for package in packages {
        command.args(["-p", package, "--features", &format!("{package}/fleet")]);
    }
    command.args(features.iter().flat_map(|feature| ["--features", feature]));
    call(&mut command)?;
    Ok(begin.elapsed())
}

impl Place {
    pub(crate) const fn new(root: PathBuf, target: PathBuf) -> Self {
        Self { root, target }
    }

    /// The folder of the servers of the store and of the bus.
    pub(crate) fn services_root(&self) -> PathBuf {
        self.root.join("services")
    }

    /// Makes sure that this number of Redis servers runs. The first one is that of the fleet.
    pub(crate) fn redis(&self, count: u16) -> Result<Vec<SocketAddrV4>> {
        let wanted = Wanted { redis: count, cassandra: 0 };
        Ok(services::ensure_in(&self.services()?, &self.target, wanted)?.redis)
    }

    /// Makes sure that the cluster of the fleet runs.
    pub(crate) fn cassandra(&self, count: u8) -> Result<Vec<SocketAddrV4>> {
        let wanted = Wanted { redis: 0, cassandra: count };
        Ok(services::ensure_in(&self.services()?, &self.target, wanted)?.cassandra)
    }

    /// The data folder of a member, which is made.
    pub(crate) fn folder_of(&self, name: &str) -> Result<PathBuf> {
        let folder = self.root.join(name);
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// Sets what a member has in its environment from its next start on.
    pub(crate) fn set_environment(&self, name: &str, variables: &[(&str, String)]) -> Result<()> {
        let lines: Vec<String> = variables.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        Ok(fs::write(self.folder_of(name)?.join(ENVIRONMENT), lines.concat())?)
    }

    /// Whether every member that is a program of Madang says that it is ready.
    pub(crate) fn are_ours_ready(&self) -> Result<bool> {
        Ok(self.record()?.ours().all(Member::is_ready))
    }

    /// Starts every member that does not run, and waits until all are ready. Members that the folder has and the shape lacks stay.
    pub(crate) fn up(&self, shape: &Shape) -> Result<Duration> {
        let begin = Instant::now();
        let _lock = self.lock()?;
        fs::create_dir_all(&self.root)?;
        let running = self.services_up(shape.cassandra)?;
        let mut record = self.record()?;
        for (role, count) in [
            (Role::Discovery, shape.discovery),
            (Role::Presence, shape.presence),
            (Role::Push, shape.push),
            (Role::Chat, shape.nodes),
        ] {
            add(&mut record, role, count)?;
        }
        self.add_services(&mut record);
        let of = |role| record.of(role).map(|member| member.url.clone()).collect::<Vec<_>>();
        let discovery = of(Role::Discovery);
        record.connect = if discovery.is_empty() { of(Role::Chat) } else { discovery };
        record.write(&self.record_path())?;
        self.write_files(&record, &running, shape)?;
        self.apply_schema(shape.cassandra)?;
        for index in 0..record.nodes.len() {
            self.start(&mut record, index)?;
        }
        record.ours().try_for_each(|member| self.wait_for(member))?;
        println!("connect: {}; {}", record.connect.join(", "), self.record_path().display());
        Ok(begin.elapsed())
    }

    fn services_up(&self, cassandra: u8) -> Result<Running> {
        services::ensure_in(&self.services()?, &self.target, Wanted { redis: 1, cassandra })
    }

    fn write_files(&self, record: &Record, running: &Running, shape: &Shape) -> Result<()> {
        let secret = self.root.join("token.secret");
        if !secret.exists() {
            fs::write(&secret, random_secret()?)?;
            fs::set_permissions(&secret, fs::Permissions::from_mode(0o600))?;
        }
        fs::write(self.config(), configuration(record, running, shape, &secret))?;
        // The load tool restarts what it has killed.
        let script = self.root.join("restart");
        let (program, root) = (std::env::current_exe()?, &self.root);
        let text = format!(
            "#!/bin/sh\n# Starts the member $1 of this fleet.\nexec {program:?} fleet --dir {root:?} restart \"$1\"\n"
        );
        fs::write(&script, text)?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
        Ok(())
    }

    fn apply_schema(&self, cassandra: u8) -> Result<()> {
        let mut command = Command::new(self.programs().join("madang"));
        command.arg("--config").arg(self.config());
        command.args(["schema", "apply", "--replication", &cassandra.to_string()]);
        let output = command.output().context("cannot run madang schema apply")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "madang schema apply: {}", said.trim());
        Ok(())
    }

    /// The servers of the store and the bus, with their present processes.
    fn add_services(&self, record: &mut Record) {
        record.nodes.retain(|member| member.role.is_ours());
        let Ok(services) = fs::read(self.services_root().join("services.json")) else { return };
        let Ok(services) = serde_json::from_slice::<serde_json::Value>(&services) else { return };
        for (list, role) in [("redis", Role::Redis), ("cassandra", Role::Cql)] {
            for server in services[list].as_array().into_iter().flatten() {
                let text = |key: &str| server[key].as_str().unwrap_or_default().to_owned();
                let number = |key: &str| server[key].as_u64().unwrap_or_default();
                let (name, url) = (text("name"), text("addr"));
                let port = url.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or_default();
                let pid = u32::try_from(number("pid")).unwrap_or_default();
                let (internal_port, started) = (None, number("started"));
                record.nodes.push(Member { name, role, url, port, internal_port, pid, started });
            }
        }
    }

    fn start(&self, record: &mut Record, index: usize) -> Result<()> {
        let member = &record.nodes[index];
        if !member.role.is_ours() {
            return Ok(());
        }
        match member.state() {
            State::Running => return Ok(()),
            State::Paused => return member.process().signal("CONT"),
            State::Gone => {}
        }
        let data = self.folder_of(&member.name)?;
        // One that was started by a program that ended before it recorded the pid.
        Process::marked(&data)?.into_iter().try_for_each(Process::kill)?;
        for addr in [Some(member.addr()), member.internal_addr()].into_iter().flatten() {
            let name = &member.name;
            ensure!(ports::becomes_free(addr), "another program listens on {addr}, the address of {name}");
        }
        let mut command = member.command(&self.programs(), &self.config(), &data);
        let variables = fs::read_to_string(data.join(ENVIRONMENT)).unwrap_or_default();
        command.envs(variables.lines().filter_map(|line| line.split_once('=')));
        let process = Process::start(command, &data, &self.log_of(&member.name))?;
        record.nodes[index].set(Some(process));
        record.write(&self.record_path())
    }

    fn wait_for(&self, member: &Member) -> Result<()> {
        let begin = Instant::now();
        while !member.is_ready() {
            if member.state() == State::Gone || begin.elapsed() > START {
                let log = self.last_lines(&member.name, LAST_LINES)?;
                bail!("{} is not ready. The end of its log:\n{log}", member.name);
            }
            thread::sleep(POLL);
        }
        println!("{:<12} {:<24} ready after {:.1} s", member.name, member.url, begin.elapsed().as_secs_f64());
        Ok(())
    }

    /// Prints a line for each member. Whether all are ready.
    pub(crate) fn status(&self) -> Result<bool> {
        let record = self.record()?;
        let mut all_ready = !record.nodes.is_empty();
        if record.nodes.is_empty() {
            println!("there is no fleet in {}", self.root.display());
        }
        for member in record.ours() {
            let word = match member.state() {
                State::Running if member.is_ready() => "ready",
                State::Running => "not ready",
                State::Paused => "paused",
                State::Gone => "stopped",
            };
            all_ready &= word == "ready";
            println!("{:<12} {:<24} {word}  pid {}", member.name, member.url, member.pid);
        }
        Ok(self.services()?.status()? && all_ready)
    }

    pub(crate) fn kill(&self, name: &str) -> Result<()> {
        self.change(name, |member| {
            member.process().kill()?;
            member.set(None);
            Ok(())
        })
    }

    /// Sends a signal: STOP, CONT.
    pub(crate) fn signal(&self, name: &str, signal: &str) -> Result<()> {
        self.change(name, |member| member.process().signal(signal))
    }

    /// Sends SIGTERM, waits for the end, and kills a member that does not end.
    pub(crate) fn stop(&self, name: &str) -> Result<()> {
        self.change(name, |member| {
            folder::stop(&[member.process()], END)?;
            member.set(None);
            Ok(())
        })
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Member) -> Result<()>) -> Result<()> {
        let _lock = self.lock()?;
        let mut record = self.record()?;
        let member = record.named(name)?;
        ensure!(member.state() != State::Gone, "{name} is not running");
        change(member)?;
        record.write(&self.record_path())
    }

    /// Starts a member that does not run, and waits until it is ready.
    pub(crate) fn restart(&self, name: &str) -> Result<()> {
        let _lock = self.lock()?;
        let mut record = self.record()?;
        if record.named(name)?.role.is_ours() {
            let index = record.nodes.iter().position(|member| member.name == name).unwrap_or_default();
            self.start(&mut record, index)?;
            return self.wait_for(&record.nodes[index]);
        }
        self.services_up(u8::try_from(record.of(Role::Cql).count())?)?;
        self.add_services(&mut record);
        record.write(&self.record_path())
    }

    pub(crate) fn logs(&self, name: &str, lines: usize) -> Result<()> {
        if !self.record()?.named(name)?.role.is_ours() {
            return self.services()?.logs(name, lines);
        }
        println!("{}", self.last_lines(name, lines)?);
        Ok(())
    }

    /// Stops all members. `purge` kills them at once, and removes what this program wrote.
    pub(crate) fn down(&self, purge: bool) -> Result<()> {
        let _lock = self.lock()?;
        let mut record = self.record()?;
        let is_there = |member: &&Member| member.state() != State::Gone;
        let ours: Vec<Process> = record.ours().filter(is_there).map(Member::process).collect();
        match purge {
            true => ours.into_iter().try_for_each(Process::kill)?,
            false => folder::stop(&ours, END)?,
        }
        self.services()?.down(purge)?;
        if purge {
            // Only what this program wrote: the folder may be any that was given on the command line.
            for member in record.ours() {
                let _ = fs::remove_dir_all(self.root.join(&member.name));
                let _ = fs::remove_file(self.log_of(&member.name));
            }
            for file in ["fleet.json", "madang.toml", "token.secret", "restart"] {
                let _ = fs::remove_file(self.root.join(file));
            }
            let _ = fs::remove_dir_all(self.root.join(PROGRAMS));
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

    pub(crate) fn record(&self) -> Result<Record> {
        Record::read(&self.record_path())
    }

    fn record_path(&self) -> PathBuf {
        self.root.join("fleet.json")
    }

    fn config(&self) -> PathBuf {
        self.root.join("madang.toml")
    }

    fn services(&self) -> Result<Services> {
        Ok(Services::new(&self.services_root())?.durable())
    }

    fn log_of(&self, name: &str) -> PathBuf {
        self.root.join(format!("{name}.log"))
    }

    /// Gives the fleet programs of its own, in which faults can be planted. Afterwards the programs are built without faults, so that
    /// no such build stays in the target folder.
    pub(crate) fn take_faulty_programs(&self) -> Result<()> {
        let copy = || -> Result<()> {
            build_with(&["madang-chat-server/plant"])?;
            fs::create_dir_all(self.root.join(PROGRAMS))?;
            for program in ["madang", "madang-discovery", "madang-presence", "madang-push"] {
                fs::copy(self.target.join("release").join(program), self.root.join(PROGRAMS).join(program))?;
            }
            Ok(())
        };
        let copied = copy();
        build()?;
        copied
    }

    fn programs(&self) -> PathBuf {
        let own = self.root.join(PROGRAMS);
        if own.is_dir() { own } else { self.target.join("release") }
    }
}

/// Adds members until there are as many of a role as wanted. Those that the record has keep their addresses.
fn add(record: &mut Record, role: Role, wanted: u8) -> Result<()> {
    for number in 1..=wanted {
        let name = format!("{}-{number}", role.word());
        if record.nodes.iter().any(|member| member.name == name) {
            continue;
        }
        let mut taken: Vec<u16> = record
            .nodes
            .iter()
            .flat_map(|member| [Some(member.port), member.internal_port])
            .flatten()
            .collect();
        let port = ports::free(&[Ipv4Addr::LOCALHOST], &taken)?;
        taken.push(port);
        let internal_port = match role {
            Role::Discovery => Some(ports::free(&[Ipv4Addr::LOCALHOST], &taken)?),
            _ => None,
        };
        let url = format!("http://127.0.0.1:{port}");
        record.nodes.push(Member { name, role, url, port, internal_port, pid: 0, started: 0 });
    }
    Ok(())
}

/// The configuration file of all members.
fn configuration(record: &Record, running: &Running, shape: &Shape, secret: &Path) -> String {
    let quoted =
        |texts: Vec<String>| texts.iter().map(|text| format!("{text:?}")).collect::<Vec<_>>().join(", ");
    let nodes = match shape.store_through {
        Some(addr) => quoted(vec![addr.to_string()]),
        None => quoted(running.cassandra.iter().map(ToString::to_string).collect()),
    };
    let redis = shape.redis_through.unwrap_or(running.redis[0]);
    let mut text = format!(
        "# Written by `cargo xtask fleet up`. Every member of the fleet reads it.\n\n[store]\nkind = \"scylla\"\n\
         nodes = [{nodes}]\nkeyspace = \"madang\"\n\n[bus]\nkind = \"redis\"\nurl = \"redis://{redis}\"\n\n\
         [tokens]\nsecret_file = {secret:?}\n"
    );
    let internal: Vec<String> = record
        .of(Role::Discovery)
        .filter_map(Member::internal_addr)
        .map(|addr| format!("http://{addr}"))
        .collect();
    if !internal.is_empty() {
        text += &format!("\n[discovery]\nplacement = \"remote\"\nurls = [{}]\n", quoted(internal));
    }
    if record.of(Role::Presence).next().is_some() {
        text += "\n[presence]\nplacement = \"remote\"\n";
    }
    if let Some(push) = &shape.push_config {
        let mut push = push.clone();
        if record.of(Role::Push).next().is_some() {
            push.insert("placement".to_owned(), "remote".into());
        }
        text += &format!("\n{}", toml::Table::from_iter([("push".to_owned(), push.into())]));
    }
    if shape.is_open {
        text += "\n[limits]\nenabled = false\n\n[accounts]\nconsent = false\n\n[passwords]\nmemory_kib = 8\npasses = 1\n\n\
                 [channels]\ngroup_members = 500\n";
        text += shape.channels;
    }
    text
}

/// The section `[push]` of a file. All processes of a fleet have the same key for browsers, so a setting names it: that for Apple, which is
/// of the same kind, if the file names none.
pub(super) fn push_section(file: &Path) -> Result<toml::Table> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut all: toml::Table = text.parse().with_context(|| file.display().to_string())?;
    let Some(toml::Value::Table(mut push)) = all.remove("push") else {
        bail!("{} has no section [push]", file.display());
    };
    let key = push.get("apns").and_then(|apns| apns.get("key_file")).cloned();
    if let (Some(toml::Value::Table(web)), Some(key)) = (push.get_mut("web_push"), key) {
        web.entry("key_file").or_insert(key);
    }
    Ok(push)
}

/// The content of a new `token.secret`.
fn random_secret() -> Result<[u8; 32]> {
    let mut bytes = [0_u8; 32];
    fs::File::open(Path::new("/dev/urandom"))?.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_keeps_its_address_and_remote_roles_are_configured() {
        let mut record = Record::default();
        add(&mut record, Role::Discovery, 2).unwrap();
        add(&mut record, Role::Presence, 1).unwrap();
        let first = record.clone();
        add(&mut record, Role::Presence, 1).unwrap();
        assert_eq!(record, first);
        let addr: SocketAddrV4 = "127.0.0.1:1".parse().unwrap();
        let running = Running { redis: vec![addr], cassandra: vec![addr, addr] };
        let text =
            configuration(&record, &running, &Shape { is_open: true, ..Shape::default() }, Path::new("s"));
        let read: toml::Table = text.parse().unwrap();
        assert_eq!(read["discovery"]["urls"].as_array().map(Vec::len), Some(2));
        assert_eq!(read["presence"]["placement"].as_str(), Some("remote"));
        assert_eq!(read["bus"]["url"].as_str(), Some("redis://127.0.0.1:1"));
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("push.toml");
        fs::write(
            &file,
            "[push.apns]\nkey_file = \"/a.p8\"\n[push.web_push]\ncontact = \"mailto:a@b.example\"\n",
        )
        .unwrap();
        add(&mut record, Role::Push, 2).unwrap();
        let shape = Shape { push_config: Some(push_section(&file).unwrap()), ..Shape::default() };
        let read: toml::Table = configuration(&record, &running, &shape, Path::new("s")).parse().unwrap();
        assert_eq!(read["push"]["placement"].as_str(), Some("remote"));
        assert_eq!(read["push"]["web_push"]["key_file"].as_str(), Some("/a.p8"));
        add(&mut record, Role::Chat, 3).unwrap();
        let plain = configuration(&Record::default(), &running, &Shape::default(), Path::new("s"));
        assert!(!plain.contains("remote") && !plain.contains("limits"));
    }
}
