//! Processor time and memory of the server and of the generator.

use crate::bench::figures::figure;
use crate::bench::process::cpu_seconds;
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
