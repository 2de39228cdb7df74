//! What presence cores send each other, and how it survives loss.
//!
//! Between two cores there is a [`Link`] with two directions that work alike. A direction has at most one [`Batch`] under way. A
//! batch names users, and has for each of them the state of the moment in which it was polled. What changes meanwhile is owed
//! and goes with the next batch, once for each user, however often it has changed. A batch that is not acknowledged in time is
//! owed again: its users get a new batch with a greater number and their state of then. So a receiver may take batches in the
//! order of their numbers and drop the others, nothing is kept but the ids of users, and no loss is final.
//!
//! A core that starts, or has a new view, begins all its links anew: each has a new [`LinkEnd`]. The other side sees it in the next
//! batch or acknowledgement, and owes everything again. An earlier end than the known one is refused. The first batch of a link is
//! empty: it asks for the other end.
//!
//! Two ends send each other content only if both have the same view. A [`State`] names the users of the receiver by the view of
//! the sender. Under another view a user who is still at the receiver would be missing, and would wrongly hear that the sender's
//! user is offline. While the views differ, each core keeps what it knows.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use madang_engine::session::Now;
use madang_ids::{Millis, UserId};
use madang_proto::{Availability, UserPresence};
use serde::{Deserialize, Serialize};

use super::{Core, ProcessRun, ViewId};

/// A batch without an acknowledgement is sent again after this time. Two processes are milliseconds apart; a process that has
/// died is asked once a second until the view changes.
const REPEAT: Duration = Duration::from_secs(1);
/// The most users of each kind in one batch.
const USERS: usize = 500;
/// Once the circles of its states have this number of users, a batch takes no more states. So it is below 1 MiB, with 500 texts of
/// 128 characters and 21,000 ids of 22 bytes as JSON, and mostly below 100 KiB.
const CIRCLES: usize = 20_000;

/// One end of a link between two cores. Ends of one process are ordered by epoch and then by session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkEnd {
    /// The process.
    pub run: ProcessRun,
    /// Rises in the process with each link that begins.
    pub session: u64,
    /// The view under which the link has begun. A process with a later view has a later end.
    pub view: ViewId,
}

impl LinkEnd {
    fn order(&self) -> (u64, u64) {
        (self.run.epoch.0, self.session)
    }
}

/// The public state of a user, from the owner of the user to a process that is interested.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The user as others may see them.
    pub card: UserPresence,
    /// The users of the receiving process whom this user watches. `None`: as in the last state. Empty if the user is offline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watches: Option<Vec<UserId>>,
}

/// What a core has to tell another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// The sender.
    pub from: LinkEnd,
    /// The receiver. `None` if its end is not known yet. Until an end with the view of the sender is known, the batch is empty
    /// and only introduces the sender. The content of a batch is taken only by the very end that it names, so a late copy has no
    /// effect on a later end or under a later view.
    pub to: Option<LinkEnd>,
    /// Rises with each batch of a link. A receiver drops a number that is not above the last one.
    pub number: u64,
    /// Users of the receiver in whom the sender is interested from now on. Each is answered by a [`State`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub begins: Vec<UserId>,
    /// Users of the receiver in whom the sender is not interested any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ends: Vec<UserId>,
    /// States of users of the sender.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub states: Vec<State>,
    /// Pairs of a user of the receiver and a user of the sender who watches that user, but is not watched: the circles disagree,
    /// so the first one must be read again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub doubts: Vec<(UserId, UserId)>,
}

/// A batch has arrived, or its sender knows an earlier end of the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// The receiver of the batch.
    pub from: LinkEnd,
    /// The sender of the batch.
    pub to: LinkEnd,
    /// The number of the last batch that was taken.
    pub number: u64,
}

/// A message between two presence cores.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// Interest and states.
    Batch(Batch),
    /// The answer to a batch.
    Ack(Ack),
}

impl Message {
    const fn from(&self) -> LinkEnd {
        match self {
            Self::Batch(batch) => batch.from,
            Self::Ack(ack) => ack.from,
        }
    }

    fn to(&self) -> Option<LinkEnd> {
        match self {
            Self::Batch(batch) => batch.to,
            Self::Ack(ack) => Some(ack.to),
        }
    }
}

/// What has changed of a user since the last batch.
#[derive(Debug, Default, Clone, Copy)]
struct Change {
    /// Perhaps also the circle.
    circle: bool,
    /// When the user was last active, if the user is not here any more; zero if unknown.
    left_at: Millis,
}

/// What one core still has to tell another. The content is read from the core when a batch is polled.
#[derive(Debug, Default)]
pub(super) struct Outstanding {
    /// Users of the other core whose interest has begun or ended.
    interest: BTreeSet<UserId>,
    /// Users of this core whose state has changed.
    states: BTreeMap<UserId, Change>,
    doubts: BTreeSet<(UserId, UserId)>,
}

impl Outstanding {
    fn is_empty(&self) -> bool {
        self.interest.is_empty() && self.states.is_empty() && self.doubts.is_empty()
    }

    fn add(&mut self, other: Self) {
        self.interest.extend(other.interest);
        self.doubts.extend(other.doubts);
        other.states.into_iter().for_each(|(id, change)| self.add_state(id, change));
    }

    fn add_state(&mut self, id: UserId, change: Change) {
        let found = self.states.entry(id).or_default();
        found.circle |= change.circle;
        found.left_at = found.left_at.max(change.left_at);
    }

    /// Takes what goes into one batch.
    fn split(&mut self) -> Self {
        let mut taken = Self::default();
        while taken.interest.len() < USERS
            && let Some(id) = self.interest.pop_first()
        {
            taken.interest.insert(id);
        }
        while taken.states.len() < USERS
            && let Some((id, change)) = self.states.pop_first()
        {
            taken.states.insert(id, change);
        }
        while taken.doubts.len() < USERS
            && let Some(doubt) = self.doubts.pop_first()
        {
            taken.doubts.insert(doubt);
        }
        taken
    }
}

/// A core's side of its link to another core.
#[derive(Debug)]
pub(super) struct Link {
    session: u64,
    /// The other end, as far as it is known.
    peer: Option<LinkEnd>,
    /// The number of the last batch.
    number: u64,
    owed: Outstanding,
    under_way: Outstanding,
    /// A batch is under way and is repeated at this time.
    repeat_at: Option<Duration>,
    /// The other side may not know this end. The next batch goes also if it is empty, and is repeated until it is acknowledged.
    is_new: bool,
    /// The number of the last batch that was taken from the other side.
    taken: u64,
    owes_ack: bool,
    /// Users of this core in whom the other one is interested.
    interested: HashSet<UserId>,
}

impl Link {
    pub(super) const fn repeat_at(&self) -> Option<Duration> {
        self.repeat_at
    }

    /// The users of this core in whom the other one is interested.
    pub(super) fn all_interested(&self) -> impl Iterator<Item = UserId> {
        self.interested.iter().copied()
    }

    /// Whether the other end is known and has this view.
    fn agrees_on(&self, view: ViewId) -> bool {
        self.peer.is_some_and(|peer| peer.view == view)
    }

    /// The other side has begun anew and knows nothing. Interest and states are owed again from the start. Doubts are kept: they
    /// come from the circles and would not be found again.
    fn begin_again(&mut self, peer: LinkEnd) {
        self.peer = Some(peer);
        self.taken = 0;
        self.interested.clear();
        self.owed.states.clear();
        self.owed.doubts.append(&mut self.under_way.doubts);
        self.under_way = Outstanding::default();
        self.repeat_at = None;
    }
}

impl Core {
    /// Begins a link to each other process of the view.
    pub(super) fn begin_links(&mut self) {
        let links = std::mem::take(&mut self.links).into_values();
        let doubts: BTreeSet<(UserId, UserId)> =
            links.flat_map(|link| link.owed.doubts.into_iter().chain(link.under_way.doubts)).collect();
        for process in self.view.processes().iter().filter(|process| **process != self.me.process) {
            self.sessions += 1;
            let owed = Outstanding { interest: self.interest_in(*process), ..Outstanding::default() };
            let link = Link {
                session: self.sessions,
                peer: None,
                number: 0,
                owed,
                under_way: Outstanding::default(),
                repeat_at: None,
                is_new: true,
                taken: 0,
                owes_ack: false,
                interested: HashSet::new(),
            };
            self.links.insert(*process, link);
        }
        // The rows of a watcher who has moved away are read at the new owner, which may then doubt by itself.
        for (id, watcher) in doubts {
            match self.users.contains_key(&watcher) {
                true if self.view.owns(self.me.process, id) => self.doubt(id, watcher),
                true => self.owe_doubt(id, watcher),
                false => {}
            }
        }
    }

    /// A message of another core. A process that is not in the view is ignored: when it is, the link begins anew.
    pub fn handle_message(&mut self, message: Message) {
        let from = message.from();
        let process = from.run.process;
        let (me, view) = (self.me, self.view.id());
        let Some(link) = self.links.get_mut(&process) else { return };
        let mine = LinkEnd { run: me, session: link.session, view };
        let is_later = link.peer.is_none_or(|known| from.order() > known.order());
        match link.peer {
            Some(known) if from.order() < known.order() => {
                self.refused += 1;
                return;
            }
            Some(_) if is_later => {
                link.begin_again(from);
                let interest = self.interest_in(process);
                if let Some(link) = self.links.get_mut(&process) {
                    link.owed.interest = interest;
                }
            }
            Some(_) => {}
            None => {
                link.peer = Some(from);
                link.repeat_at = None;
            }
        }
        let Some(link) = self.links.get_mut(&process) else { return };
        // A late copy may be for an earlier end. Then this end introduces itself again, because without content nothing else
        // would make it known.
        link.is_new |= is_later && message.to() != Some(mine);
        match message {
            Message::Ack(ack) => {
                if ack.to == mine && ack.number == link.number {
                    link.under_way = Outstanding::default();
                    link.repeat_at = None;
                }
            }
            Message::Batch(batch) => {
                link.owes_ack = true;
                // A batch for an earlier end continues what this end has never heard. The acknowledgement names this end, and the
                // sender owes everything again.
                if batch.to == Some(mine) && batch.number > link.taken {
                    link.taken = batch.number;
                    self.take_batch(process, batch);
                }
            }
        }
    }

    /// The other end of a link, as far as it is known.
    #[cfg(test)]
    pub(super) fn peer_of(&self, process: u16) -> Option<LinkEnd> {
        self.links.get(&process).and_then(|link| link.peer)
    }

    fn take_batch(&mut self, process: u16, batch: Batch) {
        let Batch { begins, ends, states, doubts, .. } = batch;
        if let Some(link) = self.links.get_mut(&process) {
            for id in begins {
                link.interested.insert(id);
                link.owed.add_state(id, Change { circle: true, ..Change::default() });
            }
            for id in ends {
                link.interested.remove(&id);
                link.owed.states.remove(&id);
            }
        }
        for state in states {
            self.take_state(state);
        }
        for (id, watcher) in doubts {
            self.doubt(id, watcher);
        }
    }

    /// The next message for another process. What cannot be sent is dropped; it is repeated later.
    pub fn poll_message(&mut self, now: Now) -> Option<(u16, Message)> {
        let processes: Vec<u16> = self.links.keys().copied().collect();
        processes.into_iter().find_map(|process| Some((process, self.poll_link(process, now)?)))
    }

    fn poll_link(&mut self, process: u16, now: Now) -> Option<Message> {
        let view = self.view.id();
        let link = self.links.get_mut(&process)?;
        let from = LinkEnd { run: self.me, session: link.session, view };
        let agrees = link.agrees_on(view);
        if std::mem::take(&mut link.owes_ack)
            && let Some(to) = link.peer
        {
            return Some(Message::Ack(Ack { from, to, number: link.taken }));
        }
        match link.repeat_at {
            Some(at) if now.elapsed < at => return None,
            Some(_) => {
                let lost = std::mem::take(&mut link.under_way);
                link.owed.add(lost);
            }
            None if (link.owed.is_empty() || !agrees) && !link.is_new => return None,
            None => {}
        }
        let owed = if agrees { link.owed.split() } else { Outstanding::default() };
        (link.number, link.is_new) = (link.number + 1, false);
        link.repeat_at = Some(now.elapsed + REPEAT);
        let (to, number) = (link.peer, link.number);
        let (begins, ends) = owed.interest.iter().partition(|id| self.foreign.contains_key(id));
        let (states, later) = self.states_for(process, &owed.states);
        let doubts = owed.doubts.iter().copied().collect();
        let mut under_way = owed;
        if let Some(link) = self.links.get_mut(&process) {
            for (id, change) in later {
                under_way.states.remove(&id);
                link.owed.add_state(id, change);
            }
            link.under_way = under_way;
        }
        Some(Message::Batch(Batch { from, to, number, begins, ends, states, doubts }))
    }

    /// The states of these users for another process, and those that the batch has no room for.
    fn states_for(
        &self,
        process: u16,
        owed: &BTreeMap<UserId, Change>,
    ) -> (Vec<State>, Vec<(UserId, Change)>) {
        let (mut states, mut later, mut users) = (Vec::new(), Vec::new(), 0);
        for (id, change) in owed {
            if users >= CIRCLES {
                later.push((*id, *change));
            } else if let Some(state) = self.state_for(process, *id, *change) {
                users += state.watches.as_ref().map_or(0, Vec::len);
                states.push(state);
            }
        }
        (states, later)
    }

    /// What another process may know of a user. `None` if nothing is certain: then the state follows when the user's rows were read
    /// or when the user is settled.
    fn state_for(&self, process: u16, id: UserId, change: Change) -> Option<State> {
        let link = self.links.get(&process)?;
        if !link.interested.contains(&id) {
            return None;
        }
        let user = self.users.get(&id);
        let is_known = user.is_some_and(|user| user.is_loaded);
        if let Some(user) = user.filter(|user| user.shown.state != Availability::Offline) {
            let owner = |other: &UserId| self.view.owner(*other) == Some(process);
            let watches = change.circle.then(|| user.circle.iter().copied().filter(owner).collect());
            return is_known.then(|| State { card: user.card(id), watches });
        }
        // Not yet loaded and connected: the user may be visible. Not connected and unsettled: the user may be elsewhere.
        let is_offline =
            is_known || (user.is_none_or(|user| user.connections.is_empty()) && self.is_settled_for(id));
        let left_at = user.map_or(change.left_at, |user| user.last_active_at);
        let last_active_at = Some(left_at).filter(|at| *at != Millis::ZERO);
        let card = UserPresence { last_active_at, ..UserPresence::offline(id) };
        is_offline.then_some(State { card, watches: Some(Vec::new()) })
    }

    /// The state of a user has changed: each interested process must hear of it, once.
    pub(super) fn owe_state(&mut self, id: UserId, circle: bool) {
        if self.links.is_empty() {
            return;
        }
        let left_at = self.users.get(&id).map(|user| user.last_active_at).unwrap_or_default();
        for link in self.links.values_mut().filter(|link| link.interested.contains(&id)) {
            link.owed.add_state(id, Change { circle, left_at });
        }
    }

    /// The states of these users are certain now, for each process that waits for them.
    pub(super) fn owe_settled(&mut self, is_meant: impl Fn(UserId) -> bool) {
        for link in self.links.values_mut() {
            for id in link.interested.iter().copied().filter(|id| is_meant(*id)) {
                link.owed.add_state(id, Change { circle: true, ..Change::default() });
            }
        }
    }

    /// Interest in a user has begun or ended.
    pub(super) fn owe_interest(&mut self, id: UserId) {
        if let Some(link) = self.view.owner(id).and_then(|owner| self.links.get_mut(&owner)) {
            link.owed.interest.insert(id);
        }
    }

    /// `watcher`, of this core, watches `id` and is not watched.
    pub(super) fn owe_doubt(&mut self, id: UserId, watcher: UserId) {
        if let Some(link) = self.view.owner(id).and_then(|owner| self.links.get_mut(&owner)) {
            link.owed.doubts.insert((id, watcher));
        }
    }
}
