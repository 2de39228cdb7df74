//! One node of a fleet: the store over CQL, inbox and bus over Redis, its number, and its place among the other nodes.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::future::BoxFuture;
use madang_auth::load_secret;
use madang_bus::redis::{AlertTimes, Redis, RedisAlerts, RedisBus, Streams};
use madang_bus::registry::{ProcessCard, ProcessRun, RedisRegistry, Registry, Role};
use madang_discovery::{DiscoveryMetrics, Local, NodeDiscovery, NodeParts, Placement, Remote, View};
use madang_ids::{Millis, NodeEpoch, NodeId, NodeRun, Snowflakes};
use madang_presence::fleet::{LiveProcesses, Post, streams as presence_streams};
use madang_presence::{FleetMetrics, FleetParts, Placement as PresencePlacement};
use madang_push::{Keep, RedisProcesses, SystemLookUp};
use madang_service::{Clock, Drain, Metrics};
use madang_store::Waits;
use madang_store::scylla::{LeaseError, Scylla, WorkerLease, connect};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::compose::{Alerts, Backends};
use crate::config::Config;
use crate::home::HomeNode;
use crate::private;

/// How long one call to connect tries before it says so again.
const PATIENCE: Duration = Duration::from_secs(30);
/// The pause between two renewals of the number of this node; its lease is six times as long.
const RENEWAL: Duration = Duration::from_secs(10);
/// After a failed renewal.
const RENEWAL_AGAIN: Duration = Duration::from_secs(2);
/// A process with the same name that has renewed its lease within this time is alive, and not an earlier run of this node.
const NAMESAKE: Duration = Duration::from_secs(15);

/// A node of a fleet before its roles are put together.
pub(crate) struct FleetNode {
    pub(crate) backends: Backends,
    pub(crate) store: Arc<Scylla>,
    pub(crate) bus: Arc<RedisBus>,
    pub(crate) membership: Membership,
    /// What must run as long as the node.
    pub(crate) work: Vec<(&'static str, BoxFuture<'static, ()>)>,
    /// When this node has lost it, the process must end, and begin as another run.
    pub(crate) number: Number,
}

/// The place of this node among the others.
pub(crate) struct Membership {
    card: ProcessCard,
    secret: [u8; 32],
    registry: Arc<RedisRegistry>,
    nodes: watch::Sender<Arc<[HomeNode]>>,
    presence: watch::Sender<Arc<LiveProcesses>>,
    /// The role of the processes that have a presence core.
    cores: Role,
    clock: Clock,
}

/// The number of this node.
pub(crate) struct Number {
    store: Arc<Scylla>,
    lease: WorkerLease,
    ids: Arc<Snowflakes>,
    clock: Clock,
    is_lost: watch::Sender<bool>,
}

impl FleetNode {
    /// Connects to the cluster and leases a number. Tries as long as no node of the cluster answers. Redis need not answer yet.
    ///
    /// # Errors
    /// What an operator has to change.
    pub(crate) async fn open(config: &Config, accept_weak: bool, drain: &Drain) -> anyhow::Result<Self> {
        let (path, _) = config.secret_file();
        private::warn_if_public(&path);
        let secret = load_secret(&path).with_context(|| format!("tokens.secret_file {}", path.display()))?;
        let redis = Redis::open(&config.bus).context("bus")?;
        let clock = Clock::system();
        let store = reach(config, accept_weak, drain).await?;
        let (lease, begun) = lease(&store, config, &clock, drain).await?;
        let ids = Arc::new(Snowflakes::new(lease.worker)?);
        ids.lease_until(begun + lease.valid_for);
        let run = NodeRun { node: NodeId(lease.worker), epoch: NodeEpoch(lease.epoch) };
        let name = config.node.name();
        tracing::info!(node = %run, name, "this node has its number");
        let streams = Streams::new(redis.clone());
        let push = &config.push;
        let times = AlertTimes { delay_ms: push.delay_ms, kept_ms: push.kept_hours * 3_600_000 };
        let times = push.has_provider().then_some(times);
        let (bus, work) = RedisBus::open(redis.clone(), streams.clone(), Arc::clone(&store) as _, run, times);
        let alerts = Alerts {
            queue: Arc::new(RedisAlerts::new(redis.clone(), Arc::clone(&store) as _)),
            outbox: None,
            keep: Some(Keep::in_redis(redis.clone())),
            processes: Some(Arc::new(RedisProcesses::new(redis.clone()))),
        };
        let (nodes, view) = watch::channel(Arc::from([HomeNode { run, name: name.as_str().into() }]));
        let (presence, live, receiving) = presence_of(run, &streams, &clock);
        let work: Vec<(&'static str, BoxFuture<'static, ()>)> = vec![
            ("bus", work),
            ("presence_stream", receiving),
            ("streams", Box::pin(streams.run())),
            ("redis", Box::pin(redis.probe())),
        ];
        let membership = Membership {
            card: ProcessCard {
                run: ProcessRun { role: Role::Chat, id: run.node, epoch: run.epoch },
                name,
                url: config.node.url.clone(),
                region: config.node.region.clone(),
                capacity: u32::try_from(config.gateway.connections).unwrap_or(u32::MAX),
                version: env!("CARGO_PKG_VERSION").to_owned(),
            },
            secret,
            registry: Arc::new(RedisRegistry::of_bus(&config.bus)?),
            nodes,
            presence: live,
            cores: match config.presence.placement {
                PresencePlacement::Inside => Role::Chat,
                PresencePlacement::Remote => Role::Presence,
            },
            clock: clock.clone(),
        };
        let backends = Backends {
            store: Arc::clone(&store) as _,
            waits: Waits::default(),
            upkeep: None,
            inbox: Arc::clone(&bus) as _,
            bus: Arc::clone(&bus) as _,
            clock: clock.clone(),
            homes_of_a_log: 1,
            secret,
            latest: Millis::ZERO,
            node: run,
            ids: Arc::clone(&ids),
            others: Some((Arc::clone(&bus) as _, view)),
            presence: Some(presence),
            alerts: Some(alerts),
            look_up: Arc::new(SystemLookUp::default()),
        };
        let number =
            Number { store: Arc::clone(&store), lease, ids, clock, is_lost: watch::channel(false).0 };
        Ok(Self { backends, store, bus, membership, work, number })
    }
}

impl Membership {
    /// What this node has of discovery. The caller runs its tasks.
    ///
    /// # Errors
    /// The addresses of discovery processes are not valid.
    pub(crate) fn discovery(&self, config: &Config, metrics: &Metrics) -> anyhow::Result<Arc<NodeDiscovery>> {
        let (settings, registry) = (&config.discovery, Arc::clone(&self.registry) as Arc<dyn Registry>);
        let discovery = match settings.placement {
            Placement::Inside => Arc::new(Local::new(Arc::clone(&registry), settings.lease())) as _,
            Placement::Remote => {
                Arc::new(Remote::new(&settings.urls, &self.secret, self.clock.clone())?) as _
            }
        };
        Ok(Arc::new(NodeDiscovery::new(NodeParts {
            card: self.card.clone(),
            config: settings.clone(),
            secret: self.secret,
            discovery,
            registry,
            clock: self.clock.clone(),
            metrics: DiscoveryMetrics::register(metrics),
        })))
    }

    /// Keeps the lists of the nodes that order channels, and of the processes that know who is online; ends with the view.
    pub(crate) async fn follow(self, mut view: watch::Receiver<Arc<View>>) {
        loop {
            let seen = Arc::clone(&view.borrow_and_update());
            let nodes = home_nodes(&seen);
            let me = (self.card.run.id, self.card.run.epoch).into();
            let live = LiveProcesses::of(me, self.cores, seen.processes());
            self.presence.send_if_modified(|known| {
                let is_new = **known != live;
                if is_new {
                    *known = Arc::new(live);
                }
                is_new
            });
            self.nodes.send_if_modified(|known| {
                let is_new = known[..] != nodes[..];
                if is_new {
                    *known = nodes.into();
                }
                is_new
            });
            if view.changed().await.is_err() {
                return;
            }
        }
    }
}

/// The way of a node to the presence of other processes, what says who they are, and the task that receives their frames.
fn presence_of(
    run: NodeRun,
    streams: &Streams,
    clock: &Clock,
) -> (FleetParts, watch::Sender<Arc<LiveProcesses>>, BoxFuture<'static, ()>) {
    let (me, metrics) = ((run.node, run.epoch).into(), FleetMetrics::default());
    let post = Post::new(streams.clone(), clock.clone(), metrics.clone());
    let reader = presence_streams::reader(streams, me);
    let receiving = presence_streams::receive(reader, post.0.clone(), metrics.clone());
    let (sender, live) = watch::channel(Arc::new(LiveProcesses { me, ..LiveProcesses::default() }));
    (FleetParts { post, live, metrics }, sender, Box::pin(receiving))
}

/// A node that drains orders no channel any more: the others take its channels over before it ends.
fn home_nodes(view: &View) -> Vec<HomeNode> {
    let living = view.of(Role::Chat).filter(|process| !process.state.is_draining);
    let node = |card: &ProcessCard| HomeNode {
        run: NodeRun { node: card.run.id, epoch: card.run.epoch },
        name: card.name.as_str().into(),
    };
    let mut nodes: Vec<HomeNode> = living.map(|process| node(&process.card)).collect();
    nodes.sort_unstable_by_key(|node| node.run);
    nodes
}

async fn reach(config: &Config, accept_weak: bool, drain: &Drain) -> anyhow::Result<Arc<Scylla>> {
    loop {
        let tried = tokio::select! {
            tried = connect(&config.store, accept_weak, PATIENCE) => tried,
            () = drain.draining() => bail!("stopped before a node of the CQL cluster answered"),
        };
        match tried {
            Err(error) if !error.is_lasting() => {
                tracing::error!(%error, "this node waits for the CQL cluster")
            }
            tried => return Ok(tried?),
        }
    }
}

/// The number of this node, and when it was asked for: the lease counts from then.
async fn lease(
    store: &Scylla,
    config: &Config,
    clock: &Clock,
    drain: &Drain,
) -> anyhow::Result<(WorkerLease, Duration)> {
    let name = config.node.name();
    loop {
        let (of_clock, begun) = (clock.clone(), clock.elapsed());
        match store.lease_worker(&name, &move || of_clock.raw_ms()).await {
            Ok(lease) => {
                if let Some(other) = lease.namesake.filter(|other| other.renewed_ago < NAMESAKE) {
                    tracing::warn!(
                        name,
                        other = other.worker,
                        renewed_ago_ms = other.renewed_ago.as_millis() as u64,
                        "another process with the name of this node was alive a moment ago: give each node its own node.name"
                    );
                }
                return Ok((lease, begun));
            }
            Err(error @ (LeaseError::ClockOff { .. } | LeaseError::Full | LeaseError::Lost { .. })) => {
                return Err(error.into());
            }
            Err(LeaseError::Store(error)) => {
                tracing::error!(%error, "this node has no number yet; retrying");
                tokio::select! {
                    () = sleep(RENEWAL_AGAIN) => {}
                    () = drain.draining() => bail!("stopped before this node had a number"),
                }
            }
        }
    }
}

impl Number {
    /// Renews the lease until it is lost. Between two renewals ids are minted only while the lease is valid.
    pub(crate) async fn keep(self: Arc<Self>) {
        let mut pause = RENEWAL;
        loop {
            sleep(pause).await;
            let begun = self.clock.elapsed();
            match self.store.renew_worker(&self.lease).await {
                Ok(renewed) => {
                    if let Some(other) = renewed.namesake.filter(|other| other.renewed_ago < NAMESAKE) {
                        tracing::error!(
                            other = other.worker,
                            "two nodes have the name of this one: give each its own node.name"
                        );
                    }
                    self.ids.lease_until(begun + renewed.valid_for);
                    pause = RENEWAL;
                }
                Err(error @ LeaseError::Lost { .. }) => {
                    self.ids.lease_until(Duration::ZERO);
                    tracing::error!(%error, "this node must start again");
                    self.is_lost.send_replace(true);
                    return;
                }
                Err(error) => {
                    tracing::warn!(%error, "the number of this node was not renewed; retrying");
                    pause = RENEWAL_AGAIN;
                }
            }
        }
    }

    /// Waits until the lease is lost. Cancel safe.
    pub(crate) async fn lost(&self) {
        // The sender is part of this.
        let _ = self.is_lost.subscribe().wait_for(|is_lost| *is_lost).await;
    }

    /// Gives the number back. Nothing may be minted any more.
    pub(crate) async fn release(&self) {
        self.ids.lease_until(Duration::ZERO);
        if let Err(error) = self.store.release_worker(&self.lease).await {
            tracing::debug!(%error, "the number of this node ends with its lease");
        }
    }
}
