//! Measures how long work waits for its turn on this node.

use std::sync::Arc;
use std::time::Duration;

use madang_service::Drain;
use tokio::time::{Instant, sleep_until};

use super::Shedding;
use crate::heat::Heats;

/// The time between two timers. One that is late has waited for its turn as long as other work has.
const EVERY: Duration = Duration::from_millis(25);

/// Reports the wait to those who judge by it, until the drain begins.
pub async fn probe(shedding: Arc<Shedding>, heats: Arc<Heats>, drain: Drain) {
    loop {
        let due = Instant::now() + EVERY;
        tokio::select! {
            () = sleep_until(due) => {}
            () = drain.draining() => return,
        }
        let wait = Instant::now().saturating_duration_since(due);
        shedding.observe(wait);
        heats.note_wait(wait);
    }
}
