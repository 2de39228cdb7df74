//! `madang doctor`: checks what the server needs. Each check prints one line, and one line of advice if it fails.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use madang_service::Clock;
use madang_store::embedded::{self, Glance};
use rustix::process::{Resource, getrlimit};

use crate::config::Config;

/// With less space than this a day of a busy team may fill the disk.
const FREE_BYTES: u64 = 1 << 30;
const SYNCS: usize = 50;
/// The slowest median that is accepted: each ack waits for a sync.
const SYNC_MEDIAN: Duration = Duration::from_millis(20);
const SYNC_WORST: Duration = Duration::from_secs(1);
/// Files that the server opens besides its connections.
const OTHER_FILES: u64 = 128;

/// Check what the server depends on.
#[derive(Debug, Args)]
pub(super) struct Doctor {
    /// The data folder; default madang-data.
    #[arg(long)]
    data: Option<PathBuf>,
}

/// The result of one check, and advice if it failed.
struct Seen {
    what: String,
    advice: Option<String>,
}

impl Seen {
    fn new(what: impl Into<String>, is_well: bool, advice: impl Into<String>) -> Self {
        Self { what: what.into(), advice: (!is_well).then(|| advice.into()) }
    }
}

impl Doctor {
    pub(super) fn run(self, config: Option<&Path>) -> anyhow::Result<ExitCode> {
        let config = super::load(config)?;
        let data = self.data.as_ref().unwrap_or(&config.server.data);
        let glance = embedded::glance(data)?;
        let looks = [
            ("files", files(data)),
            ("secret", Ok(secret(&config, data))),
            ("disk", disk(data, &glance)),
            ("clock", Ok(clock(&Clock::system(), &glance))),
            ("sync", syncs(data)),
            ("open files", Ok(open_files(&config, running(data)))),
        ];
        let mut is_well = true;
        for (name, seen) in looks {
            // A check that cannot run here would fail in the server too.
            let advice = "the server needs this too: free some space, or mount the disk read-write";
            let Seen { what, advice } = seen
                .unwrap_or_else(|error| Seen::new(format!("{}: {error:#}", data.display()), false, advice));
            say!("{} {name:<10} {what}", if advice.is_none() { "ok " } else { "BAD" });
            if let Some(advice) = advice {
                say!("    {:<10} {advice}", "");
                is_well = false;
            }
        }
        Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// A user who can read the folder can read every message and sign tokens.
fn files(data: &Path) -> anyhow::Result<Seen> {
    let us = rustix::process::geteuid().as_raw();
    let mut open = Vec::new();
    let mut foreign = Vec::new();
    let mut look = |path: &Path| -> std::io::Result<()> {
        let metadata = path.metadata()?;
        if metadata.mode() & 0o077 != 0 {
            open.push(path.display().to_string());
        }
        if metadata.uid() != us {
            foreign.push(path.display().to_string());
        }
        Ok(())
    };
    look(data)?;
    let mut count = 0;
    for entry in data.read_dir()? {
        look(&entry?.path())?;
        count += 1;
    }
    if !foreign.is_empty() {
        let advice = "run this command and the server as the owner of the folder, or chown the folder";
        return Ok(Seen::new(format!("not owned by this user: {}", foreign.join(", ")), false, advice));
    }
    let advice = format!("chmod -R go= {}", data.display());
    let what = if open.is_empty() {
        format!("{count}, private")
    } else {
        format!("accessible to other users: {}", open.join(", "))
    };
    Ok(Seen::new(what, open.is_empty(), advice))
}

/// The secret that signs tokens. Without one in the data folder the server makes one when it starts.
fn secret(config: &Config, data: &Path) -> Seen {
    let (path, may_create) = config.secret_file();
    let path = if may_create { data.join("token.secret") } else { path };
    if may_create && !path.exists() {
        return Seen::new("none yet", true, "");
    }
    match madang_auth::load_secret(&path) {
        Ok(_) => Seen::new("whole", true, ""),
        Err(error) if !may_create => {
            let advice = format!("tokens.secret_file must name a file of 32 bytes: {}", path.display());
            Seen::new(format!("unusable: {error}"), false, advice)
        }
        Err(error) => {
            let advice = format!(
                "restore it from a backup, or remove {}: the next start creates a new one, and all users must log \
                 in again",
                path.display()
            );
            Seen::new(format!("unusable: {error}"), false, advice)
        }
    }
}

fn disk(data: &Path, glance: &Glance) -> anyhow::Result<Seen> {
    const MIB: u64 = 1 << 20;
    let disk = rustix::fs::statvfs(data)?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    // A newer version first makes a copy, and a backup on the same disk takes as much again for a while.
    let needed = FREE_BYTES.max(2 * glance.database_bytes);
    let what = format!("{} MiB free, the database has {} MiB", free / MIB, glance.database_bytes / MIB);
    let advice = format!("free some space: {} MiB should be free", needed / MIB);
    Ok(Seen::new(what, free >= needed, advice))
}

/// New entries never have a time before that of the last one. If the clock is behind it, all of them get that time.
fn clock(clock: &Clock, glance: &Glance) -> Seen {
    let (now, last) = (clock.now_ms().get(), glance.last_ms);
    let behind = last.saturating_sub(now);
    if behind > 0 {
        let what = format!("is {} s behind the last entry", behind.div_ceil(1000));
        return Seen::new(
            what,
            false,
            "let NTP set the clock; until then new entries carry the time of the last one",
        );
    }
    let since = if last == 0 {
        "no entry yet".to_owned()
    } else {
        format!("the last entry is {} s old", (now - last) / 1000)
    };
    Seen::new(since, true, "")
}

fn syncs(data: &Path) -> anyhow::Result<Seen> {
    let path = data.join("doctor.tmp");
    let times = time_syncs(&path);
    let _ = std::fs::remove_file(&path);
    let mut times = times?;
    times.sort_unstable();
    let (median, worst) = (times[SYNCS / 2], times[SYNCS - 1]);
    let what = format!("median {median:.1?}, worst {worst:.1?} of {SYNCS}");
    let is_well = median <= SYNC_MEDIAN && worst <= SYNC_WORST;
    Ok(Seen::new(
        what,
        is_well,
        "each ack waits for a sync: use a dedicated disk, an SSD, not a network file system",
    ))
}

fn time_syncs(path: &Path) -> std::io::Result<Vec<Duration>> {
    let clock = Clock::system();
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    let mut times = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        file.write_all(&[7; 4096])?;
        let began = clock.elapsed();
        file.sync_data()?;
        times.push(clock.elapsed() - began);
    }
    Ok(times)
}

/// The limit of open files of the server that has opened the folder.
struct Running {
    process: u32,
    files: Option<u64>,
}

/// Read from the lock file and the kernel. `None` if no server runs.
fn running(data: &Path) -> Option<Running> {
    let process: u32 = std::fs::read_to_string(data.join("lock")).ok()?.trim().parse().ok()?;
    let of_it = |name: &str| std::fs::read_to_string(format!("/proc/{process}/{name}")).ok();
    if of_it("comm")?.trim() != "madang" {
        return None;
    }
    let limits = of_it("limits")?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    Some(Running { process, files: line.split_whitespace().nth(1)?.parse().ok() })
}

/// The server raises its soft limit to the hard limit, so the hard limit counts.
fn open_files(config: &Config, running: Option<Running>) -> Seen {
    let needed = config.gateway.connections as u64 + OTHER_FILES;
    let (whose, limit) = match running {
        Some(Running { process, files }) => (format!("process {process} has "), files),
        None => (String::new(), getrlimit(Resource::Nofile).maximum),
    };
    let what = format!(
        "{whose}{} for {} connections",
        limit.map_or_else(|| "no limit".to_owned(), |limit| limit.to_string()),
        config.gateway.connections
    );
    let advice = format!("set LimitNOFILE={needed} in the systemd unit, or lower gateway.connections");
    Seen::new(what, limit.is_none_or(|limit| limit >= needed), advice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use madang_ids::Millis;

    fn glance(last_ms: u64) -> Glance {
        Glance { database_bytes: 1, last_ms }
    }

    #[test]
    fn a_clock_behind_the_last_entry_is_reported() {
        let (now, _) = Clock::manual(Millis::new(1_000_000));
        assert!(clock(&now, &glance(1_000_000)).advice.is_none());
        let seen = clock(&now, &glance(4_600_000));
        assert_eq!(seen.what, "is 3600 s behind the last entry");
        assert!(seen.advice.is_some());
    }

    #[test]
    fn a_database_too_large_for_its_disk_and_a_readable_file_are_reported() {
        let folder = tempfile::tempdir().unwrap();
        let large = Glance { database_bytes: 1 << 60, last_ms: 0 };
        assert!(disk(folder.path(), &large).unwrap().advice.is_some());
        let set = |path: &Path, mode| {
            std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        };
        set(folder.path(), 0o700);
        assert!(files(folder.path()).unwrap().advice.is_none());
        std::fs::write(folder.path().join("madang.db"), "").unwrap();
        set(&folder.path().join("madang.db"), 0o644);
        let seen = files(folder.path()).unwrap();
        assert!(seen.what.contains("madang.db") && seen.advice.is_some());
    }

    #[test]
    fn more_connections_than_files_are_reported() {
        let mut config = Config::default();
        config.gateway.connections = 1;
        assert!(open_files(&config, None).advice.is_none());
        config.gateway.connections = usize::MAX / 4;
        let of_server = open_files(&config, Some(Running { process: 7, files: Some(1_024) }));
        assert!(of_server.what.starts_with("process 7 has 1024 for") && of_server.advice.is_some());
        assert!(getrlimit(Resource::Nofile).maximum.is_none() || open_files(&config, None).advice.is_some());
    }
}
