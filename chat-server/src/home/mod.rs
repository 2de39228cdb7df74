//! Drives `engine::home`: one cell a log, one effect of the store at a time, answers by callback.
//!
//! A cell has a task only while there is work. Two cells for one log would be slower, not wrong: the store's
//! compare-and-set arbitrates.

mod drive;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use madang_bus::Inbox;
use madang_engine::home::{Command, Home, Reply, Scope, Ticket};
use madang_ids::{ChannelId, LogId, Snowflakes, UserId};
use madang_proto::{Content, ErrorBody};
use madang_service::{Clock, Tasks};
use madang_store::{Channel, Store};
use moka::sync::Cache;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::metrics::ChatMetrics;

/// Logs whose homes are kept; each takes up to 50 KB (its window of retry keys).
const HOMES: u64 = 4_096;
/// A home that was not asked for so long is forgotten.
const IDLE: Duration = Duration::from_secs(60);

/// Called once with the answer to a command. Must not block.
pub type Answer = Box<dyn FnOnce(Reply) + Send>;

/// The homes of this node. Cheap to clone.
#[derive(Clone)]
pub struct Homes(Arc<Inner>);

struct Inner {
    cells: Cache<LogId, Arc<Cell>>,
    store: Arc<dyn Store>,
    inbox: Arc<dyn Inbox>,
    ids: Arc<Snowflakes>,
    clock: Clock,
    tasks: Tasks,
    metrics: ChatMetrics,
    tickets: AtomicU64,
}

struct Cell {
    log: LogId,
    state: Mutex<CellState>,
}

struct CellState {
    home: Home,
    answers: HashMap<Ticket, Answer>,
    is_driven: bool,
}

impl Homes {
    /// Homes over a store.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        inbox: Arc<dyn Inbox>,
        ids: Arc<Snowflakes>,
        clock: Clock,
        tasks: Tasks,
        metrics: ChatMetrics,
    ) -> Self {
        let cells = Cache::builder().max_capacity(HOMES).time_to_idle(IDLE).build();
        let tickets = AtomicU64::new(1);
        Self(Arc::new(Inner { cells, store, inbox, ids, clock, tasks, metrics, tickets }))
    }

    /// Hands a command of a channel to its home. Commands of one caller are taken in the order of these calls.
    pub fn submit(&self, channel: &Channel, command: Command, answer: Answer) {
        let scope = || Scope::Channel {
            kind: channel.card.kind,
            capacity: channel.capacity,
            created_by: channel.created_by,
        };
        self.hand_over(LogId::Channel(channel.card.id), scope, command, answer);
    }

    /// Hands a command of a channel to its home and waits for the answer. Dropping the future does not undo it.
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
        self.hand_over(LogId::User(user), || Scope::User, Command::Note { content }, answer);
        await_reply(receiver).await
    }

    /// Forgets what the home of a channel knows of members and blocks, if there is one here.
    pub fn forget_members(&self, channel: ChannelId) {
        if let Some(cell) = self.0.cells.get(&LogId::Channel(channel)) {
            cell.state.lock().home.forget_members();
        }
    }

    fn hand_over(&self, log: LogId, scope: impl FnOnce() -> Scope, command: Command, answer: Answer) {
        let cell = self.0.cells.get_with(log, || Arc::new(Cell::new(log, scope())));
        let ticket = Ticket(self.0.tickets.fetch_add(1, Ordering::Relaxed));
        let mut state = cell.state.lock();
        state.answers.insert(ticket, answer);
        state.home.handle_command(ticket, command);
        if !state.is_driven {
            state.is_driven = true;
            drop(state);
            self.0.tasks.spawn("home", self.clone().drive_boxed(cell));
        }
    }
}

impl Homes {
    /// Boxed by name, since driving a channel may hand a note to a user's log, which drives.
    fn drive_boxed(self, cell: Arc<Cell>) -> BoxFuture<'static, ()> {
        Box::pin(async move { self.drive(&cell).await })
    }
}

impl Cell {
    fn new(log: LogId, scope: Scope) -> Self {
        let state = CellState { home: Home::new(log, scope), answers: HashMap::new(), is_driven: false };
        Self { log, state: Mutex::new(state) }
    }
}

async fn await_reply(receiver: oneshot::Receiver<Reply>) -> Result<Reply, ErrorBody> {
    match receiver.await {
        Ok(Reply::Refused(error)) => Err(error),
        Ok(reply) => Ok(reply),
        Err(_) => Err(ErrorBody::unavailable("the server is stopping", 1000)),
    }
}
