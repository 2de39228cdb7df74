//! Backends of a node that lose, delay or double envelopes, and whose inbox can hold its calls.

use std::ops::RangeInclusive;
use std::sync::Arc;

use async_trait::async_trait;
use madang_bus::{Bus, Envelope, Event, Inbox, InboxRead};
use madang_chat_server::compose::Backends;
use madang_engine::log::Row;
use madang_ids::{ChannelId, Cursor, LogId, Seq, UserId};
use madang_proto::UserCard;
use madang_store::StoreResult;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// Holds calls of a kind when a test asks for it.
#[derive(Clone)]
pub struct Gate {
    is_held: watch::Sender<bool>,
    waiting: watch::Sender<usize>,
}

impl Default for Gate {
    fn default() -> Self {
        Self { is_held: watch::Sender::new(false), waiting: watch::Sender::new(0) }
    }
}

impl Gate {
    /// From now on calls wait until they are dropped.
    pub fn hold(&self) {
        self.is_held.send_replace(true);
    }

    /// Waits until a call is held.
    ///
    /// # Panics
    /// If no call arrives within [`PATIENCE`](crate::PATIENCE).
    pub async fn wait_for_call(&self) {
        let mut waiting = self.waiting.subscribe();
        let waits = tokio::time::timeout(crate::PATIENCE, waiting.wait_for(|&waiting| waiting > 0));
        drop(waits.await.unwrap().unwrap());
    }

    async fn pass(&self) {
        if *self.is_held.borrow() {
            self.waiting.send_modify(|waiting| *waiting += 1);
            std::future::pending::<()>().await;
        }
    }
}

/// The backends of a node, with envelopes that pass through a rule and an inbox whose calls can be held.
pub struct Led {
    inbox: Arc<dyn Inbox>,
    bus: Arc<dyn Bus>,
    gates: Gates,
    envelopes: Mutex<Option<mpsc::Receiver<Envelope>>>,
    _forward: JoinSet<()>,
}

/// The calls of an inbox that can be held.
#[derive(Clone, Default)]
pub struct Gates {
    /// Reads.
    pub reads: Gate,
    /// Fan-outs.
    pub moves: Gate,
}

impl Led {
    /// Passes each envelope of `backends` to `rule`, and delivers what the rule returns, in this order.
    ///
    /// # Panics
    /// If the envelopes were taken before.
    pub fn over(backends: &mut Backends, rule: impl FnMut(Envelope) -> Vec<Envelope> + Send + 'static) {
        Self::gated(backends, Gates::default(), rule);
    }

    /// Like [`Self::over`], with gates before the inbox.
    ///
    /// # Panics
    /// See [`Self::over`].
    pub fn gated(
        backends: &mut Backends,
        gates: Gates,
        mut rule: impl FnMut(Envelope) -> Vec<Envelope> + Send + 'static,
    ) {
        let mut source = backends.bus.take_envelopes().unwrap();
        let (sender, receiver) = mpsc::channel(64);
        let mut forward = JoinSet::new();
        forward.spawn(async move {
            while let Some(envelope) = source.recv().await {
                for envelope in rule(envelope) {
                    if sender.send(envelope).await.is_err() {
                        return;
                    }
                }
            }
        });
        let (inbox, bus) = (Arc::clone(&backends.inbox), Arc::clone(&backends.bus));
        let led = Self { inbox, bus, gates, envelopes: Mutex::new(Some(receiver)), _forward: forward };
        let led = Arc::new(led);
        (backends.inbox, backends.bus) = (Arc::clone(&led) as _, led);
    }
}

#[async_trait]
impl Inbox for Led {
    async fn moved(&self, log: LogId, rows: &Arc<[Row]>) -> StoreResult<()> {
        self.gates.moves.pass().await;
        self.inbox.moved(log, rows).await
    }
    async fn moved_again(&self, log: LogId, range: RangeInclusive<Seq>) -> StoreResult<()> {
        self.gates.moves.pass().await;
        self.inbox.moved_again(log, range).await
    }
    async fn end(&self, user: UserId) -> StoreResult<Cursor> {
        self.inbox.end(user).await
    }
    async fn read(&self, user: UserId, after: Cursor, max_rows: usize) -> StoreResult<InboxRead> {
        self.gates.reads.pass().await;
        self.inbox.read(user, after, max_rows).await
    }
}

#[async_trait]
impl Bus for Led {
    fn take_envelopes(&self) -> Option<mpsc::Receiver<Envelope>> {
        self.envelopes.lock().take()
    }
    async fn attach(&self, user: UserId) -> StoreResult<()> {
        self.bus.attach(user).await
    }
    fn detach(&self, user: UserId) {
        self.bus.detach(user);
    }
    async fn subscribe(&self, channel: ChannelId) -> StoreResult<()> {
        self.bus.subscribe(channel).await
    }
    fn unsubscribe(&self, channel: ChannelId) {
        self.bus.unsubscribe(channel);
    }
    async fn publish(&self, event: Event, at_most: usize) -> StoreResult<()> {
        self.bus.publish(event, at_most).await
    }
    fn publish_profile(&self, card: UserCard, users: Vec<UserId>) {
        self.bus.publish_profile(card, users);
    }
}
