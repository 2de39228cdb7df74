//! Slow mode: when each member spoke last, by the steady clock. It is rebuilt from the last rows of the log, so after a
//! restart a member whose last message lies further back may send once before the interval is over.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use madang_ids::UserId;
use madang_proto::{ErrorBody, Role};

use crate::log::{Details, Row};
use crate::now::Now;

/// Expired entries are pruned once the map exceeds this and twice what the last pruning left.
const SPEAKERS: usize = 4_096;

#[derive(Debug, Default)]
pub(super) struct Pace {
    /// When a member spoke last, in ms of the steady clock; below zero for what was said before the clock began. At most
    /// the members of the channel.
    spoke: HashMap<UserId, i64>,
    /// What the last pruning left.
    remained: usize,
}

impl Pace {
    /// Whether a member may speak now, and only once in a batch.
    pub(super) fn check(
        &self,
        user: UserId,
        role: Role,
        details: &Details,
        now: Now,
        speaks_now: &mut HashSet<UserId>,
    ) -> Result<(), ErrorBody> {
        let wait_ms = i64::from(details.slow_mode_seconds) * 1_000;
        if wait_ms == 0 || role.is_admin() {
            return Ok(());
        }
        let passed_ms = self.spoke.get(&user).map(|at| steady_ms(now) - at);
        let left_ms = match passed_ms {
            Some(passed) if passed < wait_ms => wait_ms - passed,
            _ if speaks_now.insert(user) => return Ok(()),
            _ => wait_ms,
        };
        let message = format!("slow mode: one message in {} s", details.slow_mode_seconds);
        Err(ErrorBody::limited(message, left_ms.unsigned_abs()))
    }

    /// Rows were appended, or found at the end of the log.
    pub(super) fn note(&mut self, rows: &[Row], details: &Details, now: Now) {
        if details.slow_mode_seconds == 0 {
            *self = Self::default();
            return;
        }
        for row in rows {
            if let Some(message) = row.entry.content.message() {
                // The log's time may be ahead of a clock that was set back: such a message counts as said just now.
                let age = Duration::from_millis(now.at.get().saturating_sub(row.entry.at.get()));
                let at = steady_ms(now).saturating_sub(as_ms(age));
                let spoke = self.spoke.entry(message.sender_id).or_insert(at);
                *spoke = at.max(*spoke);
            }
        }
        self.prune(details, now);
    }

    fn prune(&mut self, details: &Details, now: Now) {
        if self.spoke.len() > SPEAKERS.max(2 * self.remained) {
            let begin = steady_ms(now) - i64::from(details.slow_mode_seconds) * 1_000;
            self.spoke.retain(|_, at| *at > begin);
            self.remained = self.spoke.len();
        }
    }
}

fn steady_ms(now: Now) -> i64 {
    as_ms(now.elapsed)
}

fn as_ms(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}
