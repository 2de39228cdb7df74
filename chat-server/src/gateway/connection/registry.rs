//! The connections of this node by user.

use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use madang_ids::{DeviceId, UserId};
use madang_proto::CloseReason;
use smallvec::SmallVec;

use crate::gateway::connection::outbound::Outbound;

/// One connection and its device.
#[derive(Debug)]
struct Connected {
    device_id: DeviceId,
    outbound: Arc<Outbound>,
}

/// The connections of this node by user.
#[derive(Debug)]
pub struct Registry {
    users: DashMap<UserId, SmallVec<[Connected; 1]>>,
    per_device: usize,
    per_user: usize,
}

impl Registry {
    pub(in crate::gateway) fn new(per_device: usize, per_user: usize) -> Self {
        Self { users: DashMap::new(), per_device: per_device.max(1), per_user: per_user.max(1) }
    }

    pub(in crate::gateway) fn add(&self, user: UserId, device_id: DeviceId, outbound: Arc<Outbound>) {
        let mut connections = self.users.entry(user).or_default();
        // A connection that is being closed does not count: otherwise several new ones at once would all replace the same old
        // one.
        let of_user = || connections.iter().filter(|other| !other.outbound.is_closing());
        let of_device = || of_user().filter(|other| other.device_id == device_id);
        let oldest = if of_device().count() >= self.per_device {
            of_device().min_by_key(|other| other.outbound.number)
        } else if of_user().count() >= self.per_user {
            of_user().min_by_key(|other| other.outbound.number)
        } else {
            None
        };
        if let Some(oldest) = oldest {
            oldest.outbound.close(CloseReason::Replaced);
        }
        connections.push(Connected { device_id, outbound });
    }

    pub(in crate::gateway) fn remove(&self, user: UserId, outbound: &Arc<Outbound>) {
        self.users.remove_if_mut(&user, |_, connections| {
            connections.retain(|other| !Arc::ptr_eq(&other.outbound, outbound));
            connections.is_empty()
        });
    }

    /// Whether a user has a connection that is not being closed.
    pub fn is_online(&self, user: UserId) -> bool {
        self.users.get(&user).is_some_and(|found| found.iter().any(|it| !it.outbound.is_closing()))
    }

    /// Calls `visit` with each connection of a user. A shard of the map is locked meanwhile.
    pub(in crate::gateway) fn visit_user(&self, user: UserId, mut visit: impl FnMut(&Arc<Outbound>)) {
        if let Some(connections) = self.users.get(&user) {
            connections.iter().for_each(|connection| visit(&connection.outbound));
        }
    }

    pub(in crate::gateway) fn close_device(&self, user: UserId, device: DeviceId, reason: CloseReason) {
        if let Some(connections) = self.users.get(&user) {
            let of_device = connections.iter().filter(|connection| connection.device_id == device);
            of_device.for_each(|connection| connection.outbound.close(reason));
        }
    }

    pub(in crate::gateway) fn visit_all(&self, mut visit: impl FnMut(&Arc<Outbound>)) {
        for connections in &self.users {
            connections.iter().for_each(|connection| visit(&connection.outbound));
        }
    }

    /// Calls `visit` with each connection, its user and its device.
    pub(in crate::gateway) fn visit_devices(&self, mut visit: impl FnMut(UserId, DeviceId, &Arc<Outbound>)) {
        for connections in &self.users {
            let user = *connections.key();
            connections.iter().for_each(|found| visit(user, found.device_id, &found.outbound));
        }
    }

    /// Wakes the connections whose sessions must be looked at. `now` is read from the steady clock.
    pub fn sweep(&self, now: Duration) {
        self.visit_all(|connection| {
            if connection.look_at() <= now {
                connection.wake();
            }
        });
    }
}
