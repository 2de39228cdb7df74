//! What a core hands over when a view moves its users: connections that have ended and whose grace period is not over.
//!
//! The nodes name the connections that are up in their sets, but not those that ended. So without this a user whose network
//! changes, or whose node is drained, would be offline for a moment at the new owner. A list that is lost costs no more than that:
//! the new owner waits for one grace period anyway ([`super::settling`]), and only the longer one of a drain is cut.

use std::collections::BTreeMap;
use std::time::Duration;

use madang_engine::session::Now;
use madang_ids::{ConnectionId, DeviceId, Millis, NodeEpoch, UserId};
use serde::{Deserialize, Serialize};

use super::user::{Connection, Synced, User};
use super::{Core, Node};
use crate::api::NodeRun;

/// The most connections in one message, and the most that wait here for a view.
const AT_ONCE: usize = 500;
const STASHED: usize = 20_000;

/// A connection in its grace period, from the former owner of its user to the new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaving {
    /// The user.
    pub user: UserId,
    /// The device of the connection. It ends the grace period when it comes back.
    pub device: DeviceId,
    /// The connection, unique on its node.
    pub connection: ConnectionId,
    /// The number of its node.
    pub node: u16,
    /// Whether it was idle.
    pub is_idle: bool,
    /// The milliseconds that are left of its grace period.
    pub left_ms: u64,
    /// When others could last see the user active; zero if unknown.
    pub last_active_at: Millis,
}

/// Connections on their way from one core to another.
#[derive(Debug, Default)]
pub(super) struct Moving {
    /// To be sent, by the new owner.
    out: BTreeMap<u16, Vec<Leaving>>,
    /// Connections that came before the view by which this core owns their users, and the end of their grace periods.
    stashed: Vec<(Duration, Leaving)>,
}

impl Core {
    /// Connections that another process must take, and the process. Each is returned once.
    pub fn poll_leaving(&mut self) -> Option<(u16, Vec<Leaving>)> {
        let mut first = self.moving.out.first_entry()?;
        let process = *first.key();
        let all = first.get_mut();
        let part = all.split_off(all.len().saturating_sub(AT_ONCE));
        if all.is_empty() {
            first.remove();
        }
        Some((process, part))
    }

    /// The former owner of some users hands over connections in their grace period. Those of users whom this core does not own
    /// wait for its next view.
    pub fn handle_leaving(&mut self, leaving: Vec<Leaving>, now: Now) {
        for one in leaving {
            // A grace period cannot be longer than the longest one, whatever the sender says.
            let left = Duration::from_millis(one.left_ms).min(self.config.drain_grace());
            match self.view.owns(self.me.process, one.user) {
                true => self.take_leaving(one, now.elapsed + left, now),
                false if self.moving.stashed.len() < STASHED => {
                    self.moving.stashed.push((now.elapsed + left, one));
                }
                false => {}
            }
        }
    }

    /// Takes the connections that came before the view.
    pub(super) fn take_stashed(&mut self, now: Now) {
        let stashed = std::mem::take(&mut self.moving.stashed);
        for (until, one) in stashed.into_iter().filter(|(until, _)| *until > now.elapsed) {
            match self.view.owns(self.me.process, one.user) {
                true => self.take_leaving(one, until, now),
                false => self.moving.stashed.push((until, one)),
            }
        }
    }

    fn take_leaving(&mut self, one: Leaving, until: Duration, now: Now) {
        let node = self.node_of(one.node);
        let user = self.users.entry(one.user).or_default();
        user.last_active_at = user.last_active_at.max(one.last_active_at);
        // The device is back, or the connection is known from a set.
        if user.connections.iter().any(|known| known.device == one.device) {
            return;
        }
        user.connections.push(Connection {
            id: one.connection,
            device: one.device,
            node,
            is_idle: one.is_idle,
            inherits_idle: false,
            synced: Synced::Nothing,
            leaves_at: Some(until),
        });
        let is_loaded = user.is_loaded;
        self.looks.insert((until, one.user));
        if !is_loaded {
            self.want(one.user, true);
        }
        self.publish_state(one.user, now);
    }

    /// The index of a node. One that is not known yet gets an entry without a lease, which its first set replaces.
    fn node_of(&mut self, worker: u16) -> u32 {
        let known = self.nodes.iter().position(|node| node.run.worker == worker);
        let place = known.unwrap_or(self.nodes.len());
        if known.is_none() {
            let run = NodeRun { worker, epoch: NodeEpoch(0), set: 0 };
            self.nodes.push(Node { run, lease_until: None, is_current: false });
        }
        // There are only a thousand worker numbers.
        u32::try_from(place).unwrap_or(u32::MAX)
    }

    /// A user moves to another core.
    pub(super) fn hand_over(&mut self, id: UserId, user: &User, now: Now) {
        let Some(owner) = self.view.owner(id) else { return };
        for found in &user.connections {
            let node = self.nodes.get(found.node as usize).map(|node| node.run.worker);
            let left = found.leaves_at.and_then(|at| at.checked_sub(now.elapsed));
            if let (Some(node), Some(left)) = (node, left) {
                let left_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
                let (device, connection, is_idle) = (found.device, found.id, found.is_idle);
                let last_active_at = user.last_active_at;
                let one = Leaving { user: id, device, connection, node, is_idle, left_ms, last_active_at };
                self.moving.out.entry(owner).or_default().push(one);
            }
        }
    }
}
