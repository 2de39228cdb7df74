//! The live processes, as one process sees them.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use madang_bus::registry::{LiveProcess, ProcessCard, ProcessRun, RegistryView, Role};
use madang_ids::NodeId;
use serde::{Deserialize, Serialize};

/// Says which processes a view has, and which of them drain. Equal views have equal revisions on all processes of the same
/// version; loads do not change it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ViewRevision(pub u64);

/// The live processes, in the order of role and number. At most one for each.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct View {
    /// Which processes these are.
    pub revision: ViewRevision,
    processes: Vec<LiveProcess>,
}

impl View {
    /// A view of these processes. If two have the same role and number, the later life counts.
    #[must_use]
    pub fn new(mut processes: Vec<LiveProcess>) -> Self {
        // The later life first; `dedup` keeps the first.
        processes.sort_by(|one, other| {
            let key = |run: ProcessRun| (run.role, run.id, std::cmp::Reverse(run.epoch));
            key(one.card.run).cmp(&key(other.card.run))
        });
        processes.dedup_by_key(|process| (process.card.run.role, process.card.run.id));
        let mut hasher = DefaultHasher::new();
        for LiveProcess { card, state, .. } in &processes {
            let ProcessCard { run, name, url, region, capacity, version } = card;
            (run, name, url, region, capacity, version, state.is_draining).hash(&mut hasher);
        }
        Self { revision: ViewRevision(hasher.finish()), processes }
    }

    /// All of them.
    #[must_use]
    pub fn processes(&self) -> &[LiveProcess] {
        &self.processes
    }

    /// Those of one role, in the order of their numbers.
    pub fn of(&self, role: Role) -> impl Iterator<Item = &LiveProcess> {
        self.processes.iter().filter(move |process| process.card.run.role == role)
    }

    /// The process with this number.
    #[must_use]
    pub fn find(&self, role: Role, id: NodeId) -> Option<&LiveProcess> {
        let key = |process: &LiveProcess| (process.card.run.role, process.card.run.id);
        let found = self.processes.binary_search_by_key(&(role, id), key).ok()?;
        self.processes.get(found)
    }

    /// Whether this life of a process is alive.
    #[must_use]
    pub fn has(&self, run: ProcessRun) -> bool {
        self.find(run.role, run.id).is_some_and(|process| process.card.run == run)
    }
}

/// Makes views from readings of the registry. The time is that of a clock that rises steadily.
///
/// A reading after the registry has lost its data shows only those who have registered again since. Processes that are missing in
/// it are kept for one lease, the time within which each process registers again.
#[derive(Debug)]
pub struct ViewCore {
    lease: Duration,
    incarnation: Option<u64>,
    /// The last reading.
    seen: Vec<LiveProcess>,
    /// Processes that the registry has forgotten, and until when each is kept.
    kept: Vec<(Duration, LiveProcess)>,
    view: Arc<View>,
}

impl ViewCore {
    /// The view of a process of a fleet with this lease, which has not read the registry yet: it has at most itself. The revision is
    /// the default one as long as the view was never read and has nobody.
    #[must_use]
    pub fn new(lease: Duration, own: Option<LiveProcess>) -> Self {
        let view = Arc::new(own.map_or_else(View::default, |own| View::new(vec![own])));
        Self { lease, incarnation: None, seen: Vec::new(), kept: Vec::new(), view }
    }

    /// The present view.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.view)
    }

    /// Takes a reading in. `own` is the process itself while it serves: it is part of its own view whatever the registry says.
    /// Returns the view if anything in it has changed, also a load.
    pub fn handle_seen(
        &mut self,
        reading: RegistryView,
        own: Option<LiveProcess>,
        now: Duration,
    ) -> Option<Arc<View>> {
        let RegistryView { incarnation, processes } = reading;
        if self.incarnation.is_some_and(|known| known != incarnation) {
            let until = now.saturating_add(self.lease);
            self.kept.extend(self.seen.drain(..).map(|process| (until, process)));
        }
        self.incarnation = Some(incarnation);
        self.kept
            .retain(|(until, gone)| *until > now && !processes.iter().any(|process| replaces(process, gone)));
        self.seen = processes;
        self.rebuild(own)
    }

    /// The registry could not be read: the last reading counts.
    pub fn handle_failure(&mut self, own: Option<LiveProcess>) -> Option<Arc<View>> {
        self.rebuild(own)
    }

    fn rebuild(&mut self, own: Option<LiveProcess>) -> Option<Arc<View>> {
        let kept = self.kept.iter().map(|(_, process)| process);
        let own = own.filter(|own| !self.seen.iter().any(|process| process.card.run == own.card.run));
        let view = View::new(self.seen.iter().chain(kept).cloned().chain(own).collect());
        if view == *self.view {
            return None;
        }
        self.view = Arc::new(view);
        Some(self.view())
    }
}

/// Whether `process` is the same as `gone`, or has been started in its place.
fn replaces(process: &LiveProcess, gone: &LiveProcess) -> bool {
    let (now, before) = (&process.card, &gone.card);
    now.run.role == before.run.role && (now.run.id == before.run.id || now.name == before.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use madang_bus::registry::ProcessState;
    use madang_ids::NodeEpoch;

    const LEASE: Duration = Duration::from_secs(15);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn chat(id: u16, epoch: u64, load: u32) -> LiveProcess {
        let card = ProcessCard {
            run: ProcessRun { role: Role::Chat, id: NodeId(id), epoch: NodeEpoch(epoch) },
            name: format!("chat-{id}"),
            url: String::new(),
            region: String::new(),
            capacity: 10,
            version: String::new(),
        };
        LiveProcess { card, state: ProcessState { load, is_draining: false }, renewal: 1 }
    }

    fn reading(incarnation: u64, processes: &[LiveProcess]) -> RegistryView {
        RegistryView { incarnation, processes: processes.to_vec() }
    }

    fn ids(core: &ViewCore) -> Vec<(u16, u64)> {
        let run = |process: &LiveProcess| (process.card.run.id.0, process.card.run.epoch.0);
        core.view().processes().iter().map(run).collect()
    }

    #[test]
    fn the_revision_changes_with_the_processes_and_not_with_their_load() {
        let revision = |processes: &[LiveProcess]| View::new(processes.to_vec()).revision;
        let before = revision(&[chat(1, 1, 0), chat(2, 1, 0)]);
        assert_eq!(before, revision(&[chat(2, 1, 9), chat(1, 1, 5)]));
        let mut draining = chat(2, 1, 0);
        draining.state.is_draining = true;
        for other in [vec![chat(1, 1, 0)], vec![chat(1, 1, 0), chat(2, 2, 0)], vec![chat(1, 1, 0), draining]]
        {
            assert_ne!(before, revision(&other), "{other:?}");
        }
    }

    #[test]
    fn a_changed_load_is_a_new_view_and_an_equal_reading_is_none() {
        let mut core = ViewCore::new(LEASE, None);
        assert!(core.handle_seen(reading(1, &[chat(1, 1, 0)]), None, at(0)).is_some());
        assert_eq!(core.handle_seen(reading(1, &[chat(1, 1, 0)]), None, at(1)), None);
        let view = core.handle_seen(reading(1, &[chat(1, 1, 3)]), None, at(2)).unwrap();
        assert_eq!(view.find(Role::Chat, NodeId(1)).unwrap().state.load, 3);
        assert!(view.has(chat(1, 1, 3).card.run) && !view.has(chat(1, 2, 3).card.run));
        assert_eq!(view.find(Role::Presence, NodeId(1)), None);
    }

    #[test]
    fn a_process_whose_lease_has_ended_is_gone_at_once() {
        let mut core = ViewCore::new(LEASE, None);
        core.handle_seen(reading(1, &[chat(1, 1, 0), chat(2, 1, 0)]), None, at(0));
        core.handle_seen(reading(1, &[chat(2, 1, 0)]), None, at(1));
        assert_eq!(ids(&core), [(2, 1)]);
    }

    #[test]
    fn an_emptied_registry_loses_nobody_who_comes_back_within_a_lease() {
        let mut core = ViewCore::new(LEASE, None);
        core.handle_seen(reading(1, &[chat(1, 1, 0), chat(2, 1, 0), chat(3, 1, 0)]), None, at(0));
        let revision = core.view().revision;
        core.handle_seen(reading(0, &[]), None, at(10));
        core.handle_seen(reading(2, &[chat(1, 1, 0)]), None, at(12));
        assert_eq!((ids(&core), core.view().revision), (vec![(1, 1), (2, 1), (3, 1)], revision));
        core.handle_seen(reading(2, &[chat(1, 1, 0), chat(2, 1, 0)]), None, at(24));
        assert_eq!(ids(&core), [(1, 1), (2, 1), (3, 1)]);
        core.handle_seen(reading(2, &[chat(1, 1, 0), chat(2, 1, 0)]), None, at(25));
        assert_eq!(ids(&core), [(1, 1), (2, 1)], "the third has not come back for a lease");
        core.handle_seen(reading(2, &[chat(1, 1, 0)]), None, at(26));
        assert_eq!(ids(&core), [(1, 1)], "the second had come back, and has left");
    }

    #[test]
    fn a_restarted_process_replaces_the_one_that_is_kept() {
        let mut core = ViewCore::new(LEASE, None);
        core.handle_seen(reading(1, &[chat(1, 1, 0), chat(2, 1, 0)]), None, at(0));
        let mut renamed = chat(7, 1, 0);
        renamed.card.name = "chat-2".into();
        core.handle_seen(reading(2, &[chat(1, 2, 0), renamed]), None, at(1));
        assert_eq!(ids(&core), [(1, 2), (7, 1)]);
    }

    #[test]
    fn a_process_never_vanishes_from_its_own_view() {
        let (mut core, own) = {
            let own = chat(5, 3, 1);
            (ViewCore::new(LEASE, Some(own.clone())), own)
        };
        assert_eq!(ids(&core), [(5, 3)], "also before the first reading");
        core.handle_seen(reading(1, &[chat(1, 1, 0)]), Some(own.clone()), at(0));
        assert_eq!(ids(&core), [(1, 1), (5, 3)]);
        core.handle_seen(reading(1, &[chat(1, 1, 0), own.clone()]), Some(own.clone()), at(1));
        core.handle_seen(reading(1, &[]), Some(own.clone()), at(2));
        assert_eq!(ids(&core), [(5, 3)]);
        core.handle_failure(Some(chat(6, 1, 0)));
        assert_eq!(ids(&core), [(6, 1)], "it has got another number");
        core.handle_seen(reading(1, &[chat(5, 4, 0)]), Some(own), at(3));
        assert_eq!(ids(&core), [(5, 4)], "unless a later life has its number");
    }
}
