//! Drives `engine::home`: one cell for each log, one effect of the store at a time, answers by callback.
//!
//! A cell has a task only while there is work, and is not evicted meanwhile. With two cells of one log each append would still be
//! right (the compare-and-set of the store decides), but the order of one connection's sends would be lost.

mod boards;
mod drive;
mod forward;
mod heat;
mod lane;
mod markers;
mod mentions;
mod takeover;
mod written;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use futures_util::future::BoxFuture;
use madang_bus::{HomeChannel, Inbox, Peers};
use madang_engine::home::{Command, Home, Reply, Scope, Ticket};
use madang_ids::{ChannelId, LogId, Snowflakes, UserId};
use madang_presence::Presence;
use madang_proto::{ChannelKind, Content, ErrorBody};
use madang_service::{Clock, Tasks};
use madang_store::{Channel, LogStore, Store, StoreResult, urgently};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::consent::Consent;
use crate::heat::Heats;
use crate::metrics::ChatMetrics;
use crate::overload::Bulkheads;
use forward::Forwards;
use lane::{Lane, LaneBytes};

pub use boards::BoardQuestion;
pub use forward::{HomeNode, HomeNodes};
pub use written::{Count, PERIOD, Period, Written};

/// Homes that are kept while they are idle. Above it they are evicted after [`SHORT_REST`].
pub(crate) const HOMES: usize = 4_096;
/// The memory that one home takes at most, in bytes: mainly its window of retry keys.
pub(crate) const HOME_BYTES: u64 = 50_000;
/// The memory of mentions and read markers that wait to be noted, in bytes.
pub(crate) const OWED_BYTES: u64 = mentions::OWED_BYTES + markers::OWED_BYTES;
/// The memory of rows whose fan-out is owed, in bytes.
pub(crate) const LANE_BYTES: u64 = lane::ROWS_BYTES as u64;
/// Idle homes are evicted after `REST`, or after `SHORT_REST` while there are more than [`HOMES`].
const REST: Duration = Duration::from_secs(60);
const SHORT_REST: Duration = Duration::from_secs(1);
/// The last notes of a user's own log among which a retry looks for an earlier attempt.
const RECENT_NOTES: usize = 64;

/// Called once with the answer to a command. It must not block.
pub type Answer = Box<dyn FnOnce(Reply) + Send>;

/// The homes of this node. A clone shares them.
#[derive(Clone)]
pub struct Homes(Arc<Inner>);

/// The parts that homes are built from.
pub struct HomeParts {
    /// The logs of the store.
    pub logs: Arc<dyn LogStore>,
    /// Everything else in the store.
    pub store: Arc<dyn Store>,
    /// The inboxes.
    pub inbox: Arc<dyn Inbox>,
    /// Mints the ids of messages.
    pub ids: Arc<Snowflakes>,
    pub clock: Clock,
    /// Runs the tasks of homes.
    pub tasks: Tasks,
    pub metrics: ChatMetrics,
    /// Notified when a member accepts a group or a direct channel.
    pub presence: Presence,
    /// The rules about who may write to whom.
    pub consent: Consent,
    /// Homes of each log. A process runs one; a simulation runs two, as two nodes do whose views of the fleet differ.
    pub homes_of_a_log: u64,
    /// Counts what channels cost.
    pub heats: Arc<Heats>,
    /// The bounds of calls of the store.
    pub bulkheads: Arc<Bulkheads>,
    /// The way to homes on other nodes, and those nodes; `None` in one process.
    pub others: Option<(Arc<dyn Peers>, HomeNodes)>,
}

/// A log and, of its homes, which one.
type Place = (LogId, u64);

struct Inner {
    cells: DashMap<Place, Arc<Cell>>,
    homes_of_a_log: u64,
    logs: Arc<dyn LogStore>,
    store: Arc<dyn Store>,
    inbox: Arc<dyn Inbox>,
    ids: Arc<Snowflakes>,
    clock: Clock,
    tasks: Tasks,
    metrics: ChatMetrics,
    presence: Presence,
    consent: Consent,
    tickets: AtomicU64,
    owed_mentions: Mutex<mentions::OwedMentions>,
    owed_markers: Mutex<markers::OwedMarkers>,
    written: Written,
    heats: Arc<Heats>,
    bulkheads: Arc<Bulkheads>,
    lane_bytes: LaneBytes,
    forwards: Option<Arc<Forwards>>,
}

struct Cell {
    log: LogId,
    /// Of the homes of the log, which one.
    number: u64,
    /// `None` for a user's own log.
    kind: Option<ChannelKind>,
    /// The two users of a direct channel.
    between: Option<[UserId; 2]>,
    state: Mutex<CellState>,
    lane: Mutex<Lane>,
    /// Other nodes find the log if this one dies.
    is_announced: AtomicBool,
    /// Woken when a command was handed over. Keeps one permit.
    asked: Notify,
}

impl Cell {
    /// Whether an append or its fan-out is unfinished.
    fn works(&self, state: &CellState) -> bool {
        state.is_driven || !self.lane.lock().is_idle()
    }
}

struct CellState {
    home: Home,
    answers: HashMap<Ticket, Answer>,
    is_driven: bool,
    /// The time of the last command, by the steady clock.
    asked_at: Duration,
}

impl Homes {
    /// Homes over a store.
    #[must_use]
    pub fn new(parts: HomeParts) -> Self {
        let HomeParts {
            logs,
            store,
            inbox,
            ids,
            clock,
            tasks,
            metrics,
            presence,
            consent,
            homes_of_a_log,
            heats,
            bulkheads,
            others,
        } = parts;
        Self(Arc::new(Inner {
            cells: DashMap::new(),
            homes_of_a_log,
            logs,
            store,
            inbox,
            ids,
            clock,
            tasks,
            metrics,
            presence,
            consent,
            tickets: AtomicU64::new(1),
            owed_mentions: Mutex::default(),
            owed_markers: Mutex::default(),
            written: Written::default(),
            lane_bytes: LaneBytes::default(),
            forwards: others.map(|(peers, nodes)| Arc::new(Forwards::new(peers, nodes, Arc::clone(&heats)))),
            heats,
            bulkheads,
        }))
    }

    /// Hands a command of a channel to its home. Commands of one caller are ordered as these calls are.
    pub fn submit(&self, channel: &Channel, command: Command, answer: Answer) {
        match &self.0.forwards {
            Some(forwards) => self.route(forwards, channel.into(), command, answer),
            None => self.submit_here(channel.into(), command, answer),
        }
    }

    /// Hands a command to the home on this node.
    fn submit_here(&self, channel: HomeChannel, command: Command, answer: Answer) {
        let HomeChannel { id, kind, capacity, created_by, between } = channel;
        let scope = Scope::Channel { kind, capacity, created_by };
        self.hand_over(LogId::Channel(id), |place| Cell::new(place, scope, between), command, answer);
    }

    /// Hands a command of a channel to its home and waits for the answer. Dropping the future does not cancel the command.
    ///
    /// # Errors
    /// The home's refusal.
    pub async fn ask(&self, channel: &Channel, command: Command) -> Result<Reply, ErrorBody> {
        let (sender, receiver) = oneshot::channel();
        let answer = Box::new(move |reply| drop(sender.send(reply)));
        self.submit(channel, command, answer);
        await_reply(receiver).await
    }

    /// Appends a note to a user's own log.
    ///
    /// # Errors
    /// The home's refusal.
    pub async fn note(&self, user: UserId, content: Content) -> Result<Reply, ErrorBody> {
        let (sender, receiver) = oneshot::channel();
        let answer = Box::new(move |reply| drop(sender.send(reply)));
        let log = LogId::User(user);
        self.hand_over(log, |place| Cell::new(place, Scope::User, None), Command::Note { content }, answer);
        await_reply(receiver).await
    }

    /// The first result of `pick` among the last 64 notes of a user's own log, from the latest to the oldest.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn last_noted<T>(
        &self,
        user: UserId,
        pick: impl Fn(&Content) -> Option<T>,
    ) -> StoreResult<Option<T>> {
        let tail = self.0.logs.tail(LogId::User(user), RECENT_NOTES).await?;
        Ok(tail.rows.iter().rev().find_map(|row| pick(&row.entry.content)))
    }

    /// The bytes that users and channels have written.
    #[must_use]
    pub fn written(&self) -> &Written {
        &self.0.written
    }

    /// Drops what the home of a channel has cached about members and blocks, also on another node.
    pub fn forget_members(&self, channel: ChannelId) {
        self.forget_members_here(channel);
        if let Some(forwards) = &self.0.forwards {
            forwards.forget_members(channel);
        }
    }

    /// Drops what the homes of a user's direct channels have cached about who may write there, also on other nodes.
    pub fn forget_direct_channels_of(&self, user: UserId) {
        self.forget_direct_channels_here(user);
        if let Some(forwards) = &self.0.forwards {
            forwards.forget_direct_channels_of(user);
        }
    }

    fn forget_members_here(&self, channel: ChannelId) {
        for number in 0..self.0.homes_of_a_log {
            if let Some(cell) = self.0.cells.get(&(LogId::Channel(channel), number)) {
                cell.state.lock().home.forget_members();
            }
        }
    }

    fn forget_direct_channels_here(&self, user: UserId) {
        for cell in self.0.cells.iter().filter(|cell| cell.between.is_some_and(|pair| pair.contains(&user))) {
            cell.state.lock().home.forget_members();
        }
    }

    fn hand_over(&self, log: LogId, cell: impl FnOnce(Place) -> Cell, command: Command, answer: Answer) {
        let ticket = Ticket(self.0.tickets.fetch_add(1, Ordering::Relaxed));
        // Each user has one of the homes: it keeps the order of what a connection sends. Notes have no order among each other.
        let asker = command.by().map_or(ticket.0, UserId::raw);
        let place = (log, asker % self.0.homes_of_a_log);
        let entry = self.0.cells.entry(place).or_insert_with(|| Arc::new(cell(place)));
        let cell = Arc::clone(&entry);
        let mut state = cell.state.lock();
        state.asked_at = self.0.clock.elapsed();
        state.answers.insert(ticket, answer);
        state.home.handle_command(ticket, command, self.now());
        // Under the lock in which `next` clears the flag: either this command is seen by the running driver, or this call starts
        // one.
        let must_drive = !std::mem::replace(&mut state.is_driven, true);
        drop(state);
        // The entry of the map is held up to here. `forget_resting` cannot evict the cell between the look-up and the command.
        drop(entry);
        if must_drive {
            self.0.tasks.spawn("home", self.clone().drive_boxed(cell));
        } else {
            cell.asked.notify_one();
        }
    }
}

impl Homes {
    /// Evicts idle homes. Called once a second.
    pub fn forget_resting(&self) {
        let rest = if self.0.cells.len() > HOMES { SHORT_REST } else { REST };
        let now = self.0.clock.elapsed();
        let mut retired = Vec::new();
        self.0.cells.retain(|(log, _), cell| {
            let state = cell.state.lock();
            // Two lanes of one log would be harmless, but neither would know what the other owes.
            let is_kept = cell.works(&state) || now.saturating_sub(state.asked_at) < rest;
            if !is_kept && cell.is_announced.load(Ordering::Acquire) {
                retired.push(*log);
            }
            is_kept
        });
        if !retired.is_empty() {
            self.retire(retired);
        }
    }

    /// Boxed, because the future would contain itself: driving a channel may note something in a user's log, which is driven too.
    fn drive_boxed(self, cell: Arc<Cell>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let driven = Driven { homes: &self, cell: &cell };
            // All commands of the log wait for the reads that are made here.
            urgently(self.drive(&cell)).await;
            std::mem::forget(driven);
        })
    }
}

/// Answers the waiting callers if the driver does not reach its end, because it panicked or the process stops.
struct Driven<'a> {
    homes: &'a Homes,
    cell: &'a Arc<Cell>,
}

impl Drop for Driven<'_> {
    fn drop(&mut self) {
        // Removed first. A later command gets a new cell, and a command that was already handed to this one is in `answers`.
        self.homes.0.cells.remove(&self.cell.place());
        let answers = std::mem::take(&mut self.cell.state.lock().answers);
        for answer in answers.into_values() {
            answer(Reply::Refused(ErrorBody::unavailable(
                "the server could not finish this request request",
                1000,
            )));
        }
    }
}

impl Cell {
    const fn place(&self) -> Place {
        (self.log, self.number)
    }

    fn new((log, number): Place, scope: Scope, between: Option<[UserId; 2]>) -> Self {
        let kind = match &scope {
            Scope::Channel { kind, .. } => Some(*kind),
            Scope::User => None,
        };
        let state = CellState {
            home: Home::new(log, scope),
            answers: HashMap::new(),
            is_driven: false,
            asked_at: Duration::ZERO,
        };
        Self {
            log,
            number,
            kind,
            between,
            state: Mutex::new(state),
            lane: Mutex::default(),
            is_announced: AtomicBool::new(false),
            asked: Notify::new(),
        }
    }
}

async fn await_reply(receiver: oneshot::Receiver<Reply>) -> Result<Reply, ErrorBody> {
    match receiver.await {
        Ok(Reply::Refused(error)) => Err(error),
        Ok(reply) => Ok(reply),
        Err(_) => Err(ErrorBody::unavailable("the server is stopping", 1000)),
    }
}
