//! An inbox that loses, delays or doubles envelopes, and that can hold its reads.

use std::sync::Arc;

use async_trait::async_trait;
use madang_bus::{Envelope, Event, Inbox, InboxRead};
use madang_ids::{ChannelId, Cursor, LogId, Seq, UserId};
use madang_proto::UserCard;
use madang_store::StoreResult;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// Holds the reads of an inbox.
#[derive(Clone)]
pub struct ReadGate {
    is_held: watch::Sender<bool>,
    waiting: watch::Sender<usize>,
}

impl Default for ReadGate {
    fn default() -> Self {
        Self { is_held: watch::Sender::new(false), waiting: watch::Sender::new(0) }
    }
}

impl ReadGate {
    /// From now on reads wait, until they are dropped.
    pub fn hold(&self) {
        self.is_held.send_replace(true);
    }

    /// Waits until a read waits.
    ///
    /// # Panics
    /// No read comes within [`PATIENCE`](crate::PATIENCE).
    pub async fn wait_for_read(&self) {
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

/// An inbox whose envelopes pass through a rule.
pub struct Led {
    inbox: Arc<dyn Inbox>,
    gate: ReadGate,
    envelopes: Mutex<Option<mpsc::Receiver<Envelope>>>,
    _forward: JoinSet<()>,
}

impl Led {
    /// Puts `rule` before the envelopes of `inbox`: what it returns goes on, in this order.
    ///
    /// # Panics
    /// The envelopes of `inbox` were taken before.
    pub fn over(
        inbox: Arc<dyn Inbox>,
        rule: impl FnMut(Envelope) -> Vec<Envelope> + Send + 'static,
    ) -> Arc<dyn Inbox> {
        Self::gated(inbox, ReadGate::default(), rule)
    }

    /// As [`Self::over`], with a gate before the reads.
    ///
    /// # Panics
    /// See [`Self::over`].
    pub fn gated(
        inbox: Arc<dyn Inbox>,
        gate: ReadGate,
        mut rule: impl FnMut(Envelope) -> Vec<Envelope> + Send + 'static,
    ) -> Arc<dyn Inbox> {
        let mut source = inbox.take_envelopes().unwrap();
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
        Arc::new(Self { inbox, gate, envelopes: Mutex::new(Some(receiver)), _forward: forward })
    }
}

#[async_trait]
impl Inbox for Led {
    fn take_envelopes(&self) -> Option<mpsc::Receiver<Envelope>> {
        self.envelopes.lock().take()
    }
    fn attach(&self, user: UserId) {
        self.inbox.attach(user);
    }
    fn detach(&self, user: UserId) {
        self.inbox.detach(user);
    }
    fn publish_profile(&self, card: UserCard, users: Vec<UserId>) {
        self.inbox.publish_profile(card, users);
    }
    fn subscribe(&self, channel: ChannelId) {
        self.inbox.subscribe(channel);
    }
    fn unsubscribe(&self, channel: ChannelId) {
        self.inbox.unsubscribe(channel);
    }
    async fn publish(&self, event: Event, at_most: usize) -> StoreResult<()> {
        self.inbox.publish(event, at_most).await
    }
    async fn moved(&self, log: LogId, to: Seq) -> StoreResult<()> {
        self.inbox.moved(log, to).await
    }
    async fn end(&self, user: UserId) -> StoreResult<Cursor> {
        self.inbox.end(user).await
    }
    async fn read(&self, user: UserId, after: Cursor, max_rows: usize) -> StoreResult<InboxRead> {
        self.gate.pass().await;
        self.inbox.read(user, after, max_rows).await
    }
}
