//! Whether this process is ready for work, and if not, the reasons.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use serde::Serialize;

use crate::drain::{Drain, Phase};

/// The checks of one process. Cheap to clone; all clones share the checks.
#[derive(Debug, Clone)]
pub struct Health {
    drain: Drain,
    problems: Problems,
    is_lost: Arc<AtomicBool>,
}

/// The reasons of parts that are not ready, by name. Parts that are ready are not in it.
type Problems = Arc<Mutex<BTreeMap<&'static str, String>>>;

/// A named part of the process that reports its state.
#[derive(Debug, Clone)]
pub struct Check {
    name: &'static str,
    problems: Problems,
    is_lost: Arc<AtomicBool>,
}

/// The answer of the readiness endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// Whether the process accepts new work.
    pub ready: bool,
    /// For each part that is not ready, its name and the reason. Empty when ready.
    pub reasons: BTreeMap<&'static str, String>,
}

impl Health {
    /// A process without checks: ready until it drains.
    #[must_use]
    pub fn new(drain: Drain) -> Self {
        Self { drain, problems: Problems::default(), is_lost: Arc::default() }
    }

    /// Adds a part. It is not ready ("starting") until it reports that it is.
    #[must_use]
    pub fn check(&self, name: &'static str) -> Check {
        let check = Check { name, problems: Arc::clone(&self.problems), is_lost: Arc::clone(&self.is_lost) };
        check.fail("starting");
        check
    }

    /// Whether a part has failed for good, so that the process must be restarted.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.is_lost.load(Ordering::Relaxed)
    }

    /// Ready if every part is ready and the process is not draining.
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

    /// Reports that this part works. Returns whether it was not ready before.
    pub fn pass(&self) -> bool {
        self.problems.lock().remove(self.name).is_some()
    }

    /// Reports that this part will not work again in this process.
    pub(crate) fn give_up(&self, reason: impl Into<String>) {
        self.fail(reason);
        self.is_lost.store(true, Ordering::Relaxed);
    }

    /// Reports that this part does not work; operators see the reason. Returns whether it was ready before.
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
    fn a_draining_process_is_not_ready() {
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
