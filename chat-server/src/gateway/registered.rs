//! Puts a connection among those of its user, and takes it out however its task ends.

use std::sync::Arc;

use madang_engine::session::Identity;
use madang_ids::{ConnectionId, DeviceId, UserId};
use madang_presence::{Departure, Up};

use super::Gateway;
use super::outbound::Outbound;
use crate::plant::{self, Fault};

/// A connection among those of its user; leaves them when dropped, however its task ends.
pub(super) struct Registered {
    gateway: Arc<Gateway>,
    outbound: Arc<Outbound>,
    pub(super) user_id: UserId,
    /// How the connection left, for presence; `None` while presence does not count it.
    pub(super) departure: Option<Departure>,
}

impl Registered {
    pub(super) fn new(gateway: &Arc<Gateway>, outbound: &Arc<Outbound>, identity: Identity) -> Self {
        let user_id = identity.user_id;
        gateway.operations.inbox.attach(user_id);
        gateway.registry.add(user_id, identity.device_id, Arc::clone(outbound));
        Self { gateway: Arc::clone(gateway), outbound: Arc::clone(outbound), user_id, departure: None }
    }

    /// Welcomed: presence counts it.
    pub(super) fn go_up(&mut self, device: DeviceId) {
        self.outbound.welcome();
        let (user, connection) = (self.user_id, ConnectionId::from_raw(self.outbound.number));
        self.gateway.operations.presence.up(Up { user, device, connection, is_idle: false });
        self.departure = Some(Departure::Seen);
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.gateway.registry.remove(self.user_id, &self.outbound);
        self.gateway.subscribers.remove_all(&self.outbound);
        if let Some(departure) = self.departure
            && !plant::strikes(Fault::PresenceSticks)
        {
            let connection = ConnectionId::from_raw(self.outbound.number);
            self.gateway.operations.presence.down(self.user_id, connection, departure);
        }
        self.gateway.operations.inbox.detach(self.user_id);
    }
}
