//! Registers a connection of a user, and removes it whenever and however its task ends.

use std::sync::Arc;

use madang_engine::session::Identity;
use madang_ids::{ConnectionId, DeviceId, UserId};
use madang_presence::{Departure, Up};

use crate::gateway::Gateway;
use crate::gateway::connection::outbound::Outbound;

/// A registered connection. Dropping it removes the connection from the registry, its subscriptions, presence and the inbox.
pub(in crate::gateway) struct Registered {
    gateway: Arc<Gateway>,
    outbound: Arc<Outbound>,
    pub(in crate::gateway) user_id: UserId,
    /// How the connection ended, for presence. `None` while presence does not count it.
    pub(in crate::gateway) departure: Option<Departure>,
}

impl Registered {
    pub(in crate::gateway) async fn new(
        gateway: &Arc<Gateway>,
        outbound: &Arc<Outbound>,
        identity: Identity,
    ) -> Self {
        let user_id = identity.user_id;
        // First, so that a future that is dropped ends the registration of the bus.
        let (of, connection) = (Arc::clone(gateway), Arc::clone(outbound));
        let this = Self { gateway: of, outbound: connection, user_id, departure: None };
        if let Err(error) = gateway.operations.bus.attach(user_id).await {
            // The bus repeats it, and reports what this user may have missed once it holds.
            tracing::warn!(%error, "live delivery to this user is not registered yet");
        }
        // Rows that arrive before this line find no connection. The inbox is read after it, so its page holds them.
        gateway.registry.add(user_id, identity.device_id, Arc::clone(outbound));
        this
    }

    /// Called after `welcome`: presence counts the connection from now on.
    pub(in crate::gateway) fn go_up(&mut self, device: DeviceId) {
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
        if let Some(departure) = self.departure {
            let connection = ConnectionId::from_raw(self.outbound.number);
            self.gateway.operations.presence.down(self.user_id, connection, departure);
        }
        self.gateway.operations.bus.detach(self.user_id);
    }
}
