//! Registers a connection of a user, and removes it whenever and however its task ends.

use std::sync::Arc;

use madang_engine::session::Identity;
use madang_ids::{ConnectionId, DeviceId, UserId};
use madang_presence::{Departure, Up};

use super::Gateway;
use super::outbound::Outbound;
use crate::plant::{self, Fault};

/// A registered connection. Dropping it removes the connection from the registry, its subscriptions, presence and the inbox.
pub(super) struct Registered {
    gateway: Arc<Gateway>,
    outbound: Arc<Outbound>,
    pub(super) user_id: UserId,
    /// How the connection ended, for presence. `None` while presence does not count it.
    pub(super) departure: Option<Departure>,
}

impl Registered {
    pub(super) fn new(gateway: &Arc<Gateway>, outbound: &Arc<Outbound>, identity: Identity) -> Self {
        let user_id = identity.user_id;
        // Rows that arrive between the next two lines find no connection. The inbox is read after both, so its page holds them.
        gateway.operations.inbox.attach(user_id);
        gateway.registry.add(user_id, identity.device_id, Arc::clone(outbound));
        Self { gateway: Arc::clone(gateway), outbound: Arc::clone(outbound), user_id, departure: None }
    }

    /// Called after `welcome`: presence counts the connection from now on.
    pub(super) fn go_up(&mut self, device: DeviceId) {
        self.outbound.welcome();
        let (user, connection) = (self.user_id, ConnectionId::from_raw(self.outbound.number));
        self.gateway.operations.presence.up(Up { user, device, connection, is_idle: false });
        self.departure = Some(Departure::Seen);
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        // In the reverse order of the registration. A subscription can only be added by the connection's own task, which has
        // ended.
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
