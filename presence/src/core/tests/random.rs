//! Random histories of two nodes, compared with the truth: which users were really connected, and since when they are not.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use madang_ids::{ConnectionId, NodeEpoch, UserId};
use madang_proto::{Availability, UserPresence};
use madang_store::PresenceRow;
use proptest::prelude::*;

use super::harness::{Act, Harness, Real, act, key, up, user};
use crate::api::{Departure, NodeRun, Up};
use crate::core::{Loaded, NoticeTarget};

const USERS: u64 = 4;
const GRACE: Duration = Duration::from_secs(10);

#[derive(Debug, Clone)]
enum Op {
    Act(Act),
    Down {
        pick: usize,
        how: u8,
    },
    /// Answers the reads, or begins them and leaves them unanswered until the next operation of this kind.
    Load {
        holds: bool,
    },
    Pass {
        seconds: u64,
    },
    /// The reports of a node do not arrive for a while. Then it sends its set.
    Stall {
        node: usize,
        seconds: u64,
    },
    /// A node dies with its connections, and comes back later without any.
    Crash {
        node: usize,
    },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        18 => act(USERS).prop_map(Op::Act),
        5 => (any::<usize>(), 0..4_u8).prop_map(|(pick, how)| Op::Down { pick, how }),
        2 => any::<bool>().prop_map(|holds| Op::Load { holds }),
        6 => (0..13_u64).prop_map(|seconds| Op::Pass { seconds }),
        1 => (0..2_usize, 1..22_u64).prop_map(|(node, seconds)| Op::Stall { node, seconds }),
        1 => (0..2_usize).prop_map(|node| Op::Crash { node }),
    ]
}

/// What one connection has received.
#[derive(Debug, Default)]
struct View {
    known: BTreeMap<UserId, UserPresence>,
    is_complete: bool,
    /// It drops frames until it gets everything again.
    is_deaf: bool,
}

struct World {
    harness: Harness,
    runs: [NodeRun; 2],
    /// The node whose reports do not arrive at the moment.
    stalled: Option<usize>,
    real: Vec<Real>,
    views: HashMap<(UserId, ConnectionId), View>,
    /// Until when an ended connection may keep its user online, by user and device.
    waits: BTreeMap<(UserId, u64), Duration>,
    /// The rows that the core has read.
    read: BTreeMap<UserId, PresenceRow>,
    holds: bool,
    reading: Vec<Loaded>,
    /// Pairs that have ended since everything was read. A running read may have seen that.
    parted: BTreeSet<(UserId, UserId)>,
    next: u64,
}

impl World {
    fn new() -> Self {
        let mut harness = Harness::settled();
        let run = |worker| NodeRun { worker, epoch: NodeEpoch(1), set: 1 };
        let runs = [run(1), run(2)];
        harness.core.handle_set(runs[1], &crate::core::View::whole(), &[], harness.now);
        Self {
            harness,
            runs,
            stalled: None,
            real: Vec::new(),
            views: HashMap::new(),
            waits: BTreeMap::new(),
            read: BTreeMap::new(),
            holds: false,
            reading: Vec::new(),
            parted: BTreeSet::new(),
            next: 1,
        }
    }

    fn pick(&self, pick: usize) -> Option<Real> {
        (!self.real.is_empty()).then(|| self.real[pick % self.real.len()])
    }

    fn apply(&mut self, op: &Op) {
        let now = self.harness.now;
        match *op {
            Op::Act(Act::Up { user: id, device, node }) => {
                let up = up(id, id * 10 + device, self.next);
                self.next += 1;
                self.waits.remove(&(up.user, up.device.raw()));
                self.real.push(Real { up, node, is_idle: false });
                self.views.insert((up.user, up.connection), View::default());
                self.harness.core.handle_up(self.runs[node], up, now);
                self.harness.core.handle_idle(self.runs[node], (up.user, up.connection), false, now);
            }
            Op::Down { pick, how } => {
                let Some(Real { up, node, .. }) = self.pick(pick) else { return };
                let (how, wait) = match how {
                    0 => (Departure::Seen, 10),
                    1 => (Departure::Drained, 30),
                    2 => (Departure::Final, 0),
                    _ => (Departure::Revoked, 0),
                };
                if how == Departure::Revoked {
                    // The other sockets of the device are closed as well.
                    let others = self.real.iter().filter(|real| real.up.device == up.device).copied();
                    for Real { up, node, .. } in others.collect::<Vec<_>>() {
                        self.end(up, Duration::ZERO);
                        let connection = (up.user, up.connection);
                        self.harness.core.handle_down(self.runs[node], connection, how, now);
                    }
                    self.waits.remove(&(up.user, up.device.raw()));
                    return;
                }
                self.end(up, Duration::from_secs(wait));
                self.harness.core.handle_down(self.runs[node], (up.user, up.connection), how, now);
            }
            Op::Act(Act::Idle { pick, is_idle }) => {
                let Some(Real { up, node, .. }) = self.pick(pick) else { return };
                for real in self.real.iter_mut().filter(|real| real.up.connection == up.connection) {
                    real.is_idle = is_idle;
                }
                self.harness.core.handle_idle(self.runs[node], (up.user, up.connection), is_idle, now);
            }
            Op::Act(Act::Set { user: id, invisible, status }) => {
                let status = status.then(|| "words".to_owned());
                self.harness.rows.insert(user(id), PresenceRow { invisible, status, last_active_at: None });
                self.harness.core.handle_changed(user(id), false);
            }
            Op::Act(Act::Pair { one, other, is_watched }) if one != other => {
                match is_watched {
                    true => self.harness.watch(one, other),
                    false => {
                        self.harness.unwatch(one, other);
                        self.parted.extend([(user(one), user(other)), (user(other), user(one))]);
                    }
                }
                self.harness.core.handle_changed(user(one), true);
            }
            Op::Act(Act::Pair { .. }) => {}
            Op::Load { holds } => {
                self.holds = false;
                self.settle();
                self.holds = holds;
            }
            Op::Act(Act::Lose { pick }) => {
                let Some(Real { up, node, .. }) = self.pick(pick) else { return };
                self.end(up, GRACE);
                self.resend(node);
            }
            Op::Pass { seconds } => self.pass(seconds),
            Op::Stall { node, seconds } => {
                self.stalled = Some(node);
                self.pass(seconds);
                self.stalled = None;
                self.resend(node);
            }
            Op::Crash { node } => {
                let dead: Vec<Up> =
                    self.real.iter().filter(|real| real.node == node).map(|real| real.up).collect();
                // The lease and then the grace period: less than 25 s, and never less than the grace period.
                dead.iter().for_each(|up| self.end(*up, GRACE));
                self.stalled = Some(node);
                self.pass(26);
                self.stalled = None;
                self.check_gone(&dead);
                self.resend(node);
            }
            Op::Act(Act::Drop { pick }) => {
                let Some(Real { up, .. }) = self.pick(pick) else { return };
                self.views.entry((up.user, up.connection)).or_default().is_deaf = true;
                self.harness.core.handle_dropped(up.user, up.connection, now);
            }
        }
    }

    fn end(&mut self, up: Up, wait: Duration) {
        self.real.retain(|real| real.up.connection != up.connection);
        self.views.remove(&(up.user, up.connection));
        let until = self.waits.entry((up.user, up.device.raw())).or_default();
        *until = (*until).max(self.harness.now.elapsed + wait);
    }

    fn resend(&mut self, node: usize) {
        self.runs[node].set += 1;
        let here = self.real.iter().filter(|real| real.node == node);
        let set: Vec<Up> = here.map(|real| Up { is_idle: real.is_idle, ..real.up }).collect();
        self.harness.core.handle_set(self.runs[node], &crate::core::View::whole(), &set, self.harness.now);
    }

    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            for node in 0..2 {
                if self.stalled != Some(node) {
                    self.harness.core.handle_renewal(self.runs[node], self.harness.now);
                }
            }
            self.harness.wait(1);
            self.settle();
        }
    }

    /// Users of a dead node are offline now, unless they are connected to the other one.
    fn check_gone(&self, dead: &[Up]) {
        for id in dead.iter().map(|up| up.user) {
            let is_waited =
                self.waits.iter().any(|((of, _), until)| *of == id && *until > self.harness.now.elapsed);
            if !is_waited && !self.real.iter().any(|real| real.up.user == id) {
                assert_eq!(
                    self.harness.core.states(None, &[id]),
                    [None],
                    "{id} is still online after the death of the node"
                );
            }
        }
    }

    /// Begins reads and answers them, and checks the notices.
    fn settle(&mut self) {
        self.hear();
        loop {
            for wanted in self.harness.core.poll_wanted(9) {
                let row = self.harness.rows.get(&wanted.user).cloned().unwrap_or_default();
                let circle = wanted.circle.then(|| self.harness.circle(wanted.user));
                self.reading.push(Loaded { user: wanted.user, row, rev: 1, circle });
            }
            if self.holds {
                return;
            }
            if self.reading.is_empty() {
                return self.parted.clear();
            }
            // Later reads may be answered first.
            for loaded in std::mem::take(&mut self.reading).into_iter().rev() {
                self.read.insert(loaded.user, loaded.row.clone());
                self.harness.core.handle_loaded(loaded, self.harness.now);
                self.hear();
            }
        }
    }

    fn hear(&mut self) {
        while let Some(notice) = self.harness.core.poll_notice() {
            let is_meant = |to: &NoticeTarget, key: &(UserId, ConnectionId)| match to {
                NoticeTarget::Users(users) => users.contains(&key.0),
                NoticeTarget::Connection(user, connection) => *key == (*user, *connection),
            };
            let listeners: Vec<_> =
                self.views.keys().filter(|key| is_meant(&notice.to, key)).copied().collect();
            for listener in listeners {
                let Some(view) = self.views.get_mut(&listener) else { continue };
                view.is_deaf &= !matches!(notice.to, NoticeTarget::Connection(..));
                if view.is_deaf {
                    continue;
                }
                for card in &notice.list.users {
                    self.check(listener.0, card);
                }
                let Some(view) = self.views.get_mut(&listener) else { continue };
                if notice.list.anew {
                    view.known.clear();
                }
                view.is_complete |= notice.list.complete;
                view.known.extend(notice.list.users.iter().map(|card| (card.user_id, card.clone())));
            }
        }
    }

    /// Checks what must hold for every card that is sent.
    fn check(&self, listener: UserId, card: &UserPresence) {
        let id = card.user_id;
        if id == listener {
            return;
        }
        let row = self.read.get(&id);
        assert!(!card.invisible, "{listener} hears that {id} is invisible");
        if card.state != Availability::Offline {
            let row = row.unwrap_or_else(|| panic!("{id} was never read, and {listener} hears of this user"));
            assert!(!row.invisible, "{id} is invisible, and {listener} hears that this user is online");
            return;
        }
        let is_visible = row.is_some_and(|row| !row.invisible);
        let pair = (id, listener);
        let were_pair = self.harness.pairs.contains(&pair) && !self.parted.contains(&pair);
        if is_visible && were_pair && self.was_online(listener, id) {
            let is_up = self.real.iter().any(|real| real.up.user == id);
            assert!(!is_up, "{listener} hears that {id} is offline, who is connected");
            let waits = self.waits.iter().filter(|((of, _), _)| *of == id).map(|(_, until)| *until);
            let until = waits.max().unwrap_or_default();
            assert!(self.harness.now.elapsed >= until, "{listener} hears too soon that {id} is offline");
        }
    }

    fn was_online(&self, listener: UserId, id: UserId) -> bool {
        let mut views = self.views.iter().filter(|((of, _), _)| *of == listener);
        views.any(|(_, view)| view.known.get(&id).is_some_and(|card| card.state != Availability::Offline))
    }

    /// After a rest every connection knows the exact state.
    fn check_all(&self) {
        for ((viewer, connection), view) in &self.views {
            assert!(view.is_complete);
            for id in (1..=USERS).map(user).filter(|id| id != viewer) {
                let told = view.known.get(&id).map_or(Availability::Offline, |card| card.state);
                assert_eq!(told, self.truth(*viewer, id), "{viewer}/{connection} of {id}");
            }
        }
    }

    fn truth(&self, viewer: UserId, id: UserId) -> Availability {
        let is_hidden = self.harness.rows.get(&id).is_some_and(|row| row.invisible);
        let idle: BTreeSet<bool> =
            self.real.iter().filter(|real| real.up.user == id).map(|real| real.is_idle).collect();
        match (idle.is_empty(), idle.contains(&false)) {
            _ if is_hidden || !self.harness.pairs.contains(&(viewer, id)) => Availability::Offline,
            (true, _) => Availability::Offline,
            (false, true) => Availability::Online,
            (false, false) => Availability::Away,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// A connected user is never shown as offline; a user who has left is not shown as online for long; no gap shorter than the
    /// grace period is visible; invisible users are never seen; and in the end everybody knows the real state.
    #[test]
    fn every_notice_is_true(ops in proptest::collection::vec(op(), 1..60)) {
        let mut world = World::new();
        for op in &ops {
            world.apply(op);
            world.settle();
        }
        world.holds = false;
        world.settle();
        world.pass(31);
        world.check_all();
        // Nothing remains of users who have left.
        let here: BTreeSet<UserId> = world.real.iter().map(|real| real.up.user).collect();
        prop_assert_eq!(world.harness.core.users(), here.len());
        prop_assert!(world.harness.core.states(None, &[key(9, 9).0])[0].is_none());
    }
}
