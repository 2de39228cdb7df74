//! What connections have been sent, compared with the truth.

use super::*;

impl World {
    /// The connections of a machine receive a notice.
    pub(super) fn hear(&mut self, number: u16, Notice { to, list }: Notice) {
        let Some(machine) = self.machines.get(&number) else { return };
        for up in machine.connections.clone() {
            let is_meant = match &to {
                NoticeTarget::Users(users) => users.contains(&up.user),
                NoticeTarget::Connection(_, connection) => up.connection == *connection,
            };
            if !is_meant {
                continue;
            }
            let known = self.known.entry(up.connection).or_default();
            let before = known.clone();
            if list.anew {
                known.clear();
            }
            known.extend(list.users.iter().map(|card| (card.user_id, (card.state, card.status.clone()))));
            let after = known.clone();
            if list.anew {
                self.before.entry(up.connection).or_insert_with(|| before.clone());
                self.complete.remove(&up.connection);
            }
            if list.complete {
                self.complete.insert(up.connection);
                let before = self.before.remove(&up.connection).unwrap_or(before);
                self.check_nobody_falls(up, &before, &after);
            } else if !list.anew {
                self.check_nobody_falls(up, &before, &after);
            }
        }
    }

    /// Whether a client of the user is there, or will be back.
    pub(super) fn is_online(&self, user: UserId) -> bool {
        self.clients.iter().any(|client| client.user == user && !client.is_gone)
    }

    pub(super) fn check_nobody_falls(&self, up: Up, before: &Known, after: &Known) {
        let is_seen = |known: &Known, user: UserId| {
            known.get(&user).is_some_and(|(state, _)| *state != Availability::Offline)
        };
        for user in (1..=USERS).map(UserId::from_raw).filter(|user| *user != up.user) {
            let falls = is_seen(before, user) && !is_seen(after, user);
            assert!(
                !falls || !self.is_online(user),
                "{} sees {user} go offline at {:?}, who is there",
                up.user,
                self.now.elapsed
            );
        }
    }

    /// Every connection of a machine that is not paused knows who is there, and their texts.
    pub(in crate::fleet::tests) fn check_right(&self) {
        let machines = self.machines.iter().filter(|(_, one)| one.paused.is_none() && one.node.is_some());
        for (number, up) in
            machines.flat_map(|(number, one)| one.connections.iter().map(move |up| (number, up)))
        {
            let known = &self.known[&up.connection];
            assert!(self.complete.contains(&up.connection), "{up:?} of {number} has no complete list");
            for user in (1..=USERS).map(UserId::from_raw).filter(|user| *user != up.user) {
                let is_online = self.is_online(user);
                let text = self.rows.get(&user).and_then(|row| row.status.clone()).filter(|_| is_online);
                let state = if is_online { Availability::Online } else { Availability::Offline };
                let of = known.get(&user).cloned().unwrap_or((Availability::Offline, None));
                assert_eq!(of, (state, text), "{} on {number} of {user} at {:?}", up.user, self.now.elapsed);
            }
        }
    }
}
