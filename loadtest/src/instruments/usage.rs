//! Processor time and memory of the server and of the generator.

use std::ops::Sub;

use crate::bench::figures::figure;
use crate::bench::process::{TICKS_PER_SECOND, cpu_seconds};
use crate::server::{Server, processes, rss_of};

/// The server, if its processes are known.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ServerProcess {
    /// Started by this tool, in a process group of its own.
    Group(u32),
    Pid(u32),
    Unknown,
}

/// Resources that the server uses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) cpu_seconds: f64,
    pub(crate) rss_mib: f64,
}

impl ServerProcess {
    /// That of a server which this tool has started, or the one with this id.
    pub(crate) fn of(server: Option<&Server>, pid: Option<u32>) -> Self {
        match (server, pid) {
            (Some(server), _) => server.group().map_or(Self::Unknown, Self::Group),
            (None, Some(pid)) => Self::Pid(pid),
            (None, None) => Self::Unknown,
        }
    }

    fn pids(self) -> Option<Vec<u32>> {
        match self {
            Self::Group(group) => Some(processes(group)),
            Self::Pid(pid) => Some(vec![pid]),
            Self::Unknown => None,
        }
    }

    /// Its processes and the times at which they started: others after a restart, none after a crash.
    pub(crate) fn runs(self) -> Option<Vec<(u32, u64)>> {
        let mut runs: Vec<(u32, u64)> =
            self.pids()?.into_iter().filter_map(|pid| Some((pid, started(&stat(pid)?)?))).collect();
        runs.sort_unstable();
        Some(runs)
    }

    pub(crate) fn usage(self) -> Option<Usage> {
        let pids = self.pids()?;
        let rss_kib: u64 = pids.iter().copied().filter_map(rss_of).sum();
        Some(Usage { cpu_seconds: cpu_seconds_of(pids), rss_mib: figure(rss_kib) / 1024.0 })
    }
}

/// Processor time of these processes. One that has ended counts as zero.
pub(crate) fn cpu_seconds_of(pids: impl IntoIterator<Item = u32>) -> f64 {
    pids.into_iter().filter_map(|pid| cpu_seconds(&stat(pid)?)).sum()
}

fn stat(pid: u32) -> Option<String> {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()
}

/// Field 22: ticks from the start of the machine to that of the process.
fn started(stat: &str) -> Option<u64> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// Processor time of the whole machine, in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Machine {
    pub(crate) busy: f64,
    /// Time in which the host let other machines run.
    pub(crate) stolen: f64,
}

impl Machine {
    pub(crate) fn now() -> Option<Self> {
        Self::parse(&std::fs::read_to_string("/proc/stat").ok()?)
    }

    /// The fields of the first line are user, nice, system, idle, iowait, irq, softirq and steal. Idle and iowait are not
    /// work.
    fn parse(stat: &str) -> Option<Self> {
        let fields = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace();
        let ticks: Vec<f64> = fields.take(8).map(str::parse).collect::<Result<_, _>>().ok()?;
        let [user, nice, system, _, _, irq, softirq, steal] = ticks[..] else { return None };
        let busy = (user + nice + system + irq + softirq) / TICKS_PER_SECOND;
        Some(Self { busy, stolen: steal / TICKS_PER_SECOND })
    }
}

impl Sub for Machine {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self { busy: self.busy - before.busy, stolen: self.stolen - before.stolen }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_is_not_work() {
        let machine = Machine::parse("cpu  100 200 300 9000 9000 50 50 40 0 0\ncpu0 1");
        assert_eq!(machine, Some(Machine { busy: 7.0, stolen: 0.4 }));
        assert_eq!(Machine::parse("cpu  1 2\n"), None);
    }

    #[test]
    fn the_start_of_a_process_is_parsed() {
        assert_eq!(started("12 (a ) b) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 9 0 4711 5"), Some(4_711));
        let own = ServerProcess::Pid(std::process::id()).runs();
        assert_eq!(own.map(|runs| runs.len()), Some(1));
    }
}
