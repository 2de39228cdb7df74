//! Two nodes over a Redis of their own, which a test may stop, empty and start again.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use madang_bus::redis::{BusConfig, BusKind, Redis, RedisBus, Streams};
use madang_bus::{Bus, Delivery, Envelope, Inbox, InboxRead, Loss, Peers};
use madang_ids::{Cursor, LogId, Millis, NodeEpoch, NodeId, NodeRun, Ordinal, Position, Seq, UserId};
use madang_proto::{Content, Entry, SnapshotReason};
use madang_store::model::{Model, ModelConfig};
use madang_store::{Append, Head, LogStore, Row};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

const ANNA: UserId = UserId::from_raw(1);
/// Longer than the comparison of a node takes.
const PATIENCE: Duration = Duration::from_secs(40);

/// A Redis server without a memory on disk.
struct Server {
    program: String,
    port: u16,
    child: Child,
}

impl Server {
    /// `MADANG_TEST_REDIS_SERVER` is the program.
    async fn start() -> Self {
        let program = std::env::var("MADANG_TEST_REDIS_SERVER").unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = Self { child: Self::spawn(&program, port), program, port };
        server.answers().await;
        server
    }

    fn spawn(program: &str, port: u16) -> Child {
        let mut command = Command::new(program);
        command.args(["--port", &port.to_string(), "--save", "", "--appendonly", "no"]);
        command.stdout(Stdio::null()).spawn().unwrap()
    }

    async fn answers(&mut self) {
        let redis = Redis::open(&self.config()).unwrap();
        let mut probing = JoinSet::new();
        probing.spawn(redis.clone().probe());
        timeout(PATIENCE, async {
            while redis.ping().await.is_err() {
                // waits for: the server that was just started
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
        .expect("Redis answers");
    }

    fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Begins again with an empty memory.
    async fn begin_again(&mut self) {
        self.child = Self::spawn(&self.program, self.port);
        self.answers().await;
    }

    fn config(&self) -> BusConfig {
        let url = format!("redis://127.0.0.1:{}", self.port);
        BusConfig { kind: BusKind::Redis, url, ..BusConfig::default() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Node {
    bus: Arc<RedisBus>,
    envelopes: mpsc::Receiver<Envelope>,
    _work: JoinSet<()>,
}

fn run(number: u16) -> NodeRun {
    NodeRun { node: NodeId(number), epoch: NodeEpoch(1) }
}

impl Node {
    fn start(server: &Server, store: &Arc<Model>, number: u16) -> Self {
        let redis = Redis::open(&server.config()).unwrap();
        let streams = Streams::new(redis.clone());
        let (bus, work) = RedisBus::open(redis.clone(), streams.clone(), store.clone(), run(number), None);
        let mut tasks = JoinSet::new();
        tasks.spawn(work);
        tasks.spawn(streams.run());
        tasks.spawn(redis.probe());
        let envelopes = bus.take_envelopes().unwrap();
        Self { bus, envelopes, _work: tasks }
    }

    async fn next(&mut self) -> Envelope {
        timeout(PATIENCE, self.envelopes.recv()).await.expect("an envelope").expect("the stream is open")
    }

    async fn delivery(&mut self) -> Delivery {
        match self.next().await {
            Envelope::Delivery(delivery) => delivery,
            other => panic!("{other:?}"),
        }
    }

    async fn loss(&mut self) -> Loss {
        loop {
            if let Envelope::Lost(loss) = self.next().await {
                return loss;
            }
        }
    }
}

/// Appends a note to Anna's own log.
async fn note(store: &Model, seq: u64) -> Arc<[Row]> {
    let log = LogId::User(ANNA);
    let expected = store.heads(&[log]).await.unwrap()[0];
    assert_eq!(expected.seq.get() + 1, seq);
    let content = Content::Created { by: ANNA };
    let entry = Entry { seq: Seq::new(seq), at: Millis::new(seq), content };
    let rows: Arc<[Row]> = Arc::new([Row { entry, ordinal: Ordinal::ZERO, key: None }]);
    store.append(Append::of(log, Head { ..expected }, Arc::clone(&rows))).await.unwrap();
    rows
}

async fn stage() -> (Server, Arc<Model>) {
    (Server::start().await, Model::new(ModelConfig::default()))
}

/// Redis keeps its answers for the streams ready only once their readers have made them.
async fn reaches(from: &Node, to: &mut Node, store: &Model, seq: u64) -> Delivery {
    let rows = note(store, seq).await;
    from.bus.moved(LogId::User(ANNA), &rows).await.unwrap();
    to.delivery().await
}

#[tokio::test]
#[ignore = "needs the program of Redis in MADANG_TEST_REDIS_SERVER"]
async fn a_server_without_an_append_only_file_is_reported() {
    let (server, store) = stage().await;
    let node = Node::start(&server, &store, 1);
    let reported = async {
        while node.bus.metrics().settings_wrong.get() != 1 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, reported).await.expect("the metric says so");
}

#[tokio::test]
#[ignore = "needs the program of Redis in MADANG_TEST_REDIS_SERVER"]
async fn rows_reach_the_node_of_their_user() {
    let (server, store) = stage().await;
    let (near, mut far) = (Node::start(&server, &store, 1), Node::start(&server, &store, 2));
    far.bus.ready().await.unwrap();
    far.bus.attach(ANNA).await.unwrap();
    let end = near.bus.end(ANNA).await.unwrap();
    let first = reaches(&near, &mut far, &store, 1).await;
    assert_eq!(first.recipients[0].place.previous, end.position);
    assert!(first.recipients[0].sees_all && first.rows[0].entry.seq == Seq::new(1));
    // Both nodes bring rows; each place follows the one before.
    let rows = note(&store, 2).await;
    far.bus.moved(LogId::User(ANNA), &rows).await.unwrap();
    let second = far.delivery().await;
    assert_eq!(second.recipients[0].place.previous, first.recipients[0].place.last);
    let third = reaches(&near, &mut far, &store, 3).await;
    assert_eq!(third.recipients[0].place.previous, second.recipients[0].place.last);
}

#[tokio::test]
#[ignore = "needs the program of Redis in MADANG_TEST_REDIS_SERVER"]
async fn rows_whose_envelope_was_lost_are_found_by_the_comparison() {
    let (server, store) = stage().await;
    let (near, mut far) = (Node::start(&server, &store, 1), Node::start(&server, &store, 2));
    far.bus.ready().await.unwrap();
    far.bus.attach(ANNA).await.unwrap();
    reaches(&near, &mut far, &store, 1).await;
    let rows = note(&store, 2).await;
    // The home dies between the script and the envelope: its frames are sent by a task that does not run any more.
    let dying = {
        let redis = Redis::open(&server.config()).unwrap();
        let (bus, _work) = RedisBus::open(redis.clone(), Streams::new(redis), store.clone(), run(3), None);
        bus
    };
    dying.moved(LogId::User(ANNA), &rows).await.unwrap();
    assert_eq!(far.loss().await, Loss::Users(vec![ANNA]));
}

#[tokio::test]
#[ignore = "needs the program of Redis in MADANG_TEST_REDIS_SERVER"]
async fn a_redis_that_begins_again_empty_resets_every_cursor() {
    let (mut server, store) = stage().await;
    let (near, mut far) = (Node::start(&server, &store, 1), Node::start(&server, &store, 2));
    far.bus.ready().await.unwrap();
    far.bus.attach(ANNA).await.unwrap();
    let before = reaches(&near, &mut far, &store, 1).await.recipients[0].place.last;
    let end = near.bus.end(ANNA).await.unwrap();
    assert_eq!(end.position, before);
    server.stop();
    assert!(near.bus.end(ANNA).await.is_err());
    assert_eq!(near.bus.read(ANNA, end, 10).await, Ok(InboxRead::Unavailable));
    // Nothing waits for a server that is gone.
    let rows = note(&store, 2).await;
    let refused = timeout(Duration::from_millis(1_500), near.bus.moved(LogId::User(ANNA), &rows)).await;
    assert!(refused.expect("bounded in time").is_err());
    server.begin_again().await;
    assert_eq!(far.loss().await, Loss::Node);
    let verdict = near.bus.read(ANNA, end, 10).await;
    assert_eq!(verdict, Ok(InboxRead::SnapshotRequired(SnapshotReason::InboxReset)));
    // No position is handed out twice: a cursor of the lost inbox cannot be mistaken for one of the new one.
    let begun = near.bus.end(ANNA).await.unwrap();
    assert!(near.bus.know(ANNA, &[(LogId::User(ANNA), Seq::new(1))], true).await.unwrap());
    assert!(begun.epoch != end.epoch && begun.position > end.position);
    let old = Cursor { position: end.position, ..begun };
    let verdict = near.bus.read(ANNA, old, 10).await;
    assert_eq!(verdict, Ok(InboxRead::SnapshotRequired(SnapshotReason::TooFarBehind)));
    // The fan-out that failed is repeated by its home, and live delivery goes on once the registration holds again.
    near.bus.moved_again(LogId::User(ANNA), Seq::new(2)..=Seq::new(2)).await.unwrap();
    let read = near.bus.read(ANNA, begun, 10).await.unwrap();
    let InboxRead::Page(page) = read else { panic!("{read:?}") };
    assert_eq!((page.items.len(), page.items[0].to), (1, Seq::new(2)));
    let mut seq = 2;
    loop {
        seq += 1;
        let rows = note(&store, seq).await;
        near.bus.moved(LogId::User(ANNA), &rows).await.unwrap();
        let next = timeout(Duration::from_secs(1), far.next()).await;
        if matches!(next, Ok(Envelope::Delivery(_))) {
            break;
        }
        assert!(seq < 60, "live delivery goes on");
    }
}

#[tokio::test]
#[ignore = "needs the program of Redis in MADANG_TEST_REDIS_SERVER"]
async fn a_registration_that_was_late_says_so() {
    let (mut server, store) = stage().await;
    let mut node = Node::start(&server, &store, 1);
    server.stop();
    assert!(node.bus.attach(ANNA).await.is_err());
    server.begin_again().await;
    loop {
        match node.loss().await {
            Loss::Users(users) => break assert_eq!(users, [ANNA]),
            Loss::Node => {}
            other @ Loss::Channel(_) => panic!("{other:?}"),
        }
    }
    let rows = note(&store, 1).await;
    node.bus.moved(LogId::User(ANNA), &rows).await.unwrap();
    let delivery = node.delivery().await;
    assert!(delivery.recipients[0].place.last > Position::ZERO);
}

#[tokio::test]
#[ignore = "needs the program of Redis in MADANG_TEST_REDIS_SERVER"]
async fn the_logs_of_a_dead_node_are_found_until_they_are_taken_over() {
    let (server, store) = stage().await;
    let (one, other) = (Node::start(&server, &store, 1), Node::start(&server, &store, 2));
    let logs = [LogId::User(ANNA), LogId::Channel(madang_ids::ChannelId::from_raw(7))];
    for log in logs {
        one.bus.announce(log).await.unwrap();
    }
    assert!(one.bus.is_listed().await.unwrap() && !other.bus.is_listed().await.unwrap());
    assert_eq!(other.bus.left_logs(&[run(1), run(2)]).await.unwrap(), []);
    one.bus.retire(&logs[..1]).await.unwrap();
    assert_eq!(other.bus.left_logs(&[run(2)]).await.unwrap(), [(run(1), vec![logs[1]])]);
    other.bus.take_over(run(1), &logs[1..]).await.unwrap();
    assert_eq!(other.bus.left_logs(&[run(2)]).await.unwrap(), []);
    assert!(!one.bus.is_listed().await.unwrap(), "it announces its logs again");
}

#[tokio::test]
#[ignore = "needs the program of Redis in MADANG_TEST_REDIS_SERVER"]
async fn a_slow_reader_is_told_that_frames_are_lost() {
    use bytes::Bytes;
    use madang_bus::redis::{Received, StreamName};
    let (server, _) = stage().await;
    let redis = Redis::open(&server.config()).unwrap();
    let streams = Streams::new(redis.clone());
    let mut running = JoinSet::new();
    running.spawn(streams.clone().run());
    let (name, nobody) = (StreamName::new("reader"), StreamName::new("nobody"));
    let mut reader = streams.reader(&name);
    reader.create().await.unwrap();
    assert!(streams.send(&name, Bytes::from_static(b"first")) && streams.send(&nobody, Bytes::new()));
    assert_eq!(reader.next().await, Received::Frame(Bytes::from_static(b"first")));
    // More entries than the stream keeps: each frame fills one.
    let large = Bytes::from(vec![b'x'; 60_000]);
    for _ in 0..3_000 {
        while !streams.send(&name, large.clone()) {
            // waits for: room in the queue, which is bounded
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    let mut frames = 0;
    let mut losses = 0;
    while losses == 0 {
        match timeout(PATIENCE, reader.next()).await.expect("frames") {
            Received::Frame(_) => frames += 1,
            Received::Lost => losses += 1,
        }
    }
    assert!(frames < 3_000, "{frames} frames before the loss");
    assert_eq!(streams.length(&nobody).await.unwrap(), 0, "nobody reads it");
}

/// The places in Anna's own log that the inbox has after a cursor.
async fn seqs(bus: &RedisBus, after: Cursor) -> Vec<u64> {
    match bus.read(ANNA, after, 1_000).await.unwrap() {
        InboxRead::Page(page) => page.items.iter().flat_map(|item| item.from.get()..=item.to.get()).collect(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
#[ignore = "needs the program of Redis in MADANG_TEST_REDIS_SERVER"]
async fn a_fan_out_behind_that_of_another_node_is_not_lost_for_a_new_member() {
    let (server, store) = stage().await;
    let (one, other) = (Node::start(&server, &store, 1), Node::start(&server, &store, 2));
    let log = LogId::User(ANNA);
    let end = one.bus.end(ANNA).await.unwrap();
    // A snapshot in which the log is not. The link of the node that appends the first rows is cut.
    assert!(one.bus.know(ANNA, &[], true).await.unwrap());
    let late = [note(&store, 1).await, note(&store, 2).await];
    let last = note(&store, 3).await;
    other.bus.moved(log, &last).await.unwrap();
    assert_eq!(seqs(&one.bus, end).await, [1, 2, 3]);
    for rows in &late {
        one.bus.moved(log, rows).await.unwrap();
    }
    one.bus.moved_again(log, Seq::new(1)..=Seq::new(3)).await.unwrap();
    assert_eq!(seqs(&one.bus, end).await, [1, 2, 3]);
}

#[tokio::test]
#[ignore = "needs the program of Redis in MADANG_TEST_REDIS_SERVER"]
async fn old_rows_are_not_brought_to_an_inbox_from_which_nobody_has_a_snapshot() {
    let (server, store) = stage().await;
    let node = Node::start(&server, &store, 1);
    let log = LogId::User(ANNA);
    for seq in 1..=5 {
        note(&store, seq).await;
    }
    // The inbox was lost. A connection waits for its device to take a snapshot.
    let end = node.bus.end(ANNA).await.unwrap();
    node.bus.moved_again(log, Seq::new(1)..=Seq::new(5)).await.unwrap();
    assert_eq!(seqs(&node.bus, end).await, [0_u64; 0]);
    let next = note(&store, 6).await;
    node.bus.moved(log, &next).await.unwrap();
    assert_eq!(seqs(&node.bus, end).await, [6]);
}

#[tokio::test]
#[ignore = "needs the program of Redis in MADANG_TEST_REDIS_SERVER"]
async fn rows_behind_a_snapshot_are_brought_although_their_fan_out_failed() {
    let (server, store) = stage().await;
    let (one, other) = (Node::start(&server, &store, 1), Node::start(&server, &store, 2));
    let log = LogId::User(ANNA);
    for seq in 1..=5 {
        note(&store, seq).await;
    }
    let end = one.bus.end(ANNA).await.unwrap();
    assert!(one.bus.know(ANNA, &[(log, Seq::new(5))], true).await.unwrap());
    assert!(!one.bus.know(ANNA, &[(log, Seq::new(4))], true).await.unwrap(), "a place does not fall");
    note(&store, 6).await;
    let next = note(&store, 7).await;
    other.bus.moved(log, &next).await.unwrap();
    assert_eq!(seqs(&one.bus, end).await, [6, 7]);
}
