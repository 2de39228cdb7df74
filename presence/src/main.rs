//! The binary `madang-presence`: knows who is online, for the chat nodes of a fleet.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Parser;
use madang_bus::redis::{Redis, Streams};
use madang_bus::registry::{ProcessCard, ProcessRun, RedisRegistry, Registry, Role};
use madang_bus::{BusConfig, BusKind};
use madang_ids::{NodeEpoch, NodeId};
use madang_presence::fleet::registration::Registration;
use madang_presence::fleet::{Post, ProcessParts, run_process, streams};
use madang_presence::{FleetMetrics, PresenceConfig, PresenceMetrics};
use madang_service::process::Process;
use madang_service::{TelemetryConfig, config, telemetry};
use madang_store::scylla::{EnterError, Scylla, WorkerLease, enter};
use madang_store::{StoreConfig, StoreKind};
use serde::{Deserialize, Serialize};

/// Knows who is online, for the chat nodes of a fleet.
#[derive(Debug, Parser)]
#[command(name = "madang-presence", version)]
struct Arguments {
    /// The configuration file of the fleet. Sections of other processes are ignored.
    #[arg(long, env = "MADANG_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// The name of this process, unique among the presence processes; default: its address for operators.
    #[arg(long)]
    name: Option<String>,
    /// The address for operators: `/healthz`, `/readyz`, `/metrics`; default `presence.addr`.
    #[arg(long)]
    addr: Option<SocketAddr>,
    /// Use a cluster whose settings may lose acknowledged messages: for tests only.
    #[arg(long)]
    accept_weak_store: bool,
}

/// The sections that this process reads. The file has those of other processes too.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct FleetConfig {
    store: StoreConfig,
    bus: BusConfig,
    presence: PresenceConfig,
    telemetry: TelemetryConfig,
}

/// `EX_CONFIG` of sysexits.h: starting the process again cannot help.
const WRONG_CONFIG: u8 = 78;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let fail = |error: anyhow::Error| {
        telemetry::tell_failure(format_args!("madang-presence: {error:#}"));
        let is_lasting = error.downcast_ref().is_some_and(EnterError::is_lasting);
        if is_lasting { WRONG_CONFIG.into() } else { ExitCode::FAILURE }
    };
    match configure(&arguments) {
        Err(error) => {
            fail(error);
            WRONG_CONFIG.into()
        }
        Ok(config) => run(arguments, config).map_or_else(fail, |()| ExitCode::SUCCESS),
    }
}

fn configure(arguments: &Arguments) -> anyhow::Result<FleetConfig> {
    let config: FleetConfig = config::load(arguments.config.as_deref())?;
    if config.bus.kind != BusKind::Redis || config.store.kind != StoreKind::Scylla {
        bail!("a presence process serves a fleet: set bus.kind = \"redis\" and store.kind = \"scylla\"");
    }
    telemetry::init(&config.telemetry)?;
    Ok(config)
}

fn run(arguments: Arguments, config: FleetConfig) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new().context("no runtime")?;
    runtime.block_on(serve(arguments, config))
}

async fn serve(arguments: Arguments, config: FleetConfig) -> anyhow::Result<()> {
    let addr = arguments.addr.unwrap_or(config.presence.addr);
    let name = arguments.name.clone().unwrap_or_else(|| addr.to_string());
    let process = Process::start(addr).await?;
    let (of_clock, worker) = (process.clock.clone(), format!("presence {name}"));
    let now = move || of_clock.raw_ms();
    let started = tokio::select! {
        started = enter(&config.store, arguments.accept_weak_store, &worker, &now) => Some(started?),
        () = process.drain.draining() => None,
    };
    if let Some((store, lease)) = started {
        work(&process, config, name, store, lease).await?;
    }
    process.end().await;
    Ok(())
}

/// Runs until the drain is over. An error ends this life of the process: its supervisor begins another.
async fn work(
    process: &Process,
    config: FleetConfig,
    name: String,
    store: Arc<Scylla>,
    lease: WorkerLease,
) -> anyhow::Result<()> {
    let Process { clock, metrics, health, tasks, drain, .. } = process;
    let run = ProcessRun { role: Role::Presence, id: NodeId(lease.worker), epoch: NodeEpoch(lease.epoch) };
    let redis = Redis::open(&config.bus)?;
    let streams = Streams::new(redis.clone());
    tasks.spawn_vital(health.check("redis"), redis.probe());
    tasks.spawn_vital(health.check("streams"), streams.clone().run());
    let (of_core, fleet) = (PresenceMetrics::register(metrics), FleetMetrics::register(metrics));
    let (post, _, inbox) = Post::new(streams.clone(), clock.clone(), fleet.clone());
    let mut reader = streams::reader(&streams, (run.id, run.epoch).into());
    if let Err(error) = reader.create().await {
        tracing::warn!(%error, "Redis is unavailable: presence waits for it");
    }
    let receiving = streams::receive(reader, post.clone(), fleet.clone());
    tasks.spawn_vital(health.check("receive"), receiving);
    let registry: Arc<dyn Registry> = Arc::new(RedisRegistry::of_bus(&config.bus)?);
    let (url, region, version) = (String::new(), String::new(), env!("CARGO_PKG_VERSION").to_owned());
    let card = ProcessCard { run, name, url, region, capacity: 0, version };
    let (registration, live) = Registration::new(Arc::clone(&registry), card, clock.clone());
    let check = health.check("registry");
    tracing::info!(node.id = run.id.0, node.epoch = run.epoch.0, "presence process started");
    let parts = ProcessParts {
        config: config.presence,
        clock: clock.clone(),
        metrics: of_core,
        fleet,
        store: Arc::clone(&store) as _,
        post: (post, inbox),
        live,
    };
    tokio::select! {
        () = run_process(parts, drain.clone()) => {}
        error = registration.keep(drain, &check) => return Err(error.into()),
        // While the store does not answer, presence goes on: another process that gets the number meanwhile is refused by nobody,
        // and refuses this one.
        error = store.hold_worker(lease.clone(), |_| {}) => return Err(error.into()),
    }
    // Both end by themselves if they are not ended now.
    if let Err(error) = registry.leave(run).await {
        tracing::debug!(%error, "leaving the registry failed");
    }
    if let Err(error) = store.release_worker(&lease).await {
        tracing::debug!(%error, "releasing the number of this process failed");
    }
    Ok(())
}
