//! The local inbox, as a subject of the suite.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use madang_bus::conformance::{Opened, Subject};
use madang_bus::local::LocalInbox;
use madang_store::conformance::OrderedStore;
use madang_store::embedded::{Embedded, EmbeddedConfig};
use madang_store::model::{Faults, Model, ModelConfig};
use madang_store::{Commit, CommitFeed, CommitOrder, Store};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::store::Watched;

async fn open(
    ordered: Arc<dyn OrderedStore>,
    store: Arc<dyn Store>,
    feed: Option<CommitFeed>,
    are_members_broken: &Arc<AtomicBool>,
) -> Opened {
    let watched = Arc::new(Watched::new(ordered, feed, Arc::clone(are_members_broken)));
    let (inbox, follow) = LocalInbox::open(watched).await.expect("an inbox");
    let mut tasks = JoinSet::new();
    tasks.spawn(follow);
    let inbox = Arc::new(inbox);
    Opened { store, inbox: inbox.clone(), bus: inbox, tasks }
}

/// The inbox over the embedded store, in a folder that is removed with it.
pub(crate) struct EmbeddedSubject {
    folder: tempfile::TempDir,
    are_members_broken: Arc<AtomicBool>,
}

impl EmbeddedSubject {
    pub(crate) fn new() -> Arc<Self> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Arc::new(Self { folder, are_members_broken: Arc::default() })
    }
}

#[async_trait]
impl Subject for EmbeddedSubject {
    async fn open(&self) -> Opened {
        let path = self.folder.path().to_owned();
        let store = Embedded::open(EmbeddedConfig { path, ..EmbeddedConfig::default() }).expect("a store");
        let feed = store.take_feed();
        open(store.clone(), store, feed, &self.are_members_broken).await
    }

    fn break_members(&self, is_broken: bool) -> bool {
        self.are_members_broken.store(is_broken, Ordering::SeqCst);
        true
    }
}

/// The inbox over the model store, whose memory is its disk. Its only feed is forwarded to the present start.
pub(crate) struct ModelSubject {
    model: Arc<Model>,
    are_members_broken: Arc<AtomicBool>,
    led: Arc<Led>,
    leader: Mutex<JoinSet<()>>,
}

#[derive(Default)]
struct Led {
    to: Mutex<Option<mpsc::Sender<Commit>>>,
    upto: AtomicU64,
}

impl ModelSubject {
    pub(crate) fn calm() -> Arc<Self> {
        Self::with(Faults::NONE)
    }

    pub(crate) fn slow() -> Arc<Self> {
        Self::with(Faults { delay_yields: 5, ..Faults::NONE })
    }

    fn with(faults: Faults) -> Arc<Self> {
        let model = Model::new(ModelConfig { seed: 1, faults });
        let (are_members_broken, led) = (Arc::default(), Arc::default());
        Arc::new(Self { model, are_members_broken, led, leader: Mutex::default() })
    }

    async fn lead(led: Arc<Led>, mut feed: CommitFeed) {
        while let Some(commit) = feed.recv().await {
            let (to, last) = (led.to.lock().clone(), commit.last().get());
            if let Some(to) = to {
                // The send fails if the start that receives it has ended.
                let _ = to.send(commit).await;
            }
            led.upto.store(last, Ordering::SeqCst);
        }
    }
}

#[async_trait]
impl Subject for ModelSubject {
    async fn open(&self) -> Opened {
        if let Some(feed) = self.model.take_feed() {
            self.leader.lock().spawn(Self::lead(Arc::clone(&self.led), feed));
        }
        while self.led.upto.load(Ordering::SeqCst) < self.model.position().get() {
            tokio::task::yield_now().await;
        }
        let (to, feed) = mpsc::channel(64);
        *self.led.to.lock() = Some(to);
        let model = Arc::clone(&self.model);
        open(model.clone(), model, Some(feed), &self.are_members_broken).await
    }

    fn break_members(&self, is_broken: bool) -> bool {
        self.are_members_broken.store(is_broken, Ordering::SeqCst);
        true
    }
}
