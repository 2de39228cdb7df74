//! A node in this process, served on a socket of its own, over the model store or the embedded store, with a manual
//! clock.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use madang_bus::local::LocalInbox;
use madang_chat_server::compose::{Backends, Node};
use madang_chat_server::config::Config;
use madang_chat_server::gateway::listener::listen;
use madang_chat_server::rest;
use madang_ids::{ChannelId, LogId, Millis, Seq};
use madang_service::{Clock, Drain, ManualClock, Tasks};
use madang_store::LogStore;
use madang_store::embedded::{Embedded, EmbeddedConfig};
use madang_store::model::{Call, Faults, Model};
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::PATIENCE;
use crate::model::SharedModel;

/// The time at which manual clocks start: a moment in 2027.
const START: Millis = Millis::new(1_800_000_000_000);
const SECRET: [u8; 32] = [42; 32];

/// The store of a node. It survives the node; the next node opens it again.
pub enum Storage {
    /// In memory, with the weakest guarantees that a real store may have.
    Model(ModelStorage),
    /// SQLite in a temporary folder.
    Embedded(TempDir),
}

/// The model store behind [`Storage::Model`].
pub struct ModelStorage {
    shared: Arc<SharedModel>,
    homes_of_a_log: u64,
}

impl Storage {
    /// An empty model store. Call within a runtime.
    #[must_use]
    pub fn model() -> Self {
        Self::Model(ModelStorage { shared: SharedModel::new(), homes_of_a_log: 1 })
    }

    /// An empty model store, over which each log has two homes. Call within a runtime.
    #[must_use]
    pub fn model_with_two_homes() -> Self {
        Self::Model(ModelStorage { shared: SharedModel::new(), homes_of_a_log: 2 })
    }

    /// Sets how often the model store fails from now on. It never fails otherwise.
    pub fn set_faults(&self, faults: Faults) {
        if let Self::Model(ModelStorage { shared, .. }) = self {
            shared.model.set_faults(faults);
        }
    }

    /// The calls of the model store since the last time; none of an embedded one.
    pub fn take_calls(&self) -> Vec<Call> {
        match self {
            Self::Model(ModelStorage { shared, .. }) => shared.model.take_calls(),
            Self::Embedded(_) => Vec::new(),
        }
    }

    /// The shard of a channel in the model store.
    ///
    /// # Panics
    /// If it is an embedded one.
    #[must_use]
    pub fn shard(&self, channel: ChannelId) -> u64 {
        self.stored().shard(LogId::Channel(channel), Seq::default())
    }

    /// From now on calls for the logs of this shard wait; with `None` all go on.
    ///
    /// # Panics
    /// If it is an embedded one.
    pub fn stall(&self, shard: Option<u64>) {
        self.stored().stall(shard);
    }

    fn stored(&self) -> &Model {
        match self {
            Self::Model(ModelStorage { shared, .. }) => &shared.model,
            Self::Embedded(_) => panic!("an embedded store is one whole"),
        }
    }

    /// An embedded store in an empty folder.
    #[must_use]
    pub fn embedded() -> Self {
        Self::Embedded(tempfile::tempdir().unwrap())
    }
}

/// A node that listens on a port of this machine.
pub struct TestNode {
    /// The address on which it listens.
    pub addr: SocketAddr,
    /// The node.
    pub node: Node,
    /// The phase of the node; `begin` drains it.
    pub drain: Drain,
}

/// A manual clock that the nodes of one test can share.
#[must_use]
pub fn manual_clock() -> (Clock, ManualClock) {
    Clock::manual(START)
}

impl TestNode {
    /// Starts a node over `storage`. Users are added to groups without their consent, because few tests are about
    /// consent.
    ///
    /// # Errors
    /// If the storage cannot be opened, or the configuration is invalid.
    pub async fn start(config: Config, storage: &Storage, clock: Clock) -> anyhow::Result<Self> {
        Self::start_over(config, storage, clock, |_| {}).await
    }

    /// Like [`Self::start`], with consent as configured.
    ///
    /// # Errors
    /// See [`Self::start`].
    pub async fn start_asking(config: Config, storage: &Storage, clock: Clock) -> anyhow::Result<Self> {
        Self::start_as(config, storage, clock, |_| {}).await
    }

    /// Starts a node after `lead` has changed its backends, for instance to lose envelopes.
    ///
    /// # Errors
    /// See [`Self::start`].
    pub async fn start_over(
        mut config: Config,
        storage: &Storage,
        clock: Clock,
        lead: impl FnOnce(&mut Backends),
    ) -> anyhow::Result<Self> {
        config.accounts.consent = false;
        Self::start_as(config, storage, clock, lead).await
    }

    async fn start_as(
        mut config: Config,
        storage: &Storage,
        clock: Clock,
        lead: impl FnOnce(&mut Backends),
    ) -> anyhow::Result<Self> {
        // A machine that runs many tests is overloaded; no test but those of shedding is about that.
        config.overload.shed = false;
        Self::start_shedding(config, storage, clock, lead).await
    }

    /// Like [`Self::start_over`], with consent and shedding as configured.
    ///
    /// # Errors
    /// See [`Self::start`].
    pub async fn start_shedding(
        mut config: Config,
        storage: &Storage,
        clock: Clock,
        lead: impl FnOnce(&mut Backends),
    ) -> anyhow::Result<Self> {
        // The minimum that argon2 accepts: no test depends on the cost of a password.
        config.passwords.memory_kib = 8;
        config.passwords.passes = 1;
        config.validate()?;
        let drain = Drain::new();
        let tasks = Tasks::new(drain.clone());
        let mut backends = open(storage, clock, &tasks).await?;
        lead(&mut backends);
        let node = Node::assemble(config, backends, tasks)?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let addr = listener.local_addr()?;
        let listening = listen::run(listener, rest::router(node.api.clone()), Arc::clone(&node.gateway));
        node.background.spawn("listen", listening);
        Ok(Self { addr, node, drain })
    }

    /// The base URL, `http://…`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Stops the node abruptly, as far as one process can: every task is dropped where it is.
    ///
    /// # Errors
    /// If something still holds the node, or a task has panicked.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.drain.stop();
        self.node.background.drain().stop();
        // Tasks that are aborted here are aborted on purpose.
        let _ = self.node.tasks.close_and_wait(Duration::from_secs(1)).await;
        let closed = self.node.background.close_and_wait(PATIENCE).await;
        closed.context("the background holds on to the node")?;
        let panics = self.node.tasks.panics() + self.node.background.panics();
        anyhow::ensure!(panics == 0, "{panics} tasks of the node have panicked");
        Ok(())
    }
}

async fn open(storage: &Storage, clock: Clock, tasks: &Tasks) -> anyhow::Result<Backends> {
    match storage {
        Storage::Model(ModelStorage { shared, homes_of_a_log }) => {
            let (inbox, follow) = LocalInbox::open(Arc::clone(shared)).await?;
            tasks.spawn("inbox", follow);
            let store = Arc::clone(&shared.model);
            let backends = Backends::of_one_process(store, inbox, clock, SECRET, Millis::ZERO);
            Ok(Backends { homes_of_a_log: *homes_of_a_log, ..backends })
        }
        Storage::Embedded(folder) => {
            let store = open_folder(folder.path()).await?;
            let (inbox, follow) = LocalInbox::open(Arc::clone(&store)).await?;
            tasks.spawn("inbox", follow);
            let latest = store.latest().await?;
            Ok(Backends::of_one_process(store, inbox, clock, SECRET, latest))
        }
    }
}

/// Opens the folder. A node that was stopped releases it once its last read has ended.
async fn open_folder(path: &Path) -> anyhow::Result<Arc<Embedded>> {
    let config = EmbeddedConfig { path: path.to_owned(), ..EmbeddedConfig::default() };
    let opened = tokio::time::timeout(PATIENCE, async {
        loop {
            match Embedded::open(config.clone()) {
                Err(madang_store::embedded::OpenError::InUse { .. }) => {
                    // waits for: the last read of the previous node
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                opened => return opened,
            }
        }
    });
    Ok(opened.await.context("the data folder is still in use")??)
}
