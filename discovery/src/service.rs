//! The shells of discovery in every process: [`Lease`] keeps the process registered, [`LiveView`] keeps its view of the others.
//!
//! Both go on while Redis or discovery is away: the process serves, and the last view stays.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use madang_bus::registry::{LiveProcess, ProcessCard, ProcessRun, ProcessState, RegistryError, Renewal};
use madang_ids::{NodeEpoch, NodeId};
use madang_service::{Check, Clock, Drain, Phase};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::api::Discovery;
use crate::config::DiscoveryConfig;
use crate::core::{View, ViewCore};
use crate::metrics::DiscoveryMetrics;

/// The pause after a registration or renewal that failed.
const RETRY: Duration = Duration::from_secs(1);
/// The pause between two readings of the view.
const READ: Duration = Duration::from_secs(1);

/// How a process stands with discovery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It has not registered yet.
    Starting,
    /// It is registered.
    Live,
    /// The last attempt failed. It is repeated. With [`RegistryError::OlderEpoch`] it cannot succeed: another process has this number,
    /// and this one must stop or take a new number.
    Failed(RegistryError),
}

/// The registration of this process, which a task keeps. A clone shares it.
#[derive(Clone)]
pub struct Lease(Arc<Registered>);

struct Registered {
    discovery: Arc<dyn Discovery>,
    own: Mutex<(ProcessCard, ProcessState)>,
    has_left: AtomicBool,
    standing: watch::Sender<Standing>,
    renewed_life: Notify,
    interval: Duration,
    clock: Clock,
    metrics: DiscoveryMetrics,
}

impl Lease {
    /// The lease of a process with this card. It begins with [`Self::keep`].
    #[must_use]
    pub fn new(
        discovery: Arc<dyn Discovery>,
        card: ProcessCard,
        config: &DiscoveryConfig,
        clock: Clock,
        metrics: DiscoveryMetrics,
    ) -> Self {
        Self(Arc::new(Registered {
            discovery,
            own: Mutex::new((card, ProcessState::default())),
            has_left: AtomicBool::new(false),
            standing: watch::channel(Standing::Starting).0,
            renewed_life: Notify::new(),
            interval: config.lease() / 3,
            clock,
            metrics,
        }))
    }

    /// The number and life under which this process is known.
    #[must_use]
    pub fn run(&self) -> ProcessRun {
        self.0.own.lock().0.run
    }

    /// The process goes on under another number or in another life, because the store has granted it one. The former registration
    /// ends with its lease, or at once if the number is the same.
    pub fn begin_life(&self, id: NodeId, epoch: NodeEpoch) {
        let mut own = self.0.own.lock();
        (own.0.run.id, own.0.run.epoch) = (id, epoch);
        drop(own);
        self.0.renewed_life.notify_one();
    }

    /// How the process stands with discovery.
    #[must_use]
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.0.standing.subscribe()
    }

    /// The process as it should be in its own view: itself, until it has left.
    pub(crate) fn own(&self) -> Option<LiveProcess> {
        if self.0.has_left.load(Ordering::Acquire) {
            return None;
        }
        let (card, state) = self.0.own.lock().clone();
        Some(LiveProcess { card, state, renewal: 0 })
    }

    /// Registers and renews; never returns. `load` is the number of open connections. The begin of the drain is reported at once.
    /// After the drain the process calls [`Self::leave`].
    pub async fn keep(self, load: impl Fn() -> u32 + Send, drain: Drain) {
        let mut registered = None;
        loop {
            let is_draining = drain.phase() != Phase::Running;
            let state = ProcessState { load: load(), is_draining };
            let card = {
                let mut own = self.0.own.lock();
                own.1 = state;
                own.0.clone()
            };
            let is_kept = self.renew(&card, state, registered == Some(card.run)).await;
            registered = is_kept.then_some(card.run);
            let pause = if is_kept { self.0.interval } else { RETRY.min(self.0.interval) };
            tokio::select! {
                () = self.0.clock.sleep(pause) => {}
                () = self.0.renewed_life.notified() => {}
                () = drain.draining(), if !is_draining => {}
            }
        }
    }

    /// Ends the lease, so that the others notice at once. Bounded by one call. The process is no longer in its own view.
    pub async fn leave(&self) {
        self.0.has_left.store(true, Ordering::Release);
        if let Err(error) = self.0.discovery.leave(self.run()).await {
            tracing::info!(%error, "ending the lease failed: it ends by itself");
        }
    }

    /// Renews, or registers if the process is not known. Returns whether the lease holds.
    async fn renew(&self, card: &ProcessCard, state: ProcessState, is_registered: bool) -> bool {
        if self.0.has_left.load(Ordering::Acquire) {
            return true;
        }
        let discovery = &self.0.discovery;
        let outcome = match is_registered {
            true => discovery.renew(card.run, state).await,
            false => Ok(Renewal::Unknown),
        };
        let outcome = match outcome {
            Ok(Renewal::Kept) => Ok(()),
            Ok(Renewal::Unknown) => {
                let registered = discovery.register(card, state).await;
                self.0.metrics.registrations.inc_by(u64::from(registered.is_ok()));
                registered
            }
            Err(error) => Err(error),
        };
        if outcome.is_err() {
            self.0.metrics.lease_failures.inc();
        }
        if self.0.has_left.load(Ordering::Acquire) {
            // The process left while this call was under way, which may have come after it.
            self.leave().await;
            return true;
        }
        self.note(card, outcome)
    }

    /// Logs a standing that has changed.
    fn note(&self, card: &ProcessCard, outcome: Result<(), RegistryError>) -> bool {
        let is_kept = outcome.is_ok();
        let standing = outcome.map_or_else(Standing::Failed, |()| Standing::Live);
        let has_changed = self.0.standing.send_if_modified(|known| {
            let has_changed = *known != standing;
            known.clone_from(&standing);
            has_changed
        });
        let (name, id, epoch) = (&card.name, card.run.id.0, card.run.epoch.0);
        match standing {
            Standing::Failed(error @ RegistryError::Unavailable(_)) if has_changed => {
                tracing::warn!(%error, "renewing the lease failed: retrying");
            }
            Standing::Failed(error) if has_changed => {
                tracing::error!(%error, name, node.id = id, node.epoch = epoch, "registration refused: retrying");
            }
            Standing::Live if has_changed => {
                tracing::info!(name, node.id = id, node.epoch = epoch, "registered as a live process");
            }
            _ => {}
        }
        is_kept
    }
}

/// The live processes, read once a second by a task. A clone shares it.
#[derive(Clone)]
pub struct LiveView(Arc<Reading>);

struct Reading {
    discovery: Arc<dyn Discovery>,
    lease: Option<Lease>,
    core: Mutex<ViewCore>,
    view: watch::Sender<Arc<View>>,
    clock: Clock,
    metrics: DiscoveryMetrics,
}

impl LiveView {
    /// The view of a process; of one that is registered with its lease, which is part of the view from the beginning.
    #[must_use]
    pub fn new(
        discovery: Arc<dyn Discovery>,
        lease: Option<Lease>,
        config: &DiscoveryConfig,
        clock: Clock,
        metrics: DiscoveryMetrics,
    ) -> Self {
        let core = ViewCore::new(config.lease(), lease.as_ref().and_then(Lease::own));
        let view = watch::channel(core.view()).0;
        Self(Arc::new(Reading { discovery, lease, core: Mutex::new(core), view, clock, metrics }))
    }

    /// The present view, and every change of it: also of a load. Compare [`View::revision`] to notice only other processes.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<View>> {
        self.0.view.subscribe()
    }

    /// Reads; never returns. `check` passes with the first reading.
    pub async fn keep(self, check: Check) {
        let clock = self.0.clock.clone();
        let (mut read_at, mut is_failing) = (None, false);
        loop {
            let began = clock.elapsed();
            match self.read().await {
                Ok(()) => {
                    read_at = Some(clock.elapsed());
                    check.pass();
                    if std::mem::take(&mut is_failing) {
                        tracing::info!("reading the live processes again");
                    }
                }
                Err(error) => {
                    self.0.metrics.view_failures.inc();
                    if read_at.is_none() {
                        check.fail(error.to_string());
                    }
                    if !std::mem::replace(&mut is_failing, true) {
                        tracing::warn!(%error, "reading the live processes failed: the last view stays");
                    }
                }
            }
            let age = clock.elapsed().saturating_sub(read_at.unwrap_or_default());
            self.0.metrics.view_age.set(i64::try_from(age.as_secs()).unwrap_or(i64::MAX));
            clock.sleep(READ.saturating_sub(clock.elapsed().saturating_sub(began))).await;
        }
    }

    /// Reads once.
    ///
    /// # Errors
    /// [`RegistryError::Unavailable`]. The view stays.
    pub async fn read(&self) -> Result<(), RegistryError> {
        let known = self.0.view.borrow().revision;
        let reading = self.0.discovery.view(known).await;
        let own = self.0.lease.as_ref().and_then(Lease::own);
        let mut core = self.0.core.lock();
        let (changed, outcome) = match reading {
            Ok(reading) => (core.handle_seen(reading, own, self.0.clock.elapsed()), Ok(())),
            Err(error) => (core.handle_failure(own), Err(error)),
        };
        if let Some(view) = changed {
            self.0.metrics.view_changes.inc_by(u64::from(view.revision != known));
            self.0.metrics.processes.set(i64::try_from(view.processes().len()).unwrap_or(i64::MAX));
            self.0.view.send_replace(view);
        }
        outcome
    }
}
