//! A chat node's side of presence in a fleet, without IO: which process hears what of this node, and what this node believes.
//!
//! Each report goes to the process that owns the user. Order and loss are watched by numbers. The frames of a node to a process are
//! numbered, again for each set; a process that misses one asks for the set. The frames of a process to a node are numbered too; a
//! node that misses one reports [`NodeReport::Missed`], and the process sends everything again. So nothing depends on what the
//! transport says about losses, and each loss costs only the two processes that it concerns. Renewals and their answers show that
//! the last frames have arrived.
//!
//! A set replaces what was reported of connections. It does not replace [`NodeReport::Changed`], [`NodeReport::Dropped`] and
//! `Missed`: these are kept until the process has acknowledged them, and repeated after a set. So a set makes nobody read rows
//! again, unless reports were lost on this node. A process that has acknowledged a change may not own its user any more, and the new
//! owner may have read the row before: changes of the last lease are repeated after a change of the view.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use madang_engine::session::Now;
use madang_ids::UserId;
use madang_proto::PresenceList;
use tokio::sync::oneshot;

use super::LiveProcesses;
use super::questions::Questions;
use super::wire::{Frame, PART, Part, REPORTS, Reported, Taken, ToCore, ToNode, Told};
use crate::api::{CALM, NodeReport, NodeRun, States, Up};
use crate::config::PresenceConfig;
use crate::core::{Notice, NoticeTarget, ProcessRun, View};
use crate::metrics::FleetMetrics;

/// Reports that wait for a process, and those that it has not acknowledged. Above it reports are dropped and the set is sent.
const WAITING: usize = 16_384;
/// A frame that is not acknowledged after this time is followed by another one, which shows whether it was lost. So a loss is repaired
/// within a grace period, also if it was the last frame of a while.
const PROBE: Duration = Duration::from_secs(1);
/// The least pause between two reports that notices were missed: the process sends everything again, some seconds later.
const MISSED: Duration = Duration::from_secs(5);

/// A process that hears of this node.
#[derive(Debug)]
struct Peer {
    run: ProcessRun,
    /// The process has left the view. It hears of this node until this time, because it may not know of the view yet.
    until: Option<Duration>,
    set: u64,
    /// The number of the next frame, and the time of the last one.
    number: u64,
    sent_at: Duration,
    /// The process has taken the frames below this number.
    taken: u64,
    wants_set: bool,
    /// Reports about rows may have been lost here, in this life of the node or in an earlier one.
    rereads: bool,
    /// The earliest time of the next set.
    set_at: Duration,
    /// Reports for the next frames.
    waiting: VecDeque<NodeReport>,
    /// Reports that a set does not replace, with the number of their frame.
    unacknowledged: VecDeque<(u64, NodeReport)>,
    /// The number that the next frame of the process has.
    expected: u64,
    /// Notices of the process were missed.
    has_missed: bool,
    /// The earliest time of the next report about that.
    missed_at: Duration,
    /// Notices were dropped because the process does not own their receivers by this node's view.
    has_refused: bool,
}

impl Peer {
    fn new(run: ProcessRun) -> Self {
        Self {
            run,
            until: None,
            set: 0,
            number: 0,
            sent_at: Duration::ZERO,
            taken: 0,
            wants_set: true,
            rereads: true,
            set_at: Duration::ZERO,
            waiting: VecDeque::new(),
            unacknowledged: VecDeque::new(),
            expected: 0,
            has_missed: false,
            missed_at: Duration::ZERO,
            has_refused: false,
        }
    }

    fn report(&mut self, report: NodeReport, metrics: &FleetMetrics) {
        if self.waiting.len() >= WAITING {
            metrics.reports_unsent.inc();
            (self.wants_set, self.rereads) = (true, true);
            return;
        }
        self.waiting.push_back(report);
    }

    /// Everything that must be reported again to this process, or to another that owns the users now.
    fn take_reports(&mut self) -> VecDeque<NodeReport> {
        let lasting = std::mem::take(&mut self.unacknowledged).into_iter().map(|(_, report)| report);
        let mut all: VecDeque<NodeReport> = lasting.chain(std::mem::take(&mut self.waiting)).collect();
        if all.contains(&NodeReport::Missed) {
            (self.has_missed, self.missed_at) = (true, Duration::ZERO);
        }
        all.retain(|report| *report != NodeReport::Missed);
        all
    }

    /// The next frame of reports.
    fn poll(&mut self, me: ProcessRun, now: Now, metrics: &FleetMetrics) -> Option<Frame> {
        if self.wants_set || self.waiting.is_empty() {
            return None;
        }
        let reports: Vec<NodeReport> = self.waiting.drain(..self.waiting.len().min(REPORTS)).collect();
        for report in reports.iter().filter(|report| is_lasting(report)) {
            self.unacknowledged.push_back((self.number, *report));
        }
        while self.unacknowledged.len() > WAITING {
            self.unacknowledged.pop_front();
            metrics.reports_unsent.inc();
            (self.wants_set, self.rereads) = (true, true);
        }
        Some(self.frame(me, now, None, reports))
    }

    /// When the last frame is followed by another one if it is not acknowledged.
    fn probe_at(&self) -> Option<Duration> {
        (self.taken < self.number && !self.wants_set).then_some(self.sent_at + PROBE)
    }

    fn frame(&mut self, me: ProcessRun, now: Now, part: Option<Part>, reports: Vec<NodeReport>) -> Frame {
        let from = NodeRun { worker: me.process, epoch: me.epoch, set: self.set };
        let number = self.number;
        (self.number, self.sent_at) = (number + 1, now.elapsed);
        Frame::Core(ToCore::Reported(Reported { from, number, part, reports }))
    }
}

/// Whether a set does not replace a report.
const fn is_lasting(report: &NodeReport) -> bool {
    matches!(report, NodeReport::Changed { .. } | NodeReport::Dropped { .. } | NodeReport::Missed)
}

/// A chat node, as the presence processes see it.
///
/// *Inputs* are `handle_*`; `now` must not go back. After each of them, and at [`Self::next_look`]: call [`Self::handle_time`];
/// if [`Self::wants_set`], call [`Self::give_set`] with the connections of this moment; then send all frames of
/// [`Self::poll_frame`], and report one that could not be sent to [`Self::handle_unsent`]; then deliver the notices of
/// [`Self::poll_notice`]. Reports may be handed over later than they were true: a set that is newer than the reports behind it
/// is corrected by them.
#[derive(Debug)]
pub(crate) struct Node {
    config: PresenceConfig,
    metrics: FleetMetrics,
    me: ProcessRun,
    view: View,
    peers: BTreeMap<u16, Peer>,
    sets: u64,
    renewed_at: Option<Duration>,
    /// Changes of rows in the last lease.
    changes: VecDeque<(Duration, NodeReport)>,
    pub(crate) questions: Questions,
    out: VecDeque<(ProcessRun, Frame)>,
    notices: VecDeque<Notice>,
}

impl Node {
    pub(crate) fn new(config: PresenceConfig, metrics: FleetMetrics) -> Self {
        Self {
            config,
            metrics,
            me: ProcessRun::default(),
            view: View::of(&[]),
            peers: BTreeMap::new(),
            sets: 0,
            renewed_at: None,
            changes: VecDeque::new(),
            questions: Questions::default(),
            out: VecDeque::new(),
            notices: VecDeque::new(),
        }
    }

    /// The live processes are others than before.
    pub(crate) fn handle_live(&mut self, live: &LiveProcesses, now: Now) {
        if live.me != self.me {
            // A new life of this node. What earlier ones have reported is refused or ends by itself.
            self.me = live.me;
            self.sets = 0;
            self.peers.clear();
        }
        let view = live.view();
        let is_other = view != self.view;
        self.view = view;
        let mut reports = Vec::new();
        for peer in self.peers.values_mut().filter(|_| is_other) {
            reports.extend(peer.take_reports());
            // A node whose view has changed sends its set to the processes of both views.
            peer.wants_set = true;
            peer.has_missed |= std::mem::take(&mut peer.has_refused);
            peer.until.get_or_insert(now.elapsed + self.config.lease());
        }
        for run in &live.processes {
            let peer = self.peers.entry(run.process).or_insert_with(|| Peer::new(*run));
            if peer.run.epoch < run.epoch {
                reports.extend(peer.take_reports());
                *peer = Peer::new(*run);
            }
            peer.until = None;
        }
        if is_other {
            reports.extend(self.changes.iter().map(|(_, report)| *report));
        }
        reports.into_iter().for_each(|report| self.route(report));
    }

    /// Something that this node reports.
    pub(crate) fn handle_report(&mut self, report: NodeReport, now: Now) {
        if matches!(report, NodeReport::Changed { .. }) {
            self.changes.push_back((now.elapsed, report));
            if self.changes.len() > WAITING {
                self.changes.pop_front();
            }
        }
        self.route(report);
    }

    /// Queues a report for the owner of its user. Dropped if there is no process: a set follows when there is one.
    fn route(&mut self, report: NodeReport) {
        let user = match report {
            // Both concern a process, not a user; they are made again.
            NodeReport::Renewal | NodeReport::Missed => return,
            NodeReport::Up(up) => up.user,
            NodeReport::Down { user, .. }
            | NodeReport::Idle { user, .. }
            | NodeReport::Changed { user, .. }
            | NodeReport::Dropped { user, .. } => user,
        };
        match self.view.owner(user).and_then(|owner| self.peers.get_mut(&owner)) {
            Some(peer) => peer.report(report, &self.metrics),
            None => drop(self.metrics.reports_unsent.inc()),
        }
    }

    /// Reports of this node may have been lost before they came here.
    pub(crate) fn handle_lost(&mut self) {
        self.peers.values_mut().for_each(|peer| (peer.wants_set, peer.rereads) = (true, true));
    }

    /// A frame could not be sent to this process. What waits behind it is of no use: the set is sent, some time later.
    pub(crate) fn handle_unsent(&mut self, to: ProcessRun, frame: &Frame, now: Now) {
        if let Frame::Core(ToCore::Question { id, .. }) = frame {
            return self.questions.fail(*id);
        }
        self.out.retain(|(of, frame)| *of != to || !matches!(frame, Frame::Core(ToCore::Reported(_))));
        if let Some(peer) = self.peers.get_mut(&to.process) {
            peer.wants_set = true;
            peer.set_at = now.elapsed + CALM;
        }
    }

    /// A frame of a process, or an answer.
    pub(crate) fn handle_frame(&mut self, frame: ToNode) {
        match frame {
            ToNode::Told(told) => self.handle_told(told),
            ToNode::Answer { id, users, is_settled } => self.questions.answer(id, users, is_settled),
        }
    }

    fn handle_told(&mut self, told: Told) {
        let Told { from, to, number, notices, asks_set, taken } = told;
        let Some(peer) = self.peers.get_mut(&from.process) else { return };
        if to != self.me || from.epoch < peer.run.epoch {
            self.metrics.frames_refused.inc();
            return;
        }
        if from.epoch > peer.run.epoch {
            // The process was restarted, and the view will say so.
            let reports = peer.take_reports();
            *peer = Peer { until: peer.until, ..Peer::new(from) };
            reports.into_iter().for_each(|report| peer.report(report, &self.metrics));
        }
        if number < peer.expected {
            return;
        }
        if number > peer.expected {
            self.metrics.notices_missed.inc_by(number - peer.expected);
            peer.has_missed = true;
        }
        peer.expected = number + 1;
        peer.wants_set |= asks_set;
        if let Some(Taken { next, .. }) = taken.filter(|taken| taken.set == peer.set) {
            peer.taken = peer.taken.max(next);
            while peer.unacknowledged.front().is_some_and(|(number, _)| *number < next) {
                peer.unacknowledged.pop_front();
            }
        }
        for (to, list) in notices {
            self.take_notice(from.process, to, list);
        }
    }

    /// Delivers a notice to the users whom its sender owns. The others have moved: their new owner sends them everything, and a
    /// former owner, perhaps one that was paused, may be wrong.
    fn take_notice(&mut self, from: u16, to: NoticeTarget, list: PresenceList) {
        let owns = |user: &UserId| self.view.owner(*user) == Some(from);
        let (to, has_refused) = match to {
            NoticeTarget::Users(mut users) => {
                let before = users.len();
                users.retain(owns);
                let has_refused = users.len() < before;
                (NoticeTarget::Users(users), has_refused)
            }
            NoticeTarget::Connection(user, _) if !owns(&user) => (NoticeTarget::Users(Vec::new()), true),
            to => (to, false),
        };
        if let (true, Some(peer)) = (has_refused, self.peers.get_mut(&from)) {
            self.metrics.frames_refused.inc();
            peer.has_refused = true;
        }
        if to != NoticeTarget::Users(Vec::new()) {
            self.notices.push_back(Notice { to, list });
        }
    }

    /// The presence of users is asked for.
    pub(crate) fn ask(
        &mut self,
        asker: Option<UserId>,
        users: Vec<UserId>,
        answer: oneshot::Sender<States>,
        now: Now,
    ) {
        let runs = |user: UserId| {
            let owner = self.view.owner(user)?;
            self.peers.get(&owner).map(|peer| peer.run)
        };
        let asked = self.questions.ask(self.me, asker, users, answer, now, runs);
        self.out.extend(asked);
    }

    /// Handles what is due.
    pub(crate) fn handle_time(&mut self, now: Now) {
        self.metrics.questions_late.inc_by(self.questions.expire(now.elapsed));
        let lease = self.config.lease();
        while self.changes.front().is_some_and(|(at, _)| *at + lease <= now.elapsed) {
            self.changes.pop_front();
        }
        self.peers.retain(|_, peer| peer.until.is_none_or(|until| until > now.elapsed));
        let since = self.renewed_at.map(|at| now.elapsed.saturating_sub(at));
        if since.is_none_or(|since| since >= self.config.renew()) {
            self.renewed_at = Some(now.elapsed);
            for peer in self.peers.values_mut() {
                // After a pause of a whole lease the processes have ended it. Connections and views may have changed meanwhile.
                peer.wants_set |= since.is_none_or(|since| since >= self.config.lease());
                peer.report(NodeReport::Renewal, &self.metrics);
            }
        }
        for peer in self.peers.values_mut().filter(|peer| peer.probe_at().is_some_and(|at| at <= now.elapsed))
        {
            peer.sent_at = now.elapsed;
            peer.report(NodeReport::Renewal, &self.metrics);
        }
        for peer in self.peers.values_mut().filter(|peer| peer.has_missed && peer.missed_at <= now.elapsed) {
            (peer.has_missed, peer.missed_at) = (false, now.elapsed + MISSED);
            peer.report(NodeReport::Missed, &self.metrics);
        }
    }

    /// Whether the connections of this node are needed now.
    pub(crate) fn wants_set(&self, now: Now) -> bool {
        self.peers.values().any(|peer| peer.wants_set && peer.set_at <= now.elapsed)
    }

    /// All connections of this node at this time.
    pub(crate) fn give_set(&mut self, connections: &[Up], now: Now) {
        let Self { me, view, sets, out, metrics, .. } = self;
        let names: Vec<u16> = view.processes().to_vec();
        let due = |peer: &&mut Peer| peer.wants_set && peer.set_at <= now.elapsed;
        for peer in self.peers.values_mut().filter(due) {
            *sets += 1;
            metrics.sets_sent.inc();
            (peer.set, peer.number, peer.taken, peer.wants_set) = (*sets, 0, 0, false);
            peer.set_at = now.elapsed + CALM;
            let process = peer.run.process;
            let owned = connections.iter().filter(|up| view.owner(up.user) == Some(process));
            let owned: Vec<Up> = owned.copied().collect();
            let mut parts: Vec<&[Up]> = owned.chunks(PART).collect();
            if parts.is_empty() {
                parts.push(&[]);
            }
            let last = parts.len() - 1;
            for (index, connections) in parts.into_iter().enumerate() {
                let (view, connections) = (names.clone(), connections.to_vec());
                let part = Part { view, connections, is_last: index == last, rereads: peer.rereads };
                let frame = peer.frame(*me, now, Some(part), Vec::new());
                out.push_back((peer.run, frame));
            }
            peer.rereads = false;
            peer.waiting = peer.take_reports();
        }
    }

    /// The next frame to send, and its receiver.
    pub(crate) fn poll_frame(&mut self, now: Now) -> Option<(ProcessRun, Frame)> {
        if let Some(next) = self.out.pop_front() {
            return Some(next);
        }
        let Self { me, peers, metrics, .. } = self;
        peers.values_mut().find_map(|peer| Some((peer.run, peer.poll(*me, now, metrics)?)))
    }

    /// This node, with the epoch that it has now.
    pub(crate) const fn me(&self) -> ProcessRun {
        self.me
    }

    /// The next notice to deliver.
    pub(crate) fn poll_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    /// When [`Self::handle_time`] is due.
    pub(crate) fn next_look(&self) -> Duration {
        let renewal = self.renewed_at.map_or(Duration::ZERO, |at| at + self.config.renew());
        let peers = self.peers.values().flat_map(|peer| {
            let set = peer.wants_set.then_some(peer.set_at);
            let missed = peer.has_missed.then_some(peer.missed_at);
            [set, missed, peer.probe_at(), peer.until]
        });
        peers.flatten().chain(self.questions.next_look()).chain([renewal]).min().unwrap_or(renewal)
    }
}
