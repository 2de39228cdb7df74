//! Who is told what. Watching is pair by pair: two hear of each other if each is in the other's circle.

use std::collections::HashSet;

use madang_engine::session::Now;
use madang_ids::{ConnectionId, Millis, UserId};
use madang_proto::{Availability, PresenceList, UserPresence, limits};
use smallvec::SmallVec;

use super::user::{Load, Told};
use super::{Core, Loaded, Notice, Settings, Shown, To, Wanted};

impl Core {
    /// A user's rows were read.
    pub fn handle_loaded(&mut self, loaded: Loaded, now: Now) {
        let Loaded { user: id, row, circle } = loaded;
        let Some(user) = self.users.get_mut(&id) else { return };
        user.touch(now.at);
        let was_loaded = user.is_loaded;
        let settings = Settings { invisible: row.invisible, status: row.status.map(Into::into) };
        let has_changed = was_loaded && user.settings != settings;
        user.settings = settings;
        user.last_active_at = user.last_active_at.max(row.last_active_at.unwrap_or(Millis::ZERO));
        user.is_loaded |= circle.is_some();
        user.touch(now.at);
        let is_old = std::mem::take(&mut user.load) == Load::RunsInVain;
        if has_changed {
            let own = user.own_card(id);
            self.tell(To::Users(vec![id]), vec![own]);
        }
        if was_loaded {
            // Before somebody comes into the circle, who would be told how she was.
            self.show(id, now);
        }
        if let Some(circle) = circle {
            self.change_circle(id, circle, was_loaded);
        }
        if is_old {
            self.want(id, false);
        }
        self.greet(id);
        self.show(id, now);
    }

    /// A user's rows could not be read; they are wanted again.
    pub fn handle_not_loaded(&mut self, wanted: Wanted) {
        if let Some(user) = self.users.get_mut(&wanted.user) {
            user.load = Load::Rests;
            self.want(wanted.user, wanted.circle);
            self.forget_gone(wanted.user);
        }
    }

    /// The process knows now who is not there.
    pub(super) fn settle(&mut self, now: Now) {
        let all: Vec<UserId> = self.users.keys().copied().collect();
        all.iter().for_each(|id| self.show(*id, now));
        // Also of a node whose lease ended: its connections may live.
        let known = self.users.iter().filter(|(_, user)| user.is_loaded);
        let to = To::Users(known.map(|(id, _)| *id).collect());
        self.notices.push_back(Notice { to, list: PresenceList { users: Vec::new(), complete: true } });
    }

    /// Tells those who watch a user how she is, if that is not what they were told.
    pub(super) fn show(&mut self, id: UserId, now: Now) {
        let is_settled = self.is_settled();
        let Some(user) = self.users.get_mut(&id) else { return };
        let next = if user.is_loaded { user.to_show() } else { Shown::default() };
        let goes = next.state == Availability::Offline;
        if goes && !is_settled && !user.settings.invisible {
            // Another node may have her.
            return;
        }
        if next != user.shown {
            if !goes && now.elapsed < user.paced_until {
                self.looks.insert((user.paced_until, id));
                return;
            }
            user.shown = next;
            user.paced_until = now.elapsed + self.config.pace();
            let (card, mark) = (user.card(id), user.last_active_at);
            if goes {
                self.leave_mark(id, mark);
            }
            let watchers = self.watchers(id);
            self.tell(To::Users(watchers), vec![card]);
        }
        self.forget_gone(id);
    }

    /// Tells connections of a user that do not know it yet how everybody is whom she watches, and what she says of
    /// herself.
    pub(super) fn greet(&mut self, id: UserId) {
        let Some(user) = self.users.get_mut(&id).filter(|user| user.is_loaded) else { return };
        let mut greeted: SmallVec<[(ConnectionId, Told); 1]> = SmallVec::new();
        for found in user.connections.iter_mut().filter(|found| found.leaves_at.is_none()) {
            if found.told != Told::All {
                greeted.push((found.id, std::mem::replace(&mut found.told, Told::All)));
            }
        }
        for (connection, told) in greeted {
            // Who missed something may have missed that somebody went.
            let with_offline = told == Told::Parts && self.is_settled();
            let cards = self.everybody(id, with_offline);
            self.tell_all(To::Connection(id, connection), &cards, self.is_settled());
        }
    }

    /// A user herself, if she says something, and those whom she watches.
    fn everybody(&self, id: UserId, with_offline: bool) -> Vec<UserPresence> {
        let Some(user) = self.users.get(&id) else { return Vec::new() };
        let own = (with_offline || user.settings != Settings::default()).then(|| user.own_card(id));
        let others = user.circle.iter().map(|other| {
            let found = self.users.get(other).filter(|found| found.watches(id));
            found.map_or_else(|| UserPresence::offline(*other), |found| found.card(*other))
        });
        let is_named = |card: &UserPresence| with_offline || card.state != Availability::Offline;
        own.into_iter().chain(others.filter(is_named)).collect()
    }

    /// Another circle: those who come into it and those who go are told of, both ways.
    fn change_circle(&mut self, id: UserId, mut circle: Vec<UserId>, was_loaded: bool) {
        circle.truncate(limits::CONTACTS as usize);
        circle.sort_unstable();
        circle.dedup();
        circle.retain(|other| *other != id);
        let Some(user) = self.users.get_mut(&id) else { return };
        let old = std::mem::replace(&mut user.circle, circle.clone().into());
        let own = Some(user.card(id)).filter(|card| card.state != Availability::Offline);
        let (old, new): (HashSet<_>, HashSet<_>) = (old.into_iter().collect(), circle.into_iter().collect());
        let (mut cards, mut parted, mut met) = (Vec::new(), Vec::new(), Vec::new());
        for other in old.difference(&new) {
            if let Some(card) = self.part(id, *other) {
                parted.push(*other);
                cards.extend((card.state != Availability::Offline).then(|| UserPresence::offline(*other)));
            }
        }
        for other in new.difference(&old) {
            if let Some(card) = self.meet(id, *other) {
                met.push(*other);
                cards.extend((card.state != Availability::Offline).then_some(card));
            }
        }
        if let Some(own) = own {
            self.tell(To::Users(parted), vec![UserPresence::offline(id)]);
            self.tell(To::Users(met), vec![own]);
        }
        if was_loaded {
            self.tell_all(To::Users(vec![id]), &cards, false);
        }
    }

    /// `other` is watched no longer: how he was, if the two watched each other.
    fn part(&mut self, id: UserId, other: UserId) -> Option<UserPresence> {
        let found = self.users.get_mut(&other)?;
        found.outdate();
        found.watches(id).then(|| {
            found.set_watched(id, false);
            found.card(other)
        })
    }

    /// `other` is watched: how he is, if the two watch each other now.
    fn meet(&mut self, id: UserId, other: UserId) -> Option<UserPresence> {
        let found = self.users.get_mut(&other)?;
        found.outdate();
        let has_room = found.watches(id) || found.circle.len() < limits::CONTACTS as usize;
        (found.is_loaded && has_room).then(|| {
            found.set_watched(id, true);
            found.card(other)
        })
    }

    /// Those who hear of a user.
    fn watchers(&self, id: UserId) -> Vec<UserId> {
        let Some(user) = self.users.get(&id) else { return Vec::new() };
        let hears = |other: &&UserId| {
            let found = self.users.get(*other);
            found.is_some_and(|found| found.is_loaded && found.watches(id))
        };
        user.circle.iter().filter(hears).copied().collect()
    }

    fn tell(&mut self, to: To, users: Vec<UserPresence>) {
        if !matches!(&to, To::Users(users) if users.is_empty()) {
            self.notices.push_back(Notice { to, list: PresenceList { users, complete: false } });
        }
    }

    /// In frames of a bounded size; the last one may say that this was all.
    fn tell_all(&mut self, to: To, cards: &[UserPresence], complete: bool) {
        let mut rest = cards;
        while rest.len() > limits::PRESENCE_USERS {
            let (users, more) = rest.split_at(limits::PRESENCE_USERS);
            self.tell(to.clone(), users.to_vec());
            rest = more;
        }
        if complete || !rest.is_empty() {
            self.notices.push_back(Notice { to, list: PresenceList { users: rest.to_vec(), complete } });
        }
    }
}
