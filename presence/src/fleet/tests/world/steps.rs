//! What each machine does in a step, and what the network does to frames.

use super::*;

impl World {
    pub(in crate::fleet::tests) fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds * 4 {
            self.now.elapsed += STEP;
            self.now.at = self.now.at.plus(250);
            self.step();
        }
    }

    pub(super) fn step(&mut self) {
        let now = self.now;
        self.reconnect();
        let due: Vec<Packet> = self.packets.extract_if(.., |packet| packet.at <= now.elapsed).collect();
        self.deliver(due);
        for number in self.machines.keys().copied().collect::<Vec<_>>() {
            let Some(machine) = self.machines.get_mut(&number) else { continue };
            if machine.paused.is_some_and(|until| until > now.elapsed) {
                continue;
            }
            if machine.drained_at.is_some_and(|at| at <= now.elapsed) {
                self.registry.remove(&number);
                self.machines.remove(&number);
                continue;
            }
            let was_paused = machine.paused.take().is_some();
            self.act(number, was_paused);
        }
    }

    /// What a machine does in one step. After a pause whatever is due comes first, then the frames that have waited.
    pub(super) fn act(&mut self, number: u16, was_paused: bool) {
        let now = self.now;
        if let Some(core) = self.machines.get_mut(&number).and_then(|machine| machine.core.as_mut()) {
            if was_paused && self.plant == Some(Plant::Pause) {
                // As if it had been called all the time.
                for back in (1..40).rev() {
                    let elapsed = now.elapsed - Duration::from_secs(back);
                    core.process.begin(Now { elapsed, ..now });
                }
            }
            core.process.begin(now);
        }
        if let Some(node) = self.machines.get_mut(&number).and_then(|machine| machine.node.as_mut()) {
            node.handle_time(now);
        }
        self.flush(number, now);
        self.follow_registry(number);
        let frames = self.machines.get_mut(&number).map(|machine| std::mem::take(&mut machine.frames));
        for frame in frames.into_iter().flatten() {
            self.hand_over(number, frame);
        }
        self.read(number);
        self.sweep(number);
        self.flush(number, now);
    }

    pub(super) fn follow_registry(&mut self, number: u16) {
        let now = self.now;
        let Some((run, renewed, looks_at, is_draining)) =
            self.machines.get(&number).map(|one| (one.run, one.renewed, one.looks_at, one.is_draining))
        else {
            return;
        };
        let mut run = run;
        if now.elapsed >= renewed + RENEW {
            // The lease of its number is longer than that in the registry, so a pause does not always begin a new life.
            if now.elapsed >= renewed + LEASE && self.roll(2) == 0 {
                run = self.new_run(number);
            }
            self.register(run, is_draining);
        }
        let live = self.live(run);
        let seen = self.seen_by_core(&live);
        let Some(machine) = self.machines.get_mut(&number) else { return };
        if now.elapsed >= renewed + RENEW {
            machine.renewed = now.elapsed;
        }
        if now.elapsed < looks_at && machine.run == run {
            return;
        }
        machine.looks_at = now.elapsed + LOOK;
        if machine.live == live {
            return;
        }
        let is_new = machine.run != run;
        (machine.run, machine.live) = (run, live.clone());
        if let Some(core) = &mut machine.core {
            if is_new {
                core.reading.clear();
            }
            core.process.handle_live(&seen, now);
        }
        if let Some(node) = &mut machine.node {
            node.handle_live(&live, now);
        }
    }

    pub(super) fn hand_over(&mut self, number: u16, frame: Frame) {
        let now = self.now;
        let Some(machine) = self.machines.get_mut(&number) else { return };
        match frame {
            Frame::Core(frame) => {
                if let Some(core) = &mut machine.core {
                    core.process.begin(now);
                    core.process.handle_frame(frame, now);
                }
            }
            Frame::Node(frame) => {
                if let Some(node) = &mut machine.node {
                    node.handle_frame(frame);
                }
            }
        }
    }

    /// Reads rows. They come some time later.
    pub(super) fn read(&mut self, number: u16) {
        let now = self.now;
        let delay = Duration::from_millis(self.roll(3) * 250);
        let Some(core) = self.machines.get_mut(&number).and_then(|machine| machine.core.as_mut()) else {
            return;
        };
        for (_, loaded) in core.reading.extract_if(.., |(at, _)| *at <= now.elapsed).collect::<Vec<_>>() {
            core.process.core.handle_loaded(loaded, now);
        }
        for wanted in core.process.core.poll_wanted(99) {
            let row = self.rows.get(&wanted.user).cloned().unwrap_or_default();
            // Everybody watches everybody.
            let circle = wanted.circle.then(|| (1..=USERS).map(UserId::from_raw).collect());
            core.reading.push((now.elapsed + delay, Loaded { user: wanted.user, row, rev: 1, circle }));
        }
    }

    /// Closes connections whose clients have moved while the machine was paused.
    pub(super) fn sweep(&mut self, number: u16) {
        let now = self.now;
        let Some(machine) = self.machines.get_mut(&number) else { return };
        let here: BTreeSet<ConnectionId> =
            self.clients.iter().filter_map(|client| client.at).map(|(_, connection)| connection).collect();
        let Some(node) = machine.node.as_mut().filter(|_| machine.paused.is_none()) else { return };
        for up in machine.connections.extract_if(.., |up| !here.contains(&up.connection)) {
            let (user, connection, how) = (up.user, up.connection, Departure::Final);
            node.handle_report(NodeReport::Down { user, connection, how }, now);
        }
    }

    /// Sends what a machine has to send, and delivers its notices.
    pub(super) fn flush(&mut self, number: u16, now: Now) {
        loop {
            let Some(machine) = self.machines.get_mut(&number) else { return };
            let (mut sent, mut notices) = (Vec::new(), Vec::new());
            if let Some(core) = &mut machine.core {
                sent.extend(std::iter::from_fn(|| core.process.poll_frame(now)));
            }
            if let Some(node) = &mut machine.node {
                if node.wants_set(now) {
                    node.give_set(&machine.connections, now);
                }
                sent.extend(std::iter::from_fn(|| node.poll_frame(now)));
                notices.extend(std::iter::from_fn(|| node.poll_notice()));
            }
            if sent.is_empty() && notices.is_empty() {
                return;
            }
            let me = machine.run;
            notices.into_iter().for_each(|notice| self.hear(number, notice));
            for (to, frame) in sent {
                match to == me {
                    true => self.hand_over(number, frame),
                    false => self.send(number, to, frame),
                }
            }
        }
    }

    pub(super) fn send(&mut self, from: u16, to: ProcessRun, mut frame: Frame) {
        let now = self.now;
        self.spoil(&mut frame);
        // What passes between processes passes as bytes.
        let bytes = frame.encode().expect("a frame is below the bound");
        assert_eq!(Frame::decode(&bytes).expect("a frame can be read"), frame);
        match self.roll(100) {
            die if die < self.loss / 2 => return,
            die if die < self.loss => {
                // The sender sees this loss.
                let Some(machine) = self.machines.get_mut(&from) else { return };
                match (&frame, &mut machine.node, &mut machine.core) {
                    (Frame::Core(ToCore::Reported(_) | ToCore::Question { .. }), Some(node), _) => {
                        node.handle_unsent(to, &frame, now);
                    }
                    (_, _, Some(core)) => core.process.handle_unsent(to, &frame, now),
                    _ => {}
                }
                return;
            }
            _ => {}
        }
        let delay = Duration::from_millis(self.roll(3) * 250);
        let last = self.last_at.entry(to.process).or_default();
        let at = (now.elapsed + delay).max(*last);
        *last = at;
        self.next += 1;
        if self.loss > 0 && self.roll(10) == 0 {
            self.packets.push(Packet { at, order: self.next, to, frame: frame.clone() });
        }
        self.packets.push(Packet { at, order: self.next, to, frame });
    }

    /// What a planted fault makes of a frame.
    pub(super) fn spoil(&self, frame: &mut Frame) {
        match (self.plant, frame) {
            (Some(Plant::Asking), Frame::Node(ToNode::Told(told))) => told.asks_set = false,
            (Some(Plant::Missed), Frame::Core(ToCore::Reported(reported))) => {
                reported.reports.retain(|report| *report != NodeReport::Missed);
            }
            (Some(Plant::HandOver), Frame::Core(ToCore::Leaving { connections })) => connections.clear(),
            _ => {}
        }
    }

    pub(super) fn deliver(&mut self, mut due: Vec<Packet>) {
        due.sort_by_key(|packet| (packet.at, packet.order));
        for Packet { to, frame, .. } in due {
            // A process reads only the frames for its present life.
            if let Some(machine) = self.machines.get_mut(&to.process).filter(|machine| machine.run == to) {
                machine.frames.push(frame);
            }
        }
    }

    pub(super) fn reconnect(&mut self) {
        let now = self.now;
        for index in 0..self.clients.len() {
            let client = &self.clients[index];
            if client.comes.is_none_or(|at| at > self.now.elapsed) {
                continue;
            }
            let is_there = |machine: &Machine| {
                machine.node.is_some() && machine.paused.is_none() && !machine.is_draining
            };
            let there: Vec<u16> =
                self.machines.iter().filter(|(_, one)| is_there(one)).map(|(number, _)| *number).collect();
            if there.is_empty() {
                continue;
            }
            let number = there[self.roll(there.len() as u64) as usize];
            self.next += 1;
            let connection = ConnectionId::from_raw(self.next);
            let client = &mut self.clients[index];
            let up = Up { user: client.user, device: client.device, connection, is_idle: false };
            (client.at, client.comes) = (Some((number, connection)), None);
            self.known.insert(connection, Known::new());
            if let Some(machine) = self.machines.get_mut(&number) {
                machine.connections.push(up);
                if let Some(node) = &mut machine.node {
                    node.handle_report(NodeReport::Up(up), now);
                }
            }
        }
    }
}
