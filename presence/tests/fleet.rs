//! The shells of a fleet over the model store: nodes and processes in one process, and frames from memory to memory.
#![expect(clippy::unwrap_used, reason = "a test; clippy exempts test functions only, not their helpers")]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use madang_ids::{ConnectionId, DeviceId, Millis, NodeEpoch, UserId};
use madang_presence::core::ProcessRun;
use madang_presence::fleet::{
    CoreInbox, LiveProcesses, NodeInbox, Post, ProcessParts, Transport, remote, run_node, run_process,
};
use madang_presence::{
    Departure, FleetMetrics, Notice, Presence, PresenceConfig, PresenceMetrics, States, Up,
};
use madang_proto::Availability;
use madang_service::{Clock, Drain, ManualClock, Metrics};
use madang_store::model::{Model, ModelConfig};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// Where each process receives its frames.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<HashMap<ProcessRun, Post>>>);

impl Transport for Memory {
    fn send(&self, to: ProcessRun, frame: Vec<u8>) -> bool {
        let post = self.0.lock().get(&to).cloned();
        post.is_some_and(|post| {
            post.receive(&frame);
            true
        })
    }
}

fn run(process: u16) -> ProcessRun {
    ProcessRun { process, epoch: NodeEpoch(1) }
}

fn up(id: u64) -> Up {
    let (user, device) = (UserId::from_raw(id), DeviceId::from_raw(id));
    Up { user, device, connection: ConnectionId::from_raw(id), is_idle: false }
}

struct Node {
    presence: Presence,
    connections: Arc<Mutex<Vec<Up>>>,
    notices: mpsc::Receiver<Notice>,
}

struct Process {
    drain: Drain,
    metrics: PresenceMetrics,
}

struct Fleet {
    memory: Memory,
    clock: Clock,
    hand: ManualClock,
    store: Arc<Model>,
    live: Vec<watch::Sender<Arc<LiveProcesses>>>,
    tasks: JoinSet<()>,
    fleet: FleetMetrics,
}

impl Fleet {
    fn new() -> Self {
        let (clock, hand) = Clock::manual(Millis::new(1_000_000));
        let store = Model::new(ModelConfig::default());
        let (memory, fleet) = (Memory::default(), FleetMetrics::default());
        Self { memory, clock, hand, store, live: Vec::new(), tasks: JoinSet::new(), fleet }
    }

    fn post(&mut self, me: ProcessRun) -> (Post, NodeInbox, CoreInbox) {
        let (post, node, core) = Post::new(self.memory.clone(), self.clock.clone(), self.fleet.clone());
        self.memory.0.lock().insert(me, post.clone());
        (post, node, core)
    }

    fn live(&mut self, me: ProcessRun) -> watch::Receiver<Arc<LiveProcesses>> {
        let (sender, live) = watch::channel(Arc::new(LiveProcesses { me, ..LiveProcesses::default() }));
        self.live.push(sender);
        live
    }

    /// All processes learn of these.
    fn tell(&self, processes: &[u16], nodes: &[u16]) {
        let runs = |numbers: &[u16]| numbers.iter().map(|number| run(*number)).collect();
        for sender in &self.live {
            let me = sender.borrow().me;
            let live = LiveProcesses { me, processes: runs(processes), nodes: runs(nodes) };
            sender.send_replace(Arc::new(live));
        }
    }

    fn node(&mut self, number: u16, post: (Post, NodeInbox)) -> Node {
        let metrics = PresenceMetrics::register(&Metrics::new());
        let config = PresenceConfig::default();
        let (presence, work) = remote(config, self.clock.clone(), metrics, self.fleet.clone());
        let live = self.live(run(number));
        let connections: Arc<Mutex<Vec<Up>>> = Arc::default();
        let (here, (sender, notices)) = (Arc::clone(&connections), mpsc::channel(1_000));
        let deliver = move |notice| sender.try_send(notice).unwrap();
        self.tasks.spawn(run_node(work, post, live, move || here.lock().clone(), deliver));
        Node { presence, connections, notices }
    }

    fn process(&mut self, number: u16, post: (Post, CoreInbox)) -> Process {
        let (drain, metrics) = (Drain::new(), PresenceMetrics::register(&Metrics::new()));
        let parts = ProcessParts {
            config: PresenceConfig::default(),
            clock: self.clock.clone(),
            metrics: metrics.clone(),
            fleet: self.fleet.clone(),
            store: self.store.clone(),
            post,
            live: self.live(run(number)),
        };
        self.tasks.spawn(run_process(parts, drain.clone()));
        Process { drain, metrics }
    }

    /// Two nodes and two processes of their own.
    fn apart() -> (Self, [Node; 2], [Process; 2]) {
        let mut fleet = Self::new();
        let nodes = [1, 2].map(|number| {
            let (post, inbox, _) = fleet.post(run(number));
            fleet.node(number, (post, inbox))
        });
        let processes = [11, 12].map(|number| {
            let (post, _, inbox) = fleet.post(run(number));
            fleet.process(number, (post, inbox))
        });
        fleet.tell(&[11, 12], &[1, 2]);
        (fleet, nodes, processes)
    }

    /// Moves the clock.
    async fn pass(&self, seconds: u64) {
        for _ in 0..seconds * 4 {
            for _ in 0..50 {
                tokio::task::yield_now().await;
            }
            self.hand.advance(Duration::from_millis(250));
        }
    }

    /// What a node says of users, while the clock moves.
    async fn ask(&self, node: &Node, users: impl IntoIterator<Item = u64>) -> Option<States> {
        let users = users.into_iter().map(UserId::from_raw).collect();
        let mut asking = std::pin::pin!(node.presence.states(None, users));
        loop {
            tokio::select! {
                biased;
                states = &mut asking => return states,
                () = self.pass(1) => {}
            }
        }
    }
}

impl Node {
    fn up(&self, id: u64) {
        self.connections.lock().push(up(id));
        self.presence.up(up(id));
    }

    fn down(&self, id: u64) {
        self.connections.lock().retain(|up| up.user != UserId::from_raw(id));
        self.presence.down(UserId::from_raw(id), ConnectionId::from_raw(id), Departure::Seen);
    }
}

fn online(states: &States) -> usize {
    states.users.iter().flatten().filter(|card| card.state == Availability::Online).count()
}

#[tokio::test]
async fn users_of_all_nodes_are_known_to_each_node() {
    let (fleet, [one, two], processes) = Fleet::apart();
    (1..=40).for_each(|id| if id % 2 == 0 { one.up(id) } else { two.up(id) });
    fleet.pass(20).await;
    for node in [&one, &two] {
        let states = fleet.ask(node, 1..=41).await.unwrap();
        assert_eq!((online(&states), states.is_settled), (40, true));
    }
    let owned = processes.map(|process| process.metrics.users.get());
    assert!(owned[0] > 5 && owned[1] > 5 && owned[0] + owned[1] == 40, "{owned:?}");
    one.down(2);
    fleet.pass(11).await;
    assert_eq!(online(&fleet.ask(&two, 1..=41).await.unwrap()), 39);
    let mut one = one;
    let complete = |notices: &mut mpsc::Receiver<Notice>| {
        std::iter::from_fn(|| notices.try_recv().ok()).filter(|notice| notice.list.complete).count()
    };
    assert!(complete(&mut one.notices) >= 20, "each connection gets a whole list");
}

#[tokio::test]
async fn a_process_that_drains_hands_its_users_over_and_ends() {
    let (mut fleet, [one, _two], processes) = Fleet::apart();
    (1..=40).for_each(|id| one.up(id));
    fleet.pass(20).await;
    (1..=40).for_each(|id| one.down(id));
    fleet.pass(1).await;
    processes[0].drain.begin();
    fleet.tell(&[12], &[1, 2]);
    fleet.pass(5).await;
    assert!(fleet.tasks.try_join_next().is_some_and(|ended| ended.is_ok()), "it has ended");
    assert_eq!(processes[1].metrics.users.get(), 40, "all of them are in their grace period");
    let states = fleet.ask(&one, 1..=40).await.unwrap();
    assert_eq!(online(&states), 40);
    fleet.pass(12).await;
    assert_eq!(online(&fleet.ask(&one, 1..=40).await.unwrap()), 0);
}

#[tokio::test]
async fn a_process_that_is_gone_leaves_its_users_unknown() {
    let (fleet, [one, _two], _processes) = Fleet::apart();
    (1..=40).for_each(|id| one.up(id));
    fleet.pass(20).await;
    fleet.memory.0.lock().remove(&run(11));
    let states = fleet.ask(&one, 1..=40).await.unwrap();
    assert!(!states.is_settled && (5..35).contains(&online(&states)), "{}", online(&states));
    fleet.memory.0.lock().clear();
    assert_eq!(fleet.ask(&one, 1..=40).await, None);
}

#[tokio::test]
async fn a_frame_that_cannot_be_read_is_counted() {
    let mut fleet = Fleet::new();
    let (post, _, _) = fleet.post(run(1));
    post.receive(&[9, 1, 2]);
    post.receive(b"\x01{}");
    assert_eq!(fleet.fleet.frames_unreadable.get(), 2);
}

#[tokio::test]
async fn two_roles_of_one_process_exchange_frames_without_encoding() {
    let mut fleet = Fleet::new();
    let (post, of_node, of_core) = fleet.post(run(1));
    // Nothing comes by the transport.
    fleet.memory.0.lock().clear();
    let node = fleet.node(1, (post.clone(), of_node));
    let _process = fleet.process(1, (post, of_core));
    fleet.tell(&[1], &[1]);
    node.up(1);
    fleet.pass(20).await;
    let states = fleet.ask(&node, [1, 2]).await.unwrap();
    assert_eq!((online(&states), states.is_settled), (1, true));
}
