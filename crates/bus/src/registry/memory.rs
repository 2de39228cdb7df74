//! The registry of one process.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use madang_ids::NodeId;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    LiveProcess, ProcessCard, ProcessRun, ProcessState, Registry, RegistryError, RegistryView, Renewal, Role,
    VIEW_PROCESSES,
};

/// How long the epoch of a process that has gone is remembered.
const REMEMBERED: Duration = Duration::from_secs(3_600);

/// Keeps the live processes in memory, on the clock of tokio. One process has one entry; tests have a few.
#[derive(Debug, Default)]
pub struct MemoryRegistry(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    processes: HashMap<(Role, NodeId), Entry>,
    /// Used tickets, with the time until which each is remembered.
    used: HashMap<String, Instant>,
    renewals: u64,
    incarnation: u64,
}

#[derive(Debug)]
struct Entry {
    live: LiveProcess,
    ends: Instant,
}

impl MemoryRegistry {
    /// Loses everything, as a Redis server that is restarted empty.
    pub fn lose_everything(&self) {
        let mut inner = self.0.lock();
        *inner = Inner { incarnation: inner.incarnation + 1, ..Inner::default() };
    }
}

impl Inner {
    fn next_renewal(&mut self) -> u64 {
        self.renewals += 1;
        self.renewals
    }

    fn known(&self, run: ProcessRun) -> Option<&Entry> {
        self.processes.get(&(run.role, run.id))
    }

    fn refuse_older(&self, run: ProcessRun) -> Result<(), RegistryError> {
        match self.known(run).map(|entry| entry.live.card.run.epoch) {
            Some(known) if known > run.epoch => Err(RegistryError::OlderEpoch { known }),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Registry for MemoryRegistry {
    async fn register(
        &self,
        card: &ProcessCard,
        state: ProcessState,
        lease: Duration,
    ) -> Result<(), RegistryError> {
        card.check()?;
        let (mut inner, now) = (self.0.lock(), Instant::now());
        inner.processes.retain(|_, entry| now < entry.ends + REMEMBERED);
        inner.refuse_older(card.run)?;
        let has_name = |entry: &&Entry| {
            let other = &entry.live.card;
            entry.ends > now
                && other.run.role == card.run.role
                && other.name == card.name
                && other.run.id != card.run.id
        };
        if let Some(entry) = inner.processes.values().find(has_name) {
            return Err(RegistryError::NameTaken { id: entry.live.card.run.id });
        }
        let renewal = inner.next_renewal();
        let live = LiveProcess { card: card.clone(), state, renewal };
        inner.processes.insert((card.run.role, card.run.id), Entry { live, ends: now + lease });
        Ok(())
    }

    async fn renew(
        &self,
        run: ProcessRun,
        state: ProcessState,
        lease: Duration,
    ) -> Result<Renewal, RegistryError> {
        let (mut inner, now) = (self.0.lock(), Instant::now());
        inner.refuse_older(run)?;
        let renewal = inner.next_renewal();
        match inner.processes.get_mut(&(run.role, run.id)) {
            Some(entry) if entry.live.card.run == run && entry.ends > now => {
                entry.ends = now + lease;
                (entry.live.state, entry.live.renewal) = (state, renewal);
                Ok(Renewal::Kept)
            }
            _ => Ok(Renewal::Unknown),
        }
    }

    async fn leave(&self, run: ProcessRun) -> Result<(), RegistryError> {
        let (mut inner, now) = (self.0.lock(), Instant::now());
        if let Some(entry) = inner.processes.get_mut(&(run.role, run.id))
            && entry.live.card.run == run
        {
            entry.ends = entry.ends.min(now);
        }
        Ok(())
    }

    async fn view(&self) -> Result<RegistryView, RegistryError> {
        let (inner, now) = (self.0.lock(), Instant::now());
        let live = inner.processes.values().filter(|entry| entry.ends > now);
        let processes = live.take(VIEW_PROCESSES).map(|entry| entry.live.clone()).collect();
        Ok(RegistryView { incarnation: inner.incarnation, processes })
    }

    async fn use_ticket(&self, id: &str, ttl: Duration) -> Result<bool, RegistryError> {
        let (mut inner, now) = (self.0.lock(), Instant::now());
        inner.used.retain(|_, until| *until > now);
        if inner.used.contains_key(id) {
            return Ok(false);
        }
        inner.used.insert(id.to_owned(), now + ttl);
        Ok(true)
    }
}
