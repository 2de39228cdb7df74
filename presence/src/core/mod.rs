//! Who is there: a set of connections, folded into one state a user.
//!
//! Pure: reports of nodes, rows and the time go in by `handle_*`; what is to be read, written and told comes out by
//! `poll_*`. Rooms: [`user`] one user, [`watch`] who is told what, this file nodes, connections and time.
//!
//! It may be wrong about a node only for as long as its lease, and about a user only until the node's next full set.

#[cfg(test)]
mod tests;
mod user;
mod watch;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Duration;

use madang_engine::session::Now;
use madang_ids::{ConnectionId, Millis, UserId};
use madang_proto::{Availability, PresenceList, UserPresence};
use madang_store::PresenceRow;

use crate::api::{Departure, NodeRun, Up};
use crate::config::PresenceConfig;
use user::{Connection, Load, Settings, Shown, Told, User};

/// A connection that had no room for what it was told is told again after so long.
const AGAIN: Duration = Duration::from_secs(5);
/// For so long a connection that takes the place of an idle one is idle without having said so.
const INHERITED: Duration = Duration::from_secs(2);
/// Users whose last activity waits to be written. Beyond it the earliest in order of id are forgotten.
const LEFT: usize = 50_000;

/// Something to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// To whom.
    pub to: To,
    /// What: one frame.
    pub list: PresenceList,
}

/// Who is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum To {
    /// All connections of these users.
    Users(Vec<UserId>),
    /// One connection.
    Connection(UserId, ConnectionId),
}

/// What must be read of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Whose.
    pub user: UserId,
    /// Her circle as well as her settings.
    pub circle: bool,
}

/// What was read of a user.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// Whose.
    pub user: UserId,
    /// Her settings.
    pub row: PresenceRow,
    /// The revision of the user's profile.
    pub rev: u64,
    /// Her circle, if it was wanted.
    pub circle: Option<Vec<UserId>>,
}

#[derive(Debug)]
struct Node {
    run: NodeRun,
    /// Absent once it was missed.
    lease_until: Option<Duration>,
}

/// Presence as pure state.
#[derive(Debug)]
pub struct Core {
    config: PresenceConfig,
    /// Until then nobody is called offline.
    settles_at: Option<Duration>,
    nodes: Vec<Node>,
    users: HashMap<UserId, Box<User>>,
    /// When users must be looked at.
    looks: BTreeSet<(Duration, UserId)>,
    wanted: VecDeque<UserId>,
    /// Who met a user while she was being read.
    expected: HashMap<UserId, Vec<UserId>>,
    left: BTreeMap<UserId, Millis>,
    notices: VecDeque<Notice>,
    strangers: Vec<NodeRun>,
    leases_missed: u64,
}

impl Core {
    /// Knows nothing, and so calls nobody offline for one lease: until then each node that lives has sent its set, and
    /// the clients of one that died have come back.
    #[must_use]
    pub fn new(config: PresenceConfig, now: Now) -> Self {
        Self {
            config,
            settles_at: Some(now.elapsed + config.lease()),
            nodes: Vec::new(),
            users: HashMap::new(),
            looks: BTreeSet::new(),
            wanted: VecDeque::new(),
            expected: HashMap::new(),
            left: BTreeMap::new(),
            notices: VecDeque::new(),
            strangers: Vec::new(),
            leases_missed: 0,
        }
    }

    /// A node has these connections and no others, from here on under this epoch.
    pub fn handle_set(&mut self, run: NodeRun, set: &[Up], now: Now) {
        let node = self.take_node(run, now);
        let named: HashSet<(UserId, ConnectionId)> = set.iter().map(|up| (up.user, up.connection)).collect();
        self.leave_where(now, |id, connection| {
            connection.node == node && !named.contains(&(id, connection.id))
        });
        for up in set {
            self.put_connection(node, *up, now);
            // What was told meanwhile was lost with it.
            self.want(up.user, true);
        }
    }

    /// A node lives.
    pub fn handle_renewal(&mut self, run: NodeRun, now: Now) {
        if let Some(node) = self.live_node(run) {
            self.nodes[node as usize].lease_until = Some(now.elapsed + self.config.lease());
        }
    }

    /// A connection was opened.
    pub fn handle_up(&mut self, run: NodeRun, up: Up, now: Now) {
        if let Some(node) = self.live_node(run) {
            self.put_connection(node, up, now);
        }
    }

    /// A connection ended.
    pub fn handle_down(
        &mut self,
        run: NodeRun,
        (id, connection): (UserId, ConnectionId),
        how: Departure,
        now: Now,
    ) {
        let Some(node) = self.live_node(run) else { return };
        let Some(user) = self.users.get_mut(&id) else { return };
        let is_it = |other: &Connection| other.id == connection && other.node == node;
        let Some(place) = user.connections.iter().position(is_it) else { return };
        user.touch(now.at);
        let grace = match how {
            Departure::Seen => self.config.grace(),
            Departure::Drained => self.config.drain_grace(),
            Departure::Final => Duration::ZERO,
            Departure::Revoked => {
                let device = user.connections[place].device;
                user.connections.retain(|other| other.device != device);
                return self.show(id, now);
            }
        };
        user.connections[place].leaves_at = Some(now.elapsed + grace);
        match grace {
            Duration::ZERO => self.look(id, now),
            _ => drop(self.looks.insert((now.elapsed + grace, id))),
        }
    }

    /// Somebody stopped using a client, or began again.
    pub fn handle_idle(
        &mut self,
        run: NodeRun,
        (id, connection): (UserId, ConnectionId),
        is_idle: bool,
        now: Now,
    ) {
        let Some(node) = self.live_node(run) else { return };
        let Some(user) = self.users.get_mut(&id) else { return };
        user.touch(now.at);
        let mut connections = user.connections.iter_mut();
        if let Some(found) = connections.find(|other| other.id == connection && other.node == node) {
            found.is_idle = is_idle;
            found.inherits_idle = false;
        }
        user.touch(now.at);
        self.show(id, now);
    }

    /// What a user says of herself has changed; or whom she watches, too.
    pub fn handle_changed(&mut self, id: UserId, circle: bool) {
        self.want(id, circle);
    }

    /// A connection had no room for what it was to be told.
    pub fn handle_dropped(&mut self, id: UserId, connection: ConnectionId, now: Now) {
        let Some(user) = self.users.get_mut(&id) else { return };
        let mut all = user.connections.iter_mut();
        if let Some(found) = all.find(|found| found.id == connection && found.told == Told::All) {
            found.told = Told::Parts;
            self.looks.insert((now.elapsed + AGAIN, id));
        }
    }

    /// The time moves on.
    pub fn handle_time(&mut self, now: Now) {
        for index in 0..self.nodes.len() {
            if self.nodes[index].lease_until.is_some_and(|until| until <= now.elapsed) {
                self.nodes[index].lease_until = None;
                self.leases_missed += 1;
                self.leave_where(now, |_, connection| connection.node as usize == index);
            }
        }
        while let Some((at, id)) = self.looks.first().copied().filter(|(at, _)| *at <= now.elapsed) {
            self.looks.remove(&(at, id));
            self.look(id, now);
        }
        if self.settles_at.is_some_and(|at| at <= now.elapsed) {
            self.settles_at = None;
            self.settle(now);
        }
    }

    /// When [`Self::handle_time`] has something to do, by the steady clock.
    #[must_use]
    pub fn next_look(&self) -> Option<Duration> {
        let leases = self.nodes.iter().filter_map(|node| node.lease_until);
        let looks = self.looks.first().map(|(at, _)| *at);
        leases.chain(looks).chain(self.settles_at).min()
    }

    /// Users whose rows must be read; each is answered by [`Self::handle_loaded`] or [`Self::handle_not_loaded`].
    pub fn poll_wanted(&mut self, at_most: usize) -> Vec<Wanted> {
        let mut wanted = Vec::new();
        while wanted.len() < at_most
            && let Some(id) = self.wanted.pop_front()
        {
            if let Some(user) = self.users.get_mut(&id).filter(|user| user.load == Load::Waits) {
                user.load = Load::Runs;
                wanted.push(Wanted { user: id, circle: std::mem::take(&mut user.wants_circle) });
            }
        }
        wanted
    }

    /// Whether [`Self::poll_wanted`] has any.
    #[must_use]
    pub fn has_wanted(&self) -> bool {
        !self.wanted.is_empty()
    }

    /// The next thing to be told.
    pub fn poll_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    /// When users were last active, to be written.
    pub fn poll_left(&mut self) -> Vec<(UserId, Millis)> {
        std::mem::take(&mut self.left).into_iter().collect()
    }

    /// Whether [`Self::poll_left`] has any.
    #[must_use]
    pub fn has_left(&self) -> bool {
        !self.left.is_empty()
    }

    /// Marks that were not written wait again; so do those of everybody who is here, if the process is about to end.
    pub fn handle_unwritten(&mut self, marks: Vec<(UserId, Millis)>) {
        for (id, at) in marks {
            self.leave_mark(id, at);
        }
    }

    /// The process ends: everybody's last activity is to be written.
    pub fn handle_end(&mut self, now: Now) {
        self.users.values_mut().for_each(|user| user.touch(now.at));
        let marks: Vec<_> = self.users.iter().map(|(id, user)| (*id, user.last_active_at)).collect();
        self.handle_unwritten(marks);
    }

    /// A node that is not known under this epoch, or not any more: it must send its full set.
    pub fn poll_stranger(&mut self) -> Option<NodeRun> {
        self.strangers.pop()
    }

    /// Leases that were missed since the last call.
    pub fn poll_leases_missed(&mut self) -> u64 {
        std::mem::take(&mut self.leases_missed)
    }

    /// Whether everybody who is not known is offline.
    #[must_use]
    pub const fn is_settled(&self) -> bool {
        self.settles_at.is_none()
    }

    /// Users who are here, or were a moment ago.
    #[must_use]
    pub fn users(&self) -> usize {
        self.users.len()
    }

    /// How these are, for one who asks: `None` for who is offline to her. Of herself she learns the truth.
    #[must_use]
    pub fn states(&self, asker: Option<UserId>, users: &[UserId]) -> Vec<Option<UserPresence>> {
        let state = |id: &UserId| {
            let user = self.users.get(id).filter(|user| user.is_loaded)?;
            match Some(*id) == asker {
                true => Some(user.own_card(*id)),
                false => Some(user.card(*id)).filter(|card| card.state != Availability::Offline),
            }
        };
        users.iter().map(state).collect()
    }

    /// The node's index, if its lease lives under this epoch.
    fn live_node(&mut self, run: NodeRun) -> Option<u32> {
        let is_it = |node: &Node| node.run == run && node.lease_until.is_some();
        let place = self.nodes.iter().position(is_it).and_then(|place| u32::try_from(place).ok());
        if place.is_none() && !self.strangers.contains(&run) {
            self.strangers.push(run);
        }
        place
    }

    fn take_node(&mut self, run: NodeRun, now: Now) -> u32 {
        let node = Node { run, lease_until: Some(now.elapsed + self.config.lease()) };
        let place = self.nodes.iter().position(|node| node.run.worker == run.worker);
        let place = place.unwrap_or(self.nodes.len());
        match self.nodes.get_mut(place) {
            Some(found) => *found = node,
            None => self.nodes.push(node),
        }
        // There are a thousand worker numbers.
        u32::try_from(place).unwrap_or(u32::MAX)
    }

    fn put_connection(&mut self, node: u32, up: Up, now: Now) {
        let user = self.users.entry(up.user).or_default();
        let was_here = user.is_here();
        match user.connections.iter_mut().find(|found| found.id == up.connection && found.node == node) {
            Some(found) => {
                found.leaves_at = None;
                found.is_idle = up.is_idle;
                found.inherits_idle = false;
            }
            None => {
                // It takes the place of one that broke. That one may have been idle: a client that still is says so at
                // once, and until then is taken for what it was, so that nobody flickers when a network changes.
                let is_broken = |old: &Connection| old.device == up.device && old.leaves_at.is_some();
                let is_awaited = |old: &Connection| old.leaves_at.is_some_and(|at| at > now.elapsed);
                let mut old = user.connections.iter().filter(|old| is_broken(old) && is_awaited(old));
                let inherits = !up.is_idle && old.any(|old| old.is_idle);
                if inherits {
                    // A look that comes earlier ends it too, which costs no more than a flicker.
                    self.looks.insert((now.elapsed + INHERITED, up.user));
                }
                user.connections.retain(|old| !is_broken(old));
                user.connections.push(Connection {
                    id: up.connection,
                    device: up.device,
                    node,
                    is_idle: up.is_idle || inherits,
                    inherits_idle: inherits,
                    told: Told::Nothing,
                    leaves_at: None,
                });
            }
        }
        user.touch(now.at);
        if !was_here {
            // Nobody followed her log meanwhile.
            self.want(up.user, true);
        }
        self.greet(up.user);
        self.show(up.user, now);
    }

    /// Begins the grace period of connections.
    fn leave_where(&mut self, now: Now, leaves: impl Fn(UserId, &Connection) -> bool) {
        let until = now.elapsed + self.config.grace();
        for (id, user) in &mut self.users {
            let is_one = |found: &Connection| found.leaves_at.is_none() && leaves(*id, found);
            if user.connections.iter().any(is_one) {
                user.touch(now.at);
                let mut leaving = user.connections.iter_mut().filter(|found| is_one(found));
                leaving.by_ref().for_each(|found| found.leaves_at = Some(until));
                self.looks.insert((until, *id));
            }
        }
    }

    /// Connections whose grace is over go; what was held back or dropped is told.
    fn look(&mut self, id: UserId, now: Now) {
        if let Some(user) = self.users.get_mut(&id) {
            user.connections.retain(|found| found.leaves_at.is_none_or(|at| at > now.elapsed));
            user.end_inherited_idleness(now);
            self.greet(id);
            self.show(id, now);
        }
    }

    fn want(&mut self, id: UserId, circle: bool) {
        let Some(user) = self.users.get_mut(&id) else { return };
        user.wants_circle |= circle;
        match user.load {
            Load::Rests => {
                user.load = Load::Waits;
                self.wanted.push_back(id);
            }
            Load::Runs => user.load = Load::RunsInVain,
            Load::Waits | Load::RunsInVain => {}
        }
    }

    fn forget_gone(&mut self, id: UserId) {
        if self.users.get(&id).is_some_and(|user| user.is_gone()) {
            self.users.remove(&id);
        }
    }

    fn leave_mark(&mut self, id: UserId, at: Millis) {
        if at != Millis::ZERO {
            let mark = self.left.entry(id).or_insert(at);
            *mark = (*mark).max(at);
        }
        if self.left.len() > LEFT {
            self.left.pop_first();
        }
    }
}
