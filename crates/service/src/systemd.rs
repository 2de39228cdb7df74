//! What systemd hears of a process that it started (sd_notify(3)): ready, reloading, stopping, and that it lives.
//!
//! Datagrams to the socket that `NOTIFY_SOCKET` names. A process that somebody else started says nothing.

use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::drain::{Drain, Phase};
use crate::health::Health;

/// Between two looks whether the process is ready.
const LOOK: Duration = Duration::from_millis(50);

/// The service manager of this process.
#[derive(Debug)]
pub struct Systemd {
    socket: UnixDatagram,
    manager: SocketAddr,
    /// It kills a process that is silent for so long.
    watchdog: Option<Duration>,
}

impl Systemd {
    /// The manager that the environment names; `None` if it names none.
    ///
    /// # Errors
    /// Its socket has no valid name, or none can be opened.
    pub fn from_env() -> io::Result<Option<Self>> {
        Self::named(|name| std::env::var_os(name))
    }

    fn named(variable: impl Fn(&str) -> Option<OsString>) -> io::Result<Option<Self>> {
        let Some(name) = variable("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else { return Ok(None) };
        let manager = match name.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            _ => SocketAddr::from_pathname(&name)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        let number = |name| variable(name)?.to_str()?.parse::<u64>().ok();
        // Of another process, if we were started by what systemd started.
        let is_ours = number("WATCHDOG_PID").is_none_or(|process| process == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|&us| is_ours && us > 0).map(Duration::from_micros);
        Ok(Some(Self { socket, manager, watchdog }))
    }

    /// Says `READY=1` once the process is, shows that it lives as often as it must, and says `STOPPING=1` with the
    /// drain. A process that has lost a part for good is silent, so that it is started anew.
    pub async fn attend(self: Arc<Self>, health: Arc<Health>, drain: Drain) {
        while !health.readiness().ready && drain.phase() == Phase::Running {
            tokio::time::sleep(LOOK).await;
        }
        if drain.phase() == Phase::Running {
            self.ready();
        }
        tokio::select! {
            () = self.show_life(&health) => {}
            () = drain.draining() => self.tell("STOPPING=1"),
        }
    }

    async fn show_life(&self, health: &Health) {
        let Some(watchdog) = self.watchdog else { return std::future::pending().await };
        loop {
            if !health.is_lost() {
                self.tell("WATCHDOG=1");
            }
            tokio::time::sleep(watchdog / 3).await;
        }
    }

    /// The process works, for the first time or again.
    pub fn ready(&self) {
        self.tell("READY=1");
    }

    /// The process reads again what may change; [`Self::ready`] follows.
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        // From the manager's own clock: it must tell this reload from one before.
        let now_us = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={now_us}"));
    }

    fn tell(&self, state: &str) {
        if let Err(error) = self.socket.send_to_addr(state.as_bytes(), &self.manager) {
            tracing::warn!(%error, state, "systemd could not be told");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hears what a manager would.
    struct Ear {
        socket: UnixDatagram,
        _folder: tempfile::TempDir,
    }

    fn started_with(variables: &[(&str, &str)]) -> (Systemd, Ear) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        let systemd = Systemd::named(|name| match name {
            "NOTIFY_SOCKET" => Some(path.clone().into()),
            _ => variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into()),
        });
        (systemd.unwrap().unwrap(), Ear { socket, _folder: folder })
    }

    impl Ear {
        fn heard(&self) -> Vec<String> {
            let mut buffer = [0; 256];
            let next = || self.socket.recv(&mut buffer).ok().map(|length| buffer[..length].to_vec());
            std::iter::from_fn(next).map(|bytes| String::from_utf8(bytes).unwrap()).collect()
        }
    }

    /// In steps as small as the shortest rest, so that whoever rests has its turn after each.
    async fn pass(seconds: u32) {
        for _ in 0..seconds * 20 {
            tokio::time::advance(LOOK).await;
        }
    }

    #[test]
    fn who_was_not_started_by_it_says_nothing() {
        assert!(Systemd::named(|_| None).unwrap().is_none());
        assert!(Systemd::named(|name| (name == "NOTIFY_SOCKET").then(OsString::new)).unwrap().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn it_hears_of_a_whole_life() {
        let (systemd, ear) = started_with(&[("WATCHDOG_USEC", "9000000")]);
        let (drain, systemd) = (Drain::new(), Arc::new(systemd));
        let health = Arc::new(Health::new(drain.clone()));
        let check = health.check("store");
        let attend = Arc::clone(&systemd).attend(Arc::clone(&health), drain.clone());
        let life = async {
            pass(60).await;
            assert_eq!(ear.heard(), [""; 0], "not ready");
            check.pass();
            pass(7).await;
            assert_eq!(ear.heard(), ["READY=1", "WATCHDOG=1", "WATCHDOG=1", "WATCHDOG=1"]);
            check.fail("the disk is full");
            pass(3).await;
            assert_eq!(ear.heard(), ["WATCHDOG=1"], "no new process helps against that");
            check.give_up("the task has panicked");
            pass(60).await;
            assert_eq!(ear.heard(), [""; 0]);
            drain.begin();
        };
        tokio::join!(attend, life);
        assert_eq!(ear.heard(), ["STOPPING=1"]);
        systemd.reloading();
        let heard = ear.heard();
        let since = heard[0].strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        assert!(since.parse::<u64>().unwrap() > 0);
    }

    #[test]
    fn the_watchdog_of_another_process_is_not_ours() {
        let of = |process: &str| {
            started_with(&[("WATCHDOG_USEC", "1000000"), ("WATCHDOG_PID", process)]).0.watchdog
        };
        assert_eq!(of("1"), None);
        assert_eq!(of(&std::process::id().to_string()), Some(Duration::from_secs(1)));
        assert_eq!(started_with(&[("WATCHDOG_USEC", "soon")]).0.watchdog, None);
    }

    #[test]
    fn a_name_may_be_abstract() {
        let name = format!("madang-test-{}", std::process::id());
        let hears = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let named = Systemd::named(|key| (key == "NOTIFY_SOCKET").then(|| format!("@{name}").into()));
        named.unwrap().unwrap().ready();
        let mut buffer = [0; 16];
        assert_eq!(hears.recv(&mut buffer).unwrap(), "READY=1".len());
    }
}
