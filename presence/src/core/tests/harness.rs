//! A core with the rows behind it, a clock, and the notices that it has sent.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use madang_engine::session::Now;
use madang_ids::{ConnectionId, DeviceId, Millis, NodeEpoch, UserId};
use madang_proto::{Availability, UserPresence};
use madang_store::PresenceRow;
use proptest::prelude::*;

use crate::api::{Departure, NodeRun, Up};
use crate::config::PresenceConfig;
use crate::core::{Core, Loaded, Notice, NoticeTarget, View};

pub(super) const NODE: NodeRun = NodeRun { worker: 1, epoch: NodeEpoch(1), set: 1 };

pub(super) fn user(id: u64) -> UserId {
    UserId::from_raw(id)
}

pub(super) fn key(user_id: u64, connection: u64) -> (UserId, ConnectionId) {
    (user(user_id), ConnectionId::from_raw(connection))
}

pub(super) fn up(user_id: u64, device: u64, connection: u64) -> Up {
    let (user, connection) = key(user_id, connection);
    Up { user, device: DeviceId::from_raw(device), connection, is_idle: false }
}

/// What users and their connections do in every random history.
#[derive(Debug, Clone, Copy)]
pub(super) enum Act {
    Up {
        user: u64,
        device: u64,
        node: usize,
    },
    Idle {
        pick: usize,
        is_idle: bool,
    },
    Set {
        user: u64,
        invisible: bool,
        status: bool,
    },
    Pair {
        one: u64,
        other: u64,
        is_watched: bool,
    },
    /// A connection ends, the report of it is lost, and its node sends its set.
    Lose {
        pick: usize,
    },
    Drop {
        pick: usize,
    },
}

/// Acts of the users from 1 to `users`, on two nodes.
pub(super) fn act(users: u64) -> impl Strategy<Value = Act> {
    let of = || 1..=users;
    prop_oneof![
        7 => (of(), 1..3_u64, 0..2_usize).prop_map(|(user, device, node)| Act::Up { user, device, node }),
        2 => (any::<usize>(), any::<bool>()).prop_map(|(pick, is_idle)| Act::Idle { pick, is_idle }),
        2 => (of(), any::<bool>(), any::<bool>())
            .prop_map(|(user, invisible, status)| Act::Set { user, invisible, status }),
        5 => (of(), of(), any::<bool>()).prop_map(|(one, other, is_watched)| Act::Pair { one, other, is_watched }),
        1 => any::<usize>().prop_map(|pick| Act::Lose { pick }),
        1 => any::<usize>().prop_map(|pick| Act::Drop { pick }),
    ]
}

/// A connection that really exists in a random history.
#[derive(Debug, Clone, Copy)]
pub(super) struct Real {
    pub(super) up: Up,
    pub(super) node: usize,
    pub(super) is_idle: bool,
}

pub(super) struct Harness {
    pub(super) core: Core,
    pub(super) now: Now,
    pub(super) rows: BTreeMap<UserId, PresenceRow>,
    /// Pairs that watch each other, in both directions.
    pub(super) pairs: BTreeSet<(UserId, UserId)>,
}

impl Harness {
    /// A process that has just started, with one node.
    pub(super) fn starting() -> Self {
        let now = Now { at: Millis::new(1_000_000), elapsed: Duration::from_secs(100) };
        let mut core = Core::new(PresenceConfig::default(), now);
        core.handle_set(NODE, &View::whole(), &[], now);
        Self { core, now, rows: BTreeMap::new(), pairs: BTreeSet::new() }
    }

    /// A process whose first lease is over. Users 1, 2 and 3 watch each other.
    pub(super) fn settled() -> Self {
        let mut harness = Self::starting();
        harness.watch(1, 2);
        harness.watch(1, 3);
        harness.watch(2, 3);
        harness.pass(16);
        harness.told();
        harness
    }

    pub(super) fn watch(&mut self, one: u64, other: u64) {
        self.pairs.extend([(user(one), user(other)), (user(other), user(one))]);
    }

    pub(super) fn unwatch(&mut self, one: u64, other: u64) {
        self.pairs.retain(|pair| *pair != (user(one), user(other)) && *pair != (user(other), user(one)));
    }

    pub(super) fn circle(&self, id: UserId) -> Vec<UserId> {
        self.pairs.iter().filter(|(one, _)| *one == id).map(|(_, other)| *other).collect()
    }

    pub(super) fn up(&mut self, user_id: u64, connection: u64) {
        self.core.handle_up(NODE, up(user_id, user_id, connection), self.now);
        self.load();
    }

    pub(super) fn down(&mut self, user_id: u64, connection: u64, how: Departure) {
        self.core.handle_down(NODE, key(user_id, connection), how, self.now);
    }

    pub(super) fn idle(&mut self, user_id: u64, connection: u64, is_idle: bool) {
        self.core.handle_idle(NODE, key(user_id, connection), is_idle, self.now);
    }

    pub(super) fn set(&mut self, user_id: u64, invisible: bool, status: &str) {
        let status = Some(status.to_owned()).filter(|status| !status.is_empty());
        self.rows.insert(user(user_id), PresenceRow { invisible, status, last_active_at: None });
        self.core.handle_changed(user(user_id), false);
        self.load();
    }

    /// Answers all reads.
    pub(super) fn load(&mut self) {
        while self.core.has_wanted() {
            for wanted in self.core.poll_wanted(9) {
                let row = self.rows.get(&wanted.user).cloned().unwrap_or_default();
                let circle = wanted.circle.then(|| self.circle(wanted.user));
                self.core.handle_loaded(Loaded { user: wanted.user, row, rev: 1, circle }, self.now);
            }
        }
    }

    /// Moves the clock. The node renews its lease.
    pub(super) fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.core.handle_renewal(NODE, self.now);
            self.wait(1);
        }
    }

    /// Moves the clock without any report.
    pub(super) fn wait(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now.elapsed += Duration::from_secs(1);
            self.now.at = self.now.at.plus(1_000);
            self.core.handle_time(self.now);
        }
    }

    /// The notices since the last call, such as `2 hears 1 online`.
    pub(super) fn told(&mut self) -> Vec<String> {
        told(&mut self.core)
    }
}

/// The notices of a core since the last call.
pub(super) fn told(core: &mut Core) -> Vec<String> {
    let mut told = Vec::new();
    while let Some(Notice { to, list }) = core.poll_notice() {
        let listeners = match to {
            NoticeTarget::Users(users) => users.iter().map(ToString::to_string).collect::<Vec<_>>().join("+"),
            NoticeTarget::Connection(user, connection) => format!("{user}/{connection}"),
        };
        let mut words: Vec<String> = list.users.iter().map(word).collect();
        words.extend(list.anew.then(|| "anew".to_owned()));
        words.extend(list.complete.then(|| "all".to_owned()));
        told.push(format!("{listeners} hears {}", words.join(", ")));
    }
    told
}

fn word(card: &UserPresence) -> String {
    let state = match card.state {
        Availability::Online => "online",
        Availability::Away => "away",
        Availability::Offline => "offline",
    };
    let status = card.status.as_deref().map(|status| format!(" ({status})")).unwrap_or_default();
    let invisible = if card.invisible { " invisible" } else { "" };
    format!("{} {state}{status}{invisible}", card.user_id)
}
