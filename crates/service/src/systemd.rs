//! Notifications to systemd about a process that it started (sd_notify(3)): ready, reloading, stopping, and the
//! watchdog.
//!
//! They are datagrams to the socket that `NOTIFY_SOCKET` names. A process that was not started by systemd sends none.

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

/// Interval between two checks whether the process is ready.
const LOOK: Duration = Duration::from_millis(50);

/// The service manager of this process.
#[derive(Debug)]
pub struct Systemd {
    socket: UnixDatagram,
    manager: SocketAddr,
    /// systemd kills a process that is silent for this time.
    watchdog: Option<Duration>,
}

impl Systemd {
    /// The manager that the environment names; `None` if it names none.
    ///
    /// # Errors
    /// If the name of its socket is invalid, or no socket can be opened.
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
        // The variables may be meant for the parent of this process.
        let is_ours = number("WATCHDOG_PID").is_none_or(|process| process == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|&us| is_ours && us > 0).map(Duration::from_micros);
        Ok(Some(Self { socket, manager, watchdog }))
    }

    /// Sends `READY=1` once the process is ready, and `WATCHDOG=1` as often as needed until the drain begins. A process
    /// of which a part has failed for good sends nothing, so that systemd restarts it.
    pub async fn attend(self: Arc<Self>, health: Arc<Health>, drain: Drain) {
        while !health.readiness().ready && drain.phase() == Phase::Running {
            tokio::time::sleep(LOOK).await;
        }
        if drain.phase() == Phase::Running {
            self.ready();
        }
        tokio::select! {
            () = self.show_life(&health) => {}
            () = drain.draining() => {}
        }
    }

    async fn show_life(&self, health: &Health) {
        let Some(watchdog) = self.watchdog else { return std::future::pending().await };
        loop {
            if !health.is_lost() {
                self.notify("WATCHDOG=1");
            }
            tokio::time::sleep(watchdog / 3).await;
        }
    }

    /// The process is ready, for the first time or after a reload.
    pub fn ready(&self) {
        self.notify("READY=1");
    }

    /// The process reloads; [`Self::ready`] follows.
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        // The time on the manager's own clock distinguishes this reload from an earlier one.
        let now_us = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
        self.notify(&format!("RELOADING=1\nMONOTONIC_USEC={now_us}"));
    }

    /// The drain has begun. Sent by the task that ends the process: a drain without connections is over before another
    /// task may run.
    pub fn stopping(&self) {
        self.notify("STOPPING=1");
    }

    fn notify(&self, state: &str) {
        if let Err(error) = self.socket.send_to_addr(state.as_bytes(), &self.manager) {
            tracing::warn!(%error, state, "cannot notify systemd");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Receives what a manager would receive.
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

    /// Advances the time in steps as small as the shortest sleep, so that every sleeper runs after its own step.
    async fn pass(seconds: u32) {
        for _ in 0..seconds * 20 {
            tokio::time::advance(LOOK).await;
        }
    }

    #[test]
    fn a_process_not_started_by_systemd_sends_nothing() {
        assert!(Systemd::named(|_| None).unwrap().is_none());
        assert!(Systemd::named(|name| (name == "NOTIFY_SOCKET").then(OsString::new)).unwrap().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn it_receives_all_notifications_of_a_process() {
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
            assert_eq!(ear.heard(), ["WATCHDOG=1"], "a restart would not help");
            check.give_up("the task has panicked");
            pass(60).await;
            assert_eq!(ear.heard(), [""; 0]);
            drain.begin();
        };
        tokio::join!(attend, life);
        assert_eq!(ear.heard(), [""; 0]);
        systemd.stopping();
        assert_eq!(ear.heard(), ["STOPPING=1"]);
        systemd.reloading();
        let heard = ear.heard();
        let since = heard[0].strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        assert!(since.parse::<u64>().unwrap() > 0);
    }

    #[test]
    fn the_watchdog_of_another_process_is_ignored() {
        let of = |process: &str| {
            started_with(&[("WATCHDOG_USEC", "1000000"), ("WATCHDOG_PID", process)]).0.watchdog
        };
        assert_eq!(of("1"), None);
        assert_eq!(of(&std::process::id().to_string()), Some(Duration::from_secs(1)));
        assert_eq!(started_with(&[("WATCHDOG_USEC", "soon")]).0.watchdog, None);
    }

    #[test]
    fn a_socket_name_may_be_abstract() {
        let name = format!("madang-test-{}", std::process::id());
        let hears = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let named = Systemd::named(|key| (key == "NOTIFY_SOCKET").then(|| format!("@{name}").into()));
        named.unwrap().unwrap().ready();
        let mut buffer = [0; 16];
        assert_eq!(hears.recv(&mut buffer).unwrap(), "READY=1".len());
    }
}
