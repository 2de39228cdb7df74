//! The composition root: the only place that chooses backends and placements.

mod backends;

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use madang_auth::{Cursors, Passwords, Tokens, load_or_create_secret, load_secret};
use madang_bus::local::LocalInbox;
use madang_ids::Millis;
use madang_presence::{PresenceMetrics, PresenceRole, RoleParts, RoleTasks};
use madang_push::{Keep, Nearby, Placement as PushPlacement, Push, PushMetrics, PushParts};
use madang_service::{Clock, Drain, Health, Metrics, Tasks};
use madang_store::embedded::{Embedded, EmbeddedConfig, OpenError};
use madang_store::{LogStore, StoreKind};
use tokio::time::timeout;

use crate::config::Config;
use crate::consent::Consent;
#[cfg(feature = "fleet")]
use crate::fleet::{FleetNode, Number};
#[cfg(feature = "fleet")]
use crate::gateway::alert_hold_ms;
use crate::gateway::delivery::{envelopes, open_channels, pacing};
use crate::gateway::{Gateway, drain, revoked, sweep};
use crate::heat::{HeatSettings, Heats};
use crate::home::{HomeParts, Homes};
use crate::metrics::ChatMetrics;
use crate::operations::{
    Callers, Deletions, DueInvitations, Exports, Guesses, Known, LiveLimits, Operations, ReceivedMarks,
    RequestTimes, Revocations, SharedReads, Turns, Writers,
};
use crate::operators::{Operators, Watched};
use crate::overload::{Bulkheads, Shedding, probe};
use crate::private;
use crate::rest::{Api, Shared};
use crate::tls::Tls;
#[cfg(feature = "fleet")]
use madang_bus::registry::RegistryError;
#[cfg(feature = "fleet")]
use madang_discovery::{NodeDiscovery, Standing};

pub use backends::{Alerts, Backends};

/// How long the last write of received positions, and of last activity, may take.
const FLUSH_PATIENCE: Duration = Duration::from_secs(2);

/// What an operator accepts at the start.
#[derive(Debug, Clone, Copy, Default)]
pub struct Accepted {
    /// Start although acked messages are lost.
    pub loss: bool,
    /// Use a cluster whose settings cannot hold G1.
    pub weak_store: bool,
}

/// One process, or one node of a fleet.
pub struct Node {
    /// The sockets and the use cases.
    pub gateway: Arc<Gateway>,
    /// The state of REST.
    pub api: Api,
    /// Tasks that callers have begun. A drain waits for them.
    pub tasks: Tasks,
    /// Tasks that serve those of callers. They end afterwards.
    pub background: Tasks,
    /// The data folder, if the node opened one.
    pub folder: Option<Arc<Embedded>>,
    #[cfg(feature = "fleet")]
    in_fleet: Option<InFleet>,
}

/// What a node of a fleet gives back when it ends.
#[cfg(feature = "fleet")]
struct InFleet {
    number: Arc<Number>,
    discovery: Arc<NodeDiscovery>,
}

impl Node {
    /// Drains the node: closes connections over the configured window, finishes what they had begun, then ends everything. Takes
    /// at most `patience` longer than the window.
    pub async fn drain(&self, patience: Duration) {
        let window = Duration::from_millis(self.gateway.operations.config.gateway.drain_ms);
        if let Err(stragglers) = self.tasks.close_and_wait(window + patience).await {
            tracing::warn!(%stragglers, "shutdown timed out: some tasks were aborted");
        }
        // A lost position only causes a repeated push. A store that hangs must not hold up the process.
        let operations = &self.gateway.operations;
        let marks = timeout(FLUSH_PATIENCE, operations.flush_received());
        let times = timeout(FLUSH_PATIENCE, operations.presence.end());
        let left = timeout(FLUSH_PATIENCE, operations.homes.leave());
        let (marks, times, left) = tokio::join!(marks, times, left);
        if left.is_err() {
            tracing::warn!("the fan-out of this node will be repeated by others");
        }
        if marks.is_err() {
            tracing::warn!("saving the cursors of devices failed");
        }
        if times.is_err() {
            tracing::warn!("saving times of last activity failed");
        }
        #[cfg(feature = "fleet")]
        if let Some(InFleet { number, discovery }) = &self.in_fleet {
            let gone = async { tokio::join!(discovery.lease().leave(), number.release()) };
            if timeout(FLUSH_PATIENCE, gone).await.is_err() {
                tracing::warn!("leaving the fleet took too long: the leases of this node end by themselves");
            }
        }
        self.background.drain().stop();
    }

    /// Waits until the disk has failed, or until a node of a fleet has lost its number. The process should then drain and end, and
    /// start again. Cancel safe.
    pub async fn broken(&self) {
        #[cfg(feature = "fleet")]
        if let Some(InFleet { number, discovery }) = &self.in_fleet {
            let mut standing = discovery.lease().standing();
            tokio::select! {
                () = number.lost() => {}
                // The sender is part of the lease.
                _ = standing.wait_for(|now| matches!(now, Standing::Failed(RegistryError::OlderEpoch { .. }))) => {
                    tracing::error!("another process is registered with the number of this node");
                }
            }
            self.gateway.operations.store_health.fail("this node has lost its number");
            return;
        }
        match &self.folder {
            Some(folder) => folder.broken().await,
            None => std::future::pending().await,
        }
        self.gateway.operations.store_health.fail("the disk failed");
    }

    /// Opens what the configuration names: the data folder of one process, or the store and the bus of a fleet.
    ///
    /// # Errors
    /// See [`Self::open`]; for a fleet, what an operator has to change.
    pub async fn start(config: Config, drain: Drain, accept: Accepted) -> anyhow::Result<Self> {
        match config.store.kind {
            StoreKind::Embedded => Self::open(config, drain, accept.loss).await,
            #[cfg(feature = "fleet")]
            StoreKind::Scylla => Self::join(config, drain, accept.weak_store).await,
            #[cfg(not(feature = "fleet"))]
            StoreKind::Scylla => anyhow::bail!("this program was built without the feature `fleet`"),
        }
    }

    /// Starts a node of a fleet.
    #[cfg(feature = "fleet")]
    async fn join(config: Config, drain: Drain, accept_weak: bool) -> anyhow::Result<Self> {
        config.validate()?;
        let FleetNode { backends, store, bus, membership, work, number } =
            FleetNode::open(&config, accept_weak, &drain).await?;
        let mut node = Self::assemble(config.clone(), backends, Tasks::new(drain.clone()))?;
        let (health, background) = (Arc::clone(&node.api.health), &node.background);
        node.api.metrics.register(|registry| {
            store.metrics().register(registry);
            bus.metrics().register(registry);
        });
        let operations = &node.gateway.operations;
        let (heats, shedding) = (Arc::clone(&operations.heats), Arc::clone(&operations.shedding));
        bus.hold_alerts(Box::new(move |channel| alert_hold_ms(&heats, &shedding, channel)));
        for (name, work) in work {
            background.spawn_vital(health.check(name), work);
        }
        let discovery = membership.discovery(&config, &node.api.metrics)?;
        node.gateway.join_fleet(Arc::clone(&discovery));
        let gateway = Arc::clone(&node.gateway);
        let load = move || u32::try_from(gateway.operations.metrics.connections.get()).unwrap_or(0);
        background.spawn_vital(health.check("lease"), discovery.keep_lease(load, drain));
        background.spawn("view", discovery.keep_view(health.check("discovery")));
        background.spawn("home_nodes", membership.follow(discovery.view()));
        let number = Arc::new(number);
        background.spawn("number", Arc::clone(&number).keep());
        node.in_fleet = Some(InFleet { number, discovery });
        Ok(node)
    }

    /// Opens the data folder and starts the background tasks. With `accept_loss` it opens even if acknowledged messages are lost.
    ///
    /// # Errors
    /// The folder cannot be opened, or the configuration is invalid.
    pub async fn open(config: Config, drain: Drain, accept_loss: bool) -> anyhow::Result<Self> {
        config.validate()?;
        config.needs_folder()?;
        let path = config.server.data.clone();
        let embedded = EmbeddedConfig { path: path.clone(), accept_loss, ..EmbeddedConfig::default() };
        let store = Embedded::open(embedded)?;
        let folder = Arc::clone(&store);
        let latest = folder.latest().await?;
        let secret = token_secret(&config, latest > Millis::ZERO)?;
        let tasks = Tasks::new(drain);
        let (inbox, follow) = LocalInbox::open(Arc::clone(&store)).await?;
        let clock = Clock::system();
        let waits = folder.waits();
        let backends = Backends { waits, ..Backends::of_one_process(store, inbox, clock, secret, latest) };
        let mut node = Self::assemble(config, backends, tasks)?;
        node.api.metrics.register(|registry| folder.metrics().register(registry));
        node.folder = Some(folder);
        node.background.spawn_vital(node.api.health.check("inbox"), follow);
        Ok(node)
    }

    /// Builds a node from its backends.
    ///
    /// # Errors
    /// The configuration is invalid, or the inbox was used before.
    pub fn assemble(config: Config, backends: Backends, tasks: Tasks) -> anyhow::Result<Self> {
        let Backends {
            store, waits, upkeep, inbox, bus, clock, secret, latest, homes_of_a_log, node, ..
        } = backends;
        let (ids, others, fleet) = (backends.ids, backends.others, backends.presence);
        let (mut alerts, look_up) = (backends.alerts, backends.look_up);
        let has_others = others.is_some();
        let metrics = Metrics::new();
        let chat = ChatMetrics::register(&metrics);
        let health = Arc::new(Health::new(tasks.drain().clone()));
        let store_health = health.check("store");
        // The store was just opened. The first round of upkeep checks it again.
        store_health.pass();
        ids.begin_after(latest);
        if let Some(fleet) = &fleet {
            fleet.metrics.register_in(&metrics);
        }
        let (presence, role) = PresenceRole::open(RoleParts {
            config: config.presence,
            clock: clock.clone(),
            metrics: PresenceMetrics::register(&metrics),
            store: Arc::clone(&store),
            fleet,
            drain: tasks.drain().clone(),
        });
        let logs: Arc<dyn LogStore> = Arc::clone(&store) as _;
        #[cfg(feature = "plant")]
        let logs: Arc<dyn LogStore> = Arc::new(crate::plant::FaultyLogs(logs));
        #[cfg(feature = "plant")]
        let inbox: Arc<dyn madang_bus::Inbox> = Arc::new(crate::plant::LateInbox(inbox));
        let heats =
            Arc::new(Heats::new(HeatSettings::default(), config.heat.enabled, clock.clone(), chat.clone()));
        let shedding = Arc::new(Shedding::new(config.overload.shed, clock.clone(), chat.clone()));
        let bulkheads = Arc::new(Bulkheads::new(&clock, has_others));
        let limits = Arc::new(LiveLimits::new(config.limits));
        let operators = Arc::new(Operators::new(
            Arc::clone(&store),
            clock.clone(),
            Arc::clone(&heats),
            Arc::clone(&limits),
            &secret,
        ));
        let homes = Homes::new(HomeParts {
            logs: Arc::clone(&logs),
            store: Arc::clone(&store),
            inbox: Arc::clone(&inbox),
            ids: Arc::clone(&ids),
            clock: clock.clone(),
            tasks: tasks.clone(),
            metrics: chat.clone(),
            presence: presence.clone(),
            consent: Consent::new(config.accounts.consent),
            homes_of_a_log,
            heats: Arc::clone(&heats),
            bulkheads: Arc::clone(&bulkheads),
            others,
        });
        let push_processes = alerts.as_mut().and_then(|alerts| alerts.processes.take());
        let push = match alerts {
            Some(Alerts { queue, outbox, keep, .. }) => Push::open(PushParts {
                config: config.push.clone(),
                store: Arc::clone(&store),
                queue,
                outbox,
                clock: clock.clone(),
                metrics: PushMetrics::register(&metrics),
                secret,
                keep: keep.unwrap_or_else(|| Keep::Folder(config.server.data.clone())),
                ids: Arc::clone(&ids),
                look_up,
            }),
            None => Push::off(),
        };
        let access_ttl = Duration::from_secs(config.tokens.access_seconds);
        let passwords = Passwords::with_all_cores(config.passwords)?;
        let operations = Arc::new(Operations {
            logs,
            store,
            upkeep,
            inbox,
            bus: Arc::clone(&bus),
            node,
            homes,
            ids,
            tokens: Tokens::new(&secret, access_ttl),
            cursors: Arc::new(Cursors::new(&secret)?),
            passwords,
            callers: Callers::new(limits, clock.clone(), chat.limited.clone()),
            heats: Arc::clone(&heats),
            operators: Arc::clone(&operators),
            shedding: Arc::clone(&shedding),
            bulkheads: Arc::clone(&bulkheads),
            received: ReceivedMarks::default(),
            revocations: Revocations::default(),
            guesses: Guesses::new(config.limits.enabled, clock.clone()),
            deletions: Deletions::default(),
            exports: Exports::default(),
            due_invitations: DueInvitations::default(),
            writers: Writers::default(),
            turns: Turns::default(),
            times: RequestTimes::default(),
            known: Known::default(),
            shared_reads: SharedReads::default(),
            presence: presence.clone(),
            push: push.clone(),
            sending_again: tokio::sync::Mutex::default(),
            clock,
            config: Arc::new(config),
            metrics: chat,
            store_health,
        });
        let background = Tasks::new(Drain::new());
        if has_others {
            let homes = &operations.homes;
            background.spawn_vital(health.check("forwards"), homes.clone().run_forwards());
            background.spawn_vital(health.check("takeovers"), homes.clone().run_takeovers());
            tasks.spawn("heat_exchange", homes.clone().run_heat());
        }
        let tls = Tls::open(&operations.config.tls)?.map(Arc::new);
        let gateway = Arc::new(Gateway::new(Arc::clone(&operations), tasks.clone(), tls.clone()));
        let envelopes = bus.take_envelopes().context("the envelopes of the bus were taken before")?;
        #[cfg(feature = "plant")]
        let envelopes = {
            let (to, spoilt) = tokio::sync::mpsc::channel(1);
            background.spawn("plant_envelopes", crate::plant::spoil_envelopes(envelopes, to));
            background.spawn("plant_presence", crate::plant::keep_up(Arc::clone(&gateway), presence.clone()));
            spoilt
        };
        // Not vital: everything else works without presence.
        let (receiver, node) = (Arc::clone(&gateway), Arc::clone(&gateway));
        let deliver = move |notice| receiver.deliver_notice(notice);
        let RoleTasks { endless, core } = role.into_tasks(move || node.connections_up(), deliver);
        for (name, task) in endless {
            background.spawn(name, task);
        }
        // A drain waits until it has handed over its users.
        if let Some(core) = core {
            tasks.spawn("presence_core", core);
        }
        let is_here = !has_others || operations.config.push.placement == PushPlacement::Inside;
        if push.is_on() && is_here {
            // Not vital: everything else works without push.
            let nearby = Arc::clone(&gateway) as Arc<dyn Nearby>;
            background.spawn("push_maker", push.clone().make(Arc::clone(&nearby)));
            tasks.spawn("push_worker", push.work(nearby, tasks.drain().clone()));
        }
        background.spawn_vital(health.check("deliver"), envelopes::run(Arc::clone(&gateway), envelopes));
        background.spawn_vital(health.check("losses"), open_channels::cover_losses(Arc::clone(&gateway)));
        background.spawn_vital(health.check("pacing"), pacing::run(Arc::clone(&gateway)));
        background.spawn_vital(health.check("pacing_notices"), pacing::notify(Arc::clone(&gateway)));
        let watched = Watched::new(Arc::clone(&gateway), Arc::clone(&health), push_processes);
        tasks.spawn_vital(
            health.check("waits"),
            probe(shedding, Arc::clone(&heats), waits, tasks.drain().clone()),
        );
        background.spawn("board_answers", Arc::clone(&watched).answer());
        tasks.spawn("board", Arc::clone(&watched).run(tasks.drain().clone()));
        tasks.spawn("operators", operators.run(tasks.drain().clone()));
        tasks.spawn_vital(health.check("heat"), heats.run(tasks.drain().clone()));
        for reader in gateway.page_readers() {
            background.spawn_vital(health.check("page_reader"), reader);
        }
        for writer in gateway.writers() {
            background.spawn_vital(health.check("writer"), writer);
        }
        tasks.spawn_vital(health.check("sweep"), sweep::run(Arc::clone(&gateway)));
        if has_others {
            tasks.spawn("revoked", revoked::run(Arc::clone(&gateway)));
        }
        if let Some(tls) = tls {
            let (clock, drain) = (operations.clock.clone(), tasks.drain().clone());
            tasks.spawn_vital(health.check("tls"), tls.watch(clock, drain));
        }
        tasks.spawn_vital(health.check("upkeep"), operations.run_upkeep(tasks.drain().clone()));
        tasks.spawn("drain", drain::run(Arc::clone(&gateway)));
        let api = Api::from(Shared { gateway: Arc::clone(&gateway), health, metrics, watched });
        Ok(Self {
            gateway,
            api,
            tasks,
            background,
            folder: None,
            #[cfg(feature = "fleet")]
            in_fleet: None,
        })
    }
}

/// The secret that signs tokens and seals cursors. `is_old` says that the folder has been used before.
fn token_secret(config: &Config, is_old: bool) -> anyhow::Result<[u8; 32]> {
    let (path, may_create) = config.secret_file();
    if !may_create {
        private::warn_if_public(&path);
        return load_secret(&path).with_context(|| format!("tokens.secret_file {}", path.display()));
    }
    if is_old && !path.exists() {
        tracing::warn!(file = %path.display(), "the token secret is missing: creating a new one; all existing \
             tokens are invalid");
    }
    let readable = |error| OpenError::Folder { path: path.clone(), error };
    private::make_private(&path).map_err(readable)?;
    Ok(load_or_create_secret(&path).map_err(|error| match error.kind() {
        ErrorKind::InvalidData => OpenError::Damaged { file: path, what: error.to_string() },
        _ => OpenError::Folder { path, error },
    })?)
}

#[cfg(test)]
mod tests {
    use super::*;

    use axum::body::Body;
    use axum::http::{Request, StatusCode};
    use tower::ServiceExt;

    #[tokio::test]
    async fn a_node_whose_inbox_has_ended_is_not_ready() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        let store = Embedded::open(EmbeddedConfig { path, ..EmbeddedConfig::default() }).unwrap();
        let (inbox, follow) = LocalInbox::open(Arc::clone(&store)).await.unwrap();
        let (clock, _) = Clock::manual(Millis::new(1));
        let backends = Backends::of_one_process(store, inbox, clock, [1; 32], Millis::ZERO);
        let node = Node::assemble(Config::default(), backends, Tasks::new(Drain::new())).unwrap();
        let readyz = || async {
            let request = Request::get("/readyz").body(Body::empty()).unwrap();
            crate::rest::router(node.api.clone()).oneshot(request).await.unwrap().status()
        };
        assert_eq!(readyz().await, StatusCode::OK);
        drop(follow);
        while readyz().await == StatusCode::OK {
            tokio::task::yield_now().await;
        }
        let reasons = node.api.health.readiness().reasons;
        assert_eq!(reasons.into_keys().collect::<Vec<_>>(), ["deliver"]);
    }
}
