//! A process of a fleet that serves no clients: it has pages for operators, obeys signals, and tells systemd what it does.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

use crate::{Clock, Drain, Health, Metrics, Signals, Systemd, Tasks, pages};

/// How long tasks may take to end after the work of the process.
const PATIENCE: Duration = Duration::from_secs(5);

/// What such a process consists of, apart from its work.
pub struct Process {
    /// The clock.
    pub clock: Clock,
    /// What `/metrics` shows.
    pub metrics: Metrics,
    /// What `/readyz` says.
    pub health: Health,
    /// Tasks that end with the process. What it does at last is in them.
    pub tasks: Tasks,
    /// Begins with SIGTERM.
    pub drain: Drain,
    signals: Signals,
    systemd: Option<Arc<Systemd>>,
}

impl Process {
    /// Listens for signals, and serves the pages on `addr`.
    ///
    /// # Errors
    /// The address is in use, or is not one of this machine; or systemd cannot be reached.
    pub async fn start(addr: SocketAddr) -> io::Result<Self> {
        let named =
            |what: String| move |error: io::Error| io::Error::new(error.kind(), format!("{what}: {error}"));
        let drain = Drain::new();
        let signals =
            Signals::listen(drain.clone()).map_err(named("cannot listen for signals".to_owned()))?;
        let systemd = Systemd::from_env().map_err(named("NOTIFY_SOCKET".to_owned()))?.map(Arc::new);
        let listener = TcpListener::bind(addr).await.map_err(named(format!("cannot listen on {addr}")))?;
        let (metrics, health, tasks) = (Metrics::new(), Health::new(drain.clone()), Tasks::new(Drain::new()));
        let serving = pages::serve(listener, health.clone(), metrics.clone(), tasks.clone());
        tasks.spawn_vital(health.check("listen"), serving);
        if let Some(systemd) = &systemd {
            tasks.spawn("systemd", Arc::clone(systemd).attend(Arc::new(health.clone()), drain.clone()));
        }
        Ok(Self { clock: Clock::system(), metrics, health, tasks, drain, signals, systemd })
    }

    /// Ends its tasks.
    pub async fn end(self) {
        if let Some(systemd) = self.systemd {
            systemd.stopping();
        }
        self.tasks.drain().stop();
        if let Err(stragglers) = self.tasks.close_and_wait(PATIENCE).await {
            tracing::debug!(%stragglers, "tasks were aborted");
        }
        tracing::info!("drained");
        drop(self.signals);
    }
}
