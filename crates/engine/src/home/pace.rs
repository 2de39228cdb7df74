//! Slow mode, the channel's own or that of a hot channel: when each member spoke last and when each edited last, by the steady clock. It is rebuilt from the last rows
//! of the log, so after a restart a member whose last message lies further back may send once before the interval is over.
//!
//! Edits have an interval of their own: a member may mend a message right after it was sent, but a message that is edited
//! again and again would be a way to speak without waiting.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use madang_ids::UserId;
use madang_proto::{Content, ErrorBody, Role};

use crate::log::Row;
use crate::now::Now;

/// Expired entries are pruned once there are more than this and than twice what the last pruning left.
const SPEAKERS: usize = 4_096;

/// The last time at which each member did something, in ms of the steady clock; negative if before the clock began.
type Last = HashMap<UserId, i64>;

#[derive(Debug, Default)]
pub(super) struct Pace {
    /// At most the members of the channel.
    spoke: Last,
    /// As `spoke`, for edits.
    edited: Last,
    /// What the last pruning left.
    remained: usize,
}

impl Pace {
    /// Whether a member may send now; at most once in a batch.
    pub(super) fn check(
        &self,
        user: UserId,
        role: Role,
        interval_seconds: u32,
        now: Now,
        speaks_now: &mut HashSet<UserId>,
    ) -> Result<(), ErrorBody> {
        let left_ms = wait_ms(&self.spoke, user, role, interval_seconds, now);
        check(left_ms, user, interval_seconds, speaks_now, "message")
    }

    /// Whether a member may edit a message now; at most once in a batch.
    pub(super) fn check_edit(
        &self,
        user: UserId,
        role: Role,
        interval_seconds: u32,
        now: Now,
        edits_now: &mut HashSet<UserId>,
    ) -> Result<(), ErrorBody> {
        let left_ms = wait_ms(&self.edited, user, role, interval_seconds, now);
        check(left_ms, user, interval_seconds, edits_now, "edit")
    }

    /// Rows were appended, or found at the end of the log.
    pub(super) fn note(&mut self, rows: &[Row], interval_seconds: u32, now: Now) {
        if interval_seconds == 0 {
            *self = Self::default();
            return;
        }
        for row in rows {
            if let Some(message) = row.entry.content.message() {
                put(&mut self.spoke, message.sender_id, row, now);
            }
            if let Content::Edited(change) = &row.entry.content {
                put(&mut self.edited, change.by, row, now);
            }
        }
        self.prune(interval_seconds, now);
    }

    fn prune(&mut self, interval_seconds: u32, now: Now) {
        if self.spoke.len() + self.edited.len() > SPEAKERS.max(2 * self.remained) {
            let begin = steady_ms(now) - i64::from(interval_seconds) * 1_000;
            self.spoke.retain(|_, at| *at > begin);
            self.edited.retain(|_, at| *at > begin);
            self.remained = self.spoke.len() + self.edited.len();
        }
    }
}

/// How long a member waits; `None` where slow mode does not hold the member.
fn wait_ms(last: &Last, user: UserId, role: Role, interval_seconds: u32, now: Now) -> Option<i64> {
    let interval_ms = i64::from(interval_seconds) * 1_000;
    let passed_ms = last.get(&user).map_or(interval_ms, |at| steady_ms(now) - at);
    (interval_ms > 0 && !role.is_admin()).then(|| interval_ms - passed_ms)
}

fn check(
    left_ms: Option<i64>,
    user: UserId,
    interval_seconds: u32,
    acts_now: &mut HashSet<UserId>,
    what: &str,
) -> Result<(), ErrorBody> {
    let Some(left_ms) = left_ms else { return Ok(()) };
    let left_ms = match left_ms {
        left if left > 0 => left.unsigned_abs(),
        _ if acts_now.insert(user) => return Ok(()),
        _ => u64::from(interval_seconds) * 1_000,
    };
    Err(ErrorBody::limited(format!("slow mode: one {what} in {interval_seconds} s"), left_ms))
}

/// The log's time may be ahead of a clock that was set back: such a row counts as appended just now.
fn put(last: &mut Last, user: UserId, row: &Row, now: Now) {
    let age = Duration::from_millis(now.at.get().saturating_sub(row.entry.at.get()));
    let at = steady_ms(now).saturating_sub(as_ms(age));
    let known = last.entry(user).or_insert(at);
    *known = at.max(*known);
}

fn steady_ms(now: Now) -> i64 {
    as_ms(now.elapsed)
}

fn as_ms(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}
