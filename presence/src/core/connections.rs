//! Nodes with their leases, and the connections that they report.

use std::collections::BTreeMap;

use madang_engine::session::Now;
use madang_ids::{Millis, UserId};

use super::user::{Connection, Load, Synced};
use super::{AGAIN, Core, INHERITED, LEFT, Node, NoticeTarget, ProcessRun};
use crate::api::{NodeReport, NodeRun, Up};

impl Core {
    /// The index of a node, if its lease is valid under this epoch and this number of its set. A report with a later one shows that
    /// a set was lost. A report with an earlier one is refused: it comes from an earlier life of the node, or the later set
    /// contains it.
    pub(super) fn live_node(&mut self, run: NodeRun) -> Option<u32> {
        let place = self.nodes.iter().position(|node| node.run.worker == run.worker);
        match place.map(|place| &self.nodes[place]) {
            Some(known) if run.is_before(known.run) => self.refused += 1,
            Some(known) if known.run == run && known.lease_until.is_some() => {
                return place.and_then(|place| u32::try_from(place).ok());
            }
            _ => {
                self.strangers.insert(run.worker, run);
            }
        }
        None
    }

    /// Begins or continues the lease of a node with a set. `None` if the set is refused: a restarted node and a zombie with the same
    /// number would otherwise replace each other's connections for ever, and a repeated set would bring back connections that
    /// have ended since.
    pub(super) fn take_node(&mut self, run: NodeRun, is_current: bool, now: Now) -> Option<u32> {
        let node = Node { run, lease_until: Some(now.elapsed + self.config.lease()), is_current };
        let place = self.nodes.iter().position(|node| node.run.worker == run.worker);
        let place = place.unwrap_or(self.nodes.len());
        // There are only a thousand worker numbers.
        let index = u32::try_from(place).unwrap_or(u32::MAX);
        match self.nodes.get_mut(place).map(|found| std::mem::replace(found, node)) {
            Some(known) if !known.run.is_before(run) => {
                self.refused += 1;
                self.nodes[place] = known;
                return None;
            }
            Some(known) if known.run.epoch != run.epoch => self.begin_again(index),
            // Between its view and this one the node may have reported a dropped frame to another core.
            Some(known) if is_current && !known.is_current => self.begin_again(index),
            Some(_) => {}
            None => self.nodes.push(Node {
                run,
                lease_until: Some(now.elapsed + self.config.lease()),
                is_current,
            }),
        }
        match is_current {
            true => drop(self.strangers.remove(&run.worker)),
            false => drop(self.strangers.insert(run.worker, run)),
        }
        Some(index)
    }

    /// The connections of a node may not know what was sent to them; those of a new epoch may have the numbers of earlier ones. Each
    /// gets everything again.
    pub(super) fn begin_again(&mut self, node: u32) {
        for user in self.users.values_mut() {
            for found in
                user.connections.iter_mut().filter(|found| found.node == node && found.synced == Synced::All)
            {
                found.synced = Synced::Parts;
            }
        }
    }

    /// A report of a node.
    pub(crate) fn handle_report(&mut self, run: NodeRun, report: NodeReport, now: Now) {
        match report {
            NodeReport::Renewal => self.handle_renewal(run, now),
            NodeReport::Up(up) => self.handle_up(run, up, now),
            NodeReport::Down { user, connection, how } => {
                self.handle_down(run, (user, connection), how, now);
            }
            NodeReport::Idle { user, connection, is_idle } => {
                self.handle_idle(run, (user, connection), is_idle, now);
            }
            NodeReport::Changed { user, circle } => self.handle_changed(user, circle),
            NodeReport::Dropped { user, connection } => self.handle_dropped(user, connection, now),
            NodeReport::Missed => {
                self.handle_missed(ProcessRun { process: run.worker, epoch: run.epoch }, now);
            }
        }
    }

    /// A node is alive, but what it has reported is not known. Continues a lease, and begins none.
    pub fn handle_alive(&mut self, run: ProcessRun, now: Now) {
        let until = now.elapsed + self.config.lease();
        let is_it = |node: &&mut Node| node.run.worker == run.process && node.run.epoch == run.epoch;
        if let Some(node) = self.nodes.iter_mut().find(is_it).filter(|node| node.is_current) {
            node.lease_until = node.lease_until.map(|_| until);
        }
    }

    /// Notices to this node may have been lost. Each of its connections gets everything again.
    pub fn handle_missed(&mut self, run: ProcessRun, now: Now) {
        let is_it = |node: &Node| node.run.worker == run.process && node.run.epoch == run.epoch;
        let Some(node) = self.nodes.iter().position(is_it) else { return };
        self.begin_again(u32::try_from(node).unwrap_or(u32::MAX));
        for (id, user) in &self.users {
            let lacks = |found: &Connection| found.node as usize == node && found.synced == Synced::Parts;
            if user.connections.iter().any(lacks) {
                self.looks.insert((now.elapsed + AGAIN, *id));
            }
        }
    }

    /// The nodes that have connections a notice is for, and the receivers on each. A remote placement sends the notice to them and
    /// to no others.
    #[must_use]
    pub fn receivers_by_node(&self, to: &NoticeTarget) -> Vec<(NodeRun, NoticeTarget)> {
        let mut found: BTreeMap<u32, Vec<UserId>> = BTreeMap::new();
        let (users, only) = match to {
            NoticeTarget::Users(users) => (users.as_slice(), None),
            NoticeTarget::Connection(user, connection) => (std::slice::from_ref(user), Some(*connection)),
        };
        for id in users {
            let Some(user) = self.users.get(id) else { continue };
            let is_meant =
                |one: &&Connection| one.leaves_at.is_none() && only.is_none_or(|only| only == one.id);
            for one in user.connections.iter().filter(is_meant) {
                let there = found.entry(one.node).or_default();
                if there.last() != Some(id) {
                    there.push(*id);
                }
            }
        }
        let part = |(node, there): (u32, Vec<UserId>)| {
            let run = self.nodes.get(node as usize)?.run;
            Some((run, if only.is_some() { to.clone() } else { NoticeTarget::Users(there) }))
        };
        found.into_iter().filter_map(part).collect()
    }

    pub(super) fn put_connection(&mut self, node: u32, up: Up, now: Now) {
        let user = self.users.entry(up.user).or_default();
        let was_here = user.is_here();
        match user.connections.iter_mut().find(|found| found.id == up.connection && found.node == node) {
            Some(found) => {
                found.leaves_at = None;
                found.device = up.device;
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
                    synced: Synced::Nothing,
                    leaves_at: None,
                });
            }
        }
        user.touch(now.at);
        if !was_here {
            // While the user had no connection, nobody reported changes of their circle.
            self.want(up.user, true);
        }
        self.send_known_states(up.user);
        self.publish_state(up.user, now);
    }

    /// Begins the grace period of the connections for which `leaves` holds.
    ///
    /// Such a connection may never have been there: a process that has just started believes a set of an earlier life of a node.
    /// While its user had no other one, nobody reported changes of the rows. So the rows of users who are still here are read again.
    pub(super) fn leave_where(&mut self, now: Now, leaves: impl Fn(UserId, &Connection) -> bool) {
        let until = now.elapsed + self.config.grace();
        let mut doubtful = Vec::new();
        for (id, user) in &mut self.users {
            let is_one = |found: &Connection| found.leaves_at.is_none() && leaves(*id, found);
            if user.connections.iter().any(is_one) {
                user.touch(now.at);
                let mut leaving = user.connections.iter_mut().filter(|found| is_one(found));
                leaving.by_ref().for_each(|found| found.leaves_at = Some(until));
                self.looks.insert((until, *id));
                doubtful.extend(user.is_here().then_some(*id));
            }
        }
        doubtful.into_iter().for_each(|id| self.want(id, true));
    }

    /// Removes connections whose grace period is over. Sends what was held back or dropped.
    pub(super) fn look(&mut self, id: UserId, now: Now) {
        if let Some(user) = self.users.get_mut(&id) {
            user.connections.retain(|found| found.leaves_at.is_none_or(|at| at > now.elapsed));
            user.end_inherited_idleness(now);
            self.send_known_states(id);
            self.publish_state(id, now);
        }
    }

    pub(super) fn want(&mut self, id: UserId, circle: bool) {
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

    /// Removes a user that nothing refers to any more.
    pub(super) fn forget_gone(&mut self, id: UserId) {
        if self.users.get(&id).is_some_and(|user| user.is_gone())
            && let Some(gone) = self.users.remove(&id)
        {
            self.end_watching(id, &gone.circle);
        }
    }

    /// Queues the last activity of a user to be written.
    pub(super) fn leave_mark(&mut self, id: UserId, at: Millis) {
        if at != Millis::ZERO {
            let mark = self.left.entry(id).or_insert(at);
            *mark = (*mark).max(at);
        }
        if self.left.len() > LEFT {
            self.left.pop_first();
        }
    }
}
