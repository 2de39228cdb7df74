//! SIGTERM and SIGINT: the first one starts the drain, the second one ends the process at once. SIGHUP: reload what can
//! be reloaded.

use std::io;
use std::process;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::AbortHandle;
use tokio_util::task::TaskTracker;

use crate::drain::{Drain, Phase};

/// Listens for signals while it exists. Keep it until the process ends.
#[derive(Debug)]
pub struct Signals(AbortHandle);

impl Signals {
    /// Starts to listen. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If a handler cannot be installed.
    pub fn listen(drain: Drain) -> io::Result<Self> {
        let term = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        // This is not one of `Tasks`, which would wait for it at the end: it must receive the second signal until then.
        let task = TaskTracker::new().spawn(listen(drain, term, interrupt));
        Ok(Self(task.abort_handle()))
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// SIGHUP, which ends a process without a handler for it.
#[derive(Debug)]
pub struct Hangups(Signal);

impl Hangups {
    /// Starts to listen. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If the handler cannot be installed.
    pub fn listen() -> io::Result<Self> {
        Ok(Self(signal(SignalKind::hangup())?))
    }

    /// Waits for the next signal. Several signals at the same time count as one. Cancel safe.
    pub async fn next(&mut self) {
        if self.0.recv().await.is_none() {
            std::future::pending().await
        }
    }
}

async fn listen(drain: Drain, mut term: Signal, mut interrupt: Signal) {
    loop {
        let (name, number) = tokio::select! {
            Some(()) = term.recv() => ("SIGTERM", 15),
            Some(()) = interrupt.recv() => ("SIGINT", 2),
            else => return,
        };
        if drain.phase() != Phase::Running {
            tracing::warn!(signal = name, "exiting at once");
            process::exit(128 + number);
        }
        tracing::info!(signal = name, "draining; a second signal ends the process at once");
        drain.begin();
    }
}
