//! Lease and view of a process, over a registry in memory that can fail.

#![expect(clippy::unwrap_used, reason = "a test; clippy exempts test functions only, not their helpers")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use madang_bus::registry::{
    LiveProcess, MemoryRegistry, ProcessCard, ProcessRun, ProcessState, Registry, RegistryError,
    RegistryView, Renewal, Role,
};
use madang_discovery::{
    Discovery, DiscoveryConfig, DiscoveryMetrics, Lease, LiveView, Local, Standing, View,
};
use madang_ids::{NodeEpoch, NodeId};
use madang_service::{Clock, Drain, Health, Tasks};
use tokio::sync::watch;
use tokio::time::timeout;

/// A registry that can be cut off.
#[derive(Default)]
struct Cut {
    registry: MemoryRegistry,
    is_cut: AtomicBool,
}

impl Cut {
    fn reach(&self) -> Result<&MemoryRegistry, RegistryError> {
        match self.is_cut.load(Ordering::Relaxed) {
            true => Err(RegistryError::Unavailable("cut off".into())),
            false => Ok(&self.registry),
        }
    }
}

#[async_trait]
impl Registry for Cut {
    async fn register(
        &self,
        card: &ProcessCard,
        state: ProcessState,
        lease: Duration,
    ) -> Result<(), RegistryError> {
        self.reach()?.register(card, state, lease).await
    }

    async fn renew(
        &self,
        run: ProcessRun,
        state: ProcessState,
        lease: Duration,
    ) -> Result<Renewal, RegistryError> {
        self.reach()?.renew(run, state, lease).await
    }

    async fn leave(&self, run: ProcessRun) -> Result<(), RegistryError> {
        self.reach()?.leave(run).await
    }

    async fn view(&self) -> Result<RegistryView, RegistryError> {
        self.reach()?.view().await
    }

    async fn use_ticket(&self, id: &str, ttl: Duration) -> Result<bool, RegistryError> {
        self.reach()?.use_ticket(id, ttl).await
    }
}

/// A process of the fleet.
struct Process {
    lease: Lease,
    view: watch::Receiver<Arc<View>>,
    standing: watch::Receiver<Standing>,
    load: Arc<AtomicU32>,
    drain: Drain,
    tasks: Tasks,
}

fn card(name: &str, id: u16, epoch: u64) -> ProcessCard {
    ProcessCard {
        run: ProcessRun { role: Role::Chat, id: NodeId(id), epoch: NodeEpoch(epoch) },
        name: name.into(),
        url: String::new(),
        region: String::new(),
        capacity: 10,
        version: String::new(),
    }
}

fn start(registry: &Arc<Cut>, card: ProcessCard) -> Process {
    let (config, clock, metrics) = (DiscoveryConfig::default(), Clock::system(), DiscoveryMetrics::default());
    let local: Arc<dyn Discovery> = Arc::new(Local::new(Arc::clone(registry) as _, config.lease()));
    let lease = Lease::new(Arc::clone(&local), card, &config, clock.clone(), metrics.clone());
    let view = LiveView::new(local, Some(lease.clone()), &config, clock, metrics);
    let (drain, load) = (Drain::new(), Arc::new(AtomicU32::new(0)));
    let tasks = Tasks::new(Drain::new());
    let (standing, reader, open) = (lease.standing(), view.subscribe(), Arc::clone(&load));
    let check = Health::new(Drain::new()).check("view");
    tasks.spawn("lease", lease.clone().keep(move || open.load(Ordering::Relaxed), drain.clone()));
    tasks.spawn("view", view.keep(check));
    Process { lease, view: reader, standing, load, drain, tasks }
}

impl Process {
    /// Waits until the view is as wanted. The time of the test is paused.
    async fn until(&mut self, is_right: impl FnMut(&Arc<View>) -> bool) {
        let found = timeout(Duration::from_secs(120), self.view.wait_for(is_right)).await;
        found.expect("the view does not change as it should").unwrap();
    }

    async fn until_standing(&mut self, wanted: Standing) {
        let found =
            timeout(Duration::from_secs(120), self.standing.wait_for(|standing| *standing == wanted)).await;
        found.unwrap_or_else(|_| panic!("{wanted:?} does not come")).unwrap();
    }

    fn kill(self) {
        self.tasks.drain().stop();
    }
}

fn names(view: &View) -> Vec<String> {
    view.of(Role::Chat).map(|process| process.card.name.clone()).collect()
}

fn of<'v>(view: &'v View, name: &str) -> Option<&'v LiveProcess> {
    view.of(Role::Chat).find(|process| process.card.name == name)
}

async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await; // waits for: nothing, the time of the test is paused
}

#[tokio::test(start_paused = true)]
async fn processes_see_each_other_with_load_and_drain_until_they_leave() {
    let registry = Arc::new(Cut::default());
    let mut a = start(&registry, card("a", 1, 1));
    assert_eq!(names(&a.view.borrow()), ["a"], "a process is in its own view from the beginning");
    let b = start(&registry, card("b", 2, 1));
    a.until(|view| names(view) == ["a", "b"]).await;
    a.until_standing(Standing::Live).await;
    b.load.store(7, Ordering::Relaxed);
    a.until(|view| of(view, "b").unwrap().state.load == 7).await;
    b.drain.begin();
    let began = tokio::time::Instant::now();
    a.until(|view| of(view, "b").unwrap().state.is_draining).await;
    assert!(began.elapsed() <= Duration::from_secs(1), "the begin of a drain is reported at once");
    b.lease.leave().await;
    a.until(|view| names(view) == ["a"]).await;
    assert!(began.elapsed() <= Duration::from_secs(3));
    pass(60).await;
    assert_eq!(names(&a.view.borrow()), ["a"], "one who has left does not register again");
}

#[tokio::test(start_paused = true)]
async fn a_killed_process_is_gone_when_its_lease_has_ended() {
    let registry = Arc::new(Cut::default());
    let mut a = start(&registry, card("a", 1, 1));
    let b = start(&registry, card("b", 2, 1));
    a.until(|view| names(view) == ["a", "b"]).await;
    let killed = tokio::time::Instant::now();
    b.kill();
    a.until(|view| names(view) == ["a"]).await;
    let after = killed.elapsed();
    assert!((9..=17).contains(&after.as_secs()), "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn the_last_view_stays_while_the_registry_is_away_and_everybody_is_back_after_it() {
    let registry = Arc::new(Cut::default());
    let mut a = start(&registry, card("a", 1, 1));
    let mut b = start(&registry, card("b", 2, 1));
    a.until(|view| names(view) == ["a", "b"]).await;
    b.until(|view| names(view) == ["a", "b"]).await;
    registry.is_cut.store(true, Ordering::Relaxed);
    pass(600).await;
    assert_eq!(names(&a.view.borrow()), ["a", "b"]);
    assert!(matches!(*a.standing.borrow(), Standing::Failed(RegistryError::Unavailable(_))));
    // It comes back without its data, as a server that was started again.
    registry.registry.lose_everything();
    registry.is_cut.store(false, Ordering::Relaxed);
    let revision = a.view.borrow().revision;
    for _ in 0..60 {
        pass(1).await;
        assert_eq!(
            (names(&a.view.borrow()), a.view.borrow().revision),
            (vec!["a".into(), "b".into()], revision)
        );
        assert_eq!(names(&b.view.borrow()), ["a", "b"]);
    }
    a.until_standing(Standing::Live).await;
    assert_eq!(registry.view().await.unwrap().processes.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_second_of_two_nodes_with_one_name_waits_until_the_first_has_gone() {
    let registry = Arc::new(Cut::default());
    let mut first = start(&registry, card("same", 1, 1));
    first.until_standing(Standing::Live).await;
    let mut second = start(&registry, card("same", 2, 9));
    second.until_standing(Standing::Failed(RegistryError::NameTaken { id: NodeId(1) })).await;
    pass(60).await;
    assert_eq!(*first.standing.borrow(), Standing::Live);
    assert_eq!(registry.view().await.unwrap().processes.len(), 1);
    first.kill();
    second.until_standing(Standing::Live).await;
}

#[tokio::test(start_paused = true)]
async fn a_later_life_of_the_same_number_ends_the_earlier_one() {
    let registry = Arc::new(Cut::default());
    let mut old = start(&registry, card("a", 1, 1));
    old.until_standing(Standing::Live).await;
    let mut new = start(&registry, card("a", 1, 2));
    new.until_standing(Standing::Live).await;
    old.until_standing(Standing::Failed(RegistryError::OlderEpoch { known: NodeEpoch(2) })).await;
    old.lease.leave().await;
    pass(60).await;
    let view = registry.view().await.unwrap().processes;
    assert_eq!((view.len(), view[0].card.run.epoch), (1, NodeEpoch(2)));
}

#[tokio::test(start_paused = true)]
async fn a_process_goes_on_in_a_new_life() {
    let registry = Arc::new(Cut::default());
    let mut a = start(&registry, card("a", 1, 1));
    a.until_standing(Standing::Live).await;
    a.lease.begin_life(NodeId(1), NodeEpoch(5));
    assert_eq!(a.lease.run().epoch, NodeEpoch(5));
    let run = a.lease.run();
    a.until(|view| view.has(run)).await;
    pass(1).await;
    assert_eq!(registry.view().await.unwrap().processes[0].card.run, run);
}
