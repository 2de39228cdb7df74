//! What a core knows of users whom other cores own: those whom users of this core watch.
//!
//! An entry begins when the first user here watches the foreign user, and ends with the last one. So there are at most as many
//! entries as the circles of the users here have places (`limits::CONTACTS` each). The owner of the foreign user keeps one place
//! for each entry. A pair is decided here for the watcher of this core and at the other core for the other one; both decide by
//! the same rule, that each is in the other's circle.

use std::collections::{BTreeSet, HashMap, HashSet};

use madang_engine::session::Now;
use madang_ids::UserId;
use madang_proto::{Availability, PresenceList, UserPresence};

use super::user::{Load, Shown, Synced, User};
use super::{Core, Notice, NoticeTarget, Settling, State};

/// A user of another core who is watched here.
#[derive(Debug, Default)]
pub(super) struct Foreign {
    /// The number of users here in whose circle the user is.
    pub(super) watchers: usize,
    /// `None` until the owner has stated something.
    known: Option<Known>,
    /// The owner has stated something under the present view. Until then `known` lacks the watchers who have come with the view.
    is_stated: bool,
    /// Users here who watch the user and wait for the first state.
    waiting: Vec<UserId>,
}

#[derive(Debug)]
struct Known {
    card: UserPresence,
    /// The users of this core whom the user watches, sorted.
    circle: Box<[UserId]>,
}

impl Foreign {
    /// Whether it is unknown yet what `watcher` sees of the user.
    fn is_unknown_to(&self, watcher: UserId) -> bool {
        self.known.as_ref().is_none_or(|known| !self.is_stated && !known.watches(watcher))
    }
}

impl Known {
    fn is_online(&self) -> bool {
        self.card.state != Availability::Offline
    }

    fn watches(&self, other: UserId) -> bool {
        self.circle.binary_search(&other).is_ok()
    }
}

impl Core {
    /// The card of a foreign user, if the user and `watcher` are a pair.
    pub(super) fn foreign_card(&self, id: UserId, watcher: UserId) -> Option<UserPresence> {
        let known = self.foreign.get(&id)?.known.as_ref()?;
        known.watches(watcher).then(|| known.card.clone())
    }

    /// The circle of a user was replaced. Adds to `cards` what the user must hear of foreign users.
    pub(super) fn change_foreign(
        &mut self,
        id: UserId,
        old: &HashSet<UserId>,
        new: &HashSet<UserId>,
        cards: &mut Vec<UserPresence>,
    ) {
        let me = self.me.process;
        for other in
            old.difference(new).copied().filter(|other| !self.view.owns(me, *other)).collect::<Vec<_>>()
        {
            let card = self.foreign_card(other, id).filter(|card| card.state != Availability::Offline);
            cards.extend(card.map(|_| UserPresence::offline(other)));
            self.end_interest(other, id);
        }
        for other in new.iter().copied().filter(|other| !self.view.owns(me, *other)).collect::<Vec<_>>() {
            let is_new = !old.contains(&other);
            if is_new {
                self.begin_interest(other, id);
            }
            let Some(known) = self.foreign.get(&other).and_then(|found| found.known.as_ref()) else {
                continue;
            };
            let (is_online, are_pair) = (known.is_online(), known.watches(id));
            if is_online && are_pair && is_new {
                cards.push(known.card.clone());
            }
            if !are_pair {
                // One of the two circles was read before they met, or after they parted; or the user is shown as offline, with
                // an unknown circle. An invisible user must see this one all the same, so the owner compares.
                self.owe_doubt(other, id);
            }
        }
    }

    fn begin_interest(&mut self, id: UserId, watcher: UserId) {
        let is_first = !self.foreign.contains_key(&id);
        let found = self.foreign.entry(id).or_default();
        found.watchers += 1;
        if found.is_unknown_to(watcher) {
            found.waiting.push(watcher);
            *self.awaited.entry(watcher).or_default() += 1;
        }
        if is_first {
            self.owe_interest(id);
        }
    }

    fn end_interest(&mut self, id: UserId, watcher: UserId) {
        let Some(found) = self.foreign.get_mut(&id) else { return };
        found.watchers -= 1;
        let was_waiting = found.waiting.iter().position(|waiting| *waiting == watcher);
        if let Some(place) = was_waiting {
            found.waiting.swap_remove(place);
        }
        if found.watchers == 0 {
            self.foreign.remove(&id);
            self.owe_interest(id);
        }
        if was_waiting.is_some() {
            self.await_one_less(watcher);
        }
    }

    /// A user is not here any more and watches nobody.
    pub(super) fn end_watching(&mut self, id: UserId, circle: &[UserId]) {
        if self.view.is_whole() {
            return;
        }
        self.awaited.remove(&id);
        for other in circle {
            self.end_interest(*other, id);
        }
    }

    /// The owner states something about a foreign user. Ignored if nobody here watches the user any more.
    pub(super) fn take_state(&mut self, state: State) {
        let State { card, watches } = state;
        let id = card.user_id;
        let Some(found) = self.foreign.get_mut(&id) else { return };
        let old = found.known.take();
        let waiting = std::mem::take(&mut found.waiting);
        let circle = match watches {
            Some(mut circle) => {
                circle.sort_unstable();
                circle.into()
            }
            None => old.as_ref().map(|old| old.circle.clone()).unwrap_or_default(),
        };
        let new = Known { card, circle };
        let card = new.card.clone();
        let (were, are) = (self.pairs_of(id, old.as_ref()), self.pairs_of(id, Some(&new)));
        let is_other = old.as_ref().is_none_or(|old| old.card != card);
        let parted = were.difference(&are).copied().collect();
        let hear = are.iter().copied().filter(|watcher| is_other || !were.contains(watcher)).collect();
        // The circle of a user who was not known may be older than that of the watcher; that of an invisible user too.
        let lacking = waiting.iter().copied().filter(|watcher| !new.watches(*watcher));
        let mut lacking: Vec<UserId> = lacking.collect();
        // The circle of the watcher may also be newer: the pair has ended and begun again, and only the end was read here.
        let pairs = old.filter(|_| new.is_online()).map(|old| old.circle).unwrap_or_default();
        lacking.extend(pairs.into_iter().filter(|watcher| {
            !new.watches(*watcher) && self.users.get(watcher).is_some_and(|found| found.watches(id))
        }));
        if let Some(found) = self.foreign.get_mut(&id) {
            found.known = Some(new);
            found.is_stated = true;
        }
        self.notify(NoticeTarget::Users(parted), vec![UserPresence::offline(id)]);
        self.notify(NoticeTarget::Users(hear), vec![card]);
        lacking.into_iter().for_each(|watcher| self.owe_doubt(id, watcher));
        waiting.into_iter().for_each(|watcher| self.await_one_less(watcher));
    }

    /// The users here who see a foreign user online or away.
    fn pairs_of(&self, id: UserId, known: Option<&Known>) -> BTreeSet<UserId> {
        let Some(known) = known.filter(|known| known.is_online()) else { return BTreeSet::new() };
        let sees = |watcher: &&UserId| {
            self.users.get(*watcher).is_some_and(|found| found.is_loaded && found.watches(id))
        };
        known.circle.iter().filter(sees).copied().collect()
    }

    /// One foreign user fewer is awaited. After the last one the user's list is complete.
    fn await_one_less(&mut self, watcher: UserId) {
        let Some(count) = self.awaited.get_mut(&watcher) else { return };
        *count -= 1;
        if *count == 0 {
            self.awaited.remove(&watcher);
            self.end_wait(watcher);
        }
    }

    /// Whether a settled user watches a user whose state is not known yet: a foreign user, or a user of this core who is not
    /// settled. Then the user's list is not complete, and this is noted. [`Self::end_wait`] completes the list, after the last state
    /// of a foreign user or when users of this core have settled.
    pub(super) fn note_incomplete(&mut self, id: UserId) -> bool {
        if self.awaited.contains_key(&id) {
            return true;
        }
        if self.is_settled() || self.view.is_whole() || !self.is_settled_for(id) {
            return false;
        }
        let is_unknown = |other: &UserId| {
            let known = self.users.get(other).filter(|user| user.is_loaded || user.shown != Shown::default());
            known.is_none() && self.view.owns(self.me.process, *other) && !self.is_settled_for(*other)
        };
        let is_awaiting = self.users.get(&id).is_some_and(|user| user.circle.iter().any(is_unknown));
        if is_awaiting {
            self.unlisted.insert(id);
        }
        is_awaiting
    }

    fn end_wait(&mut self, id: UserId) {
        if self.users.get(&id).is_none_or(|user| !user.is_loaded) {
            return;
        }
        self.send_known_states(id);
        if self.is_settled_for(id) && !self.note_incomplete(id) {
            let list = PresenceList { complete: true, ..PresenceList::default() };
            self.notices.push_back(Notice { to: NoticeTarget::Users(vec![id]), list });
        }
    }

    /// A user of another core doubts the circle of `id`. Like [`Self::meet`] of two users of one core.
    pub(super) fn doubt(&mut self, id: UserId, watcher: UserId) {
        if self.users.get(&id).is_some_and(|user| !user.watches(watcher)) {
            self.meet(watcher, id);
        }
    }

    /// Users who have settled: their watchers in other processes hear the truth, and they themselves get their whole list. Their
    /// connections may know users as online who went offline while the user moved here.
    pub(super) fn settle_shard(&mut self, over: &[Settling]) {
        let me = self.me.process;
        let is_meant = |core: &Self, id: UserId| {
            let had = |one: &Settling| one.spares(me, id);
            !over.iter().all(had) && core.is_settled_for(id)
        };
        let settled: Vec<UserId> = self.users.keys().copied().filter(|id| is_meant(self, *id)).collect();
        for id in settled {
            if let Some(user) = self.users.get_mut(&id) {
                user.connections.iter_mut().for_each(|found| found.synced = Synced::Parts);
            }
            self.send_known_states(id);
        }
        std::mem::take(&mut self.unlisted).into_iter().for_each(|id| self.end_wait(id));
        let interested: HashSet<UserId> = self.links.values().flat_map(super::Link::all_interested).collect();
        let settled: HashSet<UserId> = interested.into_iter().filter(|id| is_meant(self, *id)).collect();
        self.owe_settled(|id| settled.contains(&id));
    }

    /// The users of a process who are watched here.
    pub(super) fn interest_in(&self, process: u16) -> BTreeSet<UserId> {
        self.foreign.keys().copied().filter(|id| self.view.owner(*id) == Some(process)).collect()
    }

    /// After a change of the view: users who are not this core's any more become foreign, foreign ones who are this core's now
    /// become its own, and nobody's watchers see a change.
    pub(super) fn move_users(&mut self, now: Now) {
        let me = self.me.process;
        let mut known: HashMap<UserId, Known> = HashMap::new();
        for (id, found) in std::mem::take(&mut self.foreign) {
            known.extend(found.known.map(|known| (id, known)));
        }
        let waited: Vec<UserId> = std::mem::take(&mut self.awaited).into_keys().collect();
        let moved: Vec<UserId> = self.users.keys().copied().filter(|id| !self.view.owns(me, *id)).collect();
        for id in moved {
            let Some(user) = self.users.remove(&id) else { continue };
            self.expected.remove(&id);
            self.hand_over(id, &user, now);
            if matches!(user.load, Load::Runs | Load::RunsInVain) {
                self.abandoned.insert(id);
            }
            if user.is_loaded || user.shown != Shown::default() {
                let circle = user.circle.iter().copied().filter(|other| self.view.owns(me, *other)).collect();
                known.insert(id, Known { card: user.card(id), circle });
            }
        }
        let come: Vec<UserId> = known.keys().copied().filter(|id| self.view.owns(me, *id)).collect();
        for id in come {
            if let Some(known) = known.remove(&id).filter(Known::is_online) {
                self.take_in(id, known);
            }
        }
        let circles: Vec<(UserId, UserId)> = self
            .users
            .iter()
            .flat_map(|(id, user)| user.circle.iter().map(|other| (*other, *id)))
            .filter(|(other, _)| !self.view.owns(me, *other))
            .collect();
        for (other, id) in circles {
            let found = self.foreign.entry(other).or_default();
            found.watchers += 1;
            found.known = found.known.take().or_else(|| known.remove(&other));
            if found.is_unknown_to(id) {
                found.waiting.push(id);
                *self.awaited.entry(id).or_default() += 1;
            }
        }
        for id in waited {
            if self.view.owns(me, id) && !self.awaited.contains_key(&id) {
                self.end_wait(id);
            }
        }
    }

    /// A user who was foreign and is this core's now. Shown as before, until a node has a connection or the user is settled.
    fn take_in(&mut self, id: UserId, known: Known) {
        let Known { card, circle } = known;
        let circle = circle.iter().copied().filter(|other| self.view.owns(self.me.process, *other)).collect();
        let user = User {
            shown: Shown { state: card.state, status: card.status.map(Into::into) },
            circle,
            rev: card.rev,
            last_active_at: card.last_active_at.unwrap_or_default(),
            ..User::default()
        };
        self.users.insert(id, Box::new(user));
    }
}
