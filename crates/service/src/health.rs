//! Whether this process is ready for work, and if not, why.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use serde::Serialize;

use crate::drain::{Drain, Phase};

/// The checks of one process. Cheap to clone; clones are the same.
#[derive(Debug, Clone)]
pub struct Health {
    drain: Drain,
    problems: Problems,
    is_lost: Arc<AtomicBool>,
}

/// Reasons of those that are not ready, by name. Who is ready is not in it.
type Problems = Arc<Mutex<BTreeMap<&'static str, String>>>;

/// One named part of the process that says how it is.
#[derive(Debug, Clone)]
pub struct Check {
    name: &'static str,
    problems: Problems,
    is_lost: Arc<AtomicBool>,
}

/// The answer of the readiness endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// Whether new work may come.
    pub ready: bool,
    /// Name of the part → why it is not ready. Empty when ready.
    pub reasons: BTreeMap<&'static str, String>,
}

impl Health {
    /// A process without checks: ready until it drains.
    #[must_use]
    pub fn new(drain: Drain) -> Self {
        Self { drain, problems: Problems::default(), is_lost: Arc::default() }
    }

    /// Adds a part. It is not ready ("starting") until it says so.
    #[must_use]
    pub fn check(&self, name: &'static str) -> Check {
        let check = Check { name, problems: Arc::clone(&self.problems), is_lost: Arc::clone(&self.is_lost) };
        check.fail("starting");
        check
    }

    /// Whether a part has gone for good, so that only a new process helps.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.is_lost.load(Ordering::Relaxed)
    }

    /// Ready if every part is and the process runs.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        let mut reasons = self.problems.lock().clone();
        match self.drain.phase() {
            Phase::Running => {}
            Phase::Draining => drop(reasons.insert("process", "draining".to_owned())),
            Phase::Stopped => drop(reasons.insert("process", "stopped".to_owned())),
        }
        Readiness { ready: reasons.is_empty(), reasons }
    }
}

impl Check {
    pub(crate) const fn name(&self) -> &'static str {
        self.name
    }

    /// This part works. Says whether it did not before.
    pub fn pass(&self) -> bool {
        self.problems.lock().remove(self.name).is_some()
    }

    /// This part will never work again in this process.
    pub(crate) fn give_up(&self, reason: impl Into<String>) {
        self.fail(reason);
        self.is_lost.store(true, Ordering::Relaxed);
    }

    /// This part does not work; the reason is shown to operators. Says whether it did before.
    pub fn fail(&self, reason: impl Into<String>) -> bool {
        self.problems.lock().insert(self.name, reason.into()).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_must_be_ready() {
        let health = Health::new(Drain::new());
        assert!(health.readiness().ready);
        let (store, bus) = (health.check("store"), health.check("bus"));
        store.pass();
        assert_eq!(health.readiness().reasons, BTreeMap::from([("bus", "starting".to_owned())]));
        bus.pass();
        assert!(health.readiness().ready);
        store.fail("the disk is full");
        assert_eq!(health.readiness().reasons, BTreeMap::from([("store", "the disk is full".to_owned())]));
    }

    #[test]
    fn who_drains_is_not_ready() {
        let drain = Drain::new();
        let health = Health::new(drain.clone());
        drain.begin();
        let readiness = health.readiness();
        assert!(!readiness.ready);
        assert_eq!(readiness.reasons["process"], "draining");
        drain.stop();
        assert_eq!(health.readiness().reasons["process"], "stopped");
    }
}
