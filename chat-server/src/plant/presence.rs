//! Beside presence: connections that have ended are reported as open again.

use std::sync::Arc;
use std::time::Duration;

use madang_presence::{Presence, Up};
use tokio::time::sleep;

use super::{Fault, PLANTED, strikes};
use crate::gateway::Gateway;

const EVERY: Duration = Duration::from_millis(20);

/// Watches the connections of the node. Presence counts one of them again behind the report of its end, until the next full set.
pub(crate) async fn keep_up(gateway: Arc<Gateway>, presence: Presence) {
    if PLANTED.is_none_or(|(fault, _)| fault != Fault::PresenceSticks) {
        return;
    }
    let mut before: Vec<Up> = Vec::new();
    loop {
        sleep(EVERY).await;
        let here = gateway.connections_up();
        before.retain(|up| here.iter().all(|still| still.connection != up.connection));
        // The registry loses a connection before presence is notified of its end.
        sleep(EVERY).await;
        before.drain(..).filter(|_| strikes(Fault::PresenceSticks)).for_each(|up| presence.up(up));
        before = here;
    }
}
