//! Processor time and memory of the server and of the generator.

use std::ops::Sub;

use crate::bench::figures::figure;
use crate::bench::process::{TICKS_PER_SECOND, cpu_seconds};
use crate::server::{processes, rss_of};

/// The server, if its processes are known.
#[derive(Debug, Clone, Copy)]
pub(super) enum ServerProcess {
    /// Started by this tool, in a process group of its own.
    Group(u32),
    Pid(u32),
    Unknown,
}

/// Resources that the server uses.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usage {
    pub(super) cpu_seconds: f64,
    pub(super) rss_mib: f64,
}

impl ServerProcess {
    pub(super) fn usage(self) -> Option<Usage> {
        let pids = match self {
            Self::Group(group) => processes(group),
            Self::Pid(pid) => vec![pid],
            Self::Unknown => return None,
        };
        let rss_kib: u64 = pids.iter().copied().filter_map(rss_of).sum();
        Some(Usage { cpu_seconds: cpu_seconds_of(pids), rss_mib: figure(rss_kib) / 1024.0 })
    }
}

/// Processor time of these processes. One that has ended counts as zero.
pub(super) fn cpu_seconds_of(pids: impl IntoIterator<Item = u32>) -> f64 {
    let stat = |pid| std::fs::read_to_string(format!("/proc/{pid}/stat")).ok();
    pids.into_iter().filter_map(|pid| cpu_seconds(&stat(pid)?)).sum()
}

/// Processor time of the whole machine, in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Machine {
    pub(super) busy: f64,
    /// Time in which the host let other machines run.
    pub(super) stolen: f64,
}

impl Machine {
    pub(super) fn now() -> Option<Self> {
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
}
