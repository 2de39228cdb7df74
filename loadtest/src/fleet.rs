//! The members of a running fleet, as the file `fleet.json` in its folder describes them: killed with SIGKILL, and
//! started again by the program `restart` in the same folder, which the fleet's own command has written.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::ValueEnum;
use madang_client::Rest;
use rand::RngExt;
use rand::rngs::StdRng;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

/// The file that names the members.
const FILE: &str = "fleet.json";
/// The program that starts a member again.
const RESTART: &str = "restart";
/// The output of its last run.
const LOG: &str = "restart.log";
/// Time limit of a restart. A node of Cassandra needs a minute on a busy machine.
const RESTART_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// Interval between two looks at a process.
const LOOK: Duration = Duration::from_millis(20);

/// What a member does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role {
    Chat,
    Presence,
    Discovery,
    Redis,
    Cql,
    /// A role that this tool does not know. Such a member is never killed.
    #[serde(other)]
    #[value(skip)]
    Other,
}

/// One process.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) role: Role,
    #[serde(default)]
    url: Option<String>,
    pid: i32,
}

impl Member {
    /// Its process.
    pub(crate) const fn pid(&self) -> i32 {
        self.pid
    }

    /// Its address.
    pub(crate) fn url(&self) -> Option<&str> {
        self.url.as_deref()
    }
}

#[derive(Debug, Deserialize)]
struct File {
    connect: Vec<String>,
    nodes: Vec<Member>,
}

/// A running fleet.
#[derive(Debug)]
pub(crate) struct Fleet {
    folder: PathBuf,
    connect: Vec<String>,
}

impl Fleet {
    /// Reads the file of a fleet.
    pub(crate) fn open(folder: &Path) -> anyhow::Result<Self> {
        let file = read(folder)?;
        ensure!(!file.connect.is_empty(), "{} names no address to connect to", folder.join(FILE).display());
        Ok(Self { folder: folder.to_owned(), connect: file.connect })
    }

    /// The addresses that clients are given.
    pub(crate) fn connect(&self) -> &[String] {
        &self.connect
    }

    /// The addresses for other calls: those of the chat nodes.
    ///
    /// # Errors
    /// If the file names none.
    pub(crate) fn calls(&self) -> anyhow::Result<Vec<String>> {
        let nodes = read(&self.folder)?.nodes.into_iter().filter(|member| member.role == Role::Chat);
        let urls: Vec<String> = nodes.filter_map(|member| member.url).collect();
        ensure!(!urls.is_empty(), "{} names no chat node", self.folder.join(FILE).display());
        Ok(urls)
    }

    /// The members at present. A member that was started again has another process.
    ///
    /// # Errors
    /// If a member does not run: it ended by itself, which no member may do.
    pub(crate) fn members(&self) -> anyhow::Result<Vec<Member>> {
        let mut members = read(&self.folder)?.nodes;
        members.sort_by(|one, other| one.name.cmp(&other.name));
        for Member { name, pid, .. } in &members {
            ensure!(is_running(*pid), "{name} (process {pid}) does not run, and this run did not kill it");
        }
        Ok(members)
    }

    /// Sends SIGKILL to a member and waits until its process has ended.
    pub(crate) async fn kill(&self, member: &Member) -> anyhow::Result<()> {
        let Member { name, pid, .. } = member;
        let process =
            Pid::from_raw(*pid).filter(|_| *pid > 1).with_context(|| format!("{name} has no process"))?;
        kill_process(process, Signal::KILL)
            .with_context(|| format!("could not kill {name} (process {pid})"))?;
        let ended = timeout(RESTART_TIMEOUT, async {
            while is_running(*pid) {
                sleep(LOOK).await;
            }
        });
        ended.await.with_context(|| format!("{name} (process {pid}) does not end"))
    }

    /// Has a killed member started again, and waits until it runs. Programs of Madang must also be ready.
    pub(crate) async fn restart(&self, member: &Member) -> anyhow::Result<()> {
        let (name, started) = (&member.name, Instant::now());
        let program = self.folder.join(RESTART);
        if program.exists() {
            self.run(&program, name).await?;
        }
        while started.elapsed() < RESTART_TIMEOUT {
            if self.is_back(member).await {
                return Ok(());
            }
            sleep(LOOK).await;
        }
        bail!("{name} was not started again within {} s", RESTART_TIMEOUT.as_secs())
    }

    /// Runs the program that starts a member. Its output goes to a file, because the new member may inherit it.
    async fn run(&self, program: &Path, name: &str) -> anyhow::Result<()> {
        let log = self.folder.join(LOG);
        let output =
            std::fs::File::create(&log).with_context(|| format!("could not write {}", log.display()))?;
        let mut command = Command::new(program);
        command.arg(name).stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let status = timeout(RESTART_TIMEOUT, command.status()).await;
        let status = status.with_context(|| format!("{} {name} does not end", program.display()))??;
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        ensure!(status.success(), "{} {name}: {status}: {}", program.display(), said.trim());
        Ok(())
    }

    /// Whether another process has taken the place of a killed one.
    async fn is_back(&self, killed: &Member) -> bool {
        // The file may be half written at this moment.
        let Ok(file) = read(&self.folder) else { return false };
        let Some(now) = file.nodes.into_iter().find(|member| member.name == killed.name) else {
            return false;
        };
        if now.pid == killed.pid || !is_running(now.pid) {
            return false;
        }
        match (now.role, now.url) {
            (Role::Chat | Role::Discovery | Role::Presence, Some(url)) => {
                match Rest::new(&url, Duration::from_secs(1)) {
                    Ok(rest) => rest.is_ready().await,
                    // The address of a socket, or one behind a certificate of its own: the program has waited.
                    Err(_) => true,
                }
            }
            _ => true,
        }
    }
}

/// Draws the next member to kill: first a role, so that a role with many members is not killed more often, then a member
/// of that role. `None` if no member has one of the roles.
pub(crate) fn choose<'a>(random: &mut StdRng, members: &'a [Member], roles: &[Role]) -> Option<&'a Member> {
    let has_members = |role: &&Role| members.iter().any(|member| member.role == **role);
    let roles: Vec<&Role> = roles.iter().filter(has_members).collect();
    let role = **roles.get(random.random_range(0..roles.len().max(1)))?;
    let members: Vec<&Member> = members.iter().filter(|member| member.role == role).collect();
    Some(members[random.random_range(0..members.len())])
}

fn read(folder: &Path) -> anyhow::Result<File> {
    let path = folder.join(FILE);
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("could not read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} does not describe a fleet", path.display()))
}

/// Whether a process exists and has not ended. One that has ended and was not waited for still exists.
fn is_running(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use serde_json::json;
    use std::collections::BTreeMap;
    use std::os::unix::fs::PermissionsExt;

    fn member(name: &str, role: Role) -> Member {
        Member { name: name.to_owned(), role, url: None, pid: 0 }
    }

    #[test]
    fn a_seed_gives_the_same_kills_and_roles_are_killed_equally_often() {
        let members = [
            member("chat-1", Role::Chat),
            member("chat-2", Role::Chat),
            member("chat-3", Role::Chat),
            member("cql-1", Role::Cql),
            member("redis", Role::Redis),
            member("proxy", Role::Other),
        ];
        let draw = |seed| {
            let mut random = StdRng::seed_from_u64(seed);
            let roles = [Role::Chat, Role::Redis, Role::Presence];
            (0..3_000)
                .map(|_| choose(&mut random, &members, &roles).unwrap().name.clone())
                .collect::<Vec<_>>()
        };
        assert!(draw(7) == draw(7) && draw(7) != draw(8));
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        draw(7).into_iter().for_each(|name| *counts.entry(name).or_default() += 1);
        assert_eq!(counts.keys().collect::<Vec<_>>(), ["chat-1", "chat-2", "chat-3", "redis"]);
        assert!(
            (1_300..1_700).contains(&counts["redis"]) && (400..600).contains(&counts["chat-2"]),
            "{counts:?}"
        );
        assert_eq!(choose(&mut StdRng::seed_from_u64(1), &members, &[Role::Presence]), None);
    }

    /// A fleet of processes that do nothing. Those that a test leaves are killed.
    struct Idle(tempfile::TempDir);

    impl Idle {
        fn new(names: &[(&str, &str)]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let nodes: Vec<_> = names
                .iter()
                .map(|(name, role)| json!({ "name": name, "role": role, "url": "", "pid": idle().id().unwrap() }))
                .collect();
            let file = json!({ "connect": ["http://127.0.0.1:1"], "nodes": nodes });
            std::fs::write(folder.path().join(FILE), file.to_string()).unwrap();
            Self(folder)
        }

        fn restart_with(&self, script: &str) {
            let path = self.0.path().join(RESTART);
            std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o700)).unwrap();
        }
    }

    impl Drop for Idle {
        fn drop(&mut self) {
            for member in read(self.0.path()).map(|file| file.nodes).unwrap_or_default() {
                if let Some(pid) = Pid::from_raw(member.pid) {
                    let _ = kill_process(pid, Signal::KILL);
                }
            }
        }
    }

    fn idle() -> tokio::process::Child {
        Command::new("sleep").arg("600").spawn().unwrap()
    }

    #[tokio::test]
    async fn a_member_is_killed_and_its_new_process_is_found() {
        let idle = Idle::new(&[("presence-1", "presence"), ("new-1", "something-new")]);
        // Replaces the process of the first member in the file.
        idle.restart_with(
            "test \"$1\" = presence-1 || exit 3\n\
             sleep 600 >/dev/null 2>&1 &\n\
             cd \"$(dirname \"$0\")\"\n\
             sed \"0,/\\\"pid\\\":[0-9]*/s//\\\"pid\\\":$!/\" fleet.json > new && mv new fleet.json",
        );
        let fleet = Fleet::open(idle.0.path()).unwrap();
        let before = fleet.members().unwrap();
        let (other, victim) = (&before[0], &before[1]);
        assert_eq!((victim.name.as_str(), other.role), ("presence-1", Role::Other));
        fleet.kill(victim).await.unwrap();
        assert!(!is_running(victim.pid));
        let gone = fleet.members().unwrap_err().to_string();
        assert!(gone.contains("presence-1") && gone.contains("did not kill it"), "{gone}");
        fleet.restart(victim).await.unwrap();
        let after = fleet.members().unwrap();
        assert_ne!(after[1].pid, victim.pid);
        assert_eq!(&after[0], other);
    }

    #[tokio::test]
    async fn a_restart_that_fails_says_why() {
        let idle = Idle::new(&[("chat-1", "chat")]);
        idle.restart_with("echo the port is in use >&2; exit 3");
        let fleet = Fleet::open(idle.0.path()).unwrap();
        let members = fleet.members().unwrap();
        fleet.kill(&members[0]).await.unwrap();
        let failed = fleet.restart(&members[0]).await.unwrap_err().to_string();
        assert!(failed.contains("chat-1") && failed.contains("the port is in use"), "{failed}");
    }

    #[test]
    fn a_folder_without_a_fleet_is_refused_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let refusal = || format!("{:#}", Fleet::open(folder.path()).unwrap_err());
        assert!(refusal().contains("could not read") && refusal().contains(FILE));
        std::fs::write(folder.path().join(FILE), "{}").unwrap();
        assert!(refusal().contains("does not describe a fleet"));
        std::fs::write(folder.path().join(FILE), r#"{"connect":[],"nodes":[]}"#).unwrap();
        assert!(refusal().contains("names no address"));
    }
}
