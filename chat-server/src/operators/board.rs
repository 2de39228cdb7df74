//! The board: what the nodes know of hot channels, of themselves and of their guarantees.
//!
//! It is made once a second for all operators who watch, and not at all if nobody does.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use madang_ids::{ChannelId, Millis};
use madang_proto::ChannelKind;
use madang_proto::rest::{Board, BoardNode, GuaranteeRow, HotDetail, HotRow, PushProcess};
use madang_push::PushProcesses;
use madang_service::{Drain, Health};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::timeout;

use super::fleet;
use crate::gateway::Gateway;
use crate::home::Homes;

/// The time between two states.
const SECOND: Duration = Duration::from_secs(1);
/// How long a board waits for what push processes have reported.
const PATIENCE: Duration = Duration::from_millis(300);
/// For how long what they have reported is shown while Redis does not answer.
const REPORTS_SHOWN: Duration = Duration::from_secs(30);
/// With more viewers than this, a state is made every [`CROWDED_SECONDS`] only.
const VIEWERS: usize = 20;
const CROWDED_SECONDS: u64 = 5;
/// Viewers of a node at the same time.
pub(crate) const VIEWERS_MAX: usize = 100;
/// A second in which direct messages took longer than this beside a hot channel counts against G8.
const BYSTANDERS_MS: f64 = 1_000.0;

/// The state of the nodes for operators.
pub struct Watched {
    gateway: Arc<Gateway>,
    health: Arc<Health>,
    figures: Mutex<Figures>,
    viewers: AtomicUsize,
    frames: watch::Sender<Arc<str>>,
    /// `None` in one process.
    push_processes: Option<Arc<dyn PushProcesses>>,
    /// What they have reported last, and when that was read.
    pushed: Mutex<(Duration, Vec<PushProcess>)>,
}

/// What changes from second to second.
#[derive(Debug, Default)]
struct Figures {
    acked: u64,
    delivered: u64,
    /// Of the last second.
    sends: u64,
    deliveries: u64,
    guarantees: [Breaches; GUARANTEES.len()],
}

#[derive(Debug, Clone, Copy, Default)]
struct Breaches {
    count: u64,
    last: Option<Millis>,
}

/// The guarantees that a node watches, and where their breaches are counted: see [`Watched::counts`].
const GUARANTEES: [&str; 3] = ["G1", "G4", "G8"];

/// An operator who watches. The place is free again when it is dropped.
pub(crate) struct Viewer {
    watched: Arc<Watched>,
    frames: watch::Receiver<Arc<str>>,
}

impl Viewer {
    /// Waits for the next state. Cancel safe. `None` at the end of the process.
    pub(crate) async fn next(&mut self) -> Option<Arc<str>> {
        self.frames.changed().await.ok()?;
        Some(Arc::clone(&self.frames.borrow_and_update()))
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.watched.viewers.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Watched {
    /// Of a node.
    #[must_use]
    pub fn new(
        gateway: Arc<Gateway>,
        health: Arc<Health>,
        push_processes: Option<Arc<dyn PushProcesses>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            gateway,
            health,
            figures: Mutex::default(),
            viewers: AtomicUsize::new(0),
            frames: watch::channel(Arc::from("")).0,
            push_processes,
            pushed: Mutex::default(),
        })
    }

    /// A place to watch from. `None` if [`VIEWERS_MAX`] operators do.
    pub(crate) fn watch(self: &Arc<Self>) -> Option<Viewer> {
        let more = |count| (count < VIEWERS_MAX).then_some(count + 1);
        self.viewers.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok()?;
        Some(Viewer { watched: Arc::clone(self), frames: self.frames.subscribe() })
    }

    /// Counts once a second, and makes the state if somebody watches, until the drain begins.
    pub async fn run(self: Arc<Self>, drain: Drain) {
        let clock = self.gateway.operations.clock.clone();
        let mut next = clock.elapsed() + SECOND;
        for second in 0_u64.. {
            tokio::select! {
                () = clock.sleep_until(next) => {}
                () = drain.draining() => return,
            }
            // Other nodes may be slow to answer: that is part of the next second, not beside it.
            next = clock.elapsed() + SECOND;
            self.count();
            let viewers = self.viewers.load(Ordering::Acquire);
            let is_due = viewers <= VIEWERS || second.is_multiple_of(CROWDED_SECONDS);
            if viewers > 0 && is_due {
                let board = self.board().await;
                match serde_json::to_string(&board) {
                    Ok(json) => drop(self.frames.send_replace(json.into())),
                    Err(error) => tracing::error!(%error, "encoding the board failed"),
                }
            }
        }
    }

    fn count(&self) {
        let operations = &self.gateway.operations;
        let (acked, delivered) = (operations.metrics.acked.get(), operations.metrics.delivered.get());
        let (counts, now) = (self.counts(), operations.clock.now_ms());
        let mut figures = self.figures.lock();
        figures.sends = acked - std::mem::replace(&mut figures.acked, acked);
        figures.deliveries = delivered - std::mem::replace(&mut figures.delivered, delivered);
        for (known, count) in figures.guarantees.iter_mut().zip(counts) {
            if count > known.count {
                *known = Breaches { count, last: Some(now) };
            }
        }
    }

    /// How often each of [`GUARANTEES`] was at risk: a write failed or has an unknown outcome (and was not acknowledged); rows came late
    /// to inboxes, or a device was welcomed without one; direct messages were slow beside a hot channel.
    fn counts(&self) -> [u64; GUARANTEES.len()] {
        let operations = &self.gateway.operations;
        let (metrics, heats) = (&operations.metrics, &operations.heats);
        let is_slow = !heats.all().is_empty() && heats.node().bystanders_ms.p99 > BYSTANDERS_MS;
        let slow_before = self.figures.lock().guarantees[2].count;
        [
            metrics.append_failures.get(),
            metrics.fanout_failures.get() + metrics.degraded.get(),
            slow_before + u64::from(is_slow),
        ]
    }

    /// The present state of all nodes.
    pub async fn board(&self) -> Board {
        let ((others, _), push_processes) =
            tokio::join!(self.homes().ask_boards(None), self.push_processes());
        Board { push_processes, ..fleet::merge(self.own().await, others) }
    }

    /// What push processes have sent; while Redis does not answer, as they were, for half a minute.
    async fn push_processes(&self) -> Vec<PushProcess> {
        let Some(processes) = &self.push_processes else { return Vec::new() };
        let now = self.gateway.operations.clock.elapsed();
        let reported = timeout(PATIENCE, processes.all()).await;
        let mut pushed = self.pushed.lock();
        match reported {
            Ok(Ok(reported)) => *pushed = (now, reported),
            _ if now.saturating_sub(pushed.0) > REPORTS_SHOWN => pushed.1.clear(),
            _ => {}
        }
        pushed.1.clone()
    }

    /// One channel in detail, as all nodes see it.
    pub async fn channel(&self, channel: ChannelId) -> HotDetail {
        let (_, others) = self.homes().ask_boards(Some(channel)).await;
        let detail = fleet::merge_details(self.own_channel(channel).await, others);
        HotDetail { graphs_url: self.gateway.operations.config.operator.graphs_of(channel), ..detail }
    }

    /// Answers other nodes that ask for the board of this one, until the process ends.
    pub async fn answer(self: Arc<Self>) {
        let Some(mut questions) = self.homes().take_board_questions() else { return };
        while let Some(question) = questions.recv().await {
            let detail = match question.channel {
                Some(channel) => Some(self.own_channel(channel).await),
                None => None,
            };
            self.homes().answer_board(question, self.own().await, detail);
        }
    }

    fn homes(&self) -> &Homes {
        &self.gateway.operations.homes
    }

    /// The present state of this node.
    async fn own(&self) -> Board {
        let operations = &self.gateway.operations;
        let mut channels = operations.heats.rows();
        for row in &mut channels {
            self.complete(row).await;
        }
        let node = self.node();
        let guarantees = self.figures.lock().guarantees;
        let guarantees = GUARANTEES.iter().zip(guarantees).map(|(id, breaches)| GuaranteeRow {
            id: (*id).to_owned(),
            breaches: breaches.count,
            last: breaches.last,
        });
        Board {
            at: node.at,
            node: node.name.clone(),
            config_version: node.config_version,
            nodes: vec![node],
            channels,
            guarantees: guarantees.collect(),
            push_processes: Vec::new(),
        }
    }

    async fn own_channel(&self, channel: ChannelId) -> HotDetail {
        let mut detail = self.gateway.operations.heats.detail(channel);
        self.complete(&mut detail.row).await;
        detail
    }

    /// Adds what only the gateway, the homes and the store know. Without the store the row stays without a name.
    async fn complete(&self, row: &mut HotRow) {
        row.home = self.homes().home_name(row.channel_id).map(|name| name.to_string());
        row.subscribers = self.gateway.subscribers_of(row.channel_id) as u64;
        if let Ok(channel) = self.gateway.operations.channel(row.channel_id).await {
            row.kind = Some(channel.card.kind);
            // Names of groups are private.
            row.name = channel.card.name.clone().filter(|_| channel.card.kind == ChannelKind::Open);
        }
    }

    fn node(&self) -> BoardNode {
        let operations = &self.gateway.operations;
        let (heat, figures) = (operations.heats.node(), self.figures.lock());
        BoardNode {
            name: operations.config.node.name(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            at: operations.clock.now_ms(),
            is_ready: self.health.readiness().ready,
            config_version: operations.operators.version(),
            connections: u64::try_from(operations.metrics.connections.get()).unwrap_or(0),
            sends: figures.sends,
            deliveries: figures.deliveries,
            cost: heat.cost,
            capacity: heat.capacity,
            bars: heat.bars.0,
            lag_ms: heat.lag_ms,
            bytes_under_way: self.gateway.bytes_under_way() as u64,
            bystanders_ms: heat.bystanders_ms,
            shed_level: operations.shedding.level(),
            push: operations.push.figures(),
        }
    }
}
