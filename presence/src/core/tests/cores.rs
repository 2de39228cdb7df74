//! Random histories of two nodes and up to three cores that share the users. Messages between the cores are delayed, reordered
//! between different pairs, lost and repeated; cores and nodes restart; views change, and each core and node learns of them at
//! another time. Compared with the truth, and with one core that owns everybody and gets the same reports.
//!
//! The last test plants faults and shows that the first one finds each of them. They are planted around the cores, in what they
//! send and receive, so the product has no code for them.

mod passing;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use madang_engine::session::Now;
use madang_ids::{ConnectionId, DeviceId, Millis, NodeEpoch, UserId};
use madang_proto::{Availability, UserPresence};
use madang_store::PresenceRow;
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, RngSeed, TestRng, TestRunner};

use super::harness::{Act, Real, act, up, user};
use crate::api::{Departure, NodeRun, Up};
use crate::config::PresenceConfig;
use crate::core::{Ack, Batch, Core, Loaded, Message, Notice, NoticeTarget, ProcessRun, View};

const USERS: u64 = 6;
const GRACE: Duration = Duration::from_secs(10);
/// A user whose state or pairs have really changed may be reported as offline for this time: messages are late and lost.
const SHAKY: Duration = Duration::from_secs(40);
const PROCESSES: [u16; 3] = [1, 2, 3];
/// The one core that owns everybody.
const WHOLE: u16 = 0;

#[derive(Debug, Clone)]
enum Op {
    Act(Act),
    Down {
        pick: usize,
        is_final: bool,
    },
    Hold {
        holds: bool,
    },
    Pass {
        seconds: u64,
    },
    /// These processes are live. One that was not is started.
    View {
        live: usize,
    },
    /// A presence process dies and comes back at once, in a new epoch.
    Restart {
        pick: usize,
    },
    /// A node dies and comes back at once, in a new epoch and without connections.
    RestartNode {
        node: usize,
    },
    /// A set of an earlier epoch of a node arrives, with a connection of this user.
    Zombie {
        node: usize,
        user: u64,
    },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        18 => act(USERS).prop_map(Op::Act),
        4 => (any::<usize>(), any::<bool>()).prop_map(|(pick, is_final)| Op::Down { pick, is_final }),
        1 => any::<bool>().prop_map(|holds| Op::Hold { holds }),
        8 => (0..20_u64).prop_map(|seconds| Op::Pass { seconds }),
        2 => (0..7_usize).prop_map(|live| Op::View { live }),
        1 => any::<usize>().prop_map(|pick| Op::Restart { pick }),
        1 => (0..2_usize).prop_map(|node| Op::RestartNode { node }),
        1 => (0..2_usize, 1..=USERS).prop_map(|(node, user)| Op::Zombie { node, user }),
    ]
}

/// A planted fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// A core does not repeat its interest to a process that has restarted.
    InterestIsNotRepeated,
    /// The end of interest is never sent, so states are sent and kept for ever.
    InterestNeverEnds,
    /// The set of an earlier epoch of a node replaces the present one.
    OldEpochIsTaken,
    /// Users whom a new view has moved are offline until a node names them.
    MovedAreSettled,
    /// A batch that was lost is not repeated.
    LossIsFinal,
    /// A changed circle of a user is not sent.
    CirclesAreSentOnce,
    /// Circles that disagree are not read again.
    DoubtsAreNotSent,
    /// A set that was chosen by another view counts as the set of the present one.
    SetOfAnyView,
    /// Nodes are not asked for their sets.
    StrangersAreNotAsked,
    /// A message of an earlier life of a process is taken for one of the present one.
    OldProcessIsTaken,
}

const FAULTS: [Fault; 10] = [
    Fault::InterestIsNotRepeated,
    Fault::InterestNeverEnds,
    Fault::OldEpochIsTaken,
    Fault::MovedAreSettled,
    Fault::LossIsFinal,
    Fault::CirclesAreSentOnce,
    Fault::DoubtsAreNotSent,
    Fault::SetOfAnyView,
    Fault::StrangersAreNotAsked,
    Fault::OldProcessIsTaken,
];

struct Node {
    run: NodeRun,
    view: View,
}

/// What the connections have received from one placement of presence.
#[derive(Default)]
struct Views {
    known: BTreeMap<(UserId, ConnectionId), BTreeMap<UserId, UserPresence>>,
    complete: BTreeSet<(UserId, ConnectionId)>,
    /// Connections that drop frames until they get everything again.
    deaf: BTreeSet<(UserId, ConnectionId)>,
}

struct Sent {
    at: Duration,
    order: u64,
    to: u16,
    message: Message,
}

struct World {
    now: Now,
    fault: Option<Fault>,
    dice: u64,
    cores: BTreeMap<u16, Core>,
    epochs: BTreeMap<u16, u64>,
    live: Vec<u16>,
    /// When nodes (by index) and cores (by process) learn of the view.
    learns_at: BTreeMap<Result<u16, usize>, Duration>,
    nodes: [Node; 2],
    rows: BTreeMap<UserId, PresenceRow>,
    pairs: BTreeSet<(UserId, UserId)>,
    real: Vec<Real>,
    /// What the shards have sent, and what the whole core has sent.
    views: [Views; 2],
    /// Until when an ended connection may keep its user online, by user and device.
    waits: BTreeMap<(UserId, DeviceId), Duration>,
    shaky: BTreeMap<UserId, Duration>,
    holds: bool,
    reading: Vec<(u16, Loaded)>,
    sent: Vec<Sent>,
    last_at: BTreeMap<(u16, u16), Duration>,
    stated: BTreeSet<(u16, UserId)>,
    asked_at: Duration,
    is_calm: bool,
    next: u64,
}

fn of_live(live: usize) -> Vec<u16> {
    PROCESSES
        .into_iter()
        .enumerate()
        .filter(|(bit, _)| (live + 1) >> bit & 1 == 1)
        .map(|(_, id)| id)
        .collect()
}

impl World {
    fn new(seed: u64, fault: Option<Fault>) -> Self {
        let now = Now { at: Millis::new(1_000_000), elapsed: Duration::from_secs(100) };
        let (live, view) = (vec![1, 2], View::of(&[1, 2]));
        let node = |worker| Node { run: NodeRun { worker, epoch: NodeEpoch(1), set: 0 }, view: view.clone() };
        let mut world = Self {
            now,
            fault,
            dice: seed,
            cores: BTreeMap::new(),
            epochs: BTreeMap::new(),
            live,
            learns_at: BTreeMap::new(),
            nodes: [node(1), node(2)],
            rows: BTreeMap::new(),
            pairs: BTreeSet::new(),
            real: Vec::new(),
            views: Default::default(),
            waits: BTreeMap::new(),
            shaky: BTreeMap::new(),
            holds: false,
            reading: Vec::new(),
            sent: Vec::new(),
            last_at: BTreeMap::new(),
            stated: BTreeSet::new(),
            asked_at: Duration::ZERO,
            is_calm: false,
            next: 1,
        };
        world.cores.insert(WHOLE, Core::new(PresenceConfig::default(), now));
        [1, 2].into_iter().for_each(|process| world.start(process));
        (0..2).for_each(|node| world.resend(node));
        world.pass(16);
        world
    }

    fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    fn roll(&mut self, sides: u64) -> u64 {
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.dice >> 33) % sides
    }

    fn start(&mut self, process: u16) {
        let epoch = self.epochs.entry(process).or_default();
        *epoch += 1;
        let me = ProcessRun { process, epoch: NodeEpoch(*epoch) };
        let core = Core::shard(PresenceConfig::default(), me, View::of(&self.live), self.now);
        self.cores.insert(process, core);
        self.learns_at.remove(&Ok(process));
        self.reading.retain(|(of, _)| *of != process);
        self.stated.retain(|(of, _)| *of != process);
    }

    fn pick(&self, pick: usize) -> Option<Real> {
        (!self.real.is_empty()).then(|| self.real[pick % self.real.len()])
    }

    /// The core to which a node reports about a user, and the one that owns everybody.
    fn report(&mut self, node: usize, id: UserId, report: impl Fn(&mut Core, NodeRun, Now)) {
        let Node { run, view } = &self.nodes[node];
        for process in view.owner(id).into_iter().chain([WHOLE]) {
            if let Some(core) = self.cores.get_mut(&process) {
                report(core, *run, self.now);
            }
        }
    }

    /// Reports that rows of a user have changed, from where the user is.
    fn changed(&mut self, id: UserId, circle: bool) {
        for node in 0..2 {
            if self.real.iter().any(|real| real.node == node && real.up.user == id) {
                self.report(node, id, |core, _, _| core.handle_changed(id, circle));
            }
        }
        self.shaky.insert(id, self.now.elapsed + SHAKY);
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Act(Act::Up { user: id, device, node }) => {
                let up = up(id, id * 10 + device, self.next);
                self.next += 1;
                // It replaces the ended connections of its device, so they are not waited for any more.
                self.waits.remove(&(up.user, up.device));
                self.real.push(Real { up, node, is_idle: false });
                let key = (up.user, up.connection);
                self.views.iter_mut().for_each(|views| drop(views.known.insert(key, BTreeMap::new())));
                self.report(node, up.user, |core, run, now| {
                    core.handle_up(run, up, now);
                    core.handle_idle(run, key, false, now);
                });
            }
            Op::Down { pick, is_final } => {
                let Some(Real { up, node, .. }) = self.pick(pick) else { return };
                let (how, wait) = match is_final {
                    true => (Departure::Final, Duration::ZERO),
                    false => (Departure::Seen, GRACE),
                };
                self.end(up, wait);
                let key = (up.user, up.connection);
                self.report(node, up.user, |core, run, now| core.handle_down(run, key, how, now));
            }
            Op::Act(Act::Idle { pick, is_idle }) => {
                let Some(Real { up, node, .. }) = self.pick(pick) else { return };
                for real in self.real.iter_mut().filter(|real| real.up.connection == up.connection) {
                    real.is_idle = is_idle;
                }
                let key = (up.user, up.connection);
                self.report(node, up.user, |core, run, now| core.handle_idle(run, key, is_idle, now));
            }
            Op::Act(Act::Set { user: id, invisible, status }) => {
                let status = status.then(|| "words".to_owned());
                self.rows.insert(user(id), PresenceRow { invisible, status, last_active_at: None });
                self.changed(user(id), false);
            }
            Op::Act(Act::Pair { one, other, is_watched }) if one != other => {
                let pair = [(user(one), user(other)), (user(other), user(one))];
                match is_watched {
                    true => self.pairs.extend(pair),
                    false => self.pairs.retain(|found| !pair.contains(found)),
                }
                self.shaky.insert(user(other), self.now.elapsed + SHAKY);
                self.changed(user(one), true);
            }
            Op::Act(Act::Pair { .. }) => {}
            Op::Hold { holds } => self.holds = holds,
            Op::Pass { seconds } => self.pass(seconds),
            Op::View { live } => {
                self.live = of_live(live);
                for process in PROCESSES {
                    match (self.live.contains(&process), self.cores.contains_key(&process)) {
                        (true, false) => self.start(process),
                        // It was shut down. Its messages may still be under way.
                        (false, true) if self.roll(2) == 0 => drop(self.cores.remove(&process)),
                        _ => {}
                    }
                }
                let learners: Vec<_> =
                    self.cores.keys().filter(|id| **id != WHOLE).map(|id| Ok(*id)).collect();
                for learner in learners.into_iter().chain([Err(0), Err(1)]) {
                    // Mostly soon, and always within a lease: that is assumed of views.
                    let late = 12;
                    let lag = if self.roll(4) == 0 { late } else { self.roll(4) };
                    let at = self.now.elapsed + Duration::from_secs(lag);
                    self.learns_at.entry(learner).or_insert(at);
                }
            }
            Op::Restart { pick } => {
                let process = self.live[pick % self.live.len()];
                self.start(process);
            }
            Op::RestartNode { node } => {
                let dead: Vec<Up> =
                    self.real.iter().filter(|real| real.node == node).map(|real| real.up).collect();
                dead.iter().for_each(|up| self.end(*up, GRACE));
                let run = self.nodes[node].run;
                self.nodes[node].run = NodeRun { epoch: NodeEpoch(run.epoch.0 + 1), set: 0, ..run };
                self.resend(node);
            }
            Op::Zombie { node, user: id } => {
                let Node { run, view } = &self.nodes[node];
                let old = match self.fault == Some(Fault::OldEpochIsTaken) {
                    true => NodeRun { set: run.set + 100, ..*run },
                    false if run.epoch.0 == 1 => return,
                    false => NodeRun { epoch: NodeEpoch(run.epoch.0 - 1), set: 1_000, ..*run },
                };
                let (view, zombie) = (view.clone(), up(id, id * 10, 1_000_000 + id));
                self.for_each_core(&view, |core, owns| {
                    let set: &[Up] = if owns(zombie.user) { &[zombie] } else { &[] };
                    core.0.handle_set(old, core.1, set, core.2);
                });
            }
            Op::Act(Act::Lose { pick }) => {
                let Some(Real { up, node, .. }) = self.pick(pick) else { return };
                self.end(up, GRACE);
                self.resend(node);
            }
            Op::Act(Act::Drop { pick }) => {
                let Some(Real { up, node, .. }) = self.pick(pick) else { return };
                let key = (up.user, up.connection);
                // A frame is dropped only if one was sent.
                if self.views.iter().any(|views| !views.complete.contains(&key)) {
                    return;
                }
                for views in &mut self.views {
                    views.deaf.insert(key);
                }
                self.report(node, up.user, |core, _, now| core.handle_dropped(key.0, key.1, now));
            }
        }
    }
}

/// What a connection knows of others, without the times.
fn told(
    own: UserId,
    known: &BTreeMap<UserId, UserPresence>,
) -> BTreeMap<UserId, (Availability, Option<String>)> {
    let online = known.values().filter(|card| card.state != Availability::Offline && card.user_id != own);
    online.map(|card| (card.user_id, (card.state, card.status.clone()))).collect()
}

fn history() -> impl Strategy<Value = (u64, Vec<Op>)> {
    (any::<u64>(), proptest::collection::vec(op(), 1..70))
}

fn run((seed, ops): &(u64, Vec<Op>), fault: Option<Fault>) {
    let mut world = World::new(*seed, fault);
    for op in ops {
        world.apply(op);
        world.settle();
    }
    world.holds = false;
    world.pass(10);
    world.is_calm = true;
    world.pass(60);
    world.check_all();
}

/// The same 4,000 histories each time, or as many new ones as `PROPTEST_CASES` says.
fn config() -> ProptestConfig {
    let default = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => default,
        None => ProptestConfig { cases: 4_000, rng_seed: RngSeed::Fixed(1), ..default },
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn cores_that_share_the_users_say_what_one_core_says(history in history()) {
        run(&history, None);
    }
}

#[test]
fn each_planted_fault_is_found() {
    for fault in FAULTS {
        // Most are found at once; a set of another view does harm in one of some thousand histories.
        let config = ProptestConfig {
            cases: 10_000,
            failure_persistence: None,
            max_shrink_iters: 0,
            ..ProptestConfig::default()
        };
        let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        let found = TestRunner::new_with_rng(config, rng).run(&history(), |history| {
            run(&history, Some(fault));
            Ok(())
        });
        assert!(found.is_err(), "{fault:?} is not found");
    }
}
