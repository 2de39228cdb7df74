//! The home's cache of members, seats and blocks, from which it decides who may write.
//!
//! Exact although it is a cache: a member who leaves moves the head, so a home that missed it appends nothing. A refusal appends
//! nothing, so no compare-and-set would correct it: therefore no refusal depends on what an earlier step found, neither that a user
//! is no member or is muted, nor that a member is no admin ([`MemberCache::doubt`]). Blocks, and a user's rule for messages from
//! strangers, have no entry in the log: the home is notified of them, and looks them up again after five seconds.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use madang_ids::UserId;
use madang_proto::Role;

use crate::now::Now;
use crate::seats::{Member, Seats};

/// A block or a setting of which the home was not notified is obeyed after this time.
const BETWEEN_KNOWN: Duration = Duration::from_secs(5);
/// Members in the cache, present and former ones together. Above it the cache is cleared: a member takes one lookup again.
const MEMBERS_KNOWN: usize = 1_024;

/// A request for members and blocks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lookup {
    /// The users to look up among the members.
    pub users: Vec<UserId>,
    /// Whether to look up also the blocks between the two users of a direct channel.
    pub between: bool,
}

/// The answer to a [`Lookup`].
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// The members, in the order of the request; `None` for a user who never was one.
    pub members: Vec<(UserId, Option<Member>)>,
    /// The blocks between the two users, if requested.
    pub between: Option<Between>,
}

/// The blocks and rules between the two users of a direct channel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Between {
    /// Whether one user blocks the other.
    pub is_blocked: bool,
    /// Users who may not write here: the other user has not accepted the channel, and takes no messages from them.
    pub unwanted: Vec<UserId>,
}

#[derive(Debug, Default)]
pub(super) struct MemberCache {
    /// Present members who may write. The head guards them: a member who leaves or is muted moves it.
    members: HashMap<UserId, Member>,
    /// Users who are no members, have left, or are muted. Nothing guards these entries, since a refusal appends nothing and so
    /// never fails on a moved head; they are dropped when the next step begins.
    others: HashMap<UserId, Option<Member>>,
    /// Members who were looked up again in this step, since they ask for what only admins may.
    doubted: HashSet<UserId>,
    /// The blocks of a direct channel, and the steady time of their lookup.
    between: Option<(Between, Duration)>,
    /// The cache was dropped while a lookup was out: its result may be older than the change that caused the drop.
    was_forgotten: bool,
    /// The log was just loaded, and no command came meanwhile: what is known is as fresh as a lookup of the next step would be.
    is_loaded: bool,
    /// A command came while the log was loaded. What was read may be older than the command.
    has_late_command: bool,
    pub(super) seats: Seats,
}

impl MemberCache {
    pub(super) fn forget(&mut self) {
        self.is_loaded = false;
        self.members.clear();
        self.others.clear();
        self.between = None;
        self.was_forgotten = true;
    }

    /// The lookup that goes with a load.
    pub(super) fn look_up_with_load(&mut self, users: impl Iterator<Item = UserId>, between: bool) -> Lookup {
        (self.was_forgotten, self.has_late_command) = (false, false);
        let mut users: Vec<UserId> = users.take(MEMBERS_KNOWN).collect();
        users.sort_unstable();
        users.dedup();
        Lookup { users, between }
    }

    /// A command came while the log is loaded.
    pub(super) const fn handle_late_command(&mut self) {
        self.has_late_command = true;
    }

    /// The log was loaded. What was found with it is kept, unless the cache was dropped meanwhile, or `found` is not of the loaded
    /// head (`is_ahead`): the step then looks it up.
    pub(super) fn reload(&mut self, seats: Seats, found: Found, is_ahead: bool, now: Now) {
        let is_current = !self.was_forgotten && !is_ahead;
        self.forget();
        self.seats = seats;
        if is_current {
            self.was_forgotten = false;
            self.is_loaded = !self.has_late_command;
            self.doubted = found.members.iter().map(|(user, _)| *user).collect();
            self.learn(found, now);
        }
    }

    /// A new step begins. The first one behind a load relies on what was found with the load.
    pub(super) fn begin_step(&mut self) {
        if !std::mem::take(&mut self.is_loaded) {
            self.others.clear();
            self.doubted.clear();
        }
    }

    /// Drops a member who asks for what only admins may and was not one when last looked up. At most once in a step.
    pub(super) fn doubt(&mut self, user: UserId) {
        if self.role(user).is_some_and(|role| !role.is_admin()) && self.doubted.insert(user) {
            self.members.remove(&user);
        }
    }

    pub(super) fn learn(&mut self, found: Found, now: Now) {
        // The step finds nothing in the cache and looks up again.
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

    /// The lookup without which these users cannot be judged. If the cache would overflow and be cleared by the result, the
    /// lookup contains all users, so that after it none is missing.
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

    /// A present or former member.
    pub(super) fn member(&self, user: UserId) -> Option<&Member> {
        self.members.get(&user).or_else(|| self.others.get(&user)?.as_ref())
    }

    /// The role of a present member.
    pub(super) fn role(&self, user: UserId) -> Option<Role> {
        self.member(user).filter(|member| member.spans.is_open()).map(|member| member.role)
    }

    /// Whether, in a direct channel, one user blocks the other.
    pub(super) fn is_blocked(&self) -> bool {
        self.between.as_ref().is_some_and(|(between, _)| between.is_blocked)
    }

    /// Whether, in a direct channel, the other user takes no messages from this one.
    pub(super) fn is_unwanted(&self, user: UserId) -> bool {
        self.between.as_ref().is_some_and(|(between, _)| between.unwanted.contains(&user))
    }

    /// The user has written. `true` if the membership was not accepted before.
    pub(super) fn accept(&mut self, user: UserId) -> bool {
        let Some(member) = self.members.get_mut(&user).filter(|member| !member.has_accepted) else {
            return false;
        };
        member.has_accepted = true;
        // The other user of a direct channel may write back.
        if let Some((between, _)) = &mut self.between {
            between.unwanted.retain(|unwanted| *unwanted == user);
        }
        true
    }
}
