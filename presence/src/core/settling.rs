//! Users without a known connection who may be online all the same.
//!
//! After a start, after a new view and after a pause, a user without a connection may have one that this core has not heard of. Such
//! users are *unsettled*, and nobody reports them as offline. They settle after one lease, because by then each node has either sent
//! its set or is dead. They settle sooner if it is known which nodes are alive ([`Core::handle_live_nodes`]) and each of them has
//! sent its set by the present view; but not before a grace period is over, because connections that ended before cannot be known here.

use std::time::Duration;

use madang_engine::session::Now;
use madang_ids::UserId;

use super::{Core, ProcessRun, View};
use crate::config::PresenceConfig;

/// Views whose users may still be unsettled. Above it all users are unsettled until the last one is over.
const VIEWS: usize = 8;

/// Users that came to this core with a view, users that a node still reports to another core, or all users.
#[derive(Debug)]
pub(super) struct Settling {
    /// The view before, or the view of the node. Users that this core owns under it stay settled. `None`: all users are
    /// concerned.
    before: Option<View>,
    /// From then on they are settled if each node that lives has sent its set.
    early: Duration,
    /// From then on they are settled.
    until: Duration,
}

impl Settling {
    pub(super) fn new(before: Option<View>, config: &PresenceConfig, now: Now) -> Self {
        let until = now.elapsed + config.lease();
        Self { before, early: until.min(now.elapsed + config.grace()), until }
    }

    /// Whether this user of `me` stays settled.
    pub(super) fn spares(&self, me: u16, id: UserId) -> bool {
        self.before.as_ref().is_some_and(|view| view.owns(me, id))
    }
}

impl Core {
    /// These nodes are alive, by another source than their reports. In one process there is no other source.
    pub fn handle_live_nodes(&mut self, nodes: &[ProcessRun]) {
        self.live_nodes = Some(nodes.to_vec());
    }

    /// This process did not run for a time in which reports and messages may have waited for it. What they say is not known yet, so
    /// all users are unsettled, and each node that was alive has one more lease to be heard.
    pub fn handle_pause(&mut self, now: Now) {
        let until = now.elapsed + self.config.lease();
        for node in self.nodes.iter_mut().filter(|node| node.lease_until.is_some()) {
            node.lease_until = Some(until);
        }
        self.settling.retain(|one| one.before.is_some());
        self.settling.push(Settling::new(None, &self.config, now));
    }

    /// The users that this core did not own under `before` are unsettled from now on.
    pub(super) fn unsettle(&mut self, before: View, now: Now) {
        let is_it = |one: &&mut Settling| one.before.as_ref() == Some(&before);
        if let Some(found) = self.settling.iter_mut().find(is_it) {
            *found = Settling::new(Some(before), &self.config, now);
            return;
        }
        // A list that is full: everybody is unsettled until the last of these times. That is late, but wrong about nobody.
        let before = (self.settling.len() < VIEWS).then_some(before);
        if before.is_none() {
            self.settling.clear();
        }
        self.settling.push(Settling::new(before, &self.config, now));
    }

    /// Whether all own users without a known connection are offline.
    #[must_use]
    pub const fn is_settled(&self) -> bool {
        self.settling.is_empty()
    }

    /// Whether a user who has no connection is offline.
    pub(super) fn is_settled_for(&self, id: UserId) -> bool {
        self.settling.iter().all(|one| one.spares(self.me.process, id))
    }

    /// When the next users settle.
    pub(super) fn settles_at(&self) -> Option<Duration> {
        let is_early = !self.settling.is_empty() && self.has_all_sets();
        self.settling.iter().map(|one| if is_early { one.early } else { one.until }).min()
    }

    /// Removes those that are over.
    pub(super) fn take_settled(&mut self, now: Now) -> Vec<Settling> {
        let is_early = !self.settling.is_empty() && self.has_all_sets();
        let is_over = |one: &mut Settling| one.until <= now.elapsed || (is_early && one.early <= now.elapsed);
        self.settling.extract_if(.., is_over).collect()
    }

    /// Whether each node that is alive has sent its set by the present view. A node that has a lease here counts although it is not
    /// listed: the list may have been lost. An empty list proves nothing.
    fn has_all_sets(&self) -> bool {
        let Some(live) = self.live_nodes.as_deref().filter(|live| !live.is_empty()) else { return false };
        let mut leased = self.nodes.iter().filter(|node| node.lease_until.is_some());
        let has_sent = |run: &ProcessRun| {
            self.nodes.iter().any(|node| {
                let is_it = node.run.worker == run.process && node.run.epoch >= run.epoch;
                is_it && node.is_current && node.lease_until.is_some()
            })
        };
        leased.all(|node| node.is_current) && live.iter().all(has_sent)
    }
}
