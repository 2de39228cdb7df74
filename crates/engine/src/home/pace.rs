//! Slow mode: how long ago each member spoke. Of what the home has seen itself and found at the log's end; one that begins
//! anew lets a member speak once too early who spoke before that.

use std::collections::{HashMap, HashSet};

use madang_ids::{Millis, UserId};
use madang_proto::{ErrorBody, Role};

use crate::log::{Details, Row};

/// Above so many, and above twice as many as last time remained, those are forgotten who may speak again.
const SPEAKERS: usize = 4_096;

#[derive(Debug, Default)]
pub(super) struct Pace {
    /// At most the members of the channel.
    spoke: HashMap<UserId, Millis>,
    /// Who remained when some were forgotten.
    remained: usize,
}

impl Pace {
    /// Whether a member may speak now; she does so once in a batch.
    pub(super) fn check(
        &self,
        user: UserId,
        role: Role,
        details: &Details,
        now: Millis,
        speaks_now: &mut HashSet<UserId>,
    ) -> Result<(), ErrorBody> {
        let wait_ms = u64::from(details.slow_mode_seconds) * 1_000;
        if wait_ms == 0 || role.is_admin() {
            return Ok(());
        }
        let since = |at: &Millis| now.get().saturating_sub(at.get());
        let left_ms = match self.spoke.get(&user).map(since) {
            Some(passed) if passed < wait_ms => wait_ms - passed,
            _ if speaks_now.insert(user) => return Ok(()),
            _ => wait_ms,
        };
        let message = format!("slow mode: one message in {} s", details.slow_mode_seconds);
        Err(ErrorBody::limited(message, left_ms))
    }

    /// Rows were appended.
    pub(super) fn note(&mut self, rows: &[Row], details: &Details) {
        if details.slow_mode_seconds == 0 {
            *self = Self::default();
            return;
        }
        for row in rows {
            if let Some(message) = row.entry.content.message() {
                self.spoke.insert(message.sender_id, row.entry.at);
            }
        }
        let Some(now) = rows.last().map(|row| row.entry.at) else { return };
        if self.spoke.len() > SPEAKERS.max(2 * self.remained) {
            let begin = now.minus(u64::from(details.slow_mode_seconds) * 1_000);
            self.spoke.retain(|_, at| *at > begin);
            self.remained = self.spoke.len();
        }
    }
}
