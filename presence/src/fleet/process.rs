//! A presence process of a fleet, without IO: a core, the frames that come to it, and those that it sends.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use madang_engine::session::Now;
use madang_proto::PresenceList;

use super::LiveProcesses;
use super::lanes::{Heard, Lane, Lanes, Set, Verdict};
use super::wire::{CARDS, Frame, RECEIVERS, Reported, ToCore, ToNode, Told};
use crate::api::{NodeReport, NodeRun};
use crate::config::PresenceConfig;
use crate::core::{Core, NoticeTarget, ProcessRun};
use crate::metrics::FleetMetrics;

/// The longest time between two calls of [`Process::begin`] in a process that runs.
pub(crate) const TICK: Duration = Duration::from_secs(1);
/// A process that did not run for this time has frames waiting. It is far below the shortest grace period and lease.
const PAUSE: Duration = Duration::from_secs(3);

/// A presence process, as nodes and other processes see it.
///
/// *Inputs* are `handle_*`; `now` must not go back. Call [`Self::begin`] before the first input after a wait, and at least every
/// [`TICK`]; it calls what is due in the core. After any number of inputs take the frames of [`Self::poll_frame`] until there is
/// none, and report one that could not be sent to [`Self::handle_unsent`]. Reads and writes of rows are those of [`Self::core`].
#[derive(Debug)]
pub(crate) struct Process {
    config: PresenceConfig,
    metrics: FleetMetrics,
    pub(crate) core: Core,
    live: LiveProcesses,
    heard: BTreeMap<u16, Heard>,
    lanes: Lanes,
    /// The last call of `begin`.
    began: Duration,
    is_draining: bool,
    out: VecDeque<(ProcessRun, Frame)>,
    /// Notices that were sent.
    told: u64,
}

impl Process {
    pub(crate) fn new(config: PresenceConfig, live: &LiveProcesses, now: Now, metrics: FleetMetrics) -> Self {
        let mut core = Core::shard(config, live.me, live.view(), now);
        core.handle_live_nodes(&live.nodes);
        Self {
            config,
            metrics,
            core,
            live: live.clone(),
            heard: BTreeMap::new(),
            lanes: Lanes::new(),
            began: now.elapsed,
            is_draining: false,
            out: VecDeque::new(),
            told: 0,
        }
    }

    /// The process runs. If it did not for a while, whatever is due in the core must wait for the frames that wait for the process.
    pub(crate) fn begin(&mut self, now: Now) {
        if now.elapsed.saturating_sub(self.began) >= PAUSE {
            self.metrics.pauses.inc();
            self.core.handle_pause(now);
        }
        self.began = now.elapsed;
        if self.core.next_look().is_some_and(|at| at <= now.elapsed) {
            self.core.handle_time(now);
        }
    }

    /// The process will end. From now on it hands over its users when the others do not count it any more.
    pub(crate) fn handle_drain(&mut self) {
        self.is_draining = true;
    }

    /// Whether the others own all users.
    pub(crate) fn has_left(&self) -> bool {
        self.is_draining && !self.live.processes.iter().any(|run| run.process == self.live.me.process)
    }

    /// The live processes are others than before.
    ///
    /// A view without this process is taken only in a drain. At any other time this process is about to be listed again, perhaps in
    /// a new life; until then nodes refuse its notices, and other cores its states.
    pub(crate) fn handle_live(&mut self, live: &LiveProcesses, now: Now) {
        if live.me != self.live.me {
            // A new life of this process. It knows nothing, because others have owned its users meanwhile.
            let metrics = self.metrics.clone();
            *self = Self { is_draining: self.is_draining, ..Self::new(self.config, live, now, metrics) };
            return;
        }
        if self.is_draining || live.processes.contains(&live.me) {
            self.live = live.clone();
            self.core.handle_live_nodes(&live.nodes);
            self.core.handle_view(live.view(), now);
        }
    }

    /// A frame for this process.
    pub(crate) fn handle_frame(&mut self, frame: ToCore, now: Now) {
        match frame {
            ToCore::Reported(reported) => self.handle_reported(reported, now),
            ToCore::Question { from, id, asker, users } => {
                let states = self.core.states(asker, &users);
                // Another core may know that a user of its own is online.
                let is_settled = self.core.is_settled() && users.iter().all(|user| self.core.owns(*user));
                let answer = ToNode::Answer { id, users: states, is_settled };
                self.out.push_back((from, Frame::Node(answer)));
            }
            ToCore::Peer(message) => self.core.handle_message(message),
            ToCore::Leaving { connections } => self.core.handle_leaving(connections, now),
        }
    }

    fn handle_reported(&mut self, reported: Reported, now: Now) {
        let from = reported.from;
        let run = ProcessRun { process: from.worker, epoch: from.epoch };
        let heard = self.heard.entry(from.worker).or_insert_with(|| Heard::of(from));
        let is_renewal = reported.reports.contains(&NodeReport::Renewal);
        let reports = match heard.take(reported) {
            Verdict::Nothing => Vec::new(),
            Verdict::Refused => {
                self.metrics.frames_refused.inc();
                return;
            }
            Verdict::Missing => {
                self.metrics.reports_missed.inc();
                let asks = heard.may_ask(now.elapsed);
                self.core.handle_alive(run, now);
                self.lane(run).asks_set |= asks;
                return;
            }
            Verdict::Set(Set { view, connections, rereads, reports }) => {
                match rereads {
                    true => self.core.handle_set(from, &view, &connections, now),
                    false => self.core.handle_connections(from, &view, &connections, now),
                }
                reports
            }
            Verdict::Reports(reports) => reports,
        };
        for report in reports {
            self.core.handle_report(from, report, now);
        }
        if is_renewal {
            let taken = self.heard.get(&from.worker).map(Heard::taken);
            self.lane(run).taken = taken;
        }
    }

    /// A frame could not be sent to this process.
    pub(crate) fn handle_unsent(&mut self, to: ProcessRun, frame: &Frame, now: Now) {
        if matches!(frame, Frame::Node(ToNode::Told(_))) {
            self.core.handle_missed(to, now);
        }
    }

    /// The lane to a node. A later life of the node begins it again; an earlier one has none any more, and what is for it is dropped
    /// by the node.
    fn lane(&mut self, to: ProcessRun) -> &mut Lane {
        let lane = self.lanes.entry(to.process).or_insert_with(|| Lane::new(to));
        if lane.to.epoch < to.epoch {
            *lane = Lane::new(to);
        }
        lane
    }

    /// The next frame to send, and its receiver.
    pub(crate) fn poll_frame(&mut self, now: Now) -> Option<(ProcessRun, Frame)> {
        if self.out.is_empty() {
            self.make_frames(now);
        }
        self.out.pop_front()
    }

    fn make_frames(&mut self, now: Now) {
        self.take_notices();
        self.take_strangers(now);
        while let Some((to, message)) = self.core.poll_message(now) {
            self.send_core(to, ToCore::Peer(message));
        }
        while let Some((to, connections)) = self.core.poll_leaving() {
            self.send_core(to, ToCore::Leaving { connections });
        }
        for node in self.lanes.keys().copied().collect::<Vec<_>>() {
            self.end_frame(node);
        }
    }

    fn send_core(&mut self, to: u16, frame: ToCore) {
        let run = self.live.processes.iter().find(|run| run.process == to);
        self.out.extend(run.map(|run| (*run, Frame::Core(frame))));
    }

    /// Nodes whose set is needed.
    fn take_strangers(&mut self, now: Now) {
        while let Some(run) = self.core.poll_stranger() {
            let heard = self.heard.entry(run.worker).or_insert_with(|| Heard::of(run));
            if heard.may_ask(now.elapsed) {
                self.lane(ProcessRun { process: run.worker, epoch: run.epoch }).asks_set = true;
            }
        }
    }

    /// Puts the notices of the core into the frames of their nodes.
    fn take_notices(&mut self) {
        while let Some(notice) = self.core.poll_notice() {
            self.told += 1;
            for (NodeRun { worker, epoch, .. }, to) in self.core.receivers_by_node(&notice.to) {
                let node = ProcessRun { process: worker, epoch };
                match to {
                    NoticeTarget::Users(users) => {
                        for users in users.chunks(RECEIVERS) {
                            self.tell(node, NoticeTarget::Users(users.to_vec()), &notice.list);
                        }
                    }
                    to => self.tell(node, to, &notice.list),
                }
            }
        }
    }

    fn tell(&mut self, node: ProcessRun, to: NoticeTarget, list: &PresenceList) {
        let receivers = if let NoticeTarget::Users(users) = &to { users.len() } else { 1 };
        let lane = self.lane(node);
        lane.cards += list.users.len();
        lane.receivers += receivers;
        lane.notices.push((to, list.clone()));
        if lane.cards >= CARDS || lane.receivers >= RECEIVERS || lane.notices.len() >= RECEIVERS {
            self.end_frame(node.process);
        }
    }

    /// Ends the present frame to a node, if there is anything in it.
    fn end_frame(&mut self, node: u16) {
        let Some(lane) = self.lanes.get_mut(&node) else { return };
        if lane.notices.is_empty() && !lane.asks_set && lane.taken.is_none() {
            return;
        }
        let told = Told {
            from: self.live.me,
            to: lane.to,
            number: lane.number,
            notices: std::mem::take(&mut lane.notices),
            asks_set: std::mem::take(&mut lane.asks_set),
            taken: lane.taken.take(),
        };
        lane.number += 1;
        (lane.cards, lane.receivers) = (0, 0);
        self.out.push_back((lane.to, Frame::Node(ToNode::Told(told))));
    }

    /// The number of notices that were sent since the last call.
    pub(crate) fn poll_told(&mut self) -> u64 {
        std::mem::take(&mut self.told)
    }

    /// This process, with the epoch that it has now.
    pub(crate) const fn me(&self) -> ProcessRun {
        self.live.me
    }
}
