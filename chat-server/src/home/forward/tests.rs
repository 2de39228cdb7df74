//! Two nodes over one store: who appends, in which order, and how often.

use std::sync::atomic::{AtomicBool, Ordering};

use madang_bus::MemoryPeers;
use madang_bus::local::LocalInbox;
use madang_engine::body;
use madang_engine::heat::Level;
use madang_engine::home::{JoinRequest, SeatRequest};
use madang_engine::log::{BodyHash, RowKey};
use madang_ids::{ClientMsgId, LogId, Millis, NodeEpoch, NodeId, Seq, Snowflakes};
use madang_presence::{PresenceConfig, PresenceMetrics};
use madang_proto::rest::{Board, OverrideCard, OverrideSettings};
use madang_proto::{Body, ChannelCard, ChannelKind, Role, json};
use madang_service::{Clock, Drain, ManualClock, Metrics, Tasks};
use madang_store::model::{Faults, Model, ModelConfig};
use madang_store::{Channel, ChannelStore, LogStore};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::*;
use crate::consent::Consent;
use crate::heat::{HeatSettings, Heats};
use crate::home::HomeParts;
use crate::metrics::ChatMetrics;
use crate::overload::Bulkheads;

const ANNA: UserId = UserId::from_raw(1);
const NEAR: NodeRun = NodeRun { node: NodeId(1), epoch: NodeEpoch(7) };
const FAR: NodeRun = NodeRun { node: NodeId(2), epoch: NodeEpoch(8) };

/// They are named by their numbers.
fn nodes_of<const N: usize>(runs: [NodeRun; N]) -> Arc<[HomeNode]> {
    runs.map(|run| HomeNode { run, name: run.node.0.to_string().into() }).into()
}

/// Two nodes, a channel whose home is the far one, and the switch of the link between them.
struct Stage {
    near: Homes,
    far: Homes,
    model: Arc<Model>,
    hand: ManualClock,
    channel: Channel,
    nodes: watch::Sender<Arc<[HomeNode]>>,
    /// Frames to the far node are lost.
    is_deaf: Arc<AtomicBool>,
    /// Frames from the far node are lost.
    is_mute: Arc<AtomicBool>,
}

impl Stage {
    async fn open(faults: Faults) -> Self {
        let model = Model::new(ModelConfig { seed: 1, faults });
        let (inbox, follow) = LocalInbox::open(Arc::clone(&model)).await.unwrap();
        let (clock, hand) = Clock::manual(Millis::new(1_800_000_000_000));
        let tasks = Tasks::new(Drain::new());
        tasks.spawn("inbox", follow);
        let inbox = Arc::new(inbox);
        let (nodes, view) = watch::channel(nodes_of([NEAR, FAR]));
        let (is_deaf, is_mute) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let peers = MemoryPeers::default();
        let node = |run: NodeRun, worker| {
            let (deaf, mute) = (Arc::clone(&is_deaf), Arc::clone(&is_mute));
            let is_cut = move |from: NodeRun, _| match from == NEAR {
                true => deaf.load(Ordering::SeqCst),
                false => mute.load(Ordering::SeqCst),
            };
            let counted = PresenceMetrics::register(&Metrics::new());
            let (presence, _) = madang_presence::local(PresenceConfig::default(), clock.clone(), counted);
            let homes = Homes::new(HomeParts {
                bulkheads: Arc::new(Bulkheads::new(&clock, false)),
                heats: Heats::of_a_test(&clock),
                logs: Arc::clone(&model) as _,
                store: Arc::clone(&model) as _,
                inbox: Arc::clone(&inbox) as _,
                ids: Arc::new(Snowflakes::new(worker).unwrap()),
                clock: clock.clone(),
                tasks: tasks.clone(),
                metrics: ChatMetrics::register(&Metrics::new()),
                presence,
                consent: Consent::new(true),
                homes_of_a_log: 1,
                others: Some((peers.node(run, is_cut), view.clone())),
            });
            tasks.spawn("forwards", homes.clone().run_forwards());
            tasks.spawn("heat", Arc::clone(&homes.0.heats).run(tasks.drain().clone()));
            tasks.spawn("heat_exchange", homes.clone().run_heat());
            homes
        };
        let (near, far) = (node(NEAR, 1), node(FAR, 2));
        let home = |id: &u64| rendezvous::owner(*id, [NEAR.node.0, FAR.node.0]) == Some(FAR.node.0);
        let id = ChannelId::from_raw((1..).find(home).unwrap());
        let card = ChannelCard::new(id, ChannelKind::Group, Some("tea".to_owned()), None);
        let channel = Channel::new(card, ANNA, Millis::new(1), 100);
        model.create_channel(&channel).await.unwrap();
        let stage = Self { near, far, model, hand, channel, nodes, is_deaf, is_mute };
        let joins = vec![JoinRequest::of(ANNA, Role::Owner)];
        let request = SeatRequest { joins, is_creation: true, ..SeatRequest::by(ANNA) };
        stage.far.ask(&stage.channel, Command::Seats(request)).await.unwrap();
        stage
    }

    fn send(&self, homes: &Homes, key: u64) -> oneshot::Receiver<Reply> {
        let client_msg_id = ClientMsgId::from_uuid(u128::from(key));
        let key = RowKey { sender: ANNA, client_msg_id, body_hash: body::hash(&Body::default()) };
        let command = Command::Send { origin: None, key, body: Body::default() };
        let (sender, receiver) = oneshot::channel();
        homes.submit(&self.channel, command, Box::new(move |reply| drop(sender.send(reply))));
        receiver
    }

    /// Lets time pass until the answer is here.
    async fn answer(&self, mut reply: oneshot::Receiver<Reply>) -> (Seq, bool) {
        for _ in 0..1_000 {
            for _ in 0..50 {
                tokio::task::yield_now().await;
                match reply.try_recv() {
                    Ok(Reply::Sent(sent)) => return (sent.seq, sent.by_retry),
                    Ok(other) => panic!("{other:?}"),
                    Err(oneshot::error::TryRecvError::Closed) => panic!("the command was dropped"),
                    Err(oneshot::error::TryRecvError::Empty) => {}
                }
            }
            self.hand.advance(Duration::from_millis(10));
        }
        panic!("no answer")
    }

    /// The keys of the messages, in the order of the log.
    async fn keys(&self) -> Vec<u128> {
        let log = LogId::Channel(self.channel.card.id);
        let tail = self.model.tail(log, 256).await.unwrap();
        let keys = tail.rows.iter().filter_map(|row| row.key);
        keys.map(|key| key.client_msg_id.value()).collect()
    }
}

#[tokio::test]
async fn a_command_is_carried_out_by_the_home_of_its_channel() {
    let stage = Stage::open(Faults::NONE).await;
    let replies: Vec<_> = (1..=5).map(|key| stage.send(&stage.near, key)).collect();
    for (index, reply) in replies.into_iter().enumerate() {
        assert_eq!(stage.answer(reply).await, (Seq::new(index as u64 + 3), false));
    }
    assert_eq!(stage.keys().await, [1, 2, 3, 4, 5]);
    assert_eq!(stage.near.0.metrics.forwarded.get(), 5);
    assert_eq!(stage.near.0.metrics.self_appends.get(), 0);
    assert_eq!((stage.near.0.cells.len(), stage.far.0.cells.len()), (0, 2), "the channel, and an own log");
    assert!(stage.near.0.forwards.as_ref().unwrap().state.lock().routes.is_empty());
}

#[tokio::test]
async fn a_home_on_another_node_looks_up_again_who_may_write() {
    let stage = Stage::open(Faults::NONE).await;
    stage.answer(stage.send(&stage.near, 1)).await;
    let look_ups = || stage.model.take_calls().iter().filter(|call| call.name == "members_of").count();
    look_ups();
    stage.answer(stage.send(&stage.near, 2)).await;
    assert_eq!(look_ups(), 0, "the home knows its members");
    stage.near.forget_members(stage.channel.card.id);
    stage.answer(stage.send(&stage.near, 3)).await;
    assert_eq!(look_ups(), 1);
}

#[tokio::test]
async fn commands_to_a_silent_home_are_carried_out_here_in_their_order() {
    let stage = Stage::open(Faults::NONE).await;
    stage.is_deaf.store(true, Ordering::SeqCst);
    let first: Vec<_> = (1..=3).map(|key| stage.send(&stage.near, key)).collect();
    // These find the home well again, and must not overtake.
    stage.is_deaf.store(false, Ordering::SeqCst);
    let then: Vec<_> = (4..=6).map(|key| stage.send(&stage.near, key)).collect();
    let mut last = Seq::ZERO;
    for reply in first {
        let (seq, _) = stage.answer(reply).await;
        assert!(last < seq);
        last = seq;
    }
    for reply in then {
        stage.answer(reply).await;
    }
    let mut keys = stage.keys().await;
    // The home received the later ones, and may have appended them before the first ones were taken back: they were sent while
    // the first ones were lost, which a link that keeps its order does not do. The first three have their order.
    keys.retain(|key| *key <= 3);
    assert_eq!(keys, [1, 2, 3]);
}

#[tokio::test]
async fn a_lost_answer_makes_no_second_message() {
    let stage = Stage::open(Faults::NONE).await;
    stage.is_mute.store(true, Ordering::SeqCst);
    let replies: Vec<_> = (1..=4).map(|key| stage.send(&stage.near, key)).collect();
    for (index, reply) in replies.into_iter().enumerate() {
        assert_eq!(stage.answer(reply).await, (Seq::new(index as u64 + 3), true));
    }
    assert_eq!(stage.keys().await, [1, 2, 3, 4]);
    assert_eq!(stage.near.0.metrics.self_appends.get(), 4);
}

#[tokio::test]
async fn a_home_that_leaves_the_view_is_not_waited_for() {
    let stage = Stage::open(Faults::NONE).await;
    stage.is_deaf.store(true, Ordering::SeqCst);
    let reply = stage.send(&stage.near, 1);
    stage.nodes.send_replace(nodes_of([NEAR]));
    stage.hand.advance(LOOK);
    let begun = stage.near.0.clock.elapsed();
    stage.answer(reply).await;
    assert!(stage.near.0.clock.elapsed() - begun < SILENCE / 2);
    assert_eq!(stage.answer(stage.send(&stage.near, 2)).await.0, Seq::new(4));
    assert_eq!(stage.near.0.metrics.forwarded.get(), 1, "the second one had no other home");
}

#[tokio::test]
async fn a_home_that_works_is_waited_for() {
    let stage = Stage::open(Faults::NONE).await;
    stage.model.set_faults(Faults { delay_yields: 20_000, ..Faults::NONE });
    let mut reply = stage.send(&stage.near, 1);
    for _ in 0..20 {
        stage.hand.advance(Duration::from_millis(100));
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }
    assert!(reply.try_recv().is_err(), "the append takes longer");
    assert_eq!(stage.near.0.metrics.self_appends.get(), 0, "the home has said that it works");
    assert_eq!(stage.answer(reply).await, (Seq::new(3), false));
}

#[tokio::test]
async fn a_node_that_drains_leaves_nothing_to_repeat() {
    let stage = Stage::open(Faults::NONE).await;
    stage.answer(stage.send(&stage.near, 1)).await;
    let announced =
        || stage.far.0.cells.iter().filter(|cell| cell.is_announced.load(Ordering::SeqCst)).count();
    assert_eq!(announced(), 2, "the channel, and the log of its owner");
    stage.far.leave().await;
    assert_eq!(announced(), 0);
    // An append that was aborted may have been written, and nobody has brought its row yet.
    stage.model.set_faults(Faults { delay_yields: 20_000, ..Faults::NONE });
    let _reply = stage.send(&stage.near, 2);
    while announced() == 0 {
        tokio::task::yield_now().await;
    }
    stage.far.leave().await;
    assert_eq!(announced(), 1);
}

#[tokio::test]
async fn a_command_that_comes_too_late_is_dropped() {
    let stage = Stage::open(Faults::NONE).await;
    let peers = stage.near.0.forwards.as_ref().unwrap().peers.clone();
    let client_msg_id = ClientMsgId::from_uuid(9);
    let key = RowKey { sender: ANNA, client_msg_id, body_hash: BodyHash([0; 16]) };
    let command = Command::Send { origin: None, key, body: Body::default() };
    let deadline = stage.near.0.clock.now_ms();
    stage.hand.advance(Duration::from_millis(1));
    let channel = (&stage.channel).into();
    let late = ForwardedCommand { ticket: 1_000, deadline, channel, command };
    peers.send(FAR, &PeerFrame::Command(Box::new(late)));
    assert_eq!(stage.answer(stage.send(&stage.near, 1)).await.0, Seq::new(3));
    assert_eq!(stage.far.0.metrics.forwards_expired.get(), 1);
    assert_eq!(stage.keys().await, [1]);
}

/// The same message sent to both nodes at once, over links that are cut at random: one row each, and both answers name it.
#[tokio::test]
async fn both_nodes_and_cut_links_make_one_row_of_each_message() {
    let stage = Stage::open(Faults { delay_yields: 3, ..Faults::NONE }).await;
    let mut seed = 7_u64;
    for key in 1..=1_000 {
        seed = rendezvous::mix(seed);
        stage.is_deaf.store(seed.is_multiple_of(5), Ordering::SeqCst);
        stage.is_mute.store(seed.is_multiple_of(7), Ordering::SeqCst);
        let (one, other) = (stage.send(&stage.near, key), stage.send(&stage.far, key));
        let (one, other) = (stage.answer(one).await, stage.answer(other).await);
        assert_eq!(one.0, other.0, "message {key}");
    }
    let log = LogId::Channel(stage.channel.card.id);
    let head = stage.model.heads(&[log]).await.unwrap()[0];
    assert_eq!((head.seq, head.ordinal.get()), (Seq::new(1_002), 1_000));
}

#[test]
fn a_forwarded_command_keeps_its_body() {
    let body: Body = json::read(r#"{"text": "tea", "data": {"b": 1.50, "a": [1e3]}}"#).unwrap();
    let key = RowKey { sender: ANNA, client_msg_id: ClientMsgId::from_uuid(1), body_hash: BodyHash([3; 16]) };
    let channel = HomeChannel {
        id: ChannelId::from_raw(1),
        kind: ChannelKind::Direct,
        capacity: 2,
        created_by: ANNA,
        between: Some([ANNA, UserId::from_raw(2)]),
    };
    let command = Command::Send { origin: None, key, body: body.clone() };
    let forwarded = ForwardedCommand { ticket: 1, deadline: Millis::new(2), channel, command };
    let json = serde_json::to_string(&PeerFrame::Command(Box::new(forwarded))).unwrap();
    let PeerFrame::Command(read) = json::read(&json).unwrap() else { panic!("{json}") };
    let Command::Send { body: received, key: read_key, .. } = read.command else { panic!("{json}") };
    assert_eq!(
        (serde_json::to_string(&received).unwrap(), read_key),
        (serde_json::to_string(&body).unwrap(), key)
    );
    assert_eq!(read.channel, channel);
}

/// Lets seconds pass; in each the channel costs this much on both nodes.
async fn warm_up(stage: &Stage, seconds: u32, deliveries: u64) {
    let id = stage.channel.card.id;
    for _ in 0..seconds {
        let heats = [&stage.near.0.heats, &stage.far.0.heats];
        heats.iter().for_each(|heats| heats.delivered(id, 1, deliveries, 0));
        let decided = heats.map(|heats| heats.decided());
        while heats.iter().zip(decided).any(|(heats, before)| heats.decided() == before) {
            stage.hand.advance(Duration::from_millis(50));
            // waits for: the tasks that decide, and those that exchange what follows
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        for _ in 0..8 {
            stage.hand.advance(Duration::from_millis(25));
            // waits for: see above
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test]
async fn a_node_asks_the_others_for_their_boards_and_does_not_wait_for_one_that_is_silent() {
    let stage = Stage::open(Faults::NONE).await;
    let mut questions = stage.far.take_board_questions().unwrap();
    assert!(stage.far.take_board_questions().is_none());
    let (far, heats) = (stage.far.clone(), Arc::clone(&stage.far.0.heats));
    let mut answers = JoinSet::new();
    answers.spawn(async move {
        while let Some(question) = questions.recv().await {
            let board = Board { node: "far".to_owned(), ..Board::default() };
            let detail = question.channel.map(|channel| heats.detail(channel));
            far.answer_board(question, board, detail);
        }
    });
    let nodes = |boards: &[Board]| boards.iter().map(|board| board.node.clone()).collect::<Vec<_>>();
    let (boards, details) = stage.near.ask_boards(None).await;
    assert_eq!((nodes(&boards), details.len()), (vec!["far".to_owned()], 0));
    let (boards, details) = stage.near.ask_boards(Some(stage.channel.card.id)).await;
    assert_eq!((boards.len(), details[0].row.channel_id), (1, stage.channel.card.id));
    // It is shown as it was, for a minute.
    answers.abort_all();
    stage.hand.advance(Duration::from_secs(10));
    let begun = std::time::Instant::now();
    assert_eq!(nodes(&stage.near.ask_boards(None).await.0), ["far"]);
    assert!(begun.elapsed() < Duration::from_secs(2));
    stage.hand.advance(Duration::from_secs(60));
    assert!(stage.near.ask_boards(None).await.0.is_empty());
}

#[tokio::test]
async fn a_channel_that_is_hot_on_all_nodes_together_is_hot_on_each() {
    let stage = Stage::open(Faults::NONE).await;
    let id = stage.channel.card.id;
    let levels = |stage: &Stage| [&stage.near, &stage.far].map(|homes| homes.0.heats.level(id));
    // The bar of warm is 500; each node alone has 400.
    warm_up(&stage, 6, 20_000).await;
    assert_eq!(levels(&stage), [Level::Warm, Level::Warm]);
    // The home is silent: its level holds for a while, and then each node judges by itself.
    stage.is_mute.store(true, Ordering::SeqCst);
    stage.is_deaf.store(true, Ordering::SeqCst);
    warm_up(&stage, 5, 20_000).await;
    assert_eq!(levels(&stage), [Level::Warm, Level::Warm]);
    // The home dies. The other node is the home, alone, and has heard the level.
    stage.nodes.send(nodes_of([NEAR])).unwrap();
    warm_up(&stage, 3, 20_000).await;
    assert_eq!(levels(&stage)[0], Level::Warm);
    warm_up(&stage, 25, 20_000).await;
    assert_eq!(levels(&stage)[0], Level::Normal, "by its own count");
}

#[tokio::test]
async fn an_operator_moves_a_home_away_and_its_messages_keep_their_order() {
    let stage = Stage::open(Faults { delay_yields: 50, ..Faults::NONE }).await;
    let id = stage.channel.card.id;
    let names = || [&stage.near, &stage.far].map(|homes| homes.home_name(id).map(|name| name.to_string()));
    let set = |homes: &Homes, away_from: &str, seconds: u64| {
        let now = stage.near.0.clock.now_ms();
        let card = OverrideCard {
            settings: OverrideSettings::default(),
            away_from: Some(away_from.to_owned()),
            by: "ada".to_owned(),
            why: "a slow machine".to_owned(),
            since: now,
            ends_at: now.plus(seconds * 1_000),
        };
        homes.0.heats.configure(HeatSettings { overrides: [(id, card)].into(), ..HeatSettings::default() });
    };
    // The nodes learn of it one after the other, and messages are under way all the time.
    let mut replies: Vec<_> = (1..=4).map(|key| stage.send(&stage.near, key)).collect();
    set(&stage.near, "2", 20);
    replies.extend((5..=8).map(|key| stage.send(&stage.near, key)));
    set(&stage.far, "2", 20);
    replies.extend((9..=12).map(|key| stage.send(&stage.near, key)));
    for (index, reply) in replies.into_iter().enumerate() {
        assert_eq!(stage.answer(reply).await, (Seq::new(index as u64 + 3), false));
    }
    assert_eq!(names(), [Some("1".to_owned()), Some("1".to_owned())]);
    let forwarded = stage.near.0.metrics.forwarded.get();
    stage.answer(stage.send(&stage.near, 13)).await;
    assert_eq!(stage.near.0.metrics.forwarded.get(), forwarded, "the home is here");
    stage.answer(stage.send(&stage.far, 14)).await;
    assert_eq!(stage.far.0.metrics.forwarded.get(), 1);
    assert_eq!(stage.keys().await, (1..=14).collect::<Vec<_>>());
    // The only node is the home, whatever was set.
    set(&stage.near, "1", 20);
    stage.nodes.send_replace(nodes_of([NEAR]));
    assert_eq!(names()[0].as_deref(), Some("1"));
    // It ends by itself.
    stage.nodes.send_replace(nodes_of([NEAR, FAR]));
    stage.near.0.heats.configure(HeatSettings::default());
    for _ in 0..22 {
        stage.hand.advance(Duration::from_secs(1));
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(names(), [Some("2".to_owned()), Some("2".to_owned())]);
    // The first home has not seen what the other one has appended.
    assert_eq!(stage.answer(stage.send(&stage.near, 15)).await, (Seq::new(17), false));
    assert_eq!(stage.far.0.metrics.forwarded.get(), 1);
    assert_eq!(stage.keys().await, (1..=15).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_home_moves_only_from_a_node_that_is_there_to_another() {
    let stage = Stage::open(Faults::NONE).await;
    assert_eq!(stage.near.check_moves_from("2"), Ok(()));
    let refused = |name| stage.near.check_moves_from(name).unwrap_err().message;
    assert!(refused("3").ends_with("alive: 1, 2"));
    stage.nodes.send_replace(nodes_of([NEAR]));
    assert!(refused("1").ends_with("alive: 1"));
}
