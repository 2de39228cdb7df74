//! The state of presence: a set of connections, folded into one state for each user.
//!
//! Pure: reports of nodes, rows and the time go in by `handle_*`; reads, writes and notices come out by `poll_*`. [`user`] holds
//! one user, [`watch`] decides who is notified of what, this file has nodes, connections and time.
//!
//! The state is wrong about a node for at most its lease, and about a user until the node's next full set at most.
//!
//! A core owns the users who fall to it by its [`View`]; in one process that is everybody. [`peers`] has what cores send each
//! other, [`foreign`] what a core knows of users whom other cores own.

mod connections;
mod foreign;
mod leaving;
mod peers;
mod settling;
#[cfg(test)]
mod tests;
mod user;
mod view;
mod watch;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Duration;

use madang_engine::session::Now;
use madang_ids::{ConnectionId, Millis, NodeEpoch, UserId};
use madang_proto::{Availability, PresenceList, UserPresence};
use madang_store::PresenceRow;
use serde::{Deserialize, Serialize};

use crate::api::{Departure, NodeRun, Up};
use crate::config::PresenceConfig;
use foreign::Foreign;
pub use leaving::Leaving;
use leaving::Moving;
use peers::Link;
pub use peers::{Ack, Batch, LinkEnd, Message, State};
use settling::Settling;
use user::{Connection, Load, Settings, Shown, Synced, User};
pub use view::{ProcessRun, View, ViewId};

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
    pub to: NoticeTarget,
    /// The content of the frame.
    pub list: PresenceList,
}

/// The receivers of a notice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoticeTarget {
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
    /// The node has sent its set under the present view. Until then its lease is not renewed, so that after one lease each node
    /// either has sent its set or is treated as dead.
    is_current: bool,
}

/// Presence as pure state, for the users whom this core owns.
///
/// There are three groups of methods. *Inputs* are `handle_*`: reports of nodes, rows, messages of other cores, a new view, the
/// time. Call them in the order in which the events happened; `now` must never go back. The reports of one node must arrive in
/// order; if one may have been lost, the node sends a full set with a higher number. Messages of other cores may be lost,
/// repeated and delayed. *Outputs* are `poll_*` and [`Self::next_look`]. *Questions*, such as [`Self::states`], change nothing.
///
/// After any number of inputs, poll in this order. First take notices with [`Self::poll_notice`] until there is none, and send
/// them in that order: an older notice must not overtake a newer one to the same connection. Then take messages with
/// [`Self::poll_message`] until there is none; a message has the state of the moment at which it is polled, several inputs may
/// become one message, and a message that cannot be sent is dropped and repeated later. Start the reads of
/// [`Self::poll_wanted`] and the writes of [`Self::poll_left`] at any time: their results may come in any order, and other
/// inputs may be handled meanwhile. Ask each node of [`Self::poll_stranger`] for its full set. Call [`Self::handle_time`] at
/// [`Self::next_look`], which must be asked again after each input and after [`Self::poll_message`].
///
/// A core made by [`Self::new`] owns everybody, has no peers and never returns a message.
#[derive(Debug)]
pub struct Core {
    config: PresenceConfig,
    /// This process. Not used in the whole view.
    me: ProcessRun,
    view: View,
    /// Users whom a view has moved here, users whom a node reports elsewhere, and all users after a start. None of them is reported
    /// as offline.
    settling: Vec<Settling>,
    nodes: Vec<Node>,
    /// The nodes that are alive, as far as that is known from elsewhere than their leases here.
    live_nodes: Option<Vec<ProcessRun>>,
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
    /// Nodes that must send their full set, by worker number.
    strangers: BTreeMap<u16, NodeRun>,
    leases_missed: u64,
    /// Reports of earlier lives of nodes, and messages of earlier lives of processes.
    refused: u64,
    /// Users of other cores who are watched by users of this one.
    foreign: HashMap<UserId, Foreign>,
    /// By user of this core: the number of watched foreign users of whom nothing is known yet.
    awaited: HashMap<UserId, usize>,
    /// Users of this core who are settled and whose list is not complete, because they watch a user of this core who is not.
    unlisted: HashSet<UserId>,
    /// Users who have moved away while a read of their rows was running. The result is ignored.
    abandoned: HashSet<UserId>,
    /// The other cores of the view, by process.
    links: BTreeMap<u16, Link>,
    /// The number of links that were begun; the number of the next one.
    sessions: u64,
    moving: Moving,
}

impl Core {
    /// A core that owns every user and knows no node. It reports nobody as offline for one lease: by then each node that lives
    /// has sent its set, and the clients of a dead node have come back.
    #[must_use]
    pub fn new(config: PresenceConfig, now: Now) -> Self {
        Self {
            config,
            me: ProcessRun { process: 0, epoch: NodeEpoch(0) },
            view: View::whole(),
            settling: vec![Settling::new(None, &config, now)],
            nodes: Vec::new(),
            live_nodes: None,
            users: HashMap::new(),
            looks: BTreeSet::new(),
            wanted: VecDeque::new(),
            expected: HashMap::new(),
            left: BTreeMap::new(),
            notices: VecDeque::new(),
            strangers: BTreeMap::new(),
            leases_missed: 0,
            refused: 0,
            foreign: HashMap::new(),
            awaited: HashMap::new(),
            unlisted: HashSet::new(),
            abandoned: HashSet::new(),
            links: BTreeMap::new(),
            sessions: 0,
            moving: Moving::default(),
        }
    }

    /// A core that owns the users who fall to the process `me` under `view`, and knows no node.
    #[must_use]
    pub fn shard(config: PresenceConfig, me: ProcessRun, view: View, now: Now) -> Self {
        let mut core = Self { me, view, ..Self::new(config, now) };
        core.begin_links();
        core
    }

    /// The live presence processes are others than before.
    ///
    /// Users who have moved away become foreign with the state that their watchers last saw; users who have moved here keep the
    /// state that their watchers here last saw. The latter are unsettled, and each node must send its full set. Connections in
    /// their grace period are handed over ([`Self::poll_leaving`]).
    pub fn handle_view(&mut self, view: View, now: Now) {
        if view == self.view {
            return;
        }
        let before = std::mem::replace(&mut self.view, view);
        self.unsettle(before, now);
        for node in &mut self.nodes {
            node.is_current = false;
            if node.lease_until.is_some() {
                self.strangers.insert(node.run.worker, node.run);
            }
        }
        self.move_users(now);
        self.begin_links();
        self.take_stashed(now);
    }

    /// A node has exactly these connections of users whom this core owns, from here on under this number of the set. `view` is
    /// the view by which the node has chosen them.
    ///
    /// If it is not the view of this core, the node reports some users of this core elsewhere. They are unsettled for one lease
    /// after the last such set: the core does not know their other connections, nor the grace periods of those that ended. So a
    /// node whose view has changed must send its set also to the processes of the view before.
    ///
    /// Changes of rows that were reported meanwhile may be lost too, so the rows of all users of the set are read again.
    pub fn handle_set(&mut self, run: NodeRun, view: &View, set: &[Up], now: Now) {
        self.handle_connections(run, view, set, now);
        for up in set {
            self.want(up.user, true);
        }
    }

    /// Like [`Self::handle_set`], from a node that repeats reports about rows until they have been taken. Only the rows of users who
    /// were not here are read.
    pub fn handle_connections(&mut self, run: NodeRun, view: &View, set: &[Up], now: Now) {
        let is_current = *view == self.view;
        let Some(node) = self.take_node(run, is_current, now) else { return };
        let named: HashSet<(UserId, ConnectionId)> = set.iter().map(|up| (up.user, up.connection)).collect();
        // Connections of the node that its set does not name have ended, perhaps while reports were lost: their grace period
        // begins now. A set of another view proves nothing about users whom the node believes to be elsewhere.
        match is_current {
            true => self.leave_where(now, |id, connection| {
                connection.node == node && !named.contains(&(id, connection.id))
            }),
            false => self.unsettle(view.clone(), now),
        }
        for up in set {
            if self.owns(up.user) {
                self.put_connection(node, *up, now);
            }
        }
    }

    /// A node renews its lease. Without effect until the node has sent its set under the present view.
    pub fn handle_renewal(&mut self, run: NodeRun, now: Now) {
        if let Some(node) = self.live_node(run) {
            if !self.nodes[node as usize].is_current {
                self.strangers.insert(run.worker, run);
                return;
            }
            self.nodes[node as usize].lease_until = Some(now.elapsed + self.config.lease());
        }
    }

    /// A connection was opened. Ignored if another core owns the user: the node learns of the view and sends its set there.
    pub fn handle_up(&mut self, run: NodeRun, up: Up, now: Now) {
        if let Some(node) = self.live_node(run)
            && self.view.owns(self.me.process, up.user)
        {
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
                return self.publish_state(id, now);
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
        self.publish_state(id, now);
    }

    /// The rows of a user's settings have changed; with `circle` those of the user's circle too.
    pub fn handle_changed(&mut self, id: UserId, circle: bool) {
        self.want(id, circle);
    }

    /// A connection had no room for a frame.
    pub fn handle_dropped(&mut self, id: UserId, connection: ConnectionId, now: Now) {
        let Some(user) = self.users.get_mut(&id) else { return };
        let mut all = user.connections.iter_mut();
        if let Some(found) = all.find(|found| found.id == connection && found.synced == Synced::All) {
            found.synced = Synced::Parts;
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
        let over = self.take_settled(now);
        if !over.is_empty() {
            self.settle(&over, now);
        }
    }

    /// When [`Self::handle_time`] is due, by the steady clock.
    #[must_use]
    pub fn next_look(&self) -> Option<Duration> {
        let leases = self.nodes.iter().filter_map(|node| node.lease_until);
        let looks = self.looks.first().map(|(at, _)| *at);
        let settling = self.settles_at();
        let repeats = self.links.values().filter_map(Link::repeat_at);
        leases.chain(looks).chain(settling).chain(repeats).min()
    }

    /// Users whose rows must be read. Each read is answered by [`Self::handle_loaded`] or [`Self::handle_not_loaded`].
    pub fn poll_wanted(&mut self, at_most: usize) -> Vec<Wanted> {
        let mut wanted = Vec::new();
        while wanted.len() < at_most
            && let Some(id) = self.wanted.pop_front()
        {
            // A user who left and came back while a read was running is read when that read has returned.
            let user = self.users.get_mut(&id).filter(|_| !self.abandoned.contains(&id));
            if let Some(user) = user.filter(|user| user.load == Load::Waits) {
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

    /// A node that is unknown under this epoch, whose lease has expired, or whose last set was chosen by another view. This node
    /// must send its full set with a higher number; no other node has to.
    pub fn poll_stranger(&mut self) -> Option<NodeRun> {
        self.strangers.pop_first().map(|(_, run)| run)
    }

    /// The number of reports and messages that were refused since the last call, because a later life of their sender is known.
    pub fn poll_refused(&mut self) -> u64 {
        std::mem::take(&mut self.refused)
    }

    /// The number of leases that have expired since the last call.
    pub fn poll_leases_missed(&mut self) -> u64 {
        std::mem::take(&mut self.leases_missed)
    }

    /// Whether this core owns a user by its view.
    #[must_use]
    pub fn owns(&self, user: UserId) -> bool {
        self.view.owns(self.me.process, user)
    }

    /// The number of users who are online, away or in their grace period.
    #[must_use]
    pub fn users(&self) -> usize {
        self.users.len()
    }

    /// The presence of users of this core as `asker` sees it: `None` for users who are offline to others. Users see their own real
    /// state. Other cores answer for their users.
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
}
