//! The state of presence: a set of connections, folded into one state for each user.
//!
//! Pure: reports of nodes, rows and the time go in by `handle_*`; reads, writes and notices come out by `poll_*`. [`user`] holds
//! one user, [`watch`] decides who is notified of what, this file has nodes, connections and time.
//!
//! The state is wrong about a node for at most its lease, and about a user until the node's next full set at most.

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

/// A connection that had no room for a frame gets everything again after this time.
const AGAIN: Duration = Duration::from_secs(5);
/// For this time a connection that replaces an idle one counts as idle although it has not said so.
const INHERITED: Duration = Duration::from_secs(2);
/// Users whose last activity waits to be written. Above it those with the lowest ids are dropped.
const LEFT: usize = 50_000;

/// One frame to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The receivers.
    pub to: To,
    /// The content of the frame.
    pub list: PresenceList,
}

/// The receivers of a notice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum To {
    /// All connections of these users.
    Users(Vec<UserId>),
    /// One connection.
    Connection(UserId, ConnectionId),
}

/// The rows of a user that must be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// The user.
    pub user: UserId,
    /// Whether the circle is wanted as well as the settings.
    pub circle: bool,
}

/// The rows of a user that were read.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The user.
    pub user: UserId,
    /// The user's settings.
    pub row: PresenceRow,
    /// The revision of the user's profile.
    pub rev: u64,
    /// The user's circle, if it was wanted.
    pub circle: Option<Vec<UserId>>,
}

#[derive(Debug)]
struct Node {
    run: NodeRun,
    /// `None` once the lease has expired.
    lease_until: Option<Duration>,
}

/// Presence as pure state.
///
/// Call `handle_*` for each report, row and tick in the order in which they happened; `now` must never go back. Afterwards take
/// notices with [`Self::poll_notice`] until there is none and send them in that order. Start the reads of [`Self::poll_wanted`]
/// and the writes of [`Self::poll_left`]: their results may come in any order, and further reports may be handled meanwhile. Call
/// [`Self::handle_time`] at [`Self::next_look`].
#[derive(Debug)]
pub struct Core {
    config: PresenceConfig,
    /// Until this time nobody is reported as offline. `None` once it is over.
    settles_at: Option<Duration>,
    nodes: Vec<Node>,
    users: HashMap<UserId, Box<User>>,
    /// The times at which users must be looked at.
    looks: BTreeSet<(Duration, UserId)>,
    /// Users whose rows must be read. An entry is stale if the user's `load` is not `Waits`.
    wanted: VecDeque<UserId>,
    /// By user whose read is running: the users who have begun to watch them meanwhile.
    expected: HashMap<UserId, Vec<UserId>>,
    /// When users were last active, to be written.
    left: BTreeMap<UserId, Millis>,
    notices: VecDeque<Notice>,
    /// Nodes that must send their full set.
    strangers: Vec<NodeRun>,
    leases_missed: u64,
}

impl Core {
    /// A core that knows no node. It reports nobody as offline for one lease: by then each node that lives has sent its set, and
    /// the clients of a dead node have come back.
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

    /// A node has exactly these connections, from here on under this epoch.
    pub fn handle_set(&mut self, run: NodeRun, set: &[Up], now: Now) {
        let node = self.take_node(run, now);
        let named: HashSet<(UserId, ConnectionId)> = set.iter().map(|up| (up.user, up.connection)).collect();
        // Connections of the node that its set does not name have ended, perhaps while reports were lost: their grace period
        // begins now.
        self.leave_where(now, |id, connection| {
            connection.node == node && !named.contains(&(id, connection.id))
        });
        for up in set {
            self.put_connection(node, *up, now);
            // Changes of rows that were reported meanwhile are lost too, so the rows are read again.
            self.want(up.user, true);
        }
    }

    /// A node renews its lease.
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
            // Connections of the device that are still in their grace period end as well: a revoked device does not come back.
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

    /// Nobody uses a client any more, or somebody does again.
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

    /// The rows of a user's settings have changed; with `circle` those of the user's circle too.
    pub fn handle_changed(&mut self, id: UserId, circle: bool) {
        self.want(id, circle);
    }

    /// A connection had no room for a frame.
    pub fn handle_dropped(&mut self, id: UserId, connection: ConnectionId, now: Now) {
        let Some(user) = self.users.get_mut(&id) else { return };
        let mut all = user.connections.iter_mut();
        if let Some(found) = all.find(|found| found.id == connection && found.told == Told::All) {
            found.told = Told::Parts;
            self.looks.insert((now.elapsed + AGAIN, id));
        }
    }

    /// Handles everything that is due at `now`.
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

    /// When [`Self::handle_time`] is due, by the steady clock.
    #[must_use]
    pub fn next_look(&self) -> Option<Duration> {
        let leases = self.nodes.iter().filter_map(|node| node.lease_until);
        let looks = self.looks.first().map(|(at, _)| *at);
        leases.chain(looks).chain(self.settles_at).min()
    }

    /// Users whose rows must be read. Each read is answered by [`Self::handle_loaded`] or [`Self::handle_not_loaded`].
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

    /// Whether [`Self::poll_wanted`] may return any.
    #[must_use]
    pub fn has_wanted(&self) -> bool {
        !self.wanted.is_empty()
    }

    /// The next notice to send.
    pub fn poll_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    /// When users were last active. Each entry must be written, or returned to [`Self::handle_unwritten`].
    pub fn poll_left(&mut self) -> Vec<(UserId, Millis)> {
        std::mem::take(&mut self.left).into_iter().collect()
    }

    /// Whether [`Self::poll_left`] returns any.
    #[must_use]
    pub fn has_left(&self) -> bool {
        !self.left.is_empty()
    }

    /// Queues times that could not be written again. A later time of the same user is kept.
    pub fn handle_unwritten(&mut self, marks: Vec<(UserId, Millis)>) {
        for (id, at) in marks {
            self.leave_mark(id, at);
        }
    }

    /// The process ends: queues the last activity of every user.
    pub fn handle_end(&mut self, now: Now) {
        self.users.values_mut().for_each(|user| user.touch(now.at));
        let marks: Vec<_> = self.users.iter().map(|(id, user)| (*id, user.last_active_at)).collect();
        self.handle_unwritten(marks);
    }

    /// A node that is unknown under this epoch, or whose lease has expired. It must send its full set.
    pub fn poll_stranger(&mut self) -> Option<NodeRun> {
        self.strangers.pop()
    }

    /// The number of leases that have expired since the last call.
    pub fn poll_leases_missed(&mut self) -> u64 {
        std::mem::take(&mut self.leases_missed)
    }

    /// Whether every unknown user is offline.
    #[must_use]
    pub const fn is_settled(&self) -> bool {
        self.settles_at.is_none()
    }

    /// The number of users who are online, away or in their grace period.
    #[must_use]
    pub fn users(&self) -> usize {
        self.users.len()
    }

    /// The presence of users as `asker` sees it: `None` for users who are offline to others. Users see their own real state.
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

    /// The index of a node, if its lease is valid under this epoch.
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
        // There are only a thousand worker numbers.
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
                // It replaces a connection that broke and that may have been idle. A client that is still idle says so at once.
                // Until then the new connection counts as idle too, so that the user's state does not flicker when a network
                // changes.
                let is_broken = |old: &Connection| old.device == up.device && old.leaves_at.is_some();
                let is_awaited = |old: &Connection| old.leaves_at.is_some_and(|at| at > now.elapsed);
                let mut old = user.connections.iter().filter(|old| is_broken(old) && is_awaited(old));
                let inherits = !up.is_idle && old.any(|old| old.is_idle);
                if inherits {
                    // An earlier look ends it too. That costs at most a flicker.
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
            // While the user had no connection, nobody reported changes of their circle.
            self.want(up.user, true);
        }
        self.greet(up.user);
        self.show(up.user, now);
    }

    /// Begins the grace period of the connections for which `leaves` holds.
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

    /// Removes connections whose grace period is over. Sends what was held back or dropped.
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
            // The read may have begun before this change, so its result cannot be trusted.
            Load::Runs => user.load = Load::RunsInVain,
            Load::Waits | Load::RunsInVain => {}
        }
    }

    /// Removes a user of whom nothing is needed any more.
    fn forget_gone(&mut self, id: UserId) {
        if self.users.get(&id).is_some_and(|user| user.is_gone()) {
            self.users.remove(&id);
        }
    }

    /// Queues the last activity of a user to be written.
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
