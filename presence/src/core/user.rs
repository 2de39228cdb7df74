//! One user: connections, settings, and what others were sent about the user.

use std::time::Duration;

use madang_engine::session::Now;
use madang_ids::{ConnectionId, DeviceId, Millis, UserId};
use madang_proto::{Availability, UserPresence};
use smallvec::SmallVec;

/// A connection that is up, or in its grace period.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) id: ConnectionId,
    pub(super) device: DeviceId,
    /// An index into the core's nodes. The epoch is stored there, because a new epoch removes the connections that its set does
    /// not name.
    pub(super) node: u32,
    pub(super) is_idle: bool,
    /// It counts as idle because the connection before it was. It has not said so itself.
    pub(super) inherits_idle: bool,
    /// What it was sent about the users whom its user watches.
    pub(super) synced: Synced,
    /// The connection has ended. Until this time it still counts.
    pub(super) leaves_at: Option<Duration>,
}

/// What a connection was sent about the users whom its user watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Synced {
    Nothing,
    /// Something was dropped.
    Parts,
    All,
}

/// What a user has set.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) invisible: bool,
    pub(super) status: Option<Box<str>>,
}

/// What others were last sent about the user.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) state: Availability,
    pub(super) status: Option<Box<str>>,
}

/// The state of the read of a user's rows.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Load {
    /// Nothing is to be read.
    #[default]
    Rests,
    /// The user is in the queue of reads.
    Waits,
    /// A read is running.
    Runs,
    /// A read is running, and something has changed since it began: its result may be out of date.
    RunsInVain,
}

/// A user who is online, away or in a grace period.
#[derive(Debug, Default)]
pub(super) struct User {
    pub(super) connections: SmallVec<[Connection; 1]>,
    pub(super) settings: Settings,
    pub(super) shown: Shown,
    /// The users whom this user watches, sorted. Two users are a pair if each is in the other's circle.
    pub(super) circle: Box<[UserId]>,
    /// The revision of the profile, as it was read.
    pub(super) rev: u64,
    /// When others could last see the user active; zero if unknown.
    pub(super) last_active_at: Millis,
    /// Until this time no notice about the user is sent, except that they are offline.
    pub(super) paced_until: Duration,
    pub(super) load: Load,
    /// The next read must include the circle.
    pub(super) wants_circle: bool,
    /// Settings and circle were read. Before that nothing about the user is sent, because they may be invisible.
    pub(super) is_loaded: bool,
}

impl User {
    /// The real state.
    pub(super) fn state(&self) -> Availability {
        match (self.connections.is_empty(), self.connections.iter().all(|connection| connection.is_idle)) {
            (true, _) => Availability::Offline,
            (false, true) => Availability::Away,
            (false, false) => Availability::Online,
        }
    }

    /// The state that others may see.
    pub(super) fn to_show(&self) -> Shown {
        match self.state() {
            _ if self.settings.invisible => Shown::default(),
            Availability::Offline => Shown::default(),
            state => Shown { state, status: self.settings.status.clone() },
        }
    }

    /// Whether a connection is up, and not only in its grace period.
    pub(super) fn is_here(&self) -> bool {
        self.connections.iter().any(|connection| connection.leaves_at.is_none())
    }

    /// Sets the last activity to `at` if the user is active and visible. Must be called before a change that may end either.
    pub(super) fn touch(&mut self, at: Millis) {
        let is_active = |connection: &Connection| !connection.is_idle && connection.leaves_at.is_none();
        if self.is_loaded && !self.settings.invisible && self.connections.iter().any(is_active) {
            self.last_active_at = self.last_active_at.max(at);
        }
    }

    /// Connections that counted as idle and have not said so in time are not idle.
    pub(super) fn end_inherited_idleness(&mut self, now: Now) {
        let mut any = false;
        for found in self.connections.iter_mut().filter(|found| found.inherits_idle) {
            (found.is_idle, found.inherits_idle) = (false, false);
            any = true;
        }
        if any {
            self.touch(now.at);
        }
    }

    /// Whether the user can be removed. Not while a read is running: its result would be taken for that of a later read.
    pub(super) fn is_gone(&self) -> bool {
        let is_read = matches!(self.load, Load::Runs | Load::RunsInVain);
        self.connections.is_empty() && self.shown.state == Availability::Offline && !is_read
    }

    pub(super) fn watches(&self, other: UserId) -> bool {
        self.circle.binary_search(&other).is_ok()
    }

    /// Removes a user from the circle.
    pub(super) fn unwatch(&mut self, other: UserId) {
        let mut circle = std::mem::take(&mut self.circle).into_vec();
        circle.retain(|found| *found != other);
        self.circle = circle.into();
    }

    /// The user as others were last shown them.
    pub(super) fn card(&self, user_id: UserId) -> UserPresence {
        let Shown { state, status } = &self.shown;
        let last_active_at =
            Some(self.last_active_at).filter(|at| *at != Millis::ZERO && *state != Availability::Online);
        let status = status.as_deref().map(str::to_owned);
        UserPresence {
            user_id,
            state: *state,
            last_active_at,
            status,
            rev: self.shown_rev(),
            invisible: false,
        }
    }

    /// The user as they see themselves.
    pub(super) fn own_card(&self, user_id: UserId) -> UserPresence {
        let Settings { invisible, status } = &self.settings;
        let status = status.as_deref().map(str::to_owned);
        let (state, rev) = (self.state(), self.rev.max(1));
        UserPresence { user_id, state, last_active_at: None, status, rev, invisible: *invisible }
    }

    /// The card of a user who is shown as offline reveals nothing, not even a revision.
    fn shown_rev(&self) -> u64 {
        if self.shown.state == Availability::Offline { 1 } else { self.rev.max(1) }
    }
}
