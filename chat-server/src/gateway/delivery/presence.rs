//! Reports connections to presence and delivers its notices to them. Nothing here waits for presence, which may be unavailable.

use madang_engine::log::Row;
use madang_ids::{ConnectionId, UserId};
use madang_presence::{Departure, Notice, NoticeTarget, Up};
use madang_proto::{CloseReason, Content, ServerFrame};

use crate::gateway::Gateway;
use crate::gateway::delivery::encode;
use crate::gateway::socket::ConnectionEnd;

/// What the end of a connection means for presence.
pub(in crate::gateway) const fn departure(end: ConnectionEnd) -> Departure {
    match end {
        // A silent connection has already waited its grace period, and a replaced device is online by another connection.
        ConnectionEnd::Close(CloseReason::Silent | CloseReason::Replaced) => Departure::Final,
        ConnectionEnd::Close(CloseReason::DeviceRevoked) => Departure::Revoked,
        ConnectionEnd::Close(CloseReason::Draining) => Departure::Drained,
        ConnectionEnd::Close(_) | ConnectionEnd::Gone => Departure::Seen,
    }
}

impl Gateway {
    /// All connections that are up: the full set of this node.
    pub fn connections_up(&self) -> Vec<Up> {
        let mut all = Vec::new();
        self.registry.visit_devices(|user, device, connection| {
            if let Some(is_idle) = connection.idle() {
                let connection = ConnectionId::from_raw(connection.number);
                all.push(Up { user, device, connection, is_idle });
            }
        });
        all
    }

    /// Encodes a notice once and offers it to the connections that it is for.
    pub fn deliver_notice(&self, notice: Notice) {
        let frame = encode::frame(&ServerFrame::Presence(notice.list));
        let limit_bytes = self.operations.config.gateway.outbound_bytes;
        let mut dropped = Vec::new();
        let mut offer = |user: UserId, only: Option<ConnectionId>| {
            self.registry.visit_user(user, |connection| {
                let id = ConnectionId::from_raw(connection.number);
                let is_meant = only.is_none_or(|only| only == id);
                if is_meant && !connection.offer(&frame, limit_bytes) {
                    dropped.push((user, id));
                }
            });
        };
        match notice.to {
            NoticeTarget::Users(users) => users.into_iter().for_each(|user| offer(user, None)),
            NoticeTarget::Connection(user, connection) => offer(user, Some(connection)),
        }
        // Reported behind the visits, when the registry is not locked. `presence::lease` locks presence's node and then visits the
        // registry; a report from within a visit would take the two locks in the other order and could deadlock. Presence sends
        // everything to such a connection again later.
        for (user, connection) in dropped {
            self.operations.presence.dropped(user, connection);
        }
    }

    /// Rows of a user's own log may have changed the user's circle, so presence reads it again.
    pub(in crate::gateway) fn follow_circle(&self, user: UserId, rows: &[Row]) {
        let concerns_circle = |row: &Row| {
            matches!(
                row.entry.content,
                Content::ChannelJoined { .. }
                    | Content::ChannelLeft { .. }
                    | Content::ContactAccepted { .. }
                    | Content::ContactRemoved { .. }
                    | Content::Blocked { .. }
                    | Content::Unblocked { .. }
            )
        };
        if rows.iter().any(concerns_circle) {
            self.operations.presence.circle_changed(user);
        }
    }
}
