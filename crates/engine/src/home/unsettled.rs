//! Members whose entries are in the log, and whose own partitions could not be written.
//!
//! A change of membership ends in partitions of the member: the membership by user, the read marker, the user's own log. One of
//! them may be unavailable for long, as when all replicas of a range are down. The channel goes on meanwhile, the member
//! may speak, and the missing rows are written later.

use std::time::Duration;

use crate::now::Now;
use crate::seats::Member;

/// The first pause before the rows of these members are written again. It doubles up to [`LAST`].
const FIRST: Duration = Duration::from_secs(1);
/// As long as a home rests; after that the next load finds the members.
const LAST: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Unsettled {
    members: Vec<Member>,
    /// By the steady clock.
    due: Duration,
    pause: Duration,
}

impl Unsettled {
    /// Adds a member, or replaces the same one.
    pub(super) fn push(&mut self, member: Member, now: Now) {
        if self.members.is_empty() {
            self.pause = (self.pause * 2).clamp(FIRST, LAST);
            self.due = now.elapsed + self.pause;
        }
        self.members.retain(|other| other.user_id != member.user_id);
        self.members.push(member);
    }

    /// Takes those that a load found. They are tried at once.
    pub(super) fn replace(&mut self, members: Vec<Member>, now: Now) {
        (self.members, self.due) = (members, now.elapsed);
    }

    pub(super) fn due_in(&self, now: Now) -> Option<Duration> {
        (!self.members.is_empty()).then(|| self.due.saturating_sub(now.elapsed))
    }

    /// Takes all of them, if their pause is over.
    pub(super) fn take_due(&mut self, now: Now) -> Option<Vec<Member>> {
        self.due_in(now).filter(Duration::is_zero)?;
        Some(std::mem::take(&mut self.members))
    }
}
