//! What happens while time passes: messages are sent, spoiled and delivered, notices are compared, and the end is checked.

use super::*;

impl World {
    pub(super) fn end(&mut self, up: Up, wait: Duration) {
        self.real.retain(|real| real.up.connection != up.connection);
        let key = (up.user, up.connection);
        for views in &mut self.views {
            views.known.remove(&key);
            views.complete.remove(&key);
            views.deaf.remove(&key);
        }
        let until = self.waits.entry((up.user, up.device)).or_default();
        *until = (*until).max(self.now.elapsed + wait);
        self.note_absent();
    }

    /// Calls `each` for each core to which a node with this view sends its set, with the view that the set states.
    pub(super) fn for_each_core(
        &mut self,
        view: &View,
        each: impl Fn((&mut Core, &View, Now), &dyn Fn(UserId) -> bool),
    ) {
        let is_blind = self.has(Fault::SetOfAnyView);
        for (process, core) in &mut self.cores {
            let stated = match (*process, is_blind) {
                (WHOLE, _) => View::whole(),
                (_, true) => core.view.clone(),
                (_, false) => view.clone(),
            };
            let owns = |user: UserId| *process == WHOLE || view.owner(user) == Some(*process);
            each((core, &stated, self.now), &owns);
        }
    }

    /// A node sends its full set, to each core the part of it that the core owns.
    pub(super) fn resend(&mut self, node: usize) {
        self.nodes[node].run.set += 1;
        let (run, view) = (self.nodes[node].run, self.nodes[node].view.clone());
        let here = self.real.iter().filter(|real| real.node == node);
        let set: Vec<Up> = here.map(|real| Up { is_idle: real.is_idle, ..real.up }).collect();
        self.for_each_core(&view, |core, owns| {
            let part: Vec<Up> = set.iter().filter(|up| owns(up.user)).copied().collect();
            core.0.handle_set(run, core.1, &part, core.2);
        });
    }

    pub(super) fn learn(&mut self) {
        let due = |at: &Duration| *at <= self.now.elapsed;
        let learners: Vec<_> = self.learns_at.iter().filter(|(_, at)| due(at)).map(|(who, _)| *who).collect();
        let view = View::of(&self.live);
        for learner in learners {
            self.learns_at.remove(&learner);
            match learner {
                Ok(process) => {
                    let lease = PresenceConfig::default().lease();
                    let mut now = self.now;
                    if self.has(Fault::MovedAreSettled) {
                        now.elapsed -= lease;
                    }
                    if let Some(core) = self.cores.get_mut(&process) {
                        core.handle_view(view.clone(), now);
                    }
                }
                Err(node) => {
                    self.nodes[node].view = view.clone();
                    self.resend(node);
                }
            }
        }
    }

    pub(super) fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.learn();
            self.list_nodes();
            for node in 0..2 {
                let run = self.nodes[node].run;
                self.cores.values_mut().for_each(|core| core.handle_renewal(run, self.now));
            }
            self.now.elapsed += Duration::from_secs(1);
            self.now.at = self.now.at.plus(1_000);
            self.cores.values_mut().for_each(|core| core.handle_time(self.now));
            self.note_absent();
            if self.holds {
                // What has changed is not read meanwhile.
                self.shaky.values_mut().for_each(|until| *until += Duration::from_secs(1));
            }
            self.settle();
        }
    }

    /// Users who are really offline.
    pub(super) fn note_absent(&mut self) {
        for id in (1..=USERS).map(user) {
            let is_up = self.real.iter().any(|real| real.up.user == id);
            let is_waited = self.waits.iter().any(|((of, _), until)| *of == id && *until > self.now.elapsed);
            if !is_up && !is_waited {
                self.shaky.insert(id, self.now.elapsed + SHAKY);
            }
        }
    }

    /// Reads rows, sends and delivers messages and notices, until nothing is left to do at this time.
    pub(super) fn settle(&mut self) {
        loop {
            self.hear();
            self.ask_strangers();
            self.read();
            self.send();
            let due: Vec<Sent> = self.sent.extract_if(.., |sent| sent.at <= self.now.elapsed).collect();
            let is_quiet = due.is_empty() && (self.holds || self.reading.is_empty());
            self.deliver(due);
            if !self.holds {
                // Later reads may be answered first.
                for (process, loaded) in std::mem::take(&mut self.reading).into_iter().rev() {
                    if let Some(core) = self.cores.get_mut(&process) {
                        core.handle_loaded(loaded, self.now);
                    }
                }
            }
            if is_quiet {
                return self.hear();
            }
        }
    }

    pub(super) fn read(&mut self) {
        for (process, core) in &mut self.cores {
            for wanted in core.poll_wanted(99) {
                let id = wanted.user;
                let row = self.rows.get(&id).cloned().unwrap_or_default();
                let circle =
                    || self.pairs.iter().filter(|(one, _)| *one == id).map(|(_, other)| *other).collect();
                let loaded = Loaded { user: id, row, rev: 1, circle: wanted.circle.then(circle) };
                self.reading.push((*process, loaded));
            }
        }
    }

    pub(super) fn ask_strangers(&mut self) {
        if self.asked_at == self.now.elapsed {
            return;
        }
        self.asked_at = self.now.elapsed;
        let mut asked = BTreeSet::new();
        for core in self.cores.values_mut() {
            while let Some(run) = core.poll_stranger() {
                asked.extend((0..2).filter(|node| self.nodes[*node].run.worker == run.worker));
            }
        }
        if !self.has(Fault::StrangersAreNotAsked) {
            // Once a second: a node with another view is asked at each renewal.
            asked.into_iter().for_each(|node| self.resend(node));
        }
    }

    pub(super) fn send(&mut self) {
        let mut polled = Vec::new();
        for (process, core) in self.cores.iter_mut().filter(|(process, _)| **process != WHOLE) {
            while let Some((to, message)) = core.poll_message(self.now) {
                polled.push((*process, to, message));
            }
        }
        self.hand_over();
        for (from, to, mut message) in polled {
            self.spoil(to, &mut message);
            if !self.is_calm && self.roll(4) == 0 {
                self.lose(from, message);
                continue;
            }
            let delay = if self.is_calm { 0 } else { self.roll(3) };
            let last = self.last_at.entry((from, to)).or_default();
            let at = (self.now.elapsed + Duration::from_secs(delay)).max(*last);
            *last = at;
            if !self.is_calm && self.roll(4) == 0 {
                // The copy comes later, behind newer messages of the same pair.
                let at = at + Duration::from_secs(self.roll(6));
                self.put(at, to, message.clone());
            }
            self.put(at, to, message);
        }
    }

    /// Brings connections in their grace period to the new owners of their users, unless the message is lost.
    fn hand_over(&mut self) {
        let mut handed = Vec::new();
        for core in self.cores.values_mut() {
            handed.extend(std::iter::from_fn(|| core.poll_leaving()));
        }
        for (to, leaving) in handed {
            if self.is_calm || self.roll(4) > 0 {
                let now = self.now;
                self.cores
                    .get_mut(&to)
                    .into_iter()
                    .for_each(|core| core.handle_leaving(leaving.clone(), now));
            }
        }
    }

    /// The nodes are known to be alive by another source.
    fn list_nodes(&mut self) {
        let of = |node: &Node| ProcessRun { process: node.run.worker, epoch: node.run.epoch };
        let nodes: Vec<ProcessRun> = self.nodes.iter().map(of).collect();
        let shards = self.cores.iter_mut().filter(|(process, _)| **process != WHOLE);
        shards.for_each(|(_, core)| core.handle_live_nodes(&nodes));
    }

    pub(super) fn put(&mut self, at: Duration, to: u16, message: Message) {
        self.next += 1;
        self.sent.push(Sent { at, order: self.next, to, message });
    }

    /// What some faults make of a message.
    pub(super) fn spoil(&mut self, to: u16, message: &mut Message) {
        let Message::Batch(batch) = message else { return };
        let is_restarted = self.epochs.get(&to).is_some_and(|epoch| *epoch > 1);
        match self.fault {
            Some(Fault::InterestIsNotRepeated) if is_restarted => batch.begins.clear(),
            Some(Fault::InterestNeverEnds) => batch.ends.clear(),
            Some(Fault::DoubtsAreNotSent) => batch.doubts.clear(),
            Some(Fault::CirclesAreSentOnce) => {
                for state in batch.states.iter_mut().filter(|state| state.card.state != Availability::Offline)
                {
                    if !self.stated.insert((to, state.card.user_id)) {
                        state.watches = None;
                    }
                }
            }
            _ => {}
        }
    }

    pub(super) fn lose(&mut self, from: u16, message: Message) {
        if let (true, Message::Batch(batch)) = (self.has(Fault::LossIsFinal), message)
            && let (Some(to), Some(core)) = (batch.to, self.cores.get_mut(&from))
        {
            core.handle_message(Message::Ack(Ack { from: to, to: batch.from, number: batch.number }));
        }
    }

    pub(super) fn deliver(&mut self, mut due: Vec<Sent>) {
        due.sort_by_key(|sent| (sent.at, sent.order));
        for Sent { to, mut message, .. } in due {
            if self.has(Fault::OldProcessIsTaken) {
                let (Message::Batch(Batch { from, .. }) | Message::Ack(Ack { from, .. })) = &mut message;
                if let Some(peer) = self.cores.get(&to).and_then(|core| core.peer_of(from.run.process)) {
                    *from = peer;
                }
            }
            if let Some(core) = self.cores.get_mut(&to) {
                core.handle_message(message);
            }
        }
    }

    pub(super) fn hear(&mut self) {
        let mut heard = Vec::new();
        for (process, core) in &mut self.cores {
            while let Some(notice) = core.poll_notice() {
                heard.push((usize::from(*process == WHOLE), core.receivers_by_node(&notice.to), notice));
            }
        }
        let mut listed = BTreeSet::new();
        for (views, nodes, Notice { to, list }) in heard {
            let workers: Vec<u16> = nodes.iter().map(|(run, _)| run.worker).collect();
            for real in self.real.clone() {
                let key = (real.up.user, real.up.connection);
                let is_meant = match &to {
                    NoticeTarget::Users(users) => users.contains(&key.0),
                    NoticeTarget::Connection(user, connection) => key == (*user, *connection),
                };
                // A remote placement sends a notice to these nodes only.
                if !is_meant || !workers.contains(&self.nodes[real.node].run.worker) {
                    continue;
                }
                if matches!(to, NoticeTarget::Connection(..)) {
                    self.views[views].deaf.remove(&key);
                }
                if self.views[views].deaf.contains(&key) {
                    continue;
                }
                if views == 0 {
                    list.users.iter().for_each(|card| self.check_no_flap(key, card));
                }
                let known = self.views[views].known.entry(key).or_default();
                if list.anew {
                    known.clear();
                }
                known.extend(list.users.iter().map(|card| (card.user_id, card.clone())));
                if list.complete {
                    self.views[views].complete.insert(key);
                    listed.extend((views == 0).then_some(key));
                }
            }
        }
        // At the end: a notice right behind the list may name the users whom it lacks.
        listed.into_iter().for_each(|key| self.check_nobody_lacks(key));
    }

    /// Whether a user's state or pairs have changed so recently that nothing is certain.
    fn is_shaky(&self, id: UserId) -> bool {
        self.shaky.get(&id).is_some_and(|until| *until > self.now.elapsed)
    }

    /// A user who was there all the time is not reported as offline to a watcher who knows the user as online.
    pub(super) fn check_no_flap(&self, key: (UserId, ConnectionId), card: &UserPresence) {
        let id = card.user_id;
        let known = self.views[0].known.get(&key).and_then(|known| known.get(&id));
        let was_online = known.is_some_and(|card| card.state != Availability::Offline);
        if card.state == Availability::Offline
            && was_online
            && id != key.0
            && !self.is_shaky(id)
            && !self.is_shaky(key.0)
        {
            panic!("{} hears that {id} is offline, who was there all the time", key.0);
        }
        assert!(id == key.0 || !card.invisible, "{} hears that {id} is invisible", key.0);
    }

    /// A user whom a complete list does not name is offline for the connection.
    pub(super) fn check_nobody_lacks(&self, key: (UserId, ConnectionId)) {
        let known = &self.views[0].known[&key];
        // Whether others may see a connected user is unknown until the rows are read. Lists do not wait for that.
        let is_unread = |id: UserId| {
            self.cores.values().any(|core| core.users.get(&id).is_some_and(|user| !user.is_loaded))
        };
        for id in (1..=USERS).map(user).filter(|id| *id != key.0 && !is_unread(*id)) {
            let is_named = known.get(&id).is_some_and(|card| card.state != Availability::Offline);
            let is_online = self.truth(key.0, id) != Availability::Offline;
            assert!(
                is_named || !is_online || self.is_shaky(id) || self.is_shaky(key.0),
                "the complete list of {key:?} lacks {id}, who was there all the time"
            );
        }
    }

    /// After a rest: every connection knows the truth, the same as with one core, and nothing superfluous is kept.
    pub(super) fn check_all(&self) {
        for real in &self.real {
            let key = (real.up.user, real.up.connection);
            assert!(self.views[0].complete.contains(&key), "{key:?} has no complete list");
            let [told, of_whole] = [0, 1].map(|views| told(key.0, &self.views[views].known[&key]));
            assert_eq!(told, of_whole, "{key:?}: sharded, and by one core");
            for id in (1..=USERS).map(user).filter(|id| *id != key.0) {
                let state = told.get(&id).map_or(Availability::Offline, |(state, _)| *state);
                assert_eq!(state, self.truth(key.0, id), "{} of {id}", key.0);
            }
        }
        self.check_bounds();
    }

    pub(super) fn truth(&self, viewer: UserId, id: UserId) -> Availability {
        let is_hidden = self.rows.get(&id).is_some_and(|row| row.invisible);
        let idle: BTreeSet<bool> =
            self.real.iter().filter(|real| real.up.user == id).map(|real| real.is_idle).collect();
        match (idle.is_empty(), idle.contains(&false)) {
            _ if is_hidden || !self.pairs.contains(&(viewer, id)) => Availability::Offline,
            (true, _) => Availability::Offline,
            (false, true) => Availability::Online,
            (false, false) => Availability::Away,
        }
    }

    pub(super) fn check_bounds(&self) {
        let view = View::of(&self.live);
        for (process, core) in self.cores.iter().filter(|(process, _)| self.live.contains(process)) {
            let here: BTreeSet<UserId> = self.real.iter().map(|real| real.up.user).collect();
            let own: BTreeSet<UserId> = here.into_iter().filter(|id| view.owns(*process, *id)).collect();
            assert_eq!(core.users.keys().copied().collect::<BTreeSet<_>>(), own, "users of {process}");
            let watched = core.users.values().flat_map(|user| user.circle.iter().copied());
            let watched: BTreeSet<UserId> = watched.filter(|id| !view.owns(*process, *id)).collect();
            assert_eq!(
                core.foreign.keys().copied().collect::<BTreeSet<_>>(),
                watched,
                "foreign users of {process}"
            );
            assert!(core.awaited.is_empty() && core.abandoned.is_empty() && core.expected.is_empty());
            for (peer, link) in &core.links {
                let interest = self.cores[peer].interest_in(*process);
                assert_eq!(
                    link.all_interested().collect::<BTreeSet<_>>(),
                    interest,
                    "{peer} in users of {process}"
                );
                assert_eq!(link.repeat_at(), None, "{process} still repeats to {peer}");
            }
        }
    }
}
