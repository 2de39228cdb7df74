//! Decides which users are notified of which states. Users watch each other in pairs: two users are a pair if each is in the other's circle.

use std::collections::HashSet;

use madang_engine::session::Now;
use madang_ids::{ConnectionId, Millis, UserId};
use madang_proto::{Availability, PresenceList, UserPresence, limits};
use smallvec::SmallVec;

use super::user::{Connection, Load, Synced};
use super::{Core, Loaded, Notice, NoticeTarget, Settings, Settling, Shown, Wanted};

impl Core {
    /// The rows of a user were read.
    pub fn handle_loaded(&mut self, loaded: Loaded, now: Now) {
        let Loaded { user: id, row, rev, circle } = loaded;
        if self.is_abandoned(id) {
            return;
        }
        let Some(user) = self.users.get_mut(&id) else { return };
        // The activity up to now, still under the old settings: a user who was visible until now was seen.
        user.touch(now.at);
        let was_loaded = user.is_loaded;
        let settings = Settings { invisible: row.invisible, status: row.status.map(Into::into) };
        let has_changed = was_loaded && user.settings != settings;
        user.settings = settings;
        user.rev = user.rev.max(rev);
        user.last_active_at = user.last_active_at.max(row.last_active_at.unwrap_or(Millis::ZERO));
        user.is_loaded |= circle.is_some();
        user.touch(now.at);
        // Users who were read while this read was running and watch this user. If the read does not know one of them, it began
        // before the two met. A full circle proves nothing, because it may have been cut off.
        let met = self.expected.remove(&id).unwrap_or_default();
        let read = circle.as_deref().unwrap_or(&user.circle);
        let lacks = read.len() < limits::CONTACTS as usize && met.iter().any(|other| !read.contains(other));
        // Something has changed since the read began, or the read began before a pair existed. It must be repeated.
        let is_old = std::mem::take(&mut user.load) == Load::RunsInVain || lacks;
        // An out-of-date circle of a loaded user is not applied, because a pair that was made since would end for a moment. In a
        // first read no pair can end.
        let circle = circle.filter(|_| !is_old || !was_loaded);
        user.wants_circle |= is_old;
        if has_changed {
            let own = user.own_card(id);
            self.notify(NoticeTarget::Users(vec![id]), vec![own]);
        }
        // A user who has moved here is shown as before the move, although nothing was read here.
        if was_loaded || self.users.get(&id).is_some_and(|user| user.shown != Shown::default()) {
            // Before the circle changes: users who come into it get the new state, and never the one before an invisible setting.
            self.publish_state(id, now);
        }
        if let Some(circle) = circle {
            self.change_circle(id, circle, was_loaded);
        }
        if !was_loaded {
            // Before this nothing could be stated about the user, not even that they are offline.
            self.owe_state(id, true);
        }
        if is_old {
            self.want(id, false);
        }
        self.send_known_states(id);
        self.publish_state(id, now);
    }

    /// The rows of a user could not be read. They are queued again.
    pub fn handle_not_loaded(&mut self, wanted: Wanted) {
        if self.is_abandoned(wanted.user) {
            return;
        }
        if let Some(user) = self.users.get_mut(&wanted.user) {
            user.load = Load::Rests;
            // The next read begins after these users have met, so it will see them.
            self.expected.remove(&wanted.user);
            self.want(wanted.user, wanted.circle);
            self.forget_gone(wanted.user);
        }
    }

    /// A read of a user who has moved away has returned. If the user has come back since, a new one is due.
    fn is_abandoned(&mut self, id: UserId) -> bool {
        let is_abandoned = self.abandoned.remove(&id);
        if is_abandoned && self.users.get(&id).is_some_and(|user| user.load == Load::Waits) {
            self.wanted.push_back(id);
        }
        is_abandoned
    }

    /// One lease has passed since the start of the process, or since a view has moved users here: those without a connection are
    /// offline now.
    pub(super) fn settle(&mut self, over: &[Settling], now: Now) {
        let all: Vec<UserId> = self.users.keys().copied().collect();
        all.iter().for_each(|id| self.publish_state(*id, now));
        if !self.view.is_whole() {
            return self.settle_shard(over);
        }
        // Also connections of a node whose lease has expired: they may still be open.
        let known = self.users.iter().filter(|(_, user)| user.is_loaded);
        let to = NoticeTarget::Users(known.map(|(id, _)| *id).collect());
        self.notices
            .push_back(Notice { to, list: PresenceList { complete: true, ..PresenceList::default() } });
    }

    /// Notifies the watchers of a user's state if it differs from what they were sent.
    pub(super) fn publish_state(&mut self, id: UserId, now: Now) {
        let is_settled = self.is_settled_for(id);
        let Some(user) = self.users.get_mut(&id) else { return };
        let next = if user.is_loaded { user.to_show() } else { Shown::default() };
        let goes = next.state == Availability::Offline;
        if goes && !is_settled && !user.settings.invisible {
            // Another node may have a connection of this user and has not sent its set yet.
            return;
        }
        if goes && !user.is_loaded && !user.connections.is_empty() {
            // The user has moved here and is connected. Only the rows tell whether others may see that.
            return;
        }
        if next != user.shown {
            // Going offline is never held back. Any other change waits, and only the state at that time is sent.
            if !goes && now.elapsed < user.paced_until {
                self.looks.insert((user.paced_until, id));
                return;
            }
            let comes_or_goes = goes || user.shown.state == Availability::Offline;
            user.shown = next;
            user.paced_until = now.elapsed + self.config.pace();
            let (card, mark) = (user.card(id), user.last_active_at);
            if goes {
                self.leave_mark(id, mark);
            }
            let watchers = self.watchers(id);
            self.notify(NoticeTarget::Users(watchers), vec![card]);
            self.owe_state(id, comes_or_goes);
        }
        self.forget_gone(id);
    }

    /// Sends the states of all watched users, and the user's own settings, to connections of the user that lack them.
    pub(super) fn send_known_states(&mut self, id: UserId) {
        let lacks = |found: &Connection| found.leaves_at.is_none() && found.synced != Synced::All;
        if !self.users.get(&id).is_some_and(|user| user.is_loaded && user.connections.iter().any(lacks)) {
            return;
        }
        // A connection that clears what it knows must not lose users of whom nothing is known here yet.
        let is_awaiting = self.note_incomplete(id);
        let Some(user) = self.users.get_mut(&id) else { return };
        let mut greeted: SmallVec<[(ConnectionId, Synced); 1]> = SmallVec::new();
        for found in user.connections.iter_mut().filter(|found| lacks(found)) {
            if found.synced == Synced::Nothing || !is_awaiting {
                greeted.push((found.id, std::mem::replace(&mut found.synced, Synced::All)));
            }
        }
        for (connection, told) in greeted {
            // A connection that missed a frame clears what it knows and starts again.
            let ends =
                Ends { anew: told == Synced::Parts, complete: self.is_settled_for(id) && !is_awaiting };
            self.tell_all(NoticeTarget::Connection(id, connection), &self.everybody(id), ends);
        }
    }

    /// The cards of the user, if they have set anything, and of all watched users who are not offline.
    fn everybody(&self, id: UserId) -> Vec<UserPresence> {
        let Some(user) = self.users.get(&id) else { return Vec::new() };
        let own = (user.settings != Settings::default()).then(|| user.own_card(id));
        let others = user.circle.iter().filter_map(|other| {
            let card = match self.users.get(other) {
                Some(found) => found.watches(id).then(|| found.card(*other)),
                None => self.foreign_card(*other, id),
            };
            card.filter(|card| card.state != Availability::Offline)
        });
        own.into_iter().chain(others).collect()
    }

    /// Replaces a circle. Both sides of each pair that begins or ends are notified.
    fn change_circle(&mut self, id: UserId, mut circle: Vec<UserId>, was_loaded: bool) {
        circle.truncate(limits::CONTACTS as usize);
        circle.sort_unstable();
        circle.dedup();
        circle.retain(|other| *other != id);
        let Some(user) = self.users.get_mut(&id) else { return };
        let old = std::mem::replace(&mut user.circle, circle.clone().into());
        let own = Some(user.card(id)).filter(|card| card.state != Availability::Offline);
        let is_other = *old != *circle;
        let (old, new): (HashSet<_>, HashSet<_>) = (old.into_iter().collect(), circle.into_iter().collect());
        let (mut cards, mut parted, mut met) = (Vec::new(), Vec::new(), Vec::new());
        for other in old.difference(&new) {
            // Both sides end at once: `part` also removes this user from the other's circle, whose own read may come later.
            if let Some(card) = self.part(id, *other) {
                parted.push(*other);
                cards.extend((card.state != Availability::Offline).then(|| UserPresence::offline(*other)));
            }
        }
        for other in &new {
            let watches = || self.users.get(other).is_some_and(|found| found.watches(id));
            // Asked before `meet`, and also of the old circle: an existing pair is not announced again.
            let were_pair = old.contains(other) && watches();
            if let Some(card) = self.meet(id, *other).filter(|_| !were_pair) {
                met.push(*other);
                cards.extend((card.state != Availability::Offline).then_some(card));
            }
        }
        if !self.view.is_whole() {
            self.change_foreign(id, &old, &new, &mut cards);
        }
        if is_other {
            self.owe_state(id, true);
        }
        if let Some(own) = own {
            self.notify(NoticeTarget::Users(parted), vec![UserPresence::offline(id)]);
            self.notify(NoticeTarget::Users(met), vec![own]);
        }
        // After the first read `greet` sends everything to each connection, so the changes alone are not sent.
        if was_loaded {
            self.tell_all(NoticeTarget::Users(vec![id]), &cards, Ends::default());
        }
    }

    /// Ends the pair with `other`. Returns the card of `other` if the two were a pair.
    fn part(&mut self, id: UserId, other: UserId) -> Option<UserPresence> {
        let found = self.users.get_mut(&other)?;
        found.watches(id).then(|| {
            found.unwatch(id);
            found.card(other)
        })
    }

    /// Begins to watch `other`. Returns the card of `other` if the two are a pair now.
    pub(super) fn meet(&mut self, id: UserId, other: UserId) -> Option<UserPresence> {
        let found = self.users.get(&other)?;
        let are_pair = found.watches(id);
        match found.load {
            // The running read of `other` may have begun before the two met. `handle_loaded` compares its result with this list.
            Load::Runs | Load::RunsInVain => self.expected.entry(other).or_default().push(id),
            // The circles disagree: one of the two was read before they met, or after they parted. The other one is read again.
            Load::Rests if !are_pair && found.circle.len() < limits::CONTACTS as usize => {
                self.want(other, true);
            }
            Load::Rests | Load::Waits => {}
        }
        let found = self.users.get(&other)?;
        are_pair.then(|| found.card(other))
    }

    /// The users who are notified about a user.
    fn watchers(&self, id: UserId) -> Vec<UserId> {
        let Some(user) = self.users.get(&id) else { return Vec::new() };
        let hears = |other: &&UserId| {
            let found = self.users.get(*other);
            found.is_some_and(|found| found.is_loaded && found.watches(id))
        };
        user.circle.iter().filter(hears).copied().collect()
    }

    pub(super) fn notify(&mut self, to: NoticeTarget, users: Vec<UserPresence>) {
        if !matches!(&to, NoticeTarget::Users(users) if users.is_empty()) {
            self.notices.push_back(Notice { to, list: PresenceList { users, ..PresenceList::default() } });
        }
    }

    /// Sends cards in frames of a bounded size.
    fn tell_all(&mut self, to: NoticeTarget, cards: &[UserPresence], ends: Ends) {
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

/// The flags of the first and of the last frame of a list.
#[derive(Debug, Clone, Copy, Default)]
struct Ends {
    anew: bool,
    complete: bool,
}
