//! Two nodes and two processes over a real Redis, whose memory is emptied meanwhile.
#![cfg(feature = "redis")]
#![expect(clippy::unwrap_used, reason = "a test; clippy exempts test functions only, not their helpers")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use madang_bus::redis::{Redis, Streams};
use madang_bus::{BusConfig, BusKind};
use madang_ids::{ConnectionId, DeviceId, NodeEpoch, UserId};
use madang_presence::core::ProcessRun;
use madang_presence::fleet::{LiveProcesses, Post, ProcessParts, remote, run_node, run_process, streams};
use madang_presence::{Departure, FleetMetrics, Presence, PresenceConfig, PresenceMetrics, Up};
use madang_proto::Availability;
use madang_service::{Clock, Drain, Metrics};
use madang_store::model::{Model, ModelConfig};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinSet;

const USERS: u64 = 200;
/// A tenth of the times of a server, so that the test is short.
const CONFIG: fn() -> PresenceConfig = || PresenceConfig {
    lease_ms: 3_000,
    renew_ms: 500,
    grace_ms: 1_000,
    drain_grace_ms: 3_000,
    ..PresenceConfig::default()
};

fn run(process: u16) -> ProcessRun {
    ProcessRun { process, epoch: NodeEpoch(1) }
}

fn up(id: u64) -> Up {
    let (user, device) = (UserId::from_raw(id), DeviceId::from_raw(id));
    Up { user, device, connection: ConnectionId::from_raw(id), is_idle: false }
}

struct Fleet {
    redis: Redis,
    clock: Clock,
    store: Arc<Model>,
    live: Arc<LiveProcesses>,
    fleet: FleetMetrics,
    tasks: JoinSet<()>,
}

impl Fleet {
    async fn post(
        &mut self,
        me: u16,
    ) -> (Post, madang_presence::fleet::NodeInbox, madang_presence::fleet::CoreInbox) {
        let streams = Streams::new(self.redis.clone());
        let (post, node, core) = Post::new(streams.clone(), self.clock.clone(), self.fleet.clone());
        let mut reader = streams::reader(&streams, run(me));
        reader.create().await.unwrap();
        self.tasks.spawn(streams.run());
        self.tasks.spawn(streams::receive(reader, post.clone(), self.fleet.clone()));
        (post, node, core)
    }

    fn live(&self, me: u16) -> watch::Receiver<Arc<LiveProcesses>> {
        watch::channel(Arc::new(LiveProcesses { me: run(me), ..(*self.live).clone() })).1
    }

    async fn node(&mut self, me: u16) -> (Presence, Arc<Mutex<Vec<Up>>>) {
        let (post, inbox, _) = self.post(me).await;
        let metrics = PresenceMetrics::register(&Metrics::new());
        let (presence, work) = remote(CONFIG(), self.clock.clone(), metrics, self.fleet.clone());
        let connections: Arc<Mutex<Vec<Up>>> = Arc::default();
        let (here, live) = (Arc::clone(&connections), self.live(me));
        self.tasks.spawn(run_node(work, (post, inbox), live, move || here.lock().clone(), |_| {}));
        (presence, connections)
    }

    async fn process(&mut self, me: u16) {
        let (post, _, inbox) = self.post(me).await;
        let parts = ProcessParts {
            config: CONFIG(),
            clock: self.clock.clone(),
            metrics: PresenceMetrics::register(&Metrics::new()),
            fleet: self.fleet.clone(),
            store: self.store.clone(),
            post: (post, inbox),
            live: self.live(me),
        };
        self.tasks.spawn(run_process(parts, Drain::new()));
    }
}

async fn online(presence: &Presence) -> Option<usize> {
    let states = presence.states(None, (1..=USERS).map(UserId::from_raw).collect()).await?;
    let is_online = |card: &madang_proto::UserPresence| card.state == Availability::Online;
    Some(states.users.iter().flatten().filter(|card| is_online(card)).count())
}

/// Waits until a node says that this number of users is online, and fails if it says less than `least` before.
async fn until(presence: &Presence, number: usize, least: usize, patience: Duration) {
    let begin = Instant::now();
    loop {
        match online(presence).await {
            Some(found) if found == number => return,
            Some(found) => assert!(found >= least, "{found} users are online, at least {least} are"),
            None => {}
        }
        assert!(begin.elapsed() < patience, "{number} users are not online in time");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the address of a Redis server in MADANG_TEST_REDIS"]
async fn presence_survives_a_redis_that_loses_its_memory() {
    let url = format!("redis://{}", std::env::var("MADANG_TEST_REDIS").unwrap());
    let redis = Redis::open(&BusConfig { kind: BusKind::Redis, url, ..BusConfig::default() }).unwrap();
    redis.empty().await.unwrap();
    let live = LiveProcesses { me: run(1), processes: vec![run(11), run(12)], nodes: vec![run(1), run(2)] };
    let mut fleet = Fleet {
        redis: redis.clone(),
        clock: Clock::system(),
        store: Model::new(ModelConfig::default()),
        live: Arc::new(live),
        fleet: FleetMetrics::default(),
        tasks: JoinSet::new(),
    };
    fleet.tasks.spawn(redis.clone().probe());
    let (one, of_one) = fleet.node(1).await;
    let (two, of_two) = fleet.node(2).await;
    fleet.process(11).await;
    fleet.process(12).await;
    for id in 1..=USERS {
        let (presence, connections) = if id % 2 == 0 { (&one, &of_one) } else { (&two, &of_two) };
        connections.lock().push(up(id));
        presence.up(up(id));
    }
    let all = USERS as usize;
    until(&one, all, 0, Duration::from_secs(10)).await;
    until(&two, all, 0, Duration::from_secs(10)).await;
    // Reports before, during and after the loss.
    for id in 1..=20 {
        let (presence, connections) = if id % 2 == 0 { (&one, &of_one) } else { (&two, &of_two) };
        connections.lock().retain(|up| up.user != UserId::from_raw(id));
        presence.down(UserId::from_raw(id), ConnectionId::from_raw(id), Departure::Seen);
        if id % 5 == 0 {
            redis.empty().await.unwrap();
        }
    }
    until(&one, all - 20, all - 20, Duration::from_secs(15)).await;
    until(&two, all - 20, all - 20, Duration::from_secs(15)).await;
    assert_eq!(fleet.fleet.frames_unreadable.get(), 0);
    assert!(fleet.tasks.try_join_next().is_none(), "a task has ended");
}
