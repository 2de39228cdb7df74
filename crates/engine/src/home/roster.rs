//! Who may speak: what the home knows of members, seats and blocks.
//!
//! Exact in spite of being a cache: a member who leaves moves the head, so a home that missed it appends nothing. Only
//! blocks have no entry in the log; they are told to the home, and looked up again after five seconds.

use std::collections::HashMap;

use madang_ids::{Millis, UserId};
use madang_proto::Role;

use crate::seats::{Member, Seats};

const BLOCKS_KNOWN_MS: u64 = 5_000;
const MEMBERS_KNOWN: usize = 1_024;

/// What to look up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lookup {
    /// These members.
    pub users: Vec<UserId>,
    /// Whether to look, in a direct channel, whether one of the two blocks the other.
    pub blocks: bool,
}

/// What was found.
#[derive(Debug, Clone)]
pub struct Found {
    /// The members, in the order asked for.
    pub members: Vec<(UserId, Option<Member>)>,
    /// Whether one blocks the other, if that was asked.
    pub blocked: Option<bool>,
}

#[derive(Debug, Default)]
pub(super) struct Roster {
    members: HashMap<UserId, Option<Member>>,
    blocked: Option<(bool, Millis)>,
    pub(super) seats: Seats,
}

impl Roster {
    pub(super) fn forget(&mut self) {
        self.members.clear();
        self.blocked = None;
    }

    pub(super) fn learn(&mut self, found: Found, now: Millis) {
        if self.members.len() + found.members.len() > MEMBERS_KNOWN {
            self.members.clear();
        }
        self.members.extend(found.members);
        if let Some(blocked) = found.blocked {
            self.blocked = Some((blocked, now));
        }
    }

    pub(super) fn put(&mut self, member: Member) {
        self.members.insert(member.user_id, Some(member));
    }

    /// What must be looked up before these users can be judged.
    pub(super) fn missing(
        &self,
        users: impl Iterator<Item = UserId>,
        wants_blocks: bool,
        now: Millis,
    ) -> Option<Lookup> {
        let mut unknown: Vec<UserId> = users.filter(|user| !self.members.contains_key(user)).collect();
        unknown.sort_unstable();
        unknown.dedup();
        let blocks = wants_blocks && !self.knows_blocks(now);
        (blocks || !unknown.is_empty()).then_some(Lookup { users: unknown, blocks })
    }

    fn knows_blocks(&self, now: Millis) -> bool {
        self.blocked.is_some_and(|(_, at)| now.get().saturating_sub(at.get()) < BLOCKS_KNOWN_MS)
    }

    pub(super) fn member(&self, user: UserId) -> Option<&Member> {
        self.members.get(&user)?.as_ref()
    }

    /// The role of somebody who is a member now.
    pub(super) fn role(&self, user: UserId) -> Option<Role> {
        self.member(user).filter(|member| member.spans.is_open()).map(|member| member.role)
    }

    pub(super) fn is_blocked(&self) -> bool {
        self.blocked.is_some_and(|(blocked, _)| blocked)
    }
}
