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
        let Loaded { user: id, row, rev, circle } = loaded;
        let Some(user) = self.users.get_mut(&id) else { return };
        user.touch(now.at);
        let was_loaded = user.is_loaded;
        let settings = Settings { invisible: row.invisible, status: row.status.map(Into::into) };
        let has_changed = was_loaded && user.settings != settings;
        user.settings = settings;
        user.rev = user.rev.max(rev);
        user.last_active_at = user.last_active_at.max(row.last_active_at.unwrap_or(Millis::ZERO));
        user.is_loaded |= circle.is_some();
        user.touch(now.at);
        let met = self.expected.remove(&id).unwrap_or_default();
        let read = circle.as_deref().unwrap_or(&user.circle);
        let lacks = read.len() < limits::CONTACTS as usize && met.iter().any(|other| !read.contains(other));
        // What was read is from before a change, or before somebody met her.
        let is_old = std::mem::take(&mut user.load) == Load::RunsInVain || lacks;
        // A pair that was made since must not end for a moment.
        let circle = circle.filter(|_| !is_old || !was_loaded);
        user.wants_circle |= is_old;
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
            // The next read begins after they met.
            self.expected.remove(&wanted.user);
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
        self.notices
            .push_back(Notice { to, list: PresenceList { complete: true, ..PresenceList::default() } });
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
            // Who missed something forgets the rest as well.
            let ends = Ends { anew: told == Told::Parts, complete: self.is_settled() };
            self.tell_all(To::Connection(id, connection), &self.everybody(id), ends);
        }
    }

    /// A user herself, if she says something, and whom she watches and who is there.
    fn everybody(&self, id: UserId) -> Vec<UserPresence> {
        let Some(user) = self.users.get(&id) else { return Vec::new() };
        let own = (user.settings != Settings::default()).then(|| user.own_card(id));
        let others = user.circle.iter().filter_map(|other| {
            let found = self.users.get(other).filter(|found| found.watches(id))?;
            Some(found.card(*other)).filter(|card| card.state != Availability::Offline)
        });
        own.into_iter().chain(others).collect()
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
        for other in &new {
            let watches = || self.users.get(other).is_some_and(|found| found.watches(id));
            let were_pair = old.contains(other) && watches();
            if let Some(card) = self.meet(id, *other).filter(|_| !were_pair) {
                met.push(*other);
                cards.extend((card.state != Availability::Offline).then_some(card));
            }
        }
        if let Some(own) = own {
            self.tell(To::Users(parted), vec![UserPresence::offline(id)]);
            self.tell(To::Users(met), vec![own]);
        }
        if was_loaded {
            self.tell_all(To::Users(vec![id]), &cards, Ends::default());
        }
    }

    /// `other` is watched no longer: how he was, if the two watched each other.
    fn part(&mut self, id: UserId, other: UserId) -> Option<UserPresence> {
        let found = self.users.get_mut(&other)?;
        found.watches(id).then(|| {
            found.unwatch(id);
            found.card(other)
        })
    }

    /// `other` is watched: how he is, if the two watch each other now.
    fn meet(&mut self, id: UserId, other: UserId) -> Option<UserPresence> {
        let found = self.users.get(&other)?;
        let are_pair = found.watches(id);
        match found.load {
            Load::Runs | Load::RunsInVain => self.expected.entry(other).or_default().push(id),
            // One of the two was read before they met, or after they parted.
            Load::Rests if !are_pair && found.circle.len() < limits::CONTACTS as usize => {
                self.want(other, true);
            }
            Load::Rests | Load::Waits => {}
        }
        let found = self.users.get(&other)?;
        are_pair.then(|| found.card(other))
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
            self.notices.push_back(Notice { to, list: PresenceList { users, ..PresenceList::default() } });
        }
    }

    /// In frames of a bounded size.
    fn tell_all(&mut self, to: To, cards: &[UserPresence], ends: Ends) {
        let mut frames: Vec<PresenceList> = cards
            .chunks(limits::PRESENCE_USERS)
            .map(|users| PresenceList { users: users.to_vec(), ..PresenceList::default() })
            .collect();
        if frames.is_empty() && (ends.anew || ends.complete) {
            frames.push(PresenceList::default());
        }
        if let Some(first) = frames.first_mut() {
            first.anew = ends.anew;
        }
        if let Some(last) = frames.last_mut() {
            last.complete = ends.complete;
        }
        self.notices.extend(frames.into_iter().map(|list| Notice { to: to.clone(), list }));
    }
}

/// What the first and the last frame of a list say of it.
#[derive(Debug, Clone, Copy, Default)]
struct Ends {
    anew: bool,
    complete: bool,
}
