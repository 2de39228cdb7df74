//! The binary `madang-push`: decides and sends the alerts of a fleet.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Parser;
use madang_auth::load_secret;
use madang_bus::redis::{Redis, RedisAlerts};
use madang_bus::{BusConfig, BusKind};
use madang_ids::Snowflakes;
use madang_push::{Elsewhere, Keep, Push, PushConfig, PushMetrics, PushParts, RedisProcesses, SystemLookUp};
use madang_service::process::Process;
use madang_service::{TelemetryConfig, config, telemetry};
use madang_store::scylla::{EnterError, Scylla, WorkerLease, enter};
use madang_store::{StoreConfig, StoreKind};
use serde::{Deserialize, Serialize};

/// The pause between two looks at whether Redis answers, for `/readyz`.
const LOOK: Duration = Duration::from_secs(1);

/// Decides and sends the alerts of a fleet. Any number of these processes share the work.
#[derive(Debug, Parser)]
#[command(name = "madang-push", version)]
struct Arguments {
    /// The configuration file of the fleet. Sections of other processes are ignored.
    #[arg(long, env = "MADANG_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// The name of this process, unique among the push processes; default: its address for operators.
    #[arg(long)]
    name: Option<String>,
    /// The address for operators: `/healthz`, `/readyz`, `/metrics`; default `push.addr`.
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
    tokens: TokenSection,
    store: StoreConfig,
    bus: BusConfig,
    push: PushConfig,
    telemetry: TelemetryConfig,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct TokenSection {
    secret_file: PathBuf,
}

/// `EX_CONFIG` of sysexits.h: starting the process again cannot help.
const WRONG_CONFIG: u8 = 78;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let fail = |error: anyhow::Error| {
        telemetry::tell_failure(format_args!("madang-push: {error:#}"));
        let is_lasting = error.downcast_ref().is_some_and(EnterError::is_lasting);
        if is_lasting { WRONG_CONFIG.into() } else { ExitCode::FAILURE }
    };
    match configure(&arguments) {
        Err(error) => {
            fail(error);
            WRONG_CONFIG.into()
        }
        Ok((config, secret)) => run(arguments, config, secret).map_or_else(fail, |()| ExitCode::SUCCESS),
    }
}

fn configure(arguments: &Arguments) -> anyhow::Result<(FleetConfig, [u8; 32])> {
    let config: FleetConfig = config::load(arguments.config.as_deref())?;
    if config.bus.kind != BusKind::Redis || config.store.kind != StoreKind::Scylla {
        bail!("a push process serves a fleet: set bus.kind = \"redis\" and store.kind = \"scylla\"");
    }
    if !config.push.has_provider() {
        bail!("no provider is configured in [push]: there are no alerts to send");
    }
    let file = &config.tokens.secret_file;
    let secret = load_secret(file).with_context(|| format!("tokens.secret_file {}", file.display()))?;
    telemetry::init(&config.telemetry)?;
    Ok((config, secret))
}

fn run(arguments: Arguments, config: FleetConfig, secret: [u8; 32]) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new().context("no runtime")?;
    runtime.block_on(serve(arguments, config, secret))
}

async fn serve(arguments: Arguments, config: FleetConfig, secret: [u8; 32]) -> anyhow::Result<()> {
    let addr = arguments.addr.unwrap_or(config.push.addr);
    let name = format!("push {}", arguments.name.clone().unwrap_or_else(|| addr.to_string()));
    let process = Process::start(addr).await?;
    let of_clock = process.clock.clone();
    let now = move || of_clock.raw_ms();
    let started = tokio::select! {
        started = enter(&config.store, arguments.accept_weak_store, &name, &now) => Some(started?),
        () = process.drain.draining() => None,
    };
    if let Some((store, lease)) = started {
        work(&process, &name, config, secret, store, lease).await?;
    }
    process.end().await;
    Ok(())
}

/// Runs until the drain is over. An error ends this life of the process: its supervisor begins another.
async fn work(
    process: &Process,
    name: &str,
    config: FleetConfig,
    secret: [u8; 32],
    store: Arc<Scylla>,
    lease: WorkerLease,
) -> anyhow::Result<()> {
    let Process { clock, metrics, health, tasks, drain, .. } = process;
    let ids = Arc::new(Snowflakes::new(lease.worker)?);
    ids.lease_until(clock.elapsed() + lease.valid_for);
    let redis = Redis::open(&config.bus)?;
    tasks.spawn_vital(health.check("redis"), redis.clone().probe());
    let push = Push::open(PushParts {
        config: config.push,
        store: Arc::clone(&store) as _,
        queue: Arc::new(RedisAlerts::new(redis.clone(), Arc::clone(&store) as _)),
        outbox: None,
        clock: clock.clone(),
        metrics: PushMetrics::register(metrics),
        secret,
        keep: Keep::in_redis(redis.clone()),
        ids: Arc::clone(&ids),
        look_up: Arc::new(SystemLookUp::default()),
    });
    if !push.is_on() {
        bail!("no provider of [push] can be used: the log says why");
    }
    metrics.register(|registry| store.metrics().register(registry));
    tracing::info!(node.id = lease.worker, "push process started");
    let queue = health.check("queue");
    let watching = async {
        loop {
            match redis.ping().await {
                Ok(()) => queue.pass(),
                Err(error) => queue.fail(error.to_string()),
            };
            clock.sleep(LOOK).await;
        }
    };
    let processes = RedisProcesses::new(redis.clone());
    let renewed = |left| ids.lease_until(clock.elapsed() + left);
    tokio::select! {
        () = push.clone().work(Arc::new(Elsewhere), drain.clone()) => {}
        () = watching => {}
        () = processes.report(lease.worker, name, &push, clock) => {}
        error = store.hold_worker(lease.clone(), renewed) => return Err(error.into()),
    }
    // It ends by itself if it is not ended now.
    if let Err(error) = store.release_worker(&lease).await {
        tracing::debug!(%error, "releasing the number of this process failed");
    }
    Ok(())
}
