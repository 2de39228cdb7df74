//! Who is here: the connections of this node by user.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;
use madang_ids::{DeviceId, Millis, UserId};
use madang_proto::CloseReason;
use smallvec::SmallVec;

use super::outbound::Outbound;

type Connections = SmallVec<[Arc<Outbound>; 1]>;

/// The connections of this node.
#[derive(Debug)]
pub struct Registry {
    users: DashMap<UserId, Connections>,
    /// Sockets, also those that have not said hello.
    sockets: AtomicUsize,
    per_device: usize,
}

impl Registry {
    pub(super) fn new(per_device: usize) -> Self {
        Self { users: DashMap::new(), sockets: AtomicUsize::new(0), per_device: per_device.max(1) }
    }

    /// Counts a socket in, if there is room for it.
    pub(super) fn admit(&self, limit: usize) -> bool {
        let admitted = self
            .sockets
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| (count < limit).then_some(count + 1));
        admitted.is_ok()
    }

    /// Counts a socket out.
    pub(super) fn dismiss(&self) {
        self.sockets.fetch_sub(1, Ordering::AcqRel);
    }

    /// Sockets now.
    #[must_use]
    pub fn sockets(&self) -> usize {
        self.sockets.load(Ordering::Acquire)
    }

    pub(super) fn add(&self, connection: Arc<Outbound>) {
        let mut connections = self.users.entry(connection.user_id).or_default();
        let of_device = connections.iter().filter(|other| other.device_id == connection.device_id);
        let of_device: SmallVec<[Arc<Outbound>; 4]> = of_device.cloned().collect();
        if of_device.len() >= self.per_device
            && let Some(oldest) = of_device.iter().min_by_key(|other| other.number)
        {
            oldest.close(CloseReason::Replaced);
        }
        connections.push(connection);
    }

    pub(super) fn remove(&self, connection: &Arc<Outbound>) {
        self.users.remove_if_mut(&connection.user_id, |_, connections| {
            connections.retain(|other| !Arc::ptr_eq(other, connection));
            connections.is_empty()
        });
    }

    /// Calls `visit` with every connection of a user.
    pub(super) fn visit_user(&self, user: UserId, visit: impl FnMut(&Arc<Outbound>)) {
        if let Some(connections) = self.users.get(&user) {
            connections.iter().for_each(visit);
        }
    }

    pub(super) fn close_device(&self, user: UserId, device: DeviceId, reason: CloseReason) {
        self.visit_user(user, |connection| {
            if connection.device_id == device {
                connection.close(reason);
            }
        });
    }

    pub(super) fn visit_all(&self, mut visit: impl FnMut(&Arc<Outbound>)) {
        self.users.iter().for_each(|connections| connections.iter().for_each(&mut visit));
    }

    /// Wakes the connections whose sessions must be looked at.
    pub fn sweep(&self, now: Millis) {
        self.visit_all(|connection| {
            if connection.look_at() <= now {
                connection.wake();
            }
        });
    }
}
