//! A fleet in one thread: chat nodes, presence processes, a registry with leases, a lossy network, and clients that come back.
//!
//! Time moves in steps. Each process does at each step what its shell does; one that is paused does nothing, and its frames wait.
//! What each connection has been sent is compared with the truth.

mod heard;
mod steps;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use madang_engine::session::Now;
use madang_ids::{ConnectionId, DeviceId, Millis, NodeEpoch, UserId};
use madang_proto::Availability;
use madang_store::PresenceRow;

use crate::api::{Departure, NodeReport, Up};
use crate::config::PresenceConfig;
use crate::core::{Loaded, Notice, NoticeTarget, ProcessRun};
use crate::fleet::LiveProcesses;
use crate::fleet::node::Node;
use crate::fleet::process::Process;
use crate::fleet::wire::{Frame, ToCore, ToNode};
use crate::metrics::FleetMetrics;

pub(super) const STEP: Duration = Duration::from_millis(250);
/// Life and renewal of an entry in the registry, and the pause between two looks at it.
const LEASE: Duration = Duration::from_secs(15);
const RENEW: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_secs(1);
/// Users, each with one client and some with two.
const USERS: u64 = 12;

/// Where presence processes run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Placement {
    /// Nodes 1 to 3 have a core each.
    Inside,
    /// Nodes 1 to 3, and processes 11 to 13.
    Apart,
}

/// A mechanism that is taken away, around the code that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plant {
    /// Nodes are not asked for their sets.
    Asking,
    /// Nodes do not report that they have missed notices.
    Missed,
    /// Connections in their grace period are not handed over.
    HandOver,
    /// The nodes that are alive are not known to the processes.
    LiveNodes,
    /// A process does not notice that it was paused.
    Pause,
}

/// A process of the operating system: a node, a core, or both.
struct Machine {
    run: ProcessRun,
    node: Option<Node>,
    core: Option<Core>,
    live: LiveProcesses,
    renewed: Duration,
    looks_at: Duration,
    /// It does nothing until this time.
    paused: Option<Duration>,
    is_draining: bool,
    drained_at: Option<Duration>,
    connections: Vec<Up>,
    /// Frames that have arrived.
    frames: Vec<Frame>,
}

struct Core {
    process: Process,
    reading: Vec<(Duration, Loaded)>,
}

struct Entry {
    run: ProcessRun,
    until: Duration,
    is_draining: bool,
}

struct Client {
    user: UserId,
    device: DeviceId,
    /// The connection, and its machine.
    at: Option<(u16, ConnectionId)>,
    /// When it connects again.
    comes: Option<Duration>,
    is_gone: bool,
}

struct Packet {
    at: Duration,
    order: u64,
    to: ProcessRun,
    frame: Frame,
}

/// What a connection knows: the state and the text of others.
type Known = BTreeMap<UserId, (Availability, Option<String>)>;

pub(super) struct World {
    pub(super) now: Now,
    placement: Placement,
    plant: Option<Plant>,
    dice: u64,
    machines: BTreeMap<u16, Machine>,
    registry: BTreeMap<u16, Entry>,
    clients: Vec<Client>,
    rows: BTreeMap<UserId, PresenceRow>,
    known: BTreeMap<ConnectionId, Known>,
    /// What a connection knew before a list that is not complete yet.
    before: BTreeMap<ConnectionId, Known>,
    complete: BTreeSet<ConnectionId>,
    packets: Vec<Packet>,
    last_at: BTreeMap<u16, Duration>,
    /// Of 100 frames, the number that is lost.
    pub(super) loss: u64,
    /// Whether clients lose their connections for a moment. Not while frames are lost: what repairs a loss may take longer than
    /// what such a gap leaves of a grace period.
    pub(super) flickers: bool,
    next: u64,
}

impl World {
    /// A fleet that has run for a while, with all clients connected.
    pub(super) fn new(placement: Placement, seed: u64, plant: Option<Plant>) -> Self {
        let now = Now { at: Millis::new(1_000_000), elapsed: Duration::from_secs(100) };
        let mut world = Self {
            now,
            placement,
            plant,
            dice: seed,
            machines: BTreeMap::new(),
            registry: BTreeMap::new(),
            clients: Vec::new(),
            rows: BTreeMap::new(),
            known: BTreeMap::new(),
            before: BTreeMap::new(),
            complete: BTreeSet::new(),
            packets: Vec::new(),
            last_at: BTreeMap::new(),
            loss: 0,
            flickers: false,
            next: 0,
        };
        for _ in 0..4 {
            world.roll(100);
        }
        world.all_numbers().into_iter().for_each(|number| world.start(number));
        world.pass(3);
        for id in 1..=USERS + USERS / 3 {
            let user = UserId::from_raw(if id > USERS { id - USERS } else { id });
            let comes = Some(now.elapsed);
            let device = DeviceId::from_raw(id);
            world.clients.push(Client { user, device, at: None, comes, is_gone: false });
        }
        world.pass(25);
        world.check_right();
        world
    }

    pub(super) fn roll(&mut self, sides: u64) -> u64 {
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.dice >> 33) % sides
    }

    fn all_numbers(&self) -> Vec<u16> {
        match self.placement {
            Placement::Inside => vec![1, 2, 3],
            Placement::Apart => vec![1, 2, 3, 11, 12, 13],
        }
    }

    fn has_core(&self, number: u16) -> bool {
        number > 10 || self.placement == Placement::Inside
    }

    /// The live machines with a node, or with a core.
    pub(super) fn nodes(&self) -> Vec<u16> {
        self.machines.iter().filter(|(_, one)| one.node.is_some()).map(|(number, _)| *number).collect()
    }

    pub(super) fn cores(&self) -> Vec<u16> {
        self.machines.iter().filter(|(_, one)| one.core.is_some()).map(|(number, _)| *number).collect()
    }

    /// Starts a machine in a new epoch.
    pub(super) fn start(&mut self, number: u16) {
        let run = self.new_run(number);
        let node = (number < 10).then(|| Node::new(PresenceConfig::default(), FleetMetrics::default()));
        self.register(run, false);
        let mut machine = Machine {
            run,
            node,
            core: None,
            live: LiveProcesses::default(),
            renewed: self.now.elapsed,
            looks_at: self.now.elapsed + STEP * u32::from(number % 4),
            paused: None,
            is_draining: false,
            drained_at: None,
            connections: Vec::new(),
            frames: Vec::new(),
        };
        machine.live = self.live(run);
        if self.has_core(number) {
            let process = Process::new(
                PresenceConfig::default(),
                &self.seen_by_core(&machine.live),
                self.now,
                FleetMetrics::default(),
            );
            machine.core = Some(Core { process, reading: Vec::new() });
        }
        if let Some(node) = &mut machine.node {
            node.handle_live(&machine.live, self.now);
        }
        self.machines.insert(number, machine);
    }

    /// A new epoch, for a new life.
    fn new_run(&mut self, process: u16) -> ProcessRun {
        self.next += 1;
        ProcessRun { process, epoch: NodeEpoch(self.next) }
    }

    fn register(&mut self, run: ProcessRun, is_draining: bool) {
        let until = self.now.elapsed + LEASE;
        self.registry.insert(run.process, Entry { run, until, is_draining });
    }

    /// The registry, as a machine reads it.
    fn live(&self, me: ProcessRun) -> LiveProcesses {
        let live = self.registry.values().filter(|entry| entry.until > self.now.elapsed);
        let mut all = LiveProcesses { me, ..LiveProcesses::default() };
        for entry in live {
            if self.has_core(entry.run.process) && !entry.is_draining {
                all.processes.push(entry.run);
            }
            if entry.run.process < 10 {
                all.nodes.push(entry.run);
            }
        }
        all
    }

    fn seen_by_core(&self, live: &LiveProcesses) -> LiveProcesses {
        match self.plant {
            Some(Plant::LiveNodes) => LiveProcesses { nodes: Vec::new(), ..live.clone() },
            _ => live.clone(),
        }
    }

    /// A machine dies.
    pub(super) fn kill(&mut self, number: u16) {
        self.machines.remove(&number);
        self.break_connections(number, (250, 6_000));
    }

    /// A machine does nothing for this time. Its clients notice after some seconds.
    pub(super) fn pause(&mut self, number: u16, seconds: u64) {
        let until = self.now.elapsed + Duration::from_secs(seconds);
        if let Some(machine) = self.machines.get_mut(&number) {
            machine.paused = Some(until);
        }
        if seconds > 15 {
            self.break_connections(number, (8_000, 14_000));
        }
    }

    /// A machine leaves in order. Its clients come back elsewhere after `back` milliseconds.
    pub(super) fn drain(&mut self, number: u16, back: (u64, u64)) {
        let (now, at) = (self.now.elapsed, self.now);
        let Some(machine) = self.machines.get_mut(&number) else { return };
        machine.is_draining = true;
        if let Some(core) = &mut machine.core {
            core.process.handle_drain();
        }
        if let Some(node) = &mut machine.node {
            for up in machine.connections.drain(..) {
                let (user, connection, how) = (up.user, up.connection, Departure::Drained);
                node.handle_report(NodeReport::Down { user, connection, how }, at);
            }
        }
        machine.drained_at = Some(now + Duration::from_secs(12));
        let run = machine.run;
        self.register(run, true);
        self.flush(number, at);
        self.break_connections(number, back);
    }

    /// The clients of a machine have lost it and come back after a time between two numbers of milliseconds. One in eight leaves.
    fn break_connections(&mut self, number: u16, (least, most): (u64, u64)) {
        for index in 0..self.clients.len() {
            if self.clients[index].at.is_some_and(|(at, _)| at == number) {
                let wait = Duration::from_millis(least + self.roll(most - least + 1));
                let leaves = self.roll(8) == 0;
                let client = &mut self.clients[index];
                client.at = None;
                client.is_gone = leaves;
                client.comes = (!leaves).then_some(self.now.elapsed + wait);
            }
        }
    }

    /// A client disconnects for good.
    pub(super) fn leave(&mut self) {
        let index = self.roll(self.clients.len() as u64) as usize;
        let client = &mut self.clients[index];
        client.is_gone = true;
        client.comes = None;
        let now = self.now;
        let (user, at) = (client.user, client.at.take());
        let Some((machine, connection)) = at.and_then(|(at, id)| Some((self.machines.get_mut(&at)?, id)))
        else {
            return;
        };
        machine.connections.retain(|up| up.connection != connection);
        if let Some(node) = &mut machine.node {
            node.handle_report(NodeReport::Down { user, connection, how: Departure::Seen }, now);
        }
    }

    /// A client loses its connection and comes back within the grace period, on any node.
    pub(super) fn flicker(&mut self) {
        if !self.flickers {
            return;
        }
        let index = self.roll(self.clients.len() as u64) as usize;
        let (wait, now) = (Duration::from_millis(500 + self.roll(6_500)), self.now);
        let client = &mut self.clients[index];
        let Some((at, connection)) = client.at else { return };
        let Some(machine) = self.machines.get_mut(&at).filter(|machine| machine.paused.is_none()) else {
            return;
        };
        (client.at, client.comes) = (None, Some(self.now.elapsed + wait));
        machine.connections.retain(|up| up.connection != connection);
        if let Some(node) = &mut machine.node {
            let (user, how) = (client.user, Departure::Seen);
            node.handle_report(NodeReport::Down { user, connection, how }, now);
        }
    }

    /// A user changes the text, by a request to any node.
    pub(super) fn set_text(&mut self) {
        let user = UserId::from_raw(1 + self.roll(USERS));
        self.next += 1;
        let status = Some(format!("text {}", self.next));
        self.rows.insert(user, PresenceRow { invisible: false, status, last_active_at: None });
        let (mut nodes, now) = (self.nodes(), self.now);
        nodes.retain(|number| self.machines[number].paused.is_none());
        let number = nodes[self.roll(nodes.len() as u64) as usize];
        if let Some(node) = self.machines.get_mut(&number).and_then(|machine| machine.node.as_mut()) {
            node.handle_report(NodeReport::Changed { user, circle: false }, now);
        }
    }
}
