//! What every registry does.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use madang_bus::registry::{
    LiveProcess, ProcessCard, ProcessRun, ProcessState, Registry, RegistryError, Renewal, Role,
};
use madang_ids::{NodeEpoch, NodeId};
use tokio::time::{Instant, sleep};

/// A lease that ends within a case. Redis judges it on its own clock, so the cases wait for its end.
const SHORT: Duration = Duration::from_millis(200);
/// A lease that outlasts a case.
pub(crate) const LONG: Duration = Duration::from_secs(60);
/// How long a case waits for the end of a lease.
const PATIENCE: Duration = Duration::from_secs(10);

type Case = fn(Arc<dyn Registry>) -> Pin<Box<dyn Future<Output = ()>>>;

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        pub(crate) fn all() -> Vec<(&'static str, Case)> {
            vec![$((stringify!($name), |registry| Box::pin($name(registry)))),*]
        }
    };
}

cases![
    a_registered_process_is_in_the_view_with_what_it_reported,
    a_process_that_falls_silent_disappears,
    a_renewal_keeps_a_process_beyond_its_first_lease,
    a_process_that_leaves_is_gone_at_once,
    a_renewal_of_a_stranger_is_unknown,
    an_older_life_is_refused_also_after_the_later_one_has_left,
    an_older_life_cannot_end_the_lease_of_a_later_one,
    a_name_belongs_to_one_live_process,
    a_restarted_process_takes_its_own_name_over,
    a_name_is_free_when_the_lease_of_its_holder_ends,
    numbers_and_names_of_different_roles_do_not_meet,
    a_card_that_breaks_a_rule_is_refused,
    a_ticket_is_used_once,
    a_ticket_is_remembered_for_its_time_only,
];

pub(crate) fn run(role: Role, id: u16, epoch: u64) -> ProcessRun {
    ProcessRun { role, id: NodeId(id), epoch: NodeEpoch(epoch) }
}

pub(crate) fn card(name: &str, id: u16, epoch: u64) -> ProcessCard {
    ProcessCard {
        run: run(Role::Chat, id, epoch),
        name: name.into(),
        url: format!("wss://{name}.example"),
        region: "eu".into(),
        capacity: 100,
        version: "0.1.0".into(),
    }
}

fn load(load: u32) -> ProcessState {
    ProcessState { load, is_draining: false }
}

async fn seen(registry: &Arc<dyn Registry>) -> Vec<LiveProcess> {
    let mut view = registry.view().await.unwrap().processes;
    view.sort_by_key(|process| process.card.run);
    view
}

async fn names(registry: &Arc<dyn Registry>) -> Vec<String> {
    seen(registry).await.into_iter().map(|process| process.card.name).collect()
}

/// Waits until the view has these names.
async fn until_only(registry: &Arc<dyn Registry>, expected: &[&str]) {
    let began = Instant::now();
    while names(registry).await != expected {
        assert!(began.elapsed() < PATIENCE, "the view stays {:?}", names(registry).await);
        sleep(Duration::from_millis(20)).await; // waits for: the end of a lease, on the clock of the registry
    }
}

async fn a_registered_process_is_in_the_view_with_what_it_reported(registry: Arc<dyn Registry>) {
    let state = ProcessState { load: 7, is_draining: false };
    registry.register(&card("a", 1, 5), state, LONG).await.unwrap();
    let before = seen(&registry).await;
    assert_eq!((before.len(), &before[0].card, before[0].state), (1, &card("a", 1, 5), state));
    sleep(Duration::from_millis(5)).await; // waits for: the next millisecond, which the renewal is measured in
    let state = ProcessState { load: 8, is_draining: true };
    assert_eq!(registry.renew(run(Role::Chat, 1, 5), state, LONG).await, Ok(Renewal::Kept));
    let after = seen(&registry).await;
    assert_eq!((after.len(), after[0].state), (1, state));
    assert!(after[0].renewal > before[0].renewal);
    let moved = ProcessCard { region: "us".into(), ..card("b", 1, 5) };
    registry.register(&moved, state, LONG).await.unwrap();
    assert_eq!(seen(&registry).await[0].card, moved, "registering again replaces the card");
}

async fn a_process_that_falls_silent_disappears(registry: Arc<dyn Registry>) {
    registry.register(&card("silent", 1, 1), load(0), SHORT).await.unwrap();
    registry.register(&card("loud", 2, 1), load(0), LONG).await.unwrap();
    assert_eq!(names(&registry).await, ["silent", "loud"]);
    until_only(&registry, &["loud"]).await;
    assert_eq!(registry.renew(run(Role::Chat, 1, 1), load(0), LONG).await, Ok(Renewal::Unknown));
    assert_eq!(names(&registry).await, ["loud"], "an ended lease cannot be renewed");
    registry.register(&card("silent", 1, 1), load(0), LONG).await.unwrap();
    assert_eq!(names(&registry).await, ["silent", "loud"]);
}

async fn a_renewal_keeps_a_process_beyond_its_first_lease(registry: Arc<dyn Registry>) {
    registry.register(&card("kept", 1, 1), load(0), SHORT).await.unwrap();
    registry.register(&card("clock", 2, 1), load(0), SHORT).await.unwrap();
    assert_eq!(registry.renew(run(Role::Chat, 1, 1), load(0), LONG).await, Ok(Renewal::Kept));
    until_only(&registry, &["kept"]).await;
}

async fn a_process_that_leaves_is_gone_at_once(registry: Arc<dyn Registry>) {
    registry.register(&card("a", 1, 1), load(0), LONG).await.unwrap();
    registry.leave(run(Role::Chat, 1, 1)).await.unwrap();
    assert_eq!(names(&registry).await, [""; 0]);
    registry.leave(run(Role::Chat, 9, 1)).await.unwrap();
}

async fn a_renewal_of_a_stranger_is_unknown(registry: Arc<dyn Registry>) {
    assert_eq!(registry.renew(run(Role::Chat, 1, 1), load(0), LONG).await, Ok(Renewal::Unknown));
    registry.register(&card("a", 1, 1), load(0), LONG).await.unwrap();
    assert_eq!(registry.renew(run(Role::Chat, 1, 2), load(3), LONG).await, Ok(Renewal::Unknown));
    assert_eq!(seen(&registry).await[0].state, load(0));
}

async fn an_older_life_is_refused_also_after_the_later_one_has_left(registry: Arc<dyn Registry>) {
    let older = Err(RegistryError::OlderEpoch { known: NodeEpoch(10) });
    registry.register(&card("a", 1, 9), load(0), LONG).await.unwrap();
    registry.register(&card("a", 1, 10), load(0), LONG).await.unwrap();
    for _ in 0..2 {
        assert_eq!(registry.register(&card("a", 1, 9), load(1), LONG).await, older);
        assert_eq!(
            registry.renew(run(Role::Chat, 1, 9), load(1), LONG).await,
            Err(RegistryError::OlderEpoch { known: NodeEpoch(10) })
        );
        registry.leave(run(Role::Chat, 1, 10)).await.unwrap();
    }
    assert_eq!(names(&registry).await, [""; 0]);
}

async fn an_older_life_cannot_end_the_lease_of_a_later_one(registry: Arc<dyn Registry>) {
    registry.register(&card("a", 1, 1), load(0), LONG).await.unwrap();
    registry.register(&card("a", 1, 2), load(0), LONG).await.unwrap();
    registry.leave(run(Role::Chat, 1, 1)).await.unwrap();
    assert_eq!(names(&registry).await, ["a"]);
}

async fn a_name_belongs_to_one_live_process(registry: Arc<dyn Registry>) {
    registry.register(&card("a", 1, 1), load(0), LONG).await.unwrap();
    let taken = RegistryError::NameTaken { id: NodeId(1) };
    assert_eq!(registry.register(&card("a", 2, 99), load(0), LONG).await, Err(taken.clone()));
    assert!(taken.to_string().contains("number 1"), "{taken}");
    assert_eq!(seen(&registry).await.len(), 1);
    // A process that takes another name gives the first one free.
    registry.register(&card("b", 1, 2), load(0), LONG).await.unwrap();
    registry.register(&card("a", 2, 1), load(0), LONG).await.unwrap();
    assert_eq!(names(&registry).await, ["b", "a"]);
}

async fn a_restarted_process_takes_its_own_name_over(registry: Arc<dyn Registry>) {
    registry.register(&card("a", 1, 1), load(50), LONG).await.unwrap();
    registry.register(&card("a", 1, 2), load(0), LONG).await.unwrap();
    let view = seen(&registry).await;
    assert_eq!((view.len(), view[0].card.run, view[0].state), (1, run(Role::Chat, 1, 2), load(0)));
}

async fn a_name_is_free_when_the_lease_of_its_holder_ends(registry: Arc<dyn Registry>) {
    registry.register(&card("a", 1, 1), load(0), SHORT).await.unwrap();
    let taken = Err(RegistryError::NameTaken { id: NodeId(1) });
    assert_eq!(registry.register(&card("a", 2, 1), load(0), LONG).await, taken);
    until_only(&registry, &[]).await;
    registry.register(&card("a", 2, 1), load(0), LONG).await.unwrap();
    let taken = Err(RegistryError::NameTaken { id: NodeId(2) });
    assert_eq!(registry.register(&card("a", 1, 1), load(0), LONG).await, taken);
}

async fn numbers_and_names_of_different_roles_do_not_meet(registry: Arc<dyn Registry>) {
    registry.register(&card("a", 1, 5), load(0), LONG).await.unwrap();
    let presence = ProcessCard { run: run(Role::Presence, 1, 2), ..card("a", 1, 2) };
    registry.register(&presence, load(0), LONG).await.unwrap();
    assert_eq!(seen(&registry).await.len(), 2);
    registry.leave(run(Role::Chat, 1, 5)).await.unwrap();
    assert_eq!(seen(&registry).await[0].card, presence);
}

async fn a_card_that_breaks_a_rule_is_refused(registry: Arc<dyn Registry>) {
    let bad = [
        card("", 1, 1),
        card(&"x".repeat(129), 1, 1),
        ProcessCard { url: "x".repeat(513), ..card("a", 1, 1) },
        ProcessCard { region: "x".repeat(129), ..card("a", 1, 1) },
        card("a", 1, 1 << 53),
    ];
    for card in bad {
        let refused = registry.register(&card, load(0), LONG).await;
        assert!(matches!(refused, Err(RegistryError::Invalid(_))), "{card:?}");
    }
    registry.register(&card("마당: \"a\"\n", 1, (1 << 53) - 1), load(0), LONG).await.unwrap();
    assert_eq!(seen(&registry).await[0].card, card("마당: \"a\"\n", 1, (1 << 53) - 1));
}

async fn a_ticket_is_used_once(registry: Arc<dyn Registry>) {
    assert_eq!(registry.use_ticket("1a", LONG).await, Ok(true));
    assert_eq!(registry.use_ticket("1b", LONG).await, Ok(true));
    assert_eq!(registry.use_ticket("1a", LONG).await, Ok(false));
    assert_eq!(registry.use_ticket("1b", LONG).await, Ok(false));
}

async fn a_ticket_is_remembered_for_its_time_only(registry: Arc<dyn Registry>) {
    assert_eq!(registry.use_ticket("2a", SHORT).await, Ok(true));
    let began = Instant::now();
    while !registry.use_ticket("2a", SHORT).await.unwrap() {
        assert!(began.elapsed() < PATIENCE);
        // A refused use does not prolong the memory.
        sleep(Duration::from_millis(20)).await; // waits for: the end of the time, on the clock of the registry
    }
}
