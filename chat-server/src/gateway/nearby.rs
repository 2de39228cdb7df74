//! What push asks of the connections of this node.

use madang_ids::{Cursor, UserId};
use madang_push::Nearby;

use super::Gateway;

impl Nearby for Gateway {
    fn is_online(&self, user: UserId) -> bool {
        self.registry.is_online(user)
    }

    fn received(&self, user: UserId) -> Vec<Cursor> {
        self.operations.received.of_user(user)
    }
}
