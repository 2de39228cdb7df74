//! Scenes of one mechanism each: a node with two processes, and every frame in the hands of the test.

mod pauses;

use std::time::Duration;

use madang_engine::session::Now;
use madang_ids::{ConnectionId, DeviceId, Millis, NodeEpoch, UserId};
use madang_proto::{Availability, PresenceList, UserPresence};
use tokio::sync::oneshot;

use crate::api::{Departure, NodeReport, States, Up};
use crate::config::PresenceConfig;
use crate::core::{Loaded, Notice, NoticeTarget, ProcessRun, View};
use crate::fleet::LiveProcesses;
use crate::fleet::node::Node;
use crate::fleet::process::Process;
use crate::fleet::wire::{FRAME_BYTES, Frame, PART, Reported, ToCore, ToNode, Told};
use crate::metrics::FleetMetrics;

const NODE: ProcessRun = ProcessRun { process: 1, epoch: NodeEpoch(1) };
const A: ProcessRun = ProcessRun { process: 11, epoch: NodeEpoch(2) };
const B: ProcessRun = ProcessRun { process: 12, epoch: NodeEpoch(3) };

/// A question to a process: its number, and the users.
type Asked = (ProcessRun, u64, Vec<UserId>);

/// A node, what it sends, and its clock.
struct Stage {
    node: Node,
    now: Now,
    live: LiveProcesses,
    connections: Vec<Up>,
}

fn user(id: u64) -> UserId {
    UserId::from_raw(id)
}

fn up(id: u64) -> Up {
    let (connection, device) = (ConnectionId::from_raw(id), DeviceId::from_raw(id));
    Up { user: user(id), device, connection, is_idle: false }
}

/// The first users that belong to a process if both are alive.
fn users_of(process: ProcessRun, count: usize) -> Vec<u64> {
    let view = View::of(&[A.process, B.process]);
    (1..).filter(|id| view.owns(process.process, user(*id))).take(count).collect()
}

impl Stage {
    /// A node whose processes are alive, with these connections. Its sets have been sent.
    fn new(connections: &[u64]) -> Self {
        let now = Now { at: Millis::new(1_000_000), elapsed: Duration::from_secs(100) };
        let live = LiveProcesses { me: NODE, processes: vec![A, B], nodes: vec![NODE] };
        let node = Node::new(PresenceConfig::default(), FleetMetrics::default());
        let connections = connections.iter().map(|id| up(*id)).collect();
        let mut stage = Self { node, now, live, connections };
        stage.follow();
        stage
    }

    fn follow(&mut self) {
        self.node.handle_live(&self.live, self.now);
    }

    /// What the node sends now.
    fn sent(&mut self) -> Vec<(ProcessRun, Frame)> {
        self.node.handle_time(self.now);
        if self.node.wants_set(self.now) {
            self.node.give_set(&self.connections, self.now);
        }
        std::iter::from_fn(|| self.node.poll_frame(self.now)).collect()
    }

    fn reported(&mut self, to: ProcessRun) -> Vec<Reported> {
        let reported = |(of, frame)| match frame {
            Frame::Core(ToCore::Reported(reported)) if of == to => Some(reported),
            _ => None,
        };
        self.sent().into_iter().filter_map(reported).collect()
    }

    fn pass(&mut self, millis: u64) {
        self.now.elapsed += Duration::from_millis(millis);
        self.now.at = self.now.at.plus(millis);
    }

    fn told(&mut self, from: ProcessRun, number: u64, to: NoticeTarget) {
        let list = PresenceList { users: vec![UserPresence::offline(user(99))], ..PresenceList::default() };
        let notices = vec![(to, list)];
        let told = Told { from, to: NODE, number, notices, asks_set: false, taken: None };
        self.node.handle_frame(ToNode::Told(told));
    }

    fn heard(&mut self) -> Vec<NoticeTarget> {
        std::iter::from_fn(|| self.node.poll_notice()).map(|Notice { to, .. }| to).collect()
    }

    fn ask(&mut self, users: &[u64]) -> (oneshot::Receiver<States>, Vec<Asked>) {
        let (answer, states) = oneshot::channel();
        self.node.ask(None, users.iter().map(|id| user(*id)).collect(), answer, self.now);
        let question = |(to, frame)| match frame {
            Frame::Core(ToCore::Question { id, users, .. }) => Some((to, id, users)),
            _ => None,
        };
        (states, self.sent().into_iter().filter_map(question).collect())
    }
}

/// A process that has heard of one node, and its clock.
struct Half {
    process: Process,
    now: Now,
}

impl Half {
    fn new() -> Self {
        let now = Now { at: Millis::new(1_000_000), elapsed: Duration::from_secs(100) };
        let live = LiveProcesses { me: A, processes: vec![A], nodes: vec![NODE] };
        let process = Process::new(PresenceConfig::default(), &live, now, FleetMetrics::default());
        Self { process, now }
    }

    fn take(&mut self, frames: Vec<(ProcessRun, Frame)>) {
        for (to, frame) in frames {
            let (A, Frame::Core(frame)) = (to, frame) else { continue };
            self.process.handle_frame(frame, self.now);
        }
        for wanted in self.process.core.poll_wanted(9_999) {
            let circle = wanted.circle.then(|| vec![user(1), user(2)]);
            let loaded = Loaded { user: wanted.user, row: Default::default(), rev: 1, circle };
            self.process.core.handle_loaded(loaded, self.now);
        }
    }

    /// Moves the clock second by second, as the shell does.
    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now.elapsed += Duration::from_secs(1);
            self.process.begin(self.now);
        }
    }

    fn told(&mut self) -> Vec<Told> {
        let told = |(_, frame)| match frame {
            Frame::Node(ToNode::Told(told)) => Some(told),
            _ => None,
        };
        std::iter::from_fn(|| self.process.poll_frame(self.now)).filter_map(told).collect()
    }

    fn state(&self, id: u64) -> Option<Availability> {
        self.process.core.states(None, &[user(id)])[0].as_ref().map(|card| card.state)
    }
}

/// Time passes for both. The node hears the process, and the process the node. Returns what the node has heard.
fn pass_both(stage: &mut Stage, half: &mut Half, seconds: u64) -> Vec<Told> {
    let mut all = Vec::new();
    for _ in 0..seconds {
        stage.pass(1_000);
        half.pass(1);
        half.take(stage.sent());
        let told = half.told();
        told.iter().for_each(|told| stage.node.handle_frame(ToNode::Told(told.clone())));
        all.extend(told);
    }
    all
}

fn has_offline(told: &[Told], id: UserId) -> bool {
    let is_it = |card: &UserPresence| card.user_id == id && card.state == Availability::Offline;
    told.iter().any(|told| told.notices.iter().any(|(_, list)| list.users.iter().any(is_it)))
}

#[test]
fn a_set_is_split_by_owner_and_into_parts() {
    let count = 15_000;
    let mut stage = Stage::new(&(1..=count).collect::<Vec<_>>());
    let frames = stage.sent();
    assert!(frames.iter().all(|(_, frame)| frame.encode().unwrap().len() < FRAME_BYTES / 20));
    let mut seen = 0;
    for (process, view) in [(A, [A.process, B.process]), (B, [A.process, B.process])] {
        let of = |(to, frame): &(ProcessRun, Frame)| match frame {
            Frame::Core(ToCore::Reported(reported)) if *to == process => Some(reported.clone()),
            _ => None,
        };
        let reported: Vec<Reported> = frames.iter().filter_map(of).collect();
        let parts: Vec<_> = reported.iter().filter_map(|one| one.part.clone()).collect();
        assert!(parts.len() > 10 && parts.iter().all(|part| part.connections.len() <= PART));
        assert!(parts.iter().all(|part| part.view == view));
        let last: Vec<bool> = parts.iter().map(|part| part.is_last).collect();
        assert_eq!(last.iter().filter(|is_last| **is_last).count(), 1);
        assert!(last.last().unwrap());
        let numbers: Vec<u64> = reported.iter().map(|one| one.number).collect();
        assert_eq!(numbers, (0..numbers.len() as u64).collect::<Vec<_>>());
        seen += parts.iter().map(|part| part.connections.len() as u64).sum::<u64>();
    }
    assert_eq!(seen, count);
}

#[test]
fn a_part_that_is_missing_makes_the_whole_set_be_sent_again() {
    let mut stage = Stage::new(&(1..=2_000).collect::<Vec<_>>());
    stage.live.processes = vec![A];
    stage.follow();
    let mut half = Half::new();
    let mut frames = stage.sent();
    frames.remove(1);
    half.take(frames);
    assert_eq!((half.process.core.users(), half.state(1)), (0, None));
    let asked = half.told();
    assert!(asked[0].asks_set, "{asked:?}");
    stage.pass(1_000);
    stage.node.handle_frame(ToNode::Told(asked[0].clone()));
    half.take(stage.sent());
    assert_eq!(half.process.core.users(), 2_000);
}

#[test]
fn a_frame_that_comes_twice_or_too_late_changes_nothing() {
    let mut stage = Stage::new(&[]);
    stage.live.processes = vec![A];
    stage.follow();
    let mut half = Half::new();
    half.take(stage.sent());
    stage.node.handle_report(NodeReport::Up(up(1)), stage.now);
    let first = stage.sent();
    half.take(first.clone());
    let (user, connection) = (user(1), ConnectionId::from_raw(1));
    stage.node.handle_report(NodeReport::Down { user, connection, how: Departure::Final }, stage.now);
    half.take(stage.sent());
    half.take(first);
    half.pass(16);
    assert_eq!(half.process.core.users(), 0);
}

#[test]
fn a_last_frame_that_is_lost_is_noticed_after_a_second() {
    let mut stage = Stage::new(&[]);
    stage.live.processes = vec![A];
    stage.follow();
    let mut half = Half::new();
    half.take(stage.sent());
    pass_both(&mut stage, &mut half, 6);
    stage.connections.push(up(1));
    stage.node.handle_report(NodeReport::Up(up(1)), stage.now);
    assert_eq!(stage.reported(A).len(), 1);
    pass_both(&mut stage, &mut half, 2);
    assert_eq!(half.process.core.users(), 1);
    // Everything is acknowledged, so nothing follows until the next renewal.
    let quiet = (0..4).filter(|_| {
        stage.pass(250);
        stage.reported(A).is_empty()
    });
    assert!(quiet.count() >= 3);
}

#[test]
fn what_a_set_does_not_replace_is_repeated_until_it_is_acknowledged() {
    let changed = NodeReport::Changed { user: user(users_of(A, 1)[0]), circle: true };
    let mut stage = Stage::new(&[]);
    stage.sent();
    stage.node.handle_report(changed, stage.now);
    let lost = stage.reported(A);
    assert!(lost.iter().any(|one| one.reports.contains(&changed)));
    // The process asks for a set, because the frame was lost.
    let ask = |stage: &mut Stage, number, taken| {
        let told = Told { from: A, to: NODE, number, notices: Vec::new(), asks_set: true, taken };
        stage.pass(1_000);
        stage.node.handle_frame(ToNode::Told(told));
        stage.reported(A)
    };
    let again = ask(&mut stage, 0, None);
    assert!(again[0].part.is_some() && again.iter().any(|one| one.reports.contains(&changed)), "{again:?}");
    let taken = crate::fleet::wire::Taken { set: again[0].from.set, next: again.last().unwrap().number + 1 };
    let third = ask(&mut stage, 1, Some(taken));
    assert!(third[0].part.is_some() && third.iter().all(|one| !one.reports.contains(&changed)), "{third:?}");
}

#[test]
fn a_change_follows_its_user_to_another_owner() {
    let changed = NodeReport::Changed { user: user(users_of(A, 1)[0]), circle: false };
    let mut stage = Stage::new(&[]);
    stage.sent();
    stage.node.handle_report(changed, stage.now);
    stage.sent();
    stage.live.processes = vec![B];
    stage.pass(1_000);
    stage.follow();
    assert!(stage.reported(B).iter().any(|one| one.reports.contains(&changed)));
}

#[test]
fn a_set_goes_to_the_processes_of_both_views() {
    let mut stage = Stage::new(&users_of(A, 2));
    stage.sent();
    stage.live.processes = vec![B];
    stage.pass(1_000);
    stage.follow();
    let frames = stage.sent();
    let set = |of: ProcessRun| {
        frames.iter().find_map(|(to, frame)| match frame {
            Frame::Core(ToCore::Reported(Reported { part: Some(part), .. })) if *to == of => {
                Some(part.clone())
            }
            _ => None,
        })
    };
    assert_eq!(set(A).map(|part| (part.view, part.connections.len())), Some((vec![B.process], 0)));
    assert_eq!(set(B).map(|part| (part.view, part.connections.len())), Some((vec![B.process], 2)));
    stage.pass(15_000);
    assert!(stage.sent().iter().all(|(to, _)| *to == B), "after a lease the former process hears nothing");
}

#[test]
fn notices_of_a_process_that_does_not_own_the_users_are_refused() {
    let (of_a, of_b) = (user(users_of(A, 1)[0]), user(users_of(B, 1)[0]));
    let mut stage = Stage::new(&[]);
    stage.sent();
    stage.told(A, 0, NoticeTarget::Users(vec![of_a, of_b]));
    stage.told(A, 1, NoticeTarget::Connection(of_b, ConnectionId::from_raw(1)));
    assert_eq!(stage.heard(), [NoticeTarget::Users(vec![of_a])]);
    // When the user comes back to the process, the node has missed something.
    stage.live.processes = vec![A];
    stage.pass(1_000);
    stage.follow();
    let reported = [stage.reported(A), stage.reported(A)].concat();
    assert!(reported.iter().any(|one| one.reports.contains(&NodeReport::Missed)), "{reported:?}");
    stage.told(A, 2, NoticeTarget::Users(vec![of_b]));
    assert_eq!(stage.heard(), [NoticeTarget::Users(vec![of_b])]);
}

#[test]
fn notices_of_an_earlier_life_and_for_an_earlier_life_are_refused() {
    let of_a = user(users_of(A, 1)[0]);
    let mut stage = Stage::new(&[]);
    stage.sent();
    let late = ProcessRun { epoch: NodeEpoch(1), ..A };
    stage.told(late, 0, NoticeTarget::Users(vec![of_a]));
    assert_eq!(stage.heard(), []);
    let now = ProcessRun { epoch: NodeEpoch(9), ..A };
    stage.told(now, 0, NoticeTarget::Users(vec![of_a]));
    assert_eq!(stage.heard().len(), 1);
    stage.pass(1_000);
    assert!(stage.reported(now)[0].part.is_some(), "a process in a new life gets the set");
    stage.told(A, 1, NoticeTarget::Users(vec![of_a]));
    assert_eq!(stage.heard(), []);
    stage.live.me.epoch = NodeEpoch(20);
    stage.follow();
    stage.told(now, 1, NoticeTarget::Users(vec![of_a]));
    assert_eq!(stage.heard(), []);
}

#[test]
fn missed_notices_are_reported_and_everything_is_sent_again() {
    let mut stage = Stage::new(&[1, 2]);
    stage.live.processes = vec![A];
    stage.follow();
    let mut half = Half::new();
    half.take(stage.sent());
    pass_both(&mut stage, &mut half, 16);
    // The frame about the new connection is lost.
    stage.node.handle_report(NodeReport::Up(up(3)), stage.now);
    half.take(stage.sent());
    assert!(!half.told().is_empty());
    stage.node.handle_report(NodeReport::Up(up(4)), stage.now);
    half.take(stage.sent());
    half.told().into_iter().for_each(|told| stage.node.handle_frame(ToNode::Told(told)));
    let missed = stage.sent();
    let is_missed = |(_, frame): &(ProcessRun, Frame)| match frame {
        Frame::Core(ToCore::Reported(reported)) => reported.reports.contains(&NodeReport::Missed),
        _ => false,
    };
    assert!(missed.iter().any(is_missed), "{missed:?}");
    half.take(missed);
    let again = pass_both(&mut stage, &mut half, 6);
    let is_anew = |told: &Told| told.notices.iter().any(|(_, list)| list.anew);
    assert!(again.iter().any(is_anew), "{again:?}");
}

#[test]
fn questions_are_split_by_owner_and_a_silent_owner_is_left_out() {
    let (of_a, of_b) = (users_of(A, 300), users_of(B, 1)[0]);
    let mut stage = Stage::new(&[]);
    stage.sent();
    let asked = [&of_a[..], &[of_b]].concat();
    let (mut states, questions) = stage.ask(&asked);
    let sizes: Vec<_> = questions.iter().map(|(to, _, users)| (*to, users.len())).collect();
    assert_eq!(sizes, [(A, 250), (A, 50), (B, 1)]);
    for (_, id, users) in questions.iter().filter(|(to, ..)| *to == A) {
        let online = |user: &UserId| {
            Some(UserPresence { state: Availability::Online, ..UserPresence::offline(*user) })
        };
        let users = users.iter().map(online).collect();
        stage.node.handle_frame(ToNode::Answer { id: *id, users, is_settled: true });
    }
    stage.pass(1_999);
    stage.sent();
    assert!(states.try_recv().is_err());
    stage.pass(1);
    stage.sent();
    let states = states.try_recv().unwrap();
    let answered: Vec<Option<UserId>> =
        states.users.iter().map(|card| card.as_ref().map(|card| card.user_id)).collect();
    let expected: Vec<Option<UserId>> = of_a.iter().map(|id| Some(user(*id))).chain([None]).collect();
    assert_eq!((answered, states.is_settled), (expected, false));
}

#[test]
fn without_any_owner_presence_cannot_answer() {
    let mut stage = Stage::new(&[]);
    stage.sent();
    let (mut states, questions) = stage.ask(&users_of(B, 1));
    assert_eq!(questions.len(), 1);
    stage.pass(2_000);
    stage.sent();
    assert_eq!(states.try_recv().unwrap_err(), oneshot::error::TryRecvError::Closed);
    // Nor if the question cannot be sent, at once.
    let (mut states, questions) = stage.ask(&users_of(B, 1));
    let (to, id, users) = questions[0].clone();
    let question = Frame::Core(ToCore::Question { from: NODE, id, asker: None, users });
    stage.node.handle_unsent(to, &question, stage.now);
    assert_eq!(states.try_recv().unwrap_err(), oneshot::error::TryRecvError::Closed);
    stage.live.processes.clear();
    stage.follow();
    let (mut states, questions) = stage.ask(&[1]);
    assert!(questions.is_empty());
    assert_eq!(states.try_recv().unwrap_err(), oneshot::error::TryRecvError::Closed);
}

#[test]
fn a_user_of_another_owner_is_not_settled() {
    let mut half = Half::new();
    half.pass(16);
    let ask = |half: &mut Half| {
        let question =
            ToCore::Question { from: NODE, id: 1, asker: None, users: vec![user(users_of(B, 1)[0])] };
        half.process.handle_frame(question, half.now);
        let answer =
            std::iter::from_fn(|| half.process.poll_frame(half.now)).find_map(|(_, frame)| match frame {
                Frame::Node(ToNode::Answer { is_settled, .. }) => Some(is_settled),
                _ => None,
            });
        answer.unwrap()
    };
    assert!(ask(&mut half));
    let live = LiveProcesses { me: A, processes: vec![A, B], nodes: vec![NODE] };
    half.process.handle_live(&live, half.now);
    half.pass(16);
    assert!(!ask(&mut half));
}

#[test]
fn a_process_settles_when_all_nodes_have_sent_their_sets_and_a_grace_period_is_over() {
    let settles_after = |frames: Vec<(ProcessRun, Frame)>| {
        let mut half = Half::new();
        half.take(frames);
        (0..60).find(|_| {
            half.pass(1);
            half.process.core.is_settled()
        })
    };
    let mut stage = Stage::new(&[1]);
    stage.live.processes = vec![A];
    stage.follow();
    assert_eq!(settles_after(stage.sent()), Some(9));
    assert_eq!(settles_after(Vec::new()), Some(14));
}
