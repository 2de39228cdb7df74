//! One user: her connections, what she says of herself, and what others were told of her.

use std::time::Duration;

use madang_engine::session::Now;
use madang_ids::{ConnectionId, DeviceId, Millis, UserId};
use madang_proto::{Availability, UserPresence};
use smallvec::SmallVec;

/// A live connection, or one that may come back.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) id: ConnectionId,
    pub(super) device: DeviceId,
    /// An index of the core's nodes; their epoch stands there, since a node's next epoch drops what it does not name.
    pub(super) node: u32,
    pub(super) is_idle: bool,
    /// It is idle because the connection before it was, and has not said so itself.
    pub(super) inherits_idle: bool,
    pub(super) told: Told,
    /// It was seen to end, and counts as it was until then.
    pub(super) leaves_at: Option<Duration>,
}

/// What a connection was told of those whom its user watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    Nothing,
    /// Not all of it.
    Parts,
    All,
}

/// What a user says of herself.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) invisible: bool,
    pub(super) status: Option<Box<str>>,
}

/// What others were told.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) state: Availability,
    pub(super) status: Option<Box<str>>,
}

/// How her rows are being read.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Load {
    #[default]
    Rests,
    Waits,
    Runs,
    /// It runs, and what it reads may be old already.
    RunsInVain,
}

/// A user who is here, or was a moment ago.
#[derive(Debug, Default)]
pub(super) struct User {
    pub(super) connections: SmallVec<[Connection; 1]>,
    pub(super) settings: Settings,
    pub(super) shown: Shown,
    /// Whom she watches, sorted. Two watch each other if each is in the other's.
    pub(super) circle: Box<[UserId]>,
    /// The revision of the profile, as it was read.
    pub(super) rev: u64,
    /// When others could last see her active; zero if nobody knows.
    pub(super) last_active_at: Millis,
    /// Nothing more is told of her before, but that she is offline.
    pub(super) paced_until: Duration,
    pub(super) load: Load,
    /// The next read brings the circle as well.
    pub(super) wants_circle: bool,
    /// Settings and circle were read. Before that nothing is told of her, as she may be invisible.
    pub(super) is_loaded: bool,
}

impl User {
    /// The truth.
    pub(super) fn state(&self) -> Availability {
        match (self.connections.is_empty(), self.connections.iter().all(|connection| connection.is_idle)) {
            (true, _) => Availability::Offline,
            (false, true) => Availability::Away,
            (false, false) => Availability::Online,
        }
    }

    /// What others may know.
    pub(super) fn to_show(&self) -> Shown {
        match self.state() {
            _ if self.settings.invisible => Shown::default(),
            Availability::Offline => Shown::default(),
            state => Shown { state, status: self.settings.status.clone() },
        }
    }

    /// Whether a connection is up.
    pub(super) fn is_here(&self) -> bool {
        self.connections.iter().any(|connection| connection.leaves_at.is_none())
    }

    /// Notes that she is active now, if she is and others may know. Called before what may end it.
    pub(super) fn touch(&mut self, at: Millis) {
        let is_active = |connection: &Connection| !connection.is_idle && connection.leaves_at.is_none();
        if self.is_loaded && !self.settings.invisible && self.connections.iter().any(is_active) {
            self.last_active_at = self.last_active_at.max(at);
        }
    }

    /// Connections that said nothing in time are not idle.
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

    /// Whether nothing of her is needed any more.
    pub(super) fn is_gone(&self) -> bool {
        let is_read = matches!(self.load, Load::Runs | Load::RunsInVain);
        self.connections.is_empty() && self.shown.state == Availability::Offline && !is_read
    }

    pub(super) fn watches(&self, other: UserId) -> bool {
        self.circle.binary_search(&other).is_ok()
    }

    /// Takes somebody out of the circle.
    pub(super) fn unwatch(&mut self, other: UserId) {
        let mut circle = std::mem::take(&mut self.circle).into_vec();
        circle.retain(|found| *found != other);
        self.circle = circle.into();
    }

    /// As others were told.
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

    /// As she sees herself.
    pub(super) fn own_card(&self, user_id: UserId) -> UserPresence {
        let Settings { invisible, status } = &self.settings;
        let status = status.as_deref().map(str::to_owned);
        let (state, rev) = (self.state(), self.rev.max(1));
        UserPresence { user_id, state, last_active_at: None, status, rev, invisible: *invisible }
    }

    /// Of a user who is offline to others nothing is said that a card has.
    fn shown_rev(&self) -> u64 {
        if self.shown.state == Availability::Offline { 1 } else { self.rev.max(1) }
    }
}
