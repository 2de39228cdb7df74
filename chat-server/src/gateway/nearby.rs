//! What push asks of the connections of this node.

use madang_ids::{ChannelId, Cursor, UserId};
use madang_push::Nearby;

use super::Gateway;

impl Nearby for Gateway {
    fn is_online(&self, user: UserId) -> bool {
        self.registry.is_online(user)
    }

    fn received(&self, user: UserId) -> Vec<Cursor> {
        self.operations.received.of_user(user)
    }

    fn holds_ms(&self, channel: ChannelId) -> u64 {
        let hot = self.operations.heats.hot(channel);
        hot.map_or(0, |hot| u64::from(hot.pacing.alert_hold_seconds) * 1_000)
    }
}
