//! What the home knows of members, seats and blocks, and so of who may speak.
//!
//! Exact in spite of being a cache: a member who leaves moves the head, so a home that missed it appends nothing. A
//! refusal appends nothing either, hence none rests on what an earlier step found: neither that somebody is no member or
//! is muted, nor that a member is no admin ([`Roster::doubt`]). Blocks, and the rules for writing to somebody, have no entry in the log:
//! the home is notified of them, and looks them up again after five seconds.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use madang_ids::UserId;
use madang_proto::Role;

use crate::now::Now;
use crate::seats::{Member, Seats};

/// A block, or a setting, that no home was notified of, since it was made on another node, is obeyed after this time.
const BETWEEN_KNOWN: Duration = Duration::from_secs(5);
const MEMBERS_KNOWN: usize = 1_024;

/// What to look up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lookup {
    /// These members.
    pub users: Vec<UserId>,
    /// Whether to look what stands between the two people of a direct channel.
    pub between: bool,
}

/// What was found.
#[derive(Debug, Clone)]
pub struct Found {
    /// The members, in the order asked for.
    pub members: Vec<(UserId, Option<Member>)>,
    /// What stands between the two, if that was asked.
    pub between: Option<Between>,
}

/// What stands between the two people of a direct channel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Between {
    /// Whether one blocks the other.
    pub is_blocked: bool,
    /// Those who may not write here: the other has not accepted the channel, and takes no messages of them.
    pub unwanted: Vec<UserId>,
}

#[derive(Debug, Default)]
pub(super) struct Roster {
    /// Members now, who may speak. The head guards them: who is no longer one moved it.
    members: HashMap<UserId, Member>,
    /// Who was found to be none, to have left, or to be muted. Nothing guards this, since a home that appends nothing
    /// never learns that somebody came; so it is forgotten with the step that asked.
    others: HashMap<UserId, Option<Member>>,
    /// Members who were looked up again in this step, as they want what only admins may.
    doubted: HashSet<UserId>,
    /// What stands between the two of a direct channel, and when that was looked up, by the steady clock.
    between: Option<(Between, Duration)>,
    /// What a lookup finds that was out meanwhile may be from before.
    was_forgotten: bool,
    pub(super) seats: Seats,
}

impl Roster {
    pub(super) fn forget(&mut self) {
        self.members.clear();
        self.others.clear();
        self.between = None;
        self.was_forgotten = true;
    }

    /// A new step begins.
    pub(super) fn begin_step(&mut self) {
        self.others.clear();
        self.doubted.clear();
    }

    /// She wants what only admins may, and may have become one: is looked up again, once in a step.
    pub(super) fn doubt(&mut self, user: UserId) {
        if self.role(user).is_some_and(|role| !role.is_admin()) && self.doubted.insert(user) {
            self.members.remove(&user);
        }
    }

    pub(super) fn learn(&mut self, found: Found, now: Now) {
        if self.was_forgotten {
            return;
        }
        if self.members.len() + self.others.len() + found.members.len() > MEMBERS_KNOWN {
            self.members.clear();
            self.others.clear();
        }
        found.members.into_iter().for_each(|(user, member)| self.put(user, member));
        if let Some(between) = found.between {
            self.between = Some((between, now.elapsed));
        }
    }

    pub(super) fn put(&mut self, user: UserId, member: Option<Member>) {
        self.members.remove(&user);
        match member {
            Some(member) if member.spans.is_open() && member.muted.is_none() => {
                drop(self.members.insert(user, member))
            }
            other => drop(self.others.insert(user, other)),
        }
    }

    /// What must be looked up before these users can be judged. Everything that is found is known until the next
    /// step, or the lookup asks for all of it.
    pub(super) fn missing(
        &mut self,
        users: impl Iterator<Item = UserId>,
        wants_between: bool,
        now: Now,
    ) -> Option<Lookup> {
        let mut users: Vec<UserId> = users.collect();
        users.sort_unstable();
        users.dedup();
        let is_unknown = |user: &UserId| !self.members.contains_key(user) && !self.others.contains_key(user);
        let unknown: Vec<UserId> = users.iter().copied().filter(is_unknown).collect();
        let between = wants_between && !self.knows_between(now);
        if unknown.is_empty() && !between {
            return None;
        }
        self.was_forgotten = false;
        let is_too_many = self.members.len() + self.others.len() + unknown.len() > MEMBERS_KNOWN;
        Some(Lookup { users: if is_too_many { users } else { unknown }, between })
    }

    fn knows_between(&self, now: Now) -> bool {
        self.between.as_ref().is_some_and(|(_, at)| now.elapsed.saturating_sub(*at) < BETWEEN_KNOWN)
    }

    /// Somebody who is or was a member.
    pub(super) fn member(&self, user: UserId) -> Option<&Member> {
        self.members.get(&user).or_else(|| self.others.get(&user)?.as_ref())
    }

    /// The role of somebody who is a member now.
    pub(super) fn role(&self, user: UserId) -> Option<Role> {
        self.member(user).filter(|member| member.spans.is_open()).map(|member| member.role)
    }

    /// Whether, in a direct channel, one blocks the other.
    pub(super) fn is_blocked(&self) -> bool {
        self.between.as_ref().is_some_and(|(between, _)| between.is_blocked)
    }

    /// Whether, in a direct channel, the other takes no messages of this user.
    pub(super) fn is_unwanted(&self, user: UserId) -> bool {
        self.between.as_ref().is_some_and(|(between, _)| between.unwanted.contains(&user))
    }

    /// The user has written. `true` if that is what accepts the stay; from now on it is known.
    pub(super) fn accept(&mut self, user: UserId) -> bool {
        let Some(member) = self.members.get_mut(&user).filter(|member| !member.has_accepted) else {
            return false;
        };
        member.has_accepted = true;
        // The other of a direct channel may write back.
        if let Some((between, _)) = &mut self.between {
            between.unwanted.retain(|unwanted| *unwanted == user);
        }
        true
    }
}
