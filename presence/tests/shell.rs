//! The shell over the model store: losses are repaired, and reports never wait.
#![expect(clippy::unwrap_used, reason = "a test; clippy exempts test functions only, not their helpers")]

use std::sync::Arc;
use std::time::Duration;

use madang_ids::{ConnectionId, DeviceId, Millis, UserId};
use madang_presence::{
    Departure, Notice, NoticeTarget, Presence, PresenceConfig, PresenceMetrics, Service, Up, lease, local,
    run,
};
use madang_proto::{Availability, PresenceList};
use madang_service::{Clock, ManualClock, Metrics};
use madang_store::model::{Faults, Model, ModelConfig};
use madang_store::{ContactStore, PresenceChange};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

const PATIENCE: Duration = Duration::from_secs(30);

fn user(id: u64) -> UserId {
    UserId::from_raw(id)
}

fn connection(id: u64) -> ConnectionId {
    ConnectionId::from_raw(id)
}

fn up(id: u64) -> Up {
    Up { user: user(id), device: DeviceId::from_raw(id), connection: connection(id), is_idle: false }
}

struct Stage {
    presence: Presence,
    service: Option<Service>,
    metrics: PresenceMetrics,
    store: Arc<Model>,
    hand: ManualClock,
    running: JoinSet<()>,
}

impl Stage {
    fn new() -> Self {
        let (clock, hand) = Clock::manual(Millis::new(1_000_000));
        let metrics = PresenceMetrics::register(&Metrics::new());
        let (presence, service) = local(PresenceConfig::default(), clock, metrics.clone());
        let store = Model::new(ModelConfig::default());
        Self { presence, service: Some(service), metrics, store, hand, running: JoinSet::new() }
    }

    /// A running service, and one online user whom the node's own set does not contain.
    async fn with_one_online(id: u64) -> (Self, mpsc::Receiver<Notice>) {
        let mut stage = Self::new();
        let notices = stage.run(&[]);
        stage.until(id, None).await;
        stage.presence.up(up(id));
        stage.until(id, Some(Availability::Online)).await;
        (stage, notices)
    }

    /// Runs the service and the lease of a node with these connections.
    fn run(&mut self, connections: &'static [u64]) -> mpsc::Receiver<Notice> {
        let (sender, notices) = mpsc::channel(1_000);
        let tell = move |notice| sender.try_send(notice).unwrap();
        self.running.spawn(run(self.service.take().unwrap(), self.store.clone(), tell));
        let set = move || connections.iter().map(|id| up(*id)).collect();
        self.running.spawn(lease(self.presence.clone(), set));
        notices
    }

    async fn state(&self, id: u64) -> Option<Availability> {
        loop {
            // A full queue takes no questions either.
            if let Some(states) = self.presence.states(None, vec![user(id)]).await {
                return states.users[0].as_ref().map(|card| card.state);
            }
            tokio::task::yield_now().await;
        }
    }

    /// Moves the clock until a user has this state. Returns the seconds that it took.
    async fn until(&self, id: u64, state: Option<Availability>) -> u64 {
        for second in 0..60 {
            for _ in 0..50 {
                if self.state(id).await == state {
                    return second;
                }
                tokio::task::yield_now().await;
            }
            self.hand.advance(Duration::from_secs(1));
        }
        panic!("{id} does not become {state:?}");
    }
}

async fn next(notices: &mut mpsc::Receiver<Notice>) -> Notice {
    tokio::time::timeout(PATIENCE, notices.recv()).await.unwrap().unwrap()
}

#[tokio::test]
async fn reports_do_not_wait_without_presence() {
    let mut stage = Stage::new();
    stage.service = None;
    stage.presence.up(up(1));
    stage.presence.set_idle(user(1), connection(1), true);
    stage.presence.down(user(1), connection(1), Departure::Seen);
    assert_eq!(stage.presence.states(None, vec![user(1)]).await, None);
    stage.presence.end().await;
    assert_eq!(stage.metrics.reports_lost.get(), 3);
}

#[tokio::test]
async fn reports_lost_in_a_full_queue_are_replaced_by_the_full_set() {
    let mut stage = Stage::new();
    // No service takes them.
    for id in 1..=20_000 {
        stage.presence.up(up(id));
    }
    let lost = stage.metrics.reports_lost.get();
    assert!(lost > 0 && lost < 10_000, "{lost}");
    let _notices = stage.run(&[1, 20_000]);
    stage.until(20_000, Some(Availability::Online)).await;
    stage.until(1, Some(Availability::Online)).await;
    assert_eq!(stage.state(2).await, None);
}

#[tokio::test]
async fn a_report_lost_in_a_full_queue_requests_the_full_set() {
    let (stage, _notices) = Stage::with_one_online(9).await;
    // The service takes nothing before the next await.
    for id in 1..=20_000 {
        stage.presence.settings_changed(user(id));
    }
    let lost = stage.metrics.reports_lost.get();
    stage.presence.down(user(9), connection(9), Departure::Final);
    assert_eq!(stage.metrics.reports_lost.get(), lost + 1);
    let took = stage.until(9, None).await;
    assert!((10..30).contains(&took), "{took} s");
}

#[tokio::test]
async fn a_lost_end_becomes_visible_after_the_grace_period() {
    let (stage, _notices) = Stage::with_one_online(9).await;
    // The end is not reported, and the node knows that it has lost something.
    stage.presence.resend();
    let took = stage.until(9, None).await;
    assert!((10..30).contains(&took), "{took} s");
}

#[tokio::test]
async fn settings_are_read_before_anything_is_sent_and_again_after_a_failure() {
    let mut stage = Stage::new();
    let hidden = PresenceChange { invisible: Some(true), status: None };
    stage.store.change_presence(user(1), &hidden).await.unwrap();
    stage.store.set_faults(Faults { unavailable: 1.0, ..Faults::NONE });
    let mut notices = stage.run(&[]);
    stage.until(3, None).await;
    stage.presence.up(up(1));
    stage.presence.up(up(2));
    while stage.metrics.row_failures.get() < 2 {
        stage.hand.advance(Duration::from_millis(500));
        tokio::task::yield_now().await;
    }
    assert_eq!((stage.state(1).await, stage.state(2).await), (None, None));
    stage.store.set_faults(Faults::NONE);
    stage.until(2, Some(Availability::Online)).await;
    assert_eq!(stage.state(1).await, None);
    let own = next(&mut notices).await;
    assert_eq!(own.to, NoticeTarget::Connection(user(1), connection(1)));
    assert!(own.list.users[0].invisible);
}

#[tokio::test]
async fn the_last_activity_is_written_when_a_user_goes_offline_and_when_the_process_ends() {
    let mut stage = Stage::new();
    let mut notices = stage.run(&[1, 2]);
    stage.presence.up(up(1));
    stage.presence.up(up(2));
    stage.until(2, Some(Availability::Online)).await;
    stage.until(1, Some(Availability::Online)).await;
    for _ in 0..16 {
        stage.hand.advance(Duration::from_secs(1));
        tokio::task::yield_now().await;
    }
    let complete = PresenceList { complete: true, ..PresenceList::default() };
    while next(&mut notices).await.list != complete {}
    stage.presence.down(user(1), connection(1), Departure::Final);
    stage.until(1, None).await;
    let rows = async || stage.store.presence(&[user(1), user(2)]).await.unwrap();
    for _ in 0..1_000 {
        stage.hand.advance(Duration::from_millis(100));
        tokio::task::yield_now().await;
    }
    let found = rows().await;
    assert!(found[0].last_active_at > Some(Millis::new(1_000_000)));
    assert_eq!(found[1].last_active_at, None);
    stage.presence.end().await;
    assert!(rows().await[1].last_active_at > found[0].last_active_at);
}
