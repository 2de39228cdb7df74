//! What push asks of the connections of this node.

use madang_engine::overload::Class;
use madang_ids::{ChannelId, Cursor, UserId};
use madang_push::Nearby;

use super::Gateway;
use crate::heat::Heats;
use crate::overload::Shedding;

/// The wait of an alert that an overloaded node sheds.
const SHED_HOLD_MS: u64 = 60_000;

impl Nearby for Gateway {
    fn is_online(&self, user: UserId) -> bool {
        self.registry.is_online(user)
    }

    fn received(&self, user: UserId) -> Vec<Cursor> {
        self.operations.received.of_user(user)
    }

    fn holds_ms(&self, channel: ChannelId) -> u64 {
        alert_hold_ms(&self.operations.heats, &self.operations.shedding, channel)
    }
}

/// By how many milliseconds the alerts of a channel wait longer than others, because it is hot or this node is overloaded.
pub(crate) fn alert_hold_ms(heats: &Heats, shedding: &Shedding, channel: ChannelId) -> u64 {
    let hold = heats.hot(channel).map_or(0, |hot| u64::from(hot.pacing.alert_hold_seconds) * 1_000);
    // An alert is not dropped by an overloaded node: it waits.
    let is_admitted = shedding.admits(Class::Push, channel.raw());
    if is_admitted { hold } else { hold.max(SHED_HOLD_MS) }
}
