//! A presence process among the live processes of its fleet: it registers, and follows who else is alive.

use std::sync::Arc;
use std::time::Duration;

use madang_bus::registry::{
    LiveProcess, ProcessCard, ProcessState, Registry, RegistryError, RegistryView, Renewal, Role,
};
use madang_service::{Check, Clock, Drain, Phase};
use tokio::sync::watch;

use super::{Live, LiveProcesses};
use crate::core::ProcessRun;

/// The life of a registration, and the pauses between two renewals and two looks at the others.
const LEASE: Duration = Duration::from_secs(15);
const RENEWAL: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_secs(1);

/// The registration of a presence process. [`Self::keep`] drives it.
pub struct Registration {
    registry: Arc<dyn Registry>,
    card: ProcessCard,
    clock: Clock,
    live: watch::Sender<Arc<LiveProcesses>>,
    known: Known,
}

/// What was last read of the registry.
#[derive(Debug, Default)]
struct Known {
    incarnation: Option<u64>,
    processes: Vec<LiveProcess>,
    /// Processes that the registry has lost with its memory. They are alive until this time, or have registered again before.
    kept: Vec<(Duration, LiveProcess)>,
}

impl Known {
    fn take(&mut self, view: RegistryView, now: Duration) {
        if self.incarnation.replace(view.incarnation).is_some_and(|known| known != view.incarnation) {
            let until = now + LEASE;
            self.kept.extend(self.processes.drain(..).map(|process| (until, process)));
        }
        self.processes = view.processes;
        let is_same = |one: &LiveProcess, other: &LiveProcess| {
            let (one, other) = (&one.card, &other.card);
            one.run.role == other.run.role && (one.run.id == other.run.id || one.name == other.name)
        };
        let here = &self.processes;
        self.kept.retain(|(until, kept)| *until > now && !here.iter().any(|one| is_same(one, kept)));
    }

    fn live(&self, me: ProcessRun) -> LiveProcesses {
        let all = self.processes.iter().chain(self.kept.iter().map(|(_, process)| process));
        LiveProcesses::of(me, Role::Presence, all)
    }
}

impl LiveProcesses {
    /// The live processes as `me` sees them. `cores` is the role of the processes that have a presence core: chat nodes, if
    /// presence is inside of them, or presence processes.
    #[must_use]
    pub fn of<'a>(me: ProcessRun, cores: Role, all: impl IntoIterator<Item = &'a LiveProcess>) -> Self {
        let (mut processes, mut nodes) = (Vec::new(), Vec::new());
        for LiveProcess { card, state, .. } in all {
            let run = ProcessRun::from((card.run.id, card.run.epoch));
            if card.run.role == cores && !state.is_draining {
                processes.push(run);
            }
            if card.run.role == Role::Chat {
                nodes.push(run);
            }
        }
        // Equal sets must be equal values, because only a change is followed.
        for runs in [&mut processes, &mut nodes] {
            runs.sort_unstable_by_key(|run| (run.process, run.epoch));
        }
        Self { me, processes, nodes }
    }
}

impl Registration {
    /// A process that is not registered yet, and knows nobody.
    #[must_use]
    pub fn new(registry: Arc<dyn Registry>, card: ProcessCard, clock: Clock) -> (Self, Live) {
        let me = ProcessRun::from((card.run.id, card.run.epoch));
        let (live, receiver) = watch::channel(Arc::new(LiveProcesses { me, ..LiveProcesses::default() }));
        (Self { registry, card, clock, live, known: Known::default() }, receiver)
    }

    /// Registers, renews and looks until another process has the number or the name of this one. The begin of the drain is reported
    /// at once. `check` passes while the registry answers. Cancel safe.
    pub async fn keep(mut self, drain: &Drain, check: &Check) -> RegistryError {
        // When the registration was last renewed, and in which phase.
        let mut renewed: Option<(Duration, bool)> = None;
        loop {
            let is_draining = drain.phase() != Phase::Running;
            let now = self.clock.elapsed();
            let is_due = renewed.is_none_or(|(at, was)| was != is_draining || now >= at + RENEWAL);
            let outcome = match is_due {
                true => self.renew(is_draining, renewed.is_some()).await,
                false => Ok(()),
            };
            if is_due && outcome.is_ok() {
                renewed = Some((now, is_draining));
            }
            let outcome = match outcome {
                Ok(()) => self.look().await,
                outcome => outcome,
            };
            match outcome {
                Ok(()) => drop(check.pass()),
                Err(error @ RegistryError::Unavailable(_)) => {
                    if check.fail(error.to_string()) {
                        tracing::warn!(%error, "the registry does not answer: the last view stays");
                    }
                }
                // The name of a process that has crashed is free when its registration ends.
                Err(error @ RegistryError::NameTaken { .. }) if renewed.is_none() => {
                    if check.fail(error.to_string()) {
                        tracing::warn!(%error, "registration refused: retrying");
                    }
                }
                Err(error) => return error,
            }
            tokio::select! {
                () = self.clock.sleep(LOOK) => {}
                () = drain.draining(), if !is_draining => {}
            }
        }
    }

    async fn renew(&self, is_draining: bool, was_registered: bool) -> Result<(), RegistryError> {
        let state = ProcessState { load: 0, is_draining };
        if was_registered && self.registry.renew(self.card.run, state, LEASE).await? == Renewal::Kept {
            return Ok(());
        }
        self.registry.register(&self.card, state, LEASE).await
    }

    async fn look(&mut self) -> Result<(), RegistryError> {
        let view = self.registry.view().await?;
        self.known.take(view, self.clock.elapsed());
        let me = ProcessRun::from((self.card.run.id, self.card.run.epoch));
        let live = self.known.live(me);
        self.live.send_if_modified(|known| {
            let is_other = **known != live;
            if is_other {
                *known = Arc::new(live);
            }
            is_other
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use madang_bus::registry::{self, MemoryRegistry};
    use madang_ids::{NodeEpoch, NodeId};

    fn process(role: Role, id: u16, epoch: u64, is_draining: bool) -> LiveProcess {
        let run = registry::ProcessRun { role, id: NodeId(id), epoch: NodeEpoch(epoch) };
        let (url, region, version) = (String::new(), String::new(), String::new());
        let card = ProcessCard { run, name: format!("{role}-{id}"), url, region, capacity: 0, version };
        LiveProcess { card, state: ProcessState { load: 0, is_draining }, renewal: 1 }
    }

    fn run(process: u16, epoch: u64) -> ProcessRun {
        ProcessRun { process, epoch: NodeEpoch(epoch) }
    }

    #[test]
    fn processes_that_drain_own_nobody_and_nodes_that_drain_are_still_heard() {
        let all = [
            process(Role::Presence, 12, 4, false),
            process(Role::Presence, 11, 3, true),
            process(Role::Chat, 2, 2, true),
            process(Role::Chat, 1, 1, false),
        ];
        let apart = LiveProcesses::of(run(12, 4), Role::Presence, &all);
        assert_eq!((apart.processes, apart.nodes), (vec![run(12, 4)], vec![run(1, 1), run(2, 2)]));
        let inside = LiveProcesses::of(run(1, 1), Role::Chat, &all);
        assert_eq!((inside.processes, inside.nodes), (vec![run(1, 1)], vec![run(1, 1), run(2, 2)]));
    }

    #[test]
    fn processes_that_a_registry_has_forgotten_are_kept_for_a_lease() {
        let mut known = Known::default();
        let (one, two) = (process(Role::Presence, 11, 3, false), process(Role::Presence, 12, 4, false));
        let at = Duration::from_secs;
        let processes = |known: &Known| known.live(run(11, 3)).processes;
        known.take(RegistryView { incarnation: 1, processes: vec![one.clone(), two] }, at(0));
        known.take(RegistryView { incarnation: 2, processes: vec![] }, at(1));
        assert_eq!(processes(&known), [run(11, 3), run(12, 4)]);
        // The first registers again, and the second in a new life.
        let again = process(Role::Presence, 12, 5, false);
        known.take(RegistryView { incarnation: 2, processes: vec![again.clone()] }, at(5));
        assert_eq!(processes(&known), [run(11, 3), run(12, 5)]);
        known.take(RegistryView { incarnation: 2, processes: vec![again] }, at(16));
        assert_eq!(processes(&known), [run(12, 5)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_registers_follows_the_others_and_drains() {
        let (clock, hand) = Clock::manual(madang_ids::Millis::new(1));
        let registry = Arc::new(MemoryRegistry::default());
        let drain = Drain::new();
        let health = madang_service::Health::new(drain.clone());
        let check = health.check("registry");
        let card = process(Role::Presence, 11, 3, false).card;
        let (registration, mut live) = Registration::new(Arc::clone(&registry) as _, card, clock);
        let chat = process(Role::Chat, 1, 1, false).card;
        registry.register(&chat, ProcessState::default(), LEASE).await.unwrap();
        let work = registration.keep(&drain, &check);
        let follow = async {
            live.wait_for(|live| live.processes == [run(11, 3)] && live.nodes == [run(1, 1)]).await.unwrap();
            tokio::time::advance(LEASE).await;
            hand.advance(RENEWAL);
            live.wait_for(|live| live.processes == [run(11, 3)] && live.nodes.is_empty()).await.unwrap();
            drain.begin();
            live.wait_for(|live| live.processes.is_empty()).await.unwrap();
            // A later life of the number ends this one.
            let later = process(Role::Presence, 11, 9, false).card;
            registry.register(&later, ProcessState::default(), LEASE).await.unwrap();
            loop {
                hand.advance(LOOK);
                tokio::task::yield_now().await;
            }
        };
        let ended = tokio::select! {
            error = work => error,
            () = follow => unreachable!(),
        };
        assert_eq!(ended, RegistryError::OlderEpoch { known: NodeEpoch(9) });
    }
}
