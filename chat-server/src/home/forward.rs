//! Commands of this node for channels whose homes are on other nodes, and commands of other nodes for homes of this one.
//!
//! The home of a channel is the live node with the greatest rendezvous weight, unless an operator has moved it away from there. That is
//! only an optimisation: one writer has no contention, and a warm one needs no reads. So a command whose home is silent, gone or
//! unreachable is carried out here, and if the other node has carried it out as well, its key or its effect shows that, and the answer
//! is the same.
//!
//! The commands of one user for one channel keep their order: while some are unanswered, later ones take the same way
//! ([`Route`]), and if the way fails, all of them are taken back and carried out here in their order.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use madang_bus::{Arrived, ForwardedCommand, HomeChannel, PeerFrame, Peers};
use madang_engine::home::{Command, Reply};
use madang_ids::{ChannelId, LogId, NodeRun, UserId, rendezvous};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::boards::Boards;
use super::{Answer, Homes};
use crate::heat::Heats;

/// How long a node may be silent about a command before it is carried out here.
const SILENCE: Duration = Duration::from_millis(500);
/// The same, after the node has said that it works on the command.
const WORK_SILENCE: Duration = Duration::from_secs(3);
/// A command that takes longer than this is acknowledged with `working`, and again after each [`WORKING_AGAIN`].
const WORKING_AFTER: Duration = Duration::from_millis(150);
const WORKING_AGAIN: Duration = Duration::from_secs(1);
/// How often these times are looked at.
const LOOK: Duration = Duration::from_millis(50);
/// A command is not begun after this time: its sender has carried it out. Longer than [`SILENCE`] by what clocks may differ.
const DEADLINE_MS: u64 = 2_000;
/// For how long no commands are forwarded to a node that was silent, unless it is heard.
const SUSPECTED: Duration = Duration::from_secs(5);

/// A live node that takes commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HomeNode {
    /// Its number and life.
    pub run: NodeRun,
    /// Its name.
    pub name: Arc<str>,
}

/// The live nodes that take commands. They are sorted by their runs, and this node is among them unless it drains.
pub type HomeNodes = watch::Receiver<Arc<[HomeNode]>>;

/// Forwards commands, and serves those of other nodes.
pub(super) struct Forwards {
    pub(super) peers: Arc<dyn Peers>,
    pub(super) nodes: HomeNodes,
    pub(super) boards: Boards,
    heats: Arc<Heats>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next_ticket: u64,
    /// Commands of this node that other nodes have not answered, in their order.
    waiting: BTreeMap<u64, Waiting>,
    routes: HashMap<(ChannelId, UserId), Route>,
    /// Commands of other nodes that are not answered yet, and when their senders last heard of them.
    serving: BTreeMap<(NodeRun, u64), Serving>,
    /// Nodes that were silent, and until when they are passed over.
    suspected: HashMap<NodeRun, Duration>,
}

struct Waiting {
    to: NodeRun,
    channel: HomeChannel,
    command: Command,
    answer: Answer,
    /// The command is taken back if nothing is heard until then.
    until: Duration,
}

/// The way of the commands of one user for one channel, while some are unanswered.
struct Route {
    /// `None`: they are carried out here.
    to: Option<NodeRun>,
    unanswered: u32,
}

struct Serving {
    heard_at: Duration,
    is_announced: bool,
}

impl Forwards {
    pub(super) fn new(peers: Arc<dyn Peers>, nodes: HomeNodes, heats: Arc<Heats>) -> Self {
        Self { peers, nodes, boards: Boards::default(), heats, state: Mutex::default() }
    }

    /// The node that orders a log, unless it is this one.
    pub(super) fn home(&self, log: LogId) -> Option<NodeRun> {
        let home = self.home_among(&self.nodes.borrow(), log)?.run;
        (home != self.peers.me()).then_some(home)
    }

    /// The name of the node that orders a log; `None` if no node is alive.
    pub(super) fn home_name(&self, log: LogId) -> Option<Arc<str>> {
        Some(Arc::clone(&self.home_among(&self.nodes.borrow(), log)?.name))
    }

    /// An operator may have moved the home of a channel away from a node, as long as there is another one.
    fn home_among<'a>(&self, nodes: &'a [HomeNode], log: LogId) -> Option<&'a HomeNode> {
        let (key, left) = match log {
            LogId::User(user) => (user.raw(), None),
            LogId::Channel(channel) => (channel.raw(), self.heats.away_from(channel)),
        };
        let left = left.filter(|left| nodes.iter().any(|node| node.name != *left));
        let stays = nodes.iter().filter(|node| left.as_ref() != Some(&node.name));
        let owner = rendezvous::owner(key, stays.map(|node| node.run.node.0))?;
        nodes.iter().find(|node| node.run.node.0 == owner)
    }

    /// The live nodes besides this one.
    pub(super) fn others(&self) -> Vec<NodeRun> {
        let (nodes, me) = (self.nodes.borrow(), self.peers.me());
        nodes.iter().map(|node| node.run).filter(|node| *node != me).collect()
    }

    /// Notifies the home of a channel that who may write there has changed. A lost frame costs five seconds.
    pub(super) fn forget_members(&self, channel: ChannelId) {
        if let Some(home) = self.home(LogId::Channel(channel)) {
            self.peers.send(home, &PeerFrame::Forget { channel });
        }
    }

    /// Notifies all nodes: the direct channels of a user have homes on any of them.
    pub(super) fn forget_direct_channels_of(&self, user: UserId) {
        for node in self.others() {
            self.peers.send(node, &PeerFrame::ForgetDirect { user });
        }
    }
}

impl State {
    /// The command of a user for a channel was answered.
    fn answered(&mut self, channel: ChannelId, user: UserId) {
        if let Some(route) = self.routes.get_mut(&(channel, user)) {
            route.unanswered -= 1;
            if route.unanswered == 0 {
                self.routes.remove(&(channel, user));
            }
        }
    }
}

fn asker(command: &Command) -> UserId {
    // Only notes in a user's own log have no asker, and they are not forwarded.
    command.by().unwrap_or(UserId::from_raw(0))
}

impl Homes {
    /// Hands a command to the home of its channel, wherever it is.
    pub(super) fn route(
        &self,
        forwards: &Arc<Forwards>,
        channel: HomeChannel,
        command: Command,
        answer: Answer,
    ) {
        let user = asker(&command);
        // Held until the command is on its way: that keeps the order.
        let mut state = forwards.state.lock();
        let now = self.0.clock.elapsed();
        let route = state.routes.get(&(channel.id, user)).map(|route| route.to);
        let to = route.unwrap_or_else(|| {
            forwards
                .home(LogId::Channel(channel.id))
                .filter(|home| state.suspected.get(home).is_none_or(|until| *until <= now))
        });
        let entry = state.routes.entry((channel.id, user)).or_insert(Route { to, unanswered: 0 });
        entry.unanswered += 1;
        let Some(to) = to else {
            return self.carry_out_here(forwards, channel, command, answer);
        };
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        let deadline = self.0.clock.now_ms().plus(DEADLINE_MS);
        let forwarded = ForwardedCommand { ticket, deadline, channel, command: command.clone() };
        let is_sent = forwards.peers.send(to, &PeerFrame::Command(Box::new(forwarded)));
        self.0.metrics.forwarded.inc();
        state.waiting.insert(ticket, Waiting { to, channel, command, answer, until: now + SILENCE });
        if !is_sent {
            self.take_back(forwards, &mut state, &BTreeSet::from([(channel.id, to)]));
        }
    }

    /// Carries out a command whose route is counted.
    fn carry_out_here(
        &self,
        forwards: &Arc<Forwards>,
        channel: HomeChannel,
        command: Command,
        answer: Answer,
    ) {
        let (user, forwards) = (asker(&command), Arc::clone(forwards));
        let answered = move |reply| {
            forwards.state.lock().answered(channel.id, user);
            answer(reply);
        };
        self.submit_here(channel, command, Box::new(answered));
    }

    /// Carries out here, in their order, the commands for these channels that these nodes have not answered.
    fn take_back(
        &self,
        forwards: &Arc<Forwards>,
        state: &mut State,
        silent: &BTreeSet<(ChannelId, NodeRun)>,
    ) {
        let is_silent = |waiting: &Waiting| silent.contains(&(waiting.channel.id, waiting.to));
        let taken: Vec<Waiting> = state
            .waiting
            .extract_if(.., |_, waiting| is_silent(waiting))
            .map(|(_, waiting)| waiting)
            .collect();
        for waiting in taken {
            if let Some(route) = state.routes.get_mut(&(waiting.channel.id, asker(&waiting.command))) {
                route.to = None;
            }
            self.0.metrics.self_appends.inc();
            self.carry_out_here(forwards, waiting.channel, waiting.command, waiting.answer);
        }
    }

    /// Receives what other nodes send to the homes of this one, and looks after what they do not answer. Returns when the other
    /// nodes cannot send any more.
    pub async fn run_forwards(self) {
        let Some(forwards) = self.0.forwards.clone() else { return };
        let Some(mut frames) = forwards.peers.take_frames() else { return };
        let mut look_at = self.0.clock.elapsed();
        loop {
            let now = self.0.clock.elapsed();
            if look_at <= now {
                self.look(&forwards);
                look_at = now + LOOK;
            }
            tokio::select! {
                frame = frames.recv() => match frame {
                    Some(arrived) => self.handle_frame(&forwards, arrived),
                    None => return,
                },
                () = self.0.clock.sleep(look_at - now) => {}
            }
        }
    }

    fn handle_frame(&self, forwards: &Arc<Forwards>, arrived: Arrived) {
        let Arrived { from, frame, room } = arrived;
        let now = self.0.clock.elapsed();
        let mut state = forwards.state.lock();
        state.suspected.remove(&from);
        match frame {
            PeerFrame::Command(command) => {
                if command.deadline < self.0.clock.now_ms() {
                    self.0.metrics.forwards_expired.inc();
                    return;
                }
                let serving = Serving { heard_at: now, is_announced: false };
                state.serving.insert((from, command.ticket), serving);
                drop(state);
                self.serve(forwards, from, *command, room);
            }
            PeerFrame::Working { ticket } => {
                if let Some(waiting) = state.waiting.get_mut(&ticket).filter(|waiting| waiting.to == from) {
                    waiting.until = now + WORK_SILENCE;
                }
            }
            PeerFrame::Answer { ticket, reply } => {
                if state.waiting.get(&ticket).is_none_or(|waiting| waiting.to != from) {
                    return;
                }
                let Some(waiting) = state.waiting.remove(&ticket) else { return };
                state.answered(waiting.channel.id, asker(&waiting.command));
                drop(state);
                (waiting.answer)(reply);
            }
            PeerFrame::Forget { channel } => {
                drop(state);
                self.forget_members_here(channel);
            }
            PeerFrame::ForgetDirect { user } => {
                drop(state);
                self.forget_direct_channels_here(user);
            }
            PeerFrame::Heat { reports } => self.0.heats.handle_report(from, reports),
            PeerFrame::HeatLevels { levels } => self.0.heats.handle_levels(levels),
            PeerFrame::BoardWanted { channel } => forwards.boards.handle_question(from, channel),
            PeerFrame::Board { board, detail } => {
                drop(state);
                forwards.boards.handle_answer(from, now, *board, detail.map(|detail| *detail));
            }
        }
    }

    /// The command counts against the bytes of other nodes until it is answered.
    fn serve(
        &self,
        forwards: &Arc<Forwards>,
        from: NodeRun,
        command: ForwardedCommand,
        room: OwnedSemaphorePermit,
    ) {
        let ForwardedCommand { ticket, channel, command, .. } = command;
        let forwards = Arc::clone(forwards);
        let answer = move |reply: Reply| {
            drop(room);
            forwards.state.lock().serving.remove(&(from, ticket));
            // If the answer is lost, the other node carries the command out again, and finds what this one has done.
            forwards.peers.send(from, &PeerFrame::Answer { ticket, reply });
        };
        self.submit_here(channel, command, Box::new(answer));
    }

    /// Takes back what is overdue, and announces what takes long.
    fn look(&self, forwards: &Arc<Forwards>) {
        let now = self.0.clock.elapsed();
        let mut state = forwards.state.lock();
        let others = forwards.others();
        let mut silent = BTreeSet::new();
        for waiting in state.waiting.values() {
            if waiting.until <= now || !others.contains(&waiting.to) {
                silent.insert((waiting.channel.id, waiting.to));
            }
        }
        if !silent.is_empty() {
            for (_, node) in &silent {
                state.suspected.insert(*node, now + SUSPECTED);
            }
            tracing::info!(
                channels = silent.len(),
                "homes on other nodes do not answer: their commands are carried out here"
            );
            self.take_back(forwards, &mut state, &silent);
        }
        state.suspected.retain(|_, until| *until > now);
        for ((from, ticket), serving) in &mut state.serving {
            let pause = if serving.is_announced { WORKING_AGAIN } else { WORKING_AFTER };
            if now.saturating_sub(serving.heard_at) >= pause {
                *serving = Serving { heard_at: now, is_announced: true };
                forwards.peers.send(*from, &PeerFrame::Working { ticket: *ticket });
            }
        }
    }
}

#[cfg(test)]
mod tests;
